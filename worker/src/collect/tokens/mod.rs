//! Renewing the token or session of one credential: one for the whole fleet, kept sealed in Redis. Who finds none
//! takes the lease of renewing it; all others wait for what comes of that.
//!
//! The token request or log-in is a call like others (`call.rs`). One that the provider refuses kills the
//! credential before the lease is given back, so that nobody knocks a second time.

mod call;
mod one_time;
mod rotated;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::connector::{
    Credential, Granted, Secret, Token, TokenAnswer, TokenTemplates, cooldown,
};
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::stores::limiter::Closure;
use paceline_protocol::stores::state::{KeptToken, StateError, TokenSeen};
use tokio_util::sync::CancellationToken;

use self::call::{Answered, Called};
use self::one_time::Codes;
use super::call::{CloseScope, backoff};
use super::lane::LaneContext;
use super::lane::asking::Drawn;
use super::lane::held::ShardInHand;
use super::lane::kept;
use super::lane::late::Late;
use super::lane::shared::LaneShared;

/// How long a lease lasts without being kept: so long the fleet waits for a worker that was killed.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is kept.
const KEEP: Duration = Duration::from_secs(3);
/// How often a token is looked for that somebody else renews.
const LOOK: Duration = Duration::from_millis(150);
/// After tries in vain nobody tries again for so long; the credential is closed meanwhile, each time for twice as long.
const TROUBLE: Duration = Duration::from_secs(5);
/// A store that is away is asked again after so long.
const AWAY: Duration = Duration::from_millis(500);
/// Waits longer than this are the lane's: its shards may have to go back.
const WAIT_HERE: Duration = Duration::from_secs(8);
/// What a sealed token is sealed as.
const SEALED_AS: &str = "token";

/// What a call is signed in with.
#[derive(Clone)]
pub struct SignedIn {
    /// The credential's public name.
    pub credential: Arc<str>,
    /// Which of its tokens.
    pub generation: u64,
    /// Its headers.
    pub token: Arc<Token>,
    /// From when on it is to be renewed.
    pub renew_at: Instant,
    /// When it ends.
    pub ends_at: Instant,
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedIn({}, {})", self.credential, self.generation)
    }
}

/// What became of a renewal.
#[derive(Debug)]
pub enum Renewed {
    /// There is one.
    Token(SignedIn),
    /// There is none yet; it is worth looking again after that.
    Later(Duration),
    /// There is no request for it.
    Failed(Verdict),
    /// The provider closed something; the fleet knows.
    Closed(CloseScope, Arc<Drawn>),
    /// The credential is not accepted; the fleet knows. The scope is named by who heard it first.
    Dead(Option<CloseScope>),
    /// The process drains.
    Stopped,
}

/// Everything that renewing one credential's token needs.
pub struct Renewal {
    /// What asked for it.
    pub shard: Arc<ShardInHand>,
    /// Its cell, whose names the request may use.
    pub cell: u64,
    /// The credential's place in the pool.
    pub place: usize,
    /// The lane.
    pub lane: Arc<LaneShared>,
    /// Stores, limiter, drain.
    pub context: LaneContext,
    /// Whom it tells that a grant is dropped.
    pub late: Late,
    /// There is a token that is good for a while.
    pub has_one: bool,
    /// The token that the provider does not take any more, and whether calls were answered well with it.
    pub ended: Option<(u64, bool)>,
}

/// The lease of renewing.
struct Lease {
    fence: u64,
    lost: CancellationToken,
}

impl Renewal {
    /// Gets a token: the one that is there, or a new one.
    pub async fn run(self) -> Renewed {
        let Some(credential) = self.shard.at.pool.credentials.get(self.place).cloned() else {
            return Renewed::Stopped;
        };
        let Some(tokens) = self.shard.at.connector.tokens() else {
            return Renewed::Stopped;
        };
        let work = Work {
            of: &self,
            holder: format!("{}/{:08x}", self.context.holder, rand::random::<u32>()),
            tokens,
            credential,
            provider: self.shard.at.connector.provider(),
        };
        tokio::select! {
            renewed = work.run() => renewed,
            () = self.cut_off() => Renewed::Stopped,
        }
    }

    /// After the drain has begun, a request in flight has a few seconds.
    async fn cut_off(&self) {
        let shutdown = &self.context.shutdown;
        shutdown.draining().await;
        tokio::time::sleep((shutdown.grace() / 2).min(Duration::from_secs(5))).await;
    }
}

struct Work<'r> {
    of: &'r Renewal,
    /// Of this renewal alone: two of one process are two.
    holder: String,
    tokens: &'r TokenTemplates,
    credential: Credential,
    provider: &'r str,
}

impl Work<'_> {
    /// The provider, as the limiter knows it.
    fn budgets(&self) -> &str {
        self.of.shard.at.connector.budgets()
    }

    fn name(&self) -> &str {
        self.credential.name()
    }

    fn state(&self) -> &paceline_protocol::stores::state::State {
        &self.of.context.parting.stores.state
    }

    fn holder(&self) -> &str {
        &self.holder
    }

    async fn run(&self) -> Renewed {
        if let Some((generation, worked)) = self.of.ended {
            let ended = self
                .state()
                .token_ended(self.provider, self.name(), generation, worked);
            match ended.await {
                Ok(true) => {}
                Ok(false) => return self.first_call_refused().await,
                Err(error) => return self.away(&error),
            }
        }
        loop {
            if self.of.context.shutdown.is_draining() {
                return Renewed::Stopped;
            }
            let looked = Instant::now();
            let look =
                self.state()
                    .look_for_token(self.provider, self.name(), self.holder(), LEASE);
            let seen = match look.await {
                Ok(seen) => seen,
                Err(error) => return self.away(&error),
            };
            match self.take(&seen, looked).await {
                Some(renewed) => return renewed,
                None => tokio::time::sleep(seen.held_for.min(LOOK).max(LOOK / 3)).await,
            }
        }
    }

    /// What a look leads to; `None`: look again.
    async fn take(&self, seen: &TokenSeen, looked: Instant) -> Option<Renewed> {
        let usable = match &seen.kept {
            Some(kept) => match self.open(kept, looked) {
                Some(signed) => Some(signed),
                None => {
                    // Sealed by somebody with other secrets: of no use to anybody who has the right ones.
                    let ended =
                        self.state()
                            .token_ended(self.provider, self.name(), kept.generation, true);
                    if let Err(error) = ended.await {
                        return Some(self.away(&error));
                    }
                    None
                }
            },
            None => None,
        };
        let Some(fence) = seen.renew else {
            return match (usable, &seen.trouble) {
                (Some(signed), _) => Some(Renewed::Token(signed)),
                // Who tried in vain has closed the credential.
                (None, Some(_)) => Some(Renewed::Later(LOOK)),
                (None, None) => None,
            };
        };
        let lease = Lease {
            fence,
            lost: CancellationToken::new(),
        };
        if let Some(signed) = usable.filter(|_| !self.of.has_one) {
            // The cells that wait go on with it; the next look renews it beside them.
            self.leave(&lease, None).await;
            return Some(Renewed::Token(signed));
        }
        Some(tokio::select! {
            renewed = self.renew(&lease, seen.last_step) => renewed,
            () = self.keep(&lease) => Renewed::Later(LOOK),
        })
    }

    fn open(&self, kept: &KeptToken, looked: Instant) -> Option<SignedIn> {
        let sealer = self.credential.sealer(self.provider);
        let token = Token::from_bytes(&sealer.open(SEALED_AS, &kept.sealed)?)?;
        Some(SignedIn {
            credential: self.name().into(),
            generation: kept.generation,
            token: Arc::new(token),
            renew_at: looked + kept.renew_in,
            ends_at: looked + kept.good_for,
        })
    }

    /// Keeps the lease as long as it is ours. Never returns.
    async fn keep(&self, lease: &Lease) {
        loop {
            tokio::time::sleep(KEEP).await;
            let kept = self.state().keep_token_lease(
                self.provider,
                self.name(),
                self.holder(),
                lease.fence,
                LEASE,
            );
            match kept.await {
                Ok(true) => {}
                Ok(false) => lease.lost.cancel(),
                // Nothing is sent without asking Redis first, which looks at the lease.
                Err(error) => tracing::debug!(error = %error, "the lease of a token was not kept"),
            }
        }
    }

    /// Requests under the lease until there is an answer that decides.
    async fn renew(&self, lease: &Lease, last_step: Option<u64>) -> Renewed {
        let mut codes = Codes::new(last_step);
        let mut attempts = 0;
        loop {
            if self.of.context.shutdown.is_draining() {
                self.leave(lease, None).await;
                return Renewed::Stopped;
            }
            if lease.lost.is_cancelled() {
                return Renewed::Later(LOOK);
            }
            match self.request(lease, &mut codes, attempts + 1).await {
                Called::NotSent => {}
                Called::LeaseLost => return Renewed::Later(LOOK),
                Called::Wait(wait) => {
                    self.leave(lease, None).await;
                    return Renewed::Later(wait);
                }
                Called::Dead => {
                    self.leave(lease, None).await;
                    return Renewed::Dead(None);
                }
                Called::Unfit(reason) => {
                    self.leave(lease, None).await;
                    return Renewed::Failed(Verdict {
                        outcome: Outcome::Permanent,
                        wait: None,
                        reason,
                    });
                }
                Called::Answered(answered) => {
                    attempts += 1;
                    if let Some(renewed) = self.answered(lease, attempts, answered).await {
                        return renewed;
                    }
                }
            }
        }
    }

    /// What an answer leads to; `None`: another request.
    async fn answered(&self, lease: &Lease, attempts: u32, answered: Answered) -> Option<Renewed> {
        let Answered {
            answer,
            drawn,
            at,
            number,
            probe,
        } = answered;
        match answer {
            TokenAnswer::Granted(granted) => Some(self.granted(lease, granted, at, number).await),
            TokenAnswer::Refused(verdict) => {
                tracing::warn!(
                    provider.name = self.provider,
                    credential = self.name(),
                    reason = verdict.reason,
                    "a token request or log-in was refused"
                );
                let scope = self.close(Outcome::AuthExpired, None, &drawn).await;
                self.leave(lease, None).await;
                Some(Renewed::Dead(Some(scope)))
            }
            TokenAnswer::Closed(verdict) => {
                let scope = self.close(verdict.outcome, verdict.wait, &drawn).await;
                self.leave(lease, None).await;
                Some(Renewed::Closed(scope, drawn))
            }
            TokenAnswer::Again(verdict) if probe => self.in_vain(lease, &verdict, drawn).await,
            TokenAnswer::Again(verdict) => self.again(lease, attempts, verdict, drawn).await,
        }
    }

    /// The tries are used up: without a token the credential is closed, since what its cells wait for is no fault of
    /// theirs. With one that is still good it is tried again later.
    async fn in_vain(
        &self,
        lease: &Lease,
        verdict: &Verdict,
        drawn: Arc<Drawn>,
    ) -> Option<Renewed> {
        tracing::warn!(
            provider.name = self.provider,
            credential = self.name(),
            reason = verdict.reason,
            "no token or session could be had"
        );
        let wait = verdict.wait.unwrap_or_default().max(TROUBLE);
        let renewed = match self.of.has_one {
            true => Renewed::Later(TROUBLE),
            false => {
                let scope = self.close(Outcome::Retryable, Some(wait), &drawn).await;
                Renewed::Closed(scope, drawn)
            }
        };
        self.leave(lease, Some(&verdict.reason)).await;
        Some(renewed)
    }

    /// Waits for the next try, while there are any.
    async fn again(
        &self,
        lease: &Lease,
        attempts: u32,
        verdict: Verdict,
        drawn: Arc<Drawn>,
    ) -> Option<Renewed> {
        let plan = &self.of.shard.run.plan;
        let retry = plan
            .providers
            .get(self.provider)
            .map(|p| p.retry)
            .unwrap_or_default();
        if attempts >= retry.attempts {
            return self.in_vain(lease, &verdict, drawn).await;
        }
        let wait = verdict
            .wait
            .unwrap_or_default()
            .max(backoff(retry, attempts, rand::random()));
        tracing::info!(
            provider.name = self.provider,
            credential = self.name(),
            reason = verdict.reason,
            wait.s = wait.as_secs_f64(),
            "a token request or log-in is made again"
        );
        self.pause(wait).await;
        None
    }

    /// Sleeps, but not into a drain.
    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.of.context.shutdown.draining() => {}
        }
    }

    /// Keeps what the provider gave: first what cannot be had again, then the token.
    async fn granted(
        &self,
        lease: &Lease,
        granted: Granted,
        answered: Instant,
        number: u64,
    ) -> Renewed {
        let Granted {
            token,
            lasts,
            renew_after,
            rotated,
        } = granted;
        if let Some(Secret(refresh)) = rotated
            && !self.keep_refresh_token(number, &refresh).await
        {
            // Somebody else had the lease meanwhile, and has rotated it.
            return Renewed::Later(LOOK);
        }
        crate::crash::point("token-before-keep");
        let kept = KeptToken {
            generation: lease.fence,
            sealed: self
                .credential
                .sealer(self.provider)
                .seal(SEALED_AS, &token.to_bytes()),
            renew_in: renew_after.saturating_sub(answered.elapsed()),
            good_for: lasts.saturating_sub(answered.elapsed()),
        };
        let put = self.until_answered(|| {
            self.state()
                .put_token(self.provider, self.name(), self.holder(), &kept)
        });
        match put.await {
            Some(true) => {
                tracing::info!(
                    provider.name = self.provider,
                    credential = self.name(),
                    lasts.s = lasts.as_secs(),
                    "signed in"
                );
                Renewed::Token(SignedIn {
                    credential: self.name().into(),
                    generation: kept.generation,
                    token: Arc::new(token),
                    renew_at: answered + renew_after,
                    ends_at: answered + lasts,
                })
            }
            Some(false) => Renewed::Later(LOOK),
            None => Renewed::Stopped,
        }
    }

    /// A step in Redis until it is answered; `None` when the drain ends the waiting.
    async fn until_answered<T, F>(&self, step: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StateError>>,
    {
        loop {
            match step().await {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    tracing::warn!(provider.name = self.provider, error = %error, "a token waits for Redis")
                }
            }
            if self.of.context.shutdown.is_draining() {
                return None;
            }
            self.pause(AWAY).await;
        }
    }

    /// The provider refused the first call with a fresh token: it is the credential that it does not accept.
    async fn first_call_refused(&self) -> Renewed {
        Renewed::Dead(Some(
            self.close(Outcome::AuthExpired, None, &Drawn::nothing())
                .await,
        ))
    }

    /// Closes what an answer concerns in Redis: before the lease is given back.
    async fn close(&self, outcome: Outcome, wait: Option<Duration>, drawn: &Drawn) -> CloseScope {
        let scope = CloseScope {
            credential: Some(self.name().to_owned()),
            wait: match outcome {
                Outcome::AuthExpired => Some(cooldown::UNTIL_LOOKED_AT),
                _ => wait,
            },
            outcome,
        };
        let (name, resets_us) = cooldown::closes(outcome, &drawn.limits, Some(self.name()));
        let now_us = self.of.lane.fleet_us(Instant::now());
        let closure = Closure {
            name,
            for_: cooldown::length(scope.wait, resets_us, now_us),
            reason: cooldown::reason(outcome).to_owned(),
        };
        let limiter = &self.of.context.limiter;
        kept::keep(&self.of.context, self.budgets(), &closure, 0, now_us).await;
        while let Err(error) = limiter.close(self.budgets(), &closure).await {
            tracing::warn!(provider.name = self.provider, error = %error, "the closure did not reach the fleet yet");
            if self.of.context.shutdown.is_draining() {
                break;
            }
            self.pause(AWAY).await;
        }
        scope
    }

    async fn leave(&self, lease: &Lease, trouble: Option<&str>) {
        let left = self.state().leave_token(
            self.provider,
            self.name(),
            self.holder(),
            lease.fence,
            trouble.map(|why| (why, TROUBLE)),
        );
        if let Err(error) = left.await {
            tracing::debug!(error = %error, "the lease of a token was not given back; it ends by itself");
        }
    }

    fn away(&self, error: &StateError) -> Renewed {
        tracing::warn!(provider.name = self.provider, error = %error, "no token can be looked for");
        Renewed::Later(AWAY)
    }
}

fn retryable(reason: String) -> Verdict {
    Verdict {
        outcome: Outcome::Retryable,
        wait: None,
        reason,
    }
}
