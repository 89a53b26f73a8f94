//! Credentials that their provider does not accept any more. Where `pick` names the credential of a cell,
//! nobody else can serve it: its cells fail with the reason, so that one dead key does not hold up the
//! others' run. In a pool the others go on. A run whose every key is dead waits for people, whoever picks them; so
//! that this is seen before cells fail, they wait a moment after the first key's death.
//!
//! Whether a refusal is the credential's fault at all is judged in `refusals.rs`.
//!
//! A dead credential is closed in Redis for the whole fleet until `retry` or `resume`; here it is remembered
//! for a moment only, so that what people open again is tried again.

use std::time::{Duration, Instant};

use paceline_protocol::connector::Credential;
use paceline_protocol::limit::{Answer, DEAD, Refusal, Why};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::stores::kept_limits::KeptLimits;
use paceline_protocol::stores::limiter::Closure;

use super::asking::{Drawn, Wish, WishError};
use super::held::ShardInHand;
use super::refusals::{Fault, LEFT_TO_OTHERS};
use super::{Event, Lane};
use crate::collect::call::CallEnd;

/// So long a credential is taken for dead before Redis is looked at again.
const REMEMBERED: Duration = Duration::from_secs(3);
/// So long after a credential's death others may still turn out to be dead as well: where others were served, and where
/// none was yet (a slow limit tries one after the other).
const ALONE_AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// What is known of a dead credential.
pub(super) struct Dead {
    /// When that was heard first.
    since: Instant,
    /// So long it is believed without another look.
    until: Instant,
    reason: String,
}

impl Lane {
    /// The provider refused `credential`: an operator is needed.
    pub(super) fn died(&mut self, credential: &str, now: Instant) {
        tracing::error!(
            provider.name = self.provider.name,
            credential,
            "the provider does not accept this credential: it is not tried again before `retry` or `resume`"
        );
        let reason = Outcome::AuthExpired.as_str().to_owned();
        self.note_dead(credential.to_owned(), reason, now);
    }

    fn note_dead(&mut self, credential: String, reason: String, now: Instant) {
        let since = self.dead.get(&credential).map_or(now, |dead| dead.since);
        let until = now + REMEMBERED;
        let dead = Dead {
            since,
            until,
            reason,
        };
        self.dead.insert(credential, dead);
    }

    /// Whether the cells of a dead credential wait: every one of its pool is dead, or that may still turn out.
    pub(super) fn waits_for_people(&self, shard: &ShardInHand, place: usize, now: Instant) -> bool {
        let pool = &shard.at.pool.credentials;
        let dead = |credential: &Credential| self.dead.get(credential.name());
        let is_dead = |c: &Credential| dead(c).is_some_and(|dead| dead.until > now);
        let Some(own) = pool.get(place).filter(|own| is_dead(own)) else {
            return false;
        };
        let is_served = |c: &Credential| !is_dead(c) && self.good.contains(c.name());
        let alone_after = match pool.iter().any(is_served) {
            true => ALONE_AFTER.0,
            false => ALONE_AFTER.1,
        };
        let lately = dead(own).is_some_and(|dead| now < dead.since + alone_after);
        lately || pool.iter().all(is_dead)
    }

    /// Whose fault it is that the credential of a call was refused.
    pub(super) fn judge_refusal(&mut self, wish: Wish, drawn: &Drawn, end: CallEnd) -> CallEnd {
        let (scope, mut failed) = match end {
            CallEnd::Refused { scope, failed } => (scope, failed),
            end => return end,
        };
        let Some(credential) = drawn.credential.as_deref().filter(|_| !self.picks()) else {
            return CallEnd::Closed(scope);
        };
        let now = Instant::now();
        let is_out = self
            .dead
            .get(credential)
            .is_some_and(|dead| dead.until > now);
        match self.refusals.refused(wish, credential, is_out) {
            Fault::Credential => CallEnd::Closed(scope),
            Fault::Unknown => CallEnd::Later(LEFT_TO_OTHERS),
            Fault::Cell { comes_back } => {
                if let Some(failure) = &mut failed.failure {
                    failure.reason += "; more than one credential was refused for this cell";
                }
                if let Some(name) = comes_back {
                    self.bring_back(name);
                }
                CallEnd::Ended(failed)
            }
        }
    }

    /// A credential left the pool for a cell's fault: another cell tries it.
    fn bring_back(&mut self, name: String) {
        tracing::warn!(
            provider.name = self.provider.name,
            credential = name,
            "the provider refused a cell with every credential: this one is tried again by another cell"
        );
        self.dead.remove(&name);
        self.shared.open(&name);
        let (context, provider) = (self.context.clone(), self.budgets.clone());
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let kept = KeptLimits {
                objects: &context.parting.stores.objects,
                prefix: &context.prefix,
                provider: &provider,
            };
            let opened = async {
                kept.forget_ban(&name).await?;
                context.limiter.reopen_one(&provider, &name).await?;
                anyhow::Ok(())
            };
            match opened.await {
                Ok(()) => drop(events.send(Event::LookAgain)),
                Err(error) => tracing::warn!(provider.name = provider, credential = name, error = %error, "the credential stays out of the pool until `retry` or `resume`"),
            }
        });
    }

    /// Why a cell served by the credential at `place` alone cannot be called.
    pub(super) fn why_dead(
        &self,
        shard: &ShardInHand,
        place: usize,
        now: Instant,
    ) -> Option<WishError> {
        let name = shard.at.pool.credentials.get(place)?.name();
        let dead = self.dead.get(name)?;
        (dead.until > now).then(|| WishError::Dead {
            credential: name.to_owned(),
            reason: dead.reason.clone(),
        })
    }

    /// Whether each cell is bound to a credential.
    pub(super) fn picks(&self) -> bool {
        let credentials = self.provider.credentials.as_ref();
        credentials.is_some_and(|c| c.pick.is_some())
    }

    /// Something is closed: find out whether a credential that cells are bound to is dead.
    pub(super) fn look_for_dead(&mut self, answer: &Answer) {
        let shut = |r: &Refusal| matches!(r.why, Why::Closed | Why::Dead);
        let closed = answer.refusals.iter().any(shut);
        if !closed || !self.picks() || self.looking_for_dead {
            return;
        }
        self.looking_for_dead = true;
        let (limiter, provider) = (self.context.limiter.clone(), self.budgets.clone());
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let closures = limiter.closures(&provider).await.unwrap_or_default();
            drop(events.send(Event::Dead(dead_among(closures))));
        });
    }

    pub(super) fn on_dead(&mut self, names: Vec<(String, String)>) {
        self.looking_for_dead = false;
        let now = Instant::now();
        for (name, reason) in names {
            self.note_dead(name, reason, now);
            self.ask_at = now;
        }
    }
}

/// The names and reasons of those that are dead. What people opened again keeps its reason while its probe is
/// on its way: it is not dead unless the probe says so.
fn dead_among(closures: Vec<Closure>) -> Vec<(String, String)> {
    closures
        .into_iter()
        .filter(|closure| !closure.for_.is_zero())
        .filter(|closure| DEAD.iter().any(|dead| closure.reason.starts_with(dead)))
        .map(|closure| (closure.name, closure.reason))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(name: &str, for_s: u64, reason: &str) -> Closure {
        Closure {
            name: name.to_owned(),
            for_: Duration::from_secs(for_s),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn a_credential_that_a_retry_opened_again_is_not_dead_while_its_probe_is_on_its_way() {
        let reason = Outcome::AuthExpired.as_str();
        let dead = dead_among(vec![
            closure("0-aaaaaa", 34_560_000, reason),
            closure("1-bbbbbb", 0, reason),
            closure("2-cccccc", 60, "throttled"),
        ]);
        assert_eq!(dead, vec![("0-aaaaaa".to_owned(), reason.to_owned())]);
    }
}
