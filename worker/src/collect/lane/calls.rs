//! The calls of a lane: starting them with their grants, and what their ends mean for shards and scopes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use paceline_protocol::limit::{Grant, Rule, instance};
use paceline_protocol::stores::limiter::Closure;

use super::asking::{Drawn, Wish};
use super::{Event, Lane, WAIT_IN_HAND};
use crate::collect::call::{Call, CallEnd, CloseScope};

/// Leases that come free together are asked for together.
const LEASES_GATHER: Duration = Duration::from_millis(2);

impl Lane {
    pub(super) fn call(&mut self, wish: Wish, drawn: Arc<Drawn>, grant: Grant, epoch: u64) {
        let Some(in_hand) = self.held.get(&wish.held) else {
            return;
        };
        self.leases.take(&drawn.leases);
        let in_flight = self.context.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.context
            .metrics
            .worker_inflight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let call = Call {
            shard: in_hand.held.shard.clone(),
            lane: self.shared.clone(),
            metrics: self.context.metrics.clone(),
            cell: wish.cell,
            attempts: in_hand.held.work.attempts(wish.cell),
            drawn: drawn.clone(),
            grant,
            epoch,
            cut_off: self.cut_off.clone(),
        };
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let end = call.run().await;
            drop(events.send(Event::Called { wish, drawn, end }));
        });
    }

    pub(super) fn on_called(&mut self, wish: Wish, drawn: &Drawn, end: CallEnd) {
        self.leases.give_back(&drawn.leases);
        let in_flight = self.context.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.context
            .metrics
            .worker_inflight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let now = Instant::now();
        if self.wants_lease && !drawn.leases.is_empty() {
            self.ask_at = self.ask_at.min(now + LEASES_GATHER);
        }
        if let CallEnd::Closed(scope) = &end {
            self.close(scope.clone(), now);
        }
        let Some(in_hand) = self.held.get_mut(&wish.held) else {
            return;
        };
        let work = &mut in_hand.held.work;
        match end {
            CallEnd::NotSent | CallEnd::Closed(_) => work.untake(wish.cell),
            CallEnd::Ended(result) => in_hand.settling.extend(work.finish(wish.cell, result)),
            CallEnd::Again { attempts, wait } => work.again(wish.cell, attempts, now + wait),
            CallEnd::CutOff { attempts } => work.again(wish.cell, attempts, now),
        }
    }

    /// Closes a scope here at once and in Redis for the whole fleet.
    pub(super) fn close(&mut self, scope: CloseScope, now: Instant) {
        let wait = scope.wait.unwrap_or_else(|| self.until_reset(now));
        tracing::warn!(
            provider.name = self.provider.name,
            credential = scope.credential,
            outcome = scope.outcome.as_str(),
            closed.s = wait.as_secs_f64(),
            "the provider closed a scope; the whole fleet waits"
        );
        // Redis holds the rest; here it only has to bridge the time until the fleet knows.
        self.shared
            .close(scope.credential.as_deref(), now + wait.min(WAIT_IN_HAND));
        let closure = Closure {
            credential: scope.credential,
            for_: wait,
            reason: scope.outcome.as_str().to_owned(),
        };
        let (limiter, provider) = (self.context.limiter.clone(), self.provider.name.clone());
        self.context.tasks.spawn(async move {
            for _ in 0..5 {
                match limiter.close(&provider, &closure).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(provider.name = provider, error = %error, "the closure did not reach the fleet yet"),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// Until the reset of the provider's calendar quota; an hour where there is none.
    pub(super) fn until_reset(&self, now: Instant) -> Duration {
        let fleet_now = self.shared.fleet_us(now);
        let resets = self.provider.limits.iter().filter_map(|limit| {
            match instance(limit, "", fleet_now).ok()?.rule {
                Rule::Quota { closes_us, .. } => u64::try_from(closes_us - fleet_now).ok(),
                _ => None,
            }
        });
        resets
            .max()
            .map_or(Duration::from_secs(3600), Duration::from_micros)
    }
}
