//! The calls of a lane: starting them with their grants, and what their ends mean for shards and scopes.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use paceline_protocol::connector::cooldown;
use paceline_protocol::limit::{BREAKER, Grant, PROVIDER};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::stores::broker::Publisher;
use paceline_protocol::stores::limiter::{Closure, Struck};

use tracing::Instrument;

use super::asking::{Drawn, Wish};
use super::kept;
use super::tokens::NoToken;
use super::{Event, Lane, WAIT_IN_HAND};
use crate::collect::call::{Call, CallEnd, CloseScope};
use crate::collect::gaps::Leave;
use crate::collect::tokens::SignedIn;

/// Leases that come free together are asked for together.
const LEASES_GATHER: Duration = Duration::from_millis(2);
/// Leases that others may wait for are told of within this.
const LEASES_TOLD: Duration = Duration::from_millis(20);
/// Seats that come free together are asked for together, within this at least and at most: as long as half of the calls
/// that are planned have not started.
const SEATS_GATHER: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(50));

impl Lane {
    pub(super) fn call(&mut self, wish: Wish, drawn: Arc<Drawn>, grant: Grant, epoch: u64) {
        let Some(in_hand) = self.held.get(&wish.held) else {
            self.late.give_back(None, &drawn.limits, grant.start_us);
            return;
        };
        let shard = in_hand.held.shard.clone();
        let signed = match self.signed_in(&shard, grant.credential) {
            Ok(signed) => signed,
            Err(NoToken) => return self.unsigned(wish, &drawn, &grant),
        };
        let Some(in_hand) = self.held.get(&wish.held) else {
            return;
        };
        self.leases.take(&drawn.leases);
        self.context.seats.take();
        let call = Call {
            shard: in_hand.held.shard.clone(),
            lane: self.shared.clone(),
            late: self.late.clone(),
            metrics: self.context.metrics.clone(),
            cell: wish.cell,
            position: in_hand
                .held
                .work
                .position(wish.cell)
                .cloned()
                .unwrap_or_default(),
            attempts: in_hand.held.work.attempts(wish.cell),
            drawn: drawn.clone(),
            signed: signed.clone(),
            refused_before: self.tokens.was_refused(wish),
            grant,
            epoch,
            cut_off: self.cut_off.clone(),
            in_flight: self.context.seats.taken(),
            left_us: AtomicI64::new(0),
            gaps: self.context.gaps.clone(),
            leave: Leave::default(),
        };
        let events = self.events.clone();
        let probe = grant.probe.then_some(grant.start_us);
        // Boxed: its future has some kilobytes, which would be copied at each step into a task.
        let lines = call.shard.span.lines();
        let call = Box::pin(call.run()).instrument(lines);
        self.context.tasks.spawn(async move {
            let end = call.await;
            drop(events.send(Event::Called {
                wish,
                drawn,
                end,
                probe,
                signed,
            }));
        });
    }

    pub(super) fn on_called(
        &mut self,
        wish: Wish,
        drawn: &Drawn,
        end: CallEnd,
        signed: Option<SignedIn>,
    ) {
        self.leases.give_back(&drawn.leases);
        let now = Instant::now();
        if self.context.seats.give_back() {
            let gather = (self.planned_ahead / 2).clamp(SEATS_GATHER.0, SEATS_GATHER.1);
            self.ask_at = self.ask_at.max(now + gather);
        }
        let end = match signed {
            Some(signed) => self.after_signed(wish, end, &signed),
            None => end,
        };
        if !drawn.leases.is_empty() {
            if self.wants_lease {
                self.ask_at = self.ask_at.min(now + LEASES_GATHER);
            } else if self.scarce_leases {
                self.ask_at = self.ask_at.min(now + LEASES_TOLD);
            }
            if self.wants_lease || self.scarce_leases {
                self.tell_at.get_or_insert(now + LEASES_TOLD);
            }
        }
        match &end {
            CallEnd::Closed(scope) => {
                if let (Outcome::AuthExpired, Some(credential)) = (scope.outcome, &scope.credential)
                {
                    self.died(credential, now);
                }
                self.close(scope, drawn, now);
            }
            end if end.is_served() => self.note_good(wish, drawn),
            _ => {}
        }
        let Some(in_hand) = self.held.get_mut(&wish.held) else {
            return;
        };
        let run = &in_hand.held.shard.run;
        if run.ledger.is_full() {
            let (run, stores) = (run.clone(), self.context.parting.stores.clone());
            self.context.tasks.spawn(async move {
                if let Err(error) = run.ledger.flush(&stores.objects).await {
                    tracing::debug!(run.id = %run.id, error = %error, "the ledger is written later");
                }
            });
        }
        let work = &mut in_hand.held.work;
        match end {
            CallEnd::NotSent
            | CallEnd::Closed(_)
            | CallEnd::TokenEnded(_)
            | CallEnd::Refused { .. } => work.untake(wish.cell),
            CallEnd::Later(wait) => work.sleep(wish.cell, now + wait),
            CallEnd::Ended(result) => in_hand.settling.extend(work.finish(wish.cell, result)),
            CallEnd::Advanced {
                advance,
                answered_us,
            } => in_hand
                .settling
                .extend(work.advance(wish.cell, advance, answered_us)),
            CallEnd::Again { attempts, wait } => work.again(wish.cell, attempts, now + wait),
            CallEnd::CutOff { attempts } => work.again(wish.cell, attempts, now),
        }
    }

    /// Closes what an answer concerns, here at once and in Redis for the whole fleet.
    pub(super) fn close(&mut self, scope: &CloseScope, drawn: &Drawn, now: Instant) {
        let (name, resets_us) =
            cooldown::closes(scope.outcome, &drawn.limits, scope.credential.as_deref());
        let wait = match scope.outcome {
            Outcome::AuthExpired => cooldown::UNTIL_LOOKED_AT,
            _ => cooldown::length(scope.wait, resets_us, self.shared.fleet_us(now)),
        };
        tracing::warn!(
            provider.name = self.provider.name,
            closes = name,
            outcome = scope.outcome.as_str(),
            closed.s = wait.as_secs_f64(),
            "the provider closed a scope; the whole fleet waits"
        );
        // Redis holds the rest; here it only has to bridge the time until the fleet knows.
        self.shared.close(&name, now + wait.min(WAIT_IN_HAND));
        let closure = Closure {
            name,
            for_: wait,
            reason: cooldown::reason(scope.outcome).to_owned(),
        };
        let (limiter, provider) = (self.context.limiter.clone(), self.budgets.clone());
        let (publisher, events) = (self.context.parting.publisher.clone(), self.events.clone());
        let (context, now_us) = (self.context.clone(), self.shared.fleet_us(now));
        let called = self.provider.name.clone();
        self.context.tasks.spawn(async move {
            for _ in 0..5 {
                match limiter.close(&provider, &closure).await {
                    Ok(struck) => {
                        if struck.strikes >= BREAKER {
                            drop(events.send(Event::BreakerOpened(closure.clone())));
                        }
                        kept::keep(&context, &provider, &closure, struck.strikes, now_us).await;
                        tell(&publisher, &called, &closure, struck).await;
                        return;
                    }
                    Err(error) => tracing::warn!(provider.name = provider, error = %error, "the closure did not reach the fleet yet"),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// Tells the fleet how the one call that tried a closed scope ended. A refusal closes it anew by itself.
    pub(super) fn report_probe(&self, end: &CallEnd, drawn: &Arc<Drawn>, start_us: i64) {
        let Some(how) = end.probed() else { return };
        let (limiter, provider) = (self.context.limiter.clone(), self.budgets.clone());
        let (drawn, events) = (drawn.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            let names: Vec<&str> = drawn.names.iter().map(String::as_str).collect();
            // Not told: the next probe is due in a while.
            if let Err(error) = limiter.probed(&provider, &names, start_us, how).await {
                tracing::warn!(provider.name = provider, error = %error, "how a probe ended did not reach the fleet");
            }
            drop(events.send(Event::Probed(drawn)));
        });
    }

    /// Notes that somebody is served: who is closed for good meanwhile is closed alone.
    fn note_good(&mut self, wish: Wish, drawn: &Drawn) {
        if let Some(credential) = &drawn.credential {
            self.refusals.served(wish, credential);
        }
        if self.good.len() < GOOD_AT_MOST {
            let own = drawn.names.iter().filter(|name| *name != PROVIDER);
            let new: Vec<String> = own.filter(|n| !self.good.contains(*n)).cloned().collect();
            self.good.extend(new);
        }
    }
}

/// So many names that went well are enough to know that a lane is served.
const GOOD_AT_MOST: usize = 64;

/// Events for who listens: a credential or scope was closed by its provider.
async fn tell(publisher: &Publisher, provider: &str, closure: &Closure, struck: Struck) {
    if let Some(below_per_s) = struck.below_per_s {
        tracing::warn!(
            provider.name = provider,
            closes = closure.name,
            below_per_s,
            "the provider serves less than its file allows: it is called more slowly; a lower limit in the file saves the refusals"
        );
    }
    let topic = if struck.strikes >= BREAKER {
        "provider.blocked"
    } else {
        "provider.closed"
    };
    let body = serde_json::json!({
        "event": topic, "provider": provider, "closed": closure.name, "reason": closure.reason,
        "for_s": closure.for_.as_secs_f64(), "strikes": struck.strikes, "below_per_s": struck.below_per_s,
    });
    if let Err(error) = publisher.event(topic, &body).await {
        tracing::debug!(error = %error, "an event was not announced");
    }
}
