//! Calls that the producer makes itself: whether a provider is ready, and those of `producer try`.
//!
//! They are calls like a worker's: built, signed and sent by the same code, under a grant of every limit of the
//! fleet, and what their answers close is closed for the whole fleet.

mod draw;
mod grant;
mod token;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use paceline_protocol::connector::cooldown::{self, DrawnLimit};
use paceline_protocol::connector::{
    CallContext, Connector, Credential, HttpRequest, Judged, Pool, in_environment,
};
use paceline_protocol::http::{HttpAnswer, HttpClient, HttpError};
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::limit::{BREAKER, BREAKER_US, Probed};
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::kept_limits::{KEPT_FROM_US, KeptLimits};
use paceline_protocol::stores::limiter::{Closure, FleetLimiter};
use paceline_protocol::stores::state::State;
use uuid::Uuid;

use self::grant::Allowed;
pub use self::grant::asks_for;
use self::token::SignedIn;
use crate::stores::{Archive, Stores};

/// What of the fleet such a call needs.
#[derive(Clone, Copy)]
pub struct Fleet<'a> {
    /// Marks of quotas, refresh tokens, long closures.
    pub archive: &'a Archive,
    /// Budgets.
    pub limiter: &'a FleetLimiter,
    /// Tokens.
    pub state: &'a State,
}

impl<'a> Fleet<'a> {
    /// Of all stores.
    pub fn of(stores: &'a Stores) -> Self {
        Fleet {
            archive: &stores.archive,
            limiter: &stores.limiter,
            state: &stores.state,
        }
    }
}

/// Calls one provider.
pub struct Caller<'a> {
    fleet: Fleet<'a>,
    /// What builds and judges.
    pub connector: Connector,
    pool: Pool,
    http: HttpClient,
    run: String,
    lane: String,
    holder: String,
    calls: Mutex<Vec<LedgerRow>>,
    /// Limits whose scope a call cannot name are left out, as for a call without a cell.
    lenient: bool,
}

/// What came of a call.
pub enum Called {
    /// It was sent.
    Sent(Box<Sent>),
    /// It was not: why, and until when that may last.
    Closed(String),
}

/// A call that was sent.
pub struct Sent {
    /// As it went out. Holds secrets.
    pub request: HttpRequest,
    /// What came.
    pub answer: Result<HttpAnswer, HttpError>,
    /// Who was served.
    pub credential: Option<Credential>,
    /// The names that its templates saw.
    pub context: CallContext,
    /// What it drew from.
    pub drawn: Vec<DrawnLimit>,
    /// The limits whose numbers were not the file's.
    pub allowed: Vec<String>,
    /// When, on the fleet's clock.
    pub sent_us: i64,
    /// After the grant's start.
    pub late_us: i64,
    /// When the answer was there, on the fleet's clock.
    pub answered_us: i64,
    /// From sending to the answer's last byte.
    pub took: Duration,
    /// It tried whether a closure is over.
    probe: Option<i64>,
    /// What it was signed in with.
    signed: Option<SignedIn>,
}

impl Sent {
    /// `limit=scope` of every limit that has a scope.
    pub fn scopes(&self) -> Vec<String> {
        let limits = self.drawn.iter().map(|drawn| &drawn.instance);
        let scoped = limits.filter(|limit| !limit.scope.is_empty());
        scoped
            .map(|limit| format!("{}={}", limit.limit, limit.scope))
            .collect()
    }

    /// The instant that its templates saw, on the fleet's clock.
    pub fn started_us(&self) -> i64 {
        self.sent_us - self.late_us
    }

    /// `text` without the secrets of its credential and token.
    pub fn mask(&self, text: &str) -> String {
        let mut text = match &self.credential {
            Some(credential) => credential.mask(text),
            None => text.to_owned(),
        };
        let headers = self.signed.iter().flat_map(|signed| &signed.token.headers);
        for (_, value) in headers {
            // `Bearer abc`, `a=1; b=2`
            for part in value.split([' ', ';', '=']).filter(|part| part.len() >= 8) {
                text = text.replace(part, "<token>");
            }
        }
        text
    }

    fn names(&self) -> Vec<String> {
        cooldown::names(&self.drawn, self.credential.as_ref().map(Credential::name))
    }
}

impl<'a> Caller<'a> {
    /// For the plan's endpoint at `provider`.
    ///
    /// # Errors
    /// When its credentials cannot be read here, or the plan does not fit this build.
    pub fn new(
        fleet: Fleet<'a>,
        plan: &Plan,
        provider: &Provider,
        env: &(impl Environment + ?Sized),
    ) -> Result<Self> {
        let called = in_environment(plan, &provider.name, env)?;
        let called = called.as_ref().unwrap_or(plan);
        Ok(Caller {
            fleet,
            connector: Connector::compile(called, &provider.name)?,
            pool: Pool::read(provider, env)?,
            http: HttpClient::new(provider.timeout).context("the HTTP client cannot be made")?,
            run: plan.run_ref().to_string(),
            lane: plan
                .segments
                .iter()
                .find(|segment| segment.provider == provider.name)
                .map_or_else(|| provider.name.clone(), |segment| segment.lane.clone()),
            calls: Mutex::default(),
            holder: format!("producer-{}", Uuid::now_v7().simple()),
            lenient: false,
        })
    }

    /// The same for calls without a cell: limits whose scope needs one are left out.
    pub fn without_cell(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Makes one call: signs in where that is needed, waits up to `patience` for a grant, sends once. `picked`
    /// is the credential that alone may serve, by its place.
    ///
    /// # Errors
    /// When a store is away, or there is no such request.
    pub async fn call(
        &self,
        context: &CallContext,
        picked: Option<usize>,
        patience: Duration,
    ) -> Result<Called> {
        let until = Instant::now() + patience;
        let signed = match self.connector.tokens() {
            None => None,
            Some(tokens) => match self.sign_in(tokens, context, picked, until).await? {
                Ok(signed) => Some(signed),
                Err(why) => return Ok(Called::Closed(why)),
            },
        };
        let (picked, context) = match &signed {
            None => (picked, context.clone()),
            Some(signed) => {
                let context = context.clone().with_token(signed.token.clone());
                (Some(signed.place), context)
            }
        };
        let build = |context: CallContext| self.connector.request(context);
        loop {
            let allowed = match self.granted(&context, picked, until).await? {
                Ok(allowed) => allowed,
                Err(why) => return Ok(Called::Closed(why)),
            };
            if let Some(sent) = self.send(&context, allowed, build).await? {
                return Ok(Called::Sent(Box::new(Sent { signed, ..sent })));
            }
        }
    }

    /// Sends what was granted; `None` when it was too late for that: nothing was sent.
    async fn send(
        &self,
        context: &CallContext,
        allowed: Allowed,
        build: impl Fn(CallContext) -> Result<HttpRequest, paceline_protocol::connector::NotRequestable>,
    ) -> Result<Option<Sent>> {
        let credential = allowed.grant.credential;
        let credential = credential.and_then(|place| self.pool.credentials.get(place).cloned());
        let context = context.clone().at(allowed.grant.start_us);
        let context = match &credential {
            Some(credential) => context.with_credential(credential),
            None => context,
        };
        let request = build(context.clone());
        let probe = allowed.grant.probe.then_some(allowed.grant.start_us);
        let mut sent = Sent {
            request: match request {
                Ok(request) => request,
                Err(error) => {
                    self.give_back(&allowed).await?;
                    return Err(error.into());
                }
            },
            answer: Err(HttpError::TooLate),
            credential,
            context,
            sent_us: 0,
            late_us: 0,
            answered_us: 0,
            took: Duration::ZERO,
            probe,
            signed: None,
            drawn: allowed.drawn.clone(),
            allowed: allowed.allowed.clone(),
        };
        if let Some(latest) = allowed.wait_for_start().await {
            let began = Instant::now();
            sent.sent_us = allowed.now_us();
            sent.late_us = sent.sent_us - allowed.grant.start_us;
            let most = self.connector.max_body();
            sent.answer = tokio::select! {
                answer = self.http.send(sent.request.clone(), latest, most) => answer,
                () = self.keep_leases(&allowed) => Err(HttpError::TooLate),
            };
            sent.took = began.elapsed();
            sent.answered_us = allowed.now_us();
        }
        self.give_back(&allowed).await?;
        match &sent.answer {
            Err(HttpError::TooLate) => {
                self.dropped(&sent).await?;
                Ok(None)
            }
            Err(HttpError::Request(why)) => {
                self.dropped(&sent).await?;
                Err(anyhow::anyhow!("the request cannot be sent: {why}"))
            }
            _ => Ok(Some(sent)),
        }
    }

    /// Nothing was sent by a grant.
    async fn dropped(&self, sent: &Sent) -> Result<()> {
        let (provider, run) = (self.connector.budgets(), asks_for(&self.run));
        self.fleet.limiter.dropped(provider, &run, 1).await?;
        self.probed(sent, Probed::NotSent).await
    }

    /// What an answer means by the provider's file.
    pub fn judge(&self, answer: &HttpAnswer, now_us: i64) -> Judged {
        answer.judge(&self.connector, now_us)
    }

    /// Tells the fleet what the answer closes or opens again.
    ///
    /// # Errors
    /// When a store is away.
    pub async fn tell(&self, sent: &Sent, outcome: Outcome, wait: Option<Duration>) -> Result<()> {
        let credential = sent.credential.as_ref().map(Credential::name);
        if let Some(signed) = &sent.signed {
            let refused = outcome == Outcome::AuthExpired;
            let again = match outcome {
                Outcome::Ok | Outcome::Empty => self.token_was_taken(signed, true).await?,
                _ => refused && self.token_was_taken(signed, false).await?,
            };
            if refused && again {
                return self.probed(sent, Probed::NotSent).await;
            }
        }
        match outcome {
            Outcome::Throttled
            | Outcome::QuotaExhausted
            | Outcome::AuthExpired
            | Outcome::Maintenance => {
                self.close(&sent.drawn, credential, outcome, wait, sent.answered_us)
                    .await
            }
            Outcome::Retryable => self.probed(sent, Probed::Unanswered).await,
            _ => self.probed(sent, Probed::Well).await,
        }
    }

    async fn close(
        &self,
        drawn: &[DrawnLimit],
        credential: Option<&str>,
        outcome: Outcome,
        wait: Option<Duration>,
        now_us: i64,
    ) -> Result<()> {
        let (name, resets_us) = cooldown::closes(outcome, drawn, credential);
        let closure = Closure {
            name,
            for_: match outcome {
                Outcome::AuthExpired => cooldown::UNTIL_LOOKED_AT,
                _ => cooldown::length(wait, resets_us, now_us),
            },
            reason: outcome.as_str().to_owned(),
        };
        let strikes = self
            .fleet
            .limiter
            .close(self.connector.budgets(), &closure)
            .await?
            .strikes;
        let mut kept = closure;
        if strikes >= BREAKER {
            let breaker = Duration::from_micros(u64::try_from(BREAKER_US).unwrap_or(0));
            kept.for_ = kept.for_.max(breaker);
            kept.reason = format!("breaker:{}", kept.reason);
        }
        if kept.for_.as_micros() > u128::from(KEPT_FROM_US.unsigned_abs()) {
            self.kept().ban(&kept, strikes, now_us).await?;
        }
        Ok(())
    }

    fn kept(&self) -> KeptLimits<'_> {
        KeptLimits {
            objects: &self.fleet.archive.objects,
            prefix: &self.fleet.archive.fleet.prefix,
            provider: self.connector.budgets(),
        }
    }

    async fn probed(&self, sent: &Sent, how: Probed) -> Result<()> {
        let Some(start_us) = sent.probe else {
            return Ok(());
        };
        let names = sent.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let provider = self.connector.budgets();
        Ok(self
            .fleet
            .limiter
            .probed(provider, &names, start_us, how)
            .await?)
    }

    /// Notes a call for the ledger.
    pub fn note(&self, sent: &Sent, verdict: &Verdict) {
        let reason = match verdict.outcome {
            Outcome::Ok | Outcome::Empty => String::new(),
            _ => verdict.reason.clone(),
        };
        let answer = sent.answer.as_ref().ok();
        let points = sent.drawn.iter().filter(|drawn| drawn.is_points());
        let row = LedgerRow {
            sent_us: sent.sent_us,
            lane: self.lane.clone(),
            provider: self.connector.provider().to_owned(),
            endpoint: sent.context.endpoint().to_owned(),
            credential: sent.credential.as_ref().map(|c| c.name().to_owned()),
            scopes: sent.scopes(),
            allowed: sent.allowed.clone(),
            points: points
                .map(|drawn| format!("{}={}", drawn.instance.limit, drawn.points))
                .collect(),
            cell: 0,
            page: 0,
            attempt: 1,
            outcome: verdict.outcome,
            status: answer.map_or(0, |answer| answer.status),
            late_us: sent.late_us,
            duration_us: u64::try_from(sent.took.as_micros()).unwrap_or(u64::MAX),
            bytes: answer.map_or(0, |answer| answer.body.len() as u64),
            reason,
            trace: answer.and_then(HttpAnswer::trace),
        };
        if let Ok(mut calls) = self.calls.lock() {
            calls.push(row);
        }
    }

    /// What was noted since the last time.
    pub fn take_calls(&self) -> Vec<LedgerRow> {
        let calls = self.calls.lock();
        calls
            .map(|mut calls| std::mem::take(&mut *calls))
            .unwrap_or_default()
    }

    /// The name under which grants are taken and the ledger is written.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The place of the credential of a name that `pick` gives for a cell; `None` when any may serve.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn picked(&self, context: &CallContext) -> Result<Option<usize>> {
        let Some(name) = self.connector.pick(context).transpose()? else {
            return Ok(None);
        };
        let place = self.pool.places.get(&name).copied();
        Ok(Some(place.with_context(|| {
            format!("the file of credentials has none called {name:?}")
        })?))
    }
}
