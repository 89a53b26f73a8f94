//! The tokens and sessions that a lane's calls are signed in with. A cell is asked for only when its credential has
//! one; a token that ends soon is renewed beside the calls, one that its provider refuses is renewed at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::limit::Grant;
use paceline_protocol::outcome::{Outcome, Verdict};

use super::asking::{Drawn, Wish, WishError};
use super::held::ShardInHand;
use super::{Event, Lane};
use crate::collect::call::CallEnd;
use crate::collect::tokens::{Renewal, Renewed, SignedIn};

/// How long a cell sleeps whose token is on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// Why there is no request for a credential's token counts for all of its cells for so long.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// A credential that is not accepted is not looked at again sooner.
const DEAD_FOR: Duration = Duration::from_secs(3);
/// Who got none looks again not more often than this.
const LATER: Duration = Duration::from_millis(50);

/// Whether a cell can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Its calls are, or need not be, signed in.
    Ready,
    /// Not before.
    Wait(Instant),
}

/// A credential without a token.
pub struct NoToken;

/// What the lane knows of its credentials' tokens.
#[derive(Default)]
pub struct Tokens {
    known: HashMap<String, Known>,
    /// Calls for which an earlier token was refused.
    refused: HashSet<Wish>,
}

#[derive(Default)]
struct Known {
    token: Option<SignedIn>,
    /// Calls were answered well with it.
    worked: bool,
    renewing: bool,
    not_before: Option<Instant>,
    failed: Option<(Instant, Verdict)>,
}

impl Known {
    fn usable(&self, now: Instant) -> Option<&SignedIn> {
        self.token.as_ref().filter(|token| token.ends_at > now)
    }

    fn may_look(&self, now: Instant) -> bool {
        !self.renewing && self.not_before.is_none_or(|at| at <= now)
    }

    fn wait(&self, now: Instant) -> Instant {
        let soonest = now + ON_ITS_WAY;
        self.not_before.map_or(soonest, |at| at.max(soonest))
    }
}

impl Tokens {
    /// Whether an earlier token was refused for this call.
    pub fn was_refused(&self, wish: Wish) -> bool {
        self.refused.contains(&wish)
    }

    /// A shard is in hand no more.
    pub fn part_with(&mut self, held: u64) {
        self.refused.retain(|wish| wish.held != held);
    }

    /// People opened or changed something: what failed is tried at once.
    pub fn look_again(&mut self) {
        for known in self.known.values_mut() {
            (known.not_before, known.failed) = (None, None);
        }
    }
}

impl Lane {
    /// Whether a cell can be asked for: the credential at `place`, or one of the pool, has a token. Those of the
    /// pool that have none are added to `without`.
    pub(super) fn sign_in(
        &mut self,
        shard: &Arc<ShardInHand>,
        cell: u64,
        place: Option<usize>,
        without: &mut BTreeSet<String>,
        now: Instant,
    ) -> Result<Signing, WishError> {
        if shard.at.connector.tokens().is_none() {
            return Ok(Signing::Ready);
        }
        if let Some(place) = place {
            return self.sign_in_one(shard, cell, place, now);
        }
        let mut wait: Option<Instant> = None;
        let mut ready = false;
        let mut failed = None;
        for place in 0..shard.at.pool.credentials.len() {
            let name = shard.at.pool.credentials[place].name();
            if self.why_dead(shard, place, now).is_some() {
                // The limiter knows: it is refused there.
                without.remove(name);
                continue;
            }
            match self.sign_in_one(shard, cell, place, now) {
                Ok(Signing::Ready) => {
                    without.remove(name);
                    ready = true;
                }
                Ok(Signing::Wait(until)) => {
                    without.insert(name.to_owned());
                    wait = Some(wait.map_or(until, |known| known.min(until)));
                }
                Err(error) => {
                    without.insert(name.to_owned());
                    failed = Some(error);
                }
            }
        }
        match (ready, wait, failed) {
            (false, Some(until), _) => Ok(Signing::Wait(until)),
            (false, None, Some(error)) => Err(error),
            _ => Ok(Signing::Ready),
        }
    }

    fn sign_in_one(
        &mut self,
        shard: &Arc<ShardInHand>,
        cell: u64,
        place: usize,
        now: Instant,
    ) -> Result<Signing, WishError> {
        let name = shard.at.pool.credentials[place].name();
        let known = self.tokens.known.entry(name.to_owned()).or_default();
        let may_look = known.may_look(now);
        if let Some(token) = known.usable(now) {
            if token.renew_at <= now && may_look {
                self.renew_token(shard, cell, place, None);
            }
            return Ok(Signing::Ready);
        }
        if let Some((until, verdict)) = &known.failed
            && *until > now
        {
            return Err(WishError::NoToken {
                credential: name.to_owned(),
                verdict: verdict.clone(),
            });
        }
        let until = known.wait(now);
        if may_look {
            self.renew_token(shard, cell, place, None);
            return Ok(Signing::Wait(now + ON_ITS_WAY));
        }
        Ok(Signing::Wait(until))
    }

    /// Starts a renewal; `ended` is the token that was refused, and whether it had worked.
    fn renew_token(
        &mut self,
        shard: &Arc<ShardInHand>,
        cell: u64,
        place: usize,
        ended: Option<(u64, bool)>,
    ) {
        let name = shard.at.pool.credentials[place].name().to_owned();
        let known = self.tokens.known.entry(name.clone()).or_default();
        known.renewing = true;
        let renewal = Renewal {
            shard: shard.clone(),
            cell,
            place,
            lane: self.shared.clone(),
            context: self.context.clone(),
            late: self.late.clone(),
            has_one: known.usable(Instant::now()).is_some(),
            ended,
        };
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let renewed = renewal.run().await;
            drop(events.send(Event::TokenRenewed(name, renewed)));
        });
    }

    /// What a call with the credential at `place` is signed in with; `None` when its provider needs nothing.
    pub(super) fn signed_in(
        &self,
        shard: &ShardInHand,
        place: Option<usize>,
    ) -> Result<Option<SignedIn>, NoToken> {
        if shard.at.connector.tokens().is_none() {
            return Ok(None);
        }
        let credential = place.and_then(|place| shard.at.pool.credentials.get(place));
        let name = credential.ok_or(NoToken)?.name();
        let known = self.tokens.known.get(name).ok_or(NoToken)?;
        known
            .usable(Instant::now())
            .cloned()
            .map(Some)
            .ok_or(NoToken)
    }

    /// A grant of a credential whose token ended meanwhile, or that was opened again: it is signed in first.
    pub(super) fn unsigned(&mut self, wish: Wish, drawn: &Arc<Drawn>, grant: &Grant) {
        if grant.probe {
            self.report_probe(&CallEnd::NotSent, drawn, grant.start_us);
        }
        let run = self.held.get(&wish.held).map(|h| &h.held.shard.run.id);
        self.late.give_back(run, &drawn.limits, grant.start_us);
        let Some(in_hand) = self.held.get_mut(&wish.held) else {
            return;
        };
        in_hand.held.work.untake(wish.cell);
        let pool = &in_hand.held.shard.at.pool;
        if let Some(credential) = grant
            .credential
            .and_then(|place| pool.credentials.get(place))
        {
            self.dead.remove(credential.name());
        }
    }

    /// What the end of a signed call says of its token; the rest is for the cell.
    pub(super) fn after_signed(&mut self, wish: Wish, end: CallEnd, signed: &SignedIn) -> CallEnd {
        match end {
            CallEnd::TokenEnded(then) => {
                self.tokens.refused.insert(wish);
                self.token_ended(wish, signed);
                *then
            }
            end => {
                if end.is_served() {
                    self.token_works(signed);
                }
                if end.is_served() || matches!(end, CallEnd::Ended(_)) {
                    self.tokens.refused.remove(&wish);
                }
                end
            }
        }
    }

    /// The first good answer with a token is told to the fleet: when it is refused later, it is renewed.
    fn token_works(&mut self, signed: &SignedIn) {
        let Some(known) = self.tokens.known.get_mut(&*signed.credential) else {
            return;
        };
        let same = known
            .token
            .as_ref()
            .is_some_and(|t| t.generation == signed.generation);
        if !same || known.worked {
            return;
        }
        known.worked = true;
        let state = self.context.parting.stores.state.clone();
        let (provider, signed) = (self.provider.name.clone(), signed.clone());
        self.context.tasks.spawn(async move {
            let told = state.token_works(&provider, &signed.credential, signed.generation);
            if let Err(error) = told.await {
                tracing::debug!(error = %error, "that a token works did not reach the fleet");
            }
        });
    }

    /// A provider does not take a token any more. Whoever tells it first renews; a call that was on its way with
    /// an older one just goes again.
    fn token_ended(&mut self, wish: Wish, signed: &SignedIn) {
        let Some(in_hand) = self.held.get(&wish.held) else {
            return;
        };
        let shard = in_hand.held.shard.clone();
        let Some(known) = self.tokens.known.get_mut(&*signed.credential) else {
            return;
        };
        if known
            .token
            .as_ref()
            .is_none_or(|t| t.generation != signed.generation)
        {
            return;
        }
        known.token = None;
        let worked = std::mem::take(&mut known.worked);
        let pool = &shard.at.pool.credentials;
        let place = pool.iter().position(|c| c.name() == &*signed.credential);
        // While one is renewed that ends soon, this is found out by the next look.
        if let Some(place) = place {
            self.renew_token(&shard, wish.cell, place, Some((signed.generation, worked)));
        }
    }

    /// A renewal ended.
    pub(super) fn on_token(&mut self, credential: &str, renewed: Renewed) {
        let now = Instant::now();
        let known = self.tokens.known.entry(credential.to_owned()).or_default();
        known.renewing = false;
        known.not_before = None;
        match renewed {
            Renewed::Token(token) => {
                let same = known
                    .token
                    .as_ref()
                    .is_some_and(|t| t.generation == token.generation);
                known.worked &= same;
                known.token = Some(token);
                known.failed = None;
                self.ask_at = now;
            }
            Renewed::Later(wait) => known.not_before = Some(now + wait.max(LATER)),
            Renewed::Failed(verdict) => {
                tracing::warn!(
                    provider.name = self.provider.name,
                    credential,
                    reason = verdict.reason,
                    "no token or session could be had"
                );
                known.not_before = Some(now + FAILED_FOR);
                known.failed = Some((now + FAILED_FOR, verdict));
            }
            Renewed::Closed(scope, drawn) => {
                known.not_before = Some(now + LATER);
                self.close(&scope, &drawn, now);
            }
            Renewed::Dead(scope) => {
                known.token = None;
                known.not_before = Some(now + DEAD_FOR);
                match scope {
                    Some(scope) => {
                        self.died(credential, now);
                        self.close(&scope, &Drawn::nothing(), now);
                    }
                    None => self.on_dead(vec![(
                        credential.to_owned(),
                        Outcome::AuthExpired.as_str().to_owned(),
                    )]),
                }
            }
            Renewed::Stopped => {}
        }
    }
}
