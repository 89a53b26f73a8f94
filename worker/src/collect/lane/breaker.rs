//! Refused again and again: the runs of the lane are paused with a reason instead of knocking on and on.

use std::time::Instant;

use paceline_protocol::layout;
use paceline_protocol::limit::PROVIDER;
use paceline_protocol::message::Control;
use paceline_protocol::stores::limiter::Closure;
use paceline_protocol::stores::state::{OpenRun, STOPPED_BY_PROVIDER};

use super::scopes::WAKE;
use super::{Lane, LaneContext, ears};

impl Lane {
    /// Asks at once: something was opened or changed.
    pub(super) fn look_again(&mut self) {
        self.ask_at = Instant::now();
        self.empties = 0;
        self.tokens.look_again();
        self.dead.clear();
        self.asleep.forget();
        self.unblock();
    }

    /// A probe of what may be closed under these names ended: a few of the cells that sleep for it wake.
    pub(super) fn on_probed(&mut self, names: &[String]) {
        self.look_again();
        let now = Instant::now();
        for name in names {
            let mut left = WAKE;
            for in_hand in self.held.values_mut() {
                left -= in_hand.held.work.wake(Some(name), left, now);
            }
        }
    }

    /// Whatever cells sleep for may be another by what an operator said: all of them ask again.
    pub(super) fn on_limits_changed(&mut self) {
        self.shared.ears(ears::Ears::forget);
        self.look_again();
        let now = Instant::now();
        for in_hand in self.held.values_mut() {
            in_hand.held.work.wake(None, usize::MAX, now);
        }
    }

    /// A quota has room again before its reset. A lane that asks soon anyway is left alone.
    pub(super) fn go_on_with_what_came_back(&mut self, quotas: &[(String, u64)]) {
        let now = Instant::now();
        self.asleep.forget();
        let mut awake = self.unblock();
        for (quota, calls) in quotas {
            let mut left = usize::try_from(*calls).unwrap_or(usize::MAX);
            for in_hand in self.held.values_mut() {
                let woken = in_hand.held.work.wake(Some(quota), left, now);
                (left, awake) = (left - woken, awake || woken > 0);
            }
        }
        if awake {
            self.ask_at = now;
        }
    }

    /// Shards may be taken again. Returns whether they might not.
    fn unblock(&mut self) -> bool {
        let was_closed = self.closed_until.send_replace(None).is_some();
        if was_closed {
            let blocked = &self.context.metrics.provider_blocked;
            blocked.with_label_values(&[&self.provider.name]).set(0);
            self.context.shard_left.notify_one();
        }
        was_closed
    }

    /// A scope was refused too often. While others are served its cells fail with that reason; else the runs
    /// of this lane are paused.
    pub(super) fn on_breaker(&mut self, closure: &Closure) {
        let alone = closure.name != PROVIDER && self.good.iter().any(|good| *good != closure.name);
        tracing::error!(
            provider.name = self.provider.name,
            closes = closure.name,
            reason = closure.reason,
            "refused again and again: it stays closed until somebody looks"
        );
        if alone {
            return;
        }
        let reason = format!(
            "{STOPPED_BY_PROVIDER} {}: it answered {} again and again; `producer resume` tries again",
            self.provider.name, closure.reason
        );
        let (context, lane) = (self.context.clone(), self.name.clone());
        self.context.tasks.spawn(async move {
            // What was heard of open runs may be a second old, and a run as young as that.
            let open = match context.parting.stores.state.open_runs().await {
                Ok(Some(open)) => open,
                Ok(None) | Err(_) => context.open_runs.borrow().clone(),
            };
            let ours = open
                .into_iter()
                .filter(|run| run.lanes.contains(&lane) && !run.paused);
            for run in ours {
                let paused = OpenRun {
                    paused: true,
                    reason: Some(reason.clone()),
                    ..run
                };
                pause(&context, paused).await;
            }
        });
    }
}

/// S3 first: the registry is made from it when Redis is lost.
async fn pause(context: &LaneContext, run: OpenRun) {
    let stores = &context.parting.stores;
    let key = layout::open_run(&context.prefix, &run.run);
    let body = serde_json::to_vec(&run).expect("an open run is plain JSON");
    let paused = async {
        stores.objects.put(&key, body.into(), &[]).await?;
        stores.state.set_open_run(&run).await?;
        let control = Control::Pause {
            run: run.run.clone(),
        };
        context.parting.publisher.control(&control).await?;
        anyhow::Ok(())
    };
    if let Err(error) = paused.await {
        tracing::error!(run.id = %run.run, error = %error, "the run could not be paused");
    }
}
