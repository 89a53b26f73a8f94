//! Credentials that their provider does not accept any more. Where `pick` names the credential of a cell,
//! nobody else can serve it: its cells fail with the reason, so that one dead key does not hold up the
//! others' run. In a pool the others go on, and a run whose every key is dead waits for people.
//!
//! A dead credential is closed in Redis for the whole fleet until `retry` or `resume`; here it is remembered
//! for a moment only, so that what people open again is tried again.

use std::time::{Duration, Instant};

use paceline_protocol::limit::{Answer, Why};
use paceline_protocol::outcome::Outcome;

use super::held::ShardInHand;
use super::{Event, Lane};

/// So long a credential is taken for dead before Redis is looked at again.
const REMEMBERED: Duration = Duration::from_secs(3);

impl Lane {
    /// The provider refused `credential`: an operator is needed.
    pub(super) fn died(&mut self, credential: &str, now: Instant) {
        tracing::error!(
            provider.name = self.provider.name,
            credential,
            "the provider does not accept this credential: it is not tried again before `retry` or `resume`"
        );
        self.dead.insert(credential.to_owned(), now + REMEMBERED);
    }

    /// Why a cell served by the credential at `place` alone cannot be called.
    pub(super) fn why_dead(
        &self,
        shard: &ShardInHand,
        place: usize,
        now: Instant,
    ) -> Option<String> {
        let name = shard.at.pool.credentials.get(place)?.name();
        let until = self.dead.get(name)?;
        (*until > now)
            .then(|| format!("the provider does not accept credential {name} (auth_expired)"))
    }

    /// Something is closed: find out whether a credential that cells are bound to is dead.
    pub(super) fn look_for_dead(&mut self, answer: &Answer) {
        let closed = answer.refusals.iter().any(|r| r.why == Why::Closed);
        let picks = self
            .provider
            .credentials
            .as_ref()
            .is_some_and(|c| c.pick.is_some());
        if !closed || !picks || self.looking_for_dead {
            return;
        }
        self.looking_for_dead = true;
        let (limiter, provider) = (self.context.limiter.clone(), self.provider.name.clone());
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let closures = limiter.closures(&provider).await.unwrap_or_default();
            let dead = closures
                .into_iter()
                .filter(|closure| closure.reason == Outcome::AuthExpired.as_str())
                .map(|closure| closure.name)
                .collect();
            drop(events.send(Event::Dead(dead)));
        });
    }

    pub(super) fn on_dead(&mut self, names: Vec<String>) {
        self.looking_for_dead = false;
        let now = Instant::now();
        self.dead.retain(|_, until| *until > now);
        for name in names {
            self.dead.insert(name, now + REMEMBERED);
            self.ask_at = now;
        }
    }
}
