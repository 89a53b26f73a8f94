//! Calls that left later than their slack allows: between the last look at the clock and the socket a busy machine
//! can stop a process for longer than any window has room for.
//!
//! What has left cannot be called back. But the call that it may crowd comes a whole period later and is not granted
//! yet: the limits of the late call are told at once, and their next starts move by what it was late.
//!
//! A grant that is late before its call has left is dropped where that costs less. Where calls are far apart the next
//! starts are moved first, and then it is sent: a few milliseconds are lost to the fleet and not a whole call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paceline_protocol::connector::cooldown::DrawnLimit;
use paceline_protocol::limit::{Ask, FURTHEST_US, Heard, Instance, Rule};
use paceline_protocol::stores::limiter::FleetLimiter;
use tokio_util::task::TaskTracker;

/// A limiter that does not answer has lost more than this; then nothing is granted anyway.
const TRIES: usize = 3;
const BETWEEN: Duration = Duration::from_millis(50);

/// So much farther than it is late a grant is moved: for the way to Redis and back, and to be sent in.
const FARTHER_US: i64 = 5_000;

/// How far the starts behind a grant have to move (microseconds) for it to be sent although its slack ended `over_us`
/// ago; `None` where dropping it costs less, or where a call that it would crowd may be granted already.
pub fn moves_by(drawn: &[DrawnLimit], slack_us: i64, over_us: i64) -> Option<i64> {
    let by_us = over_us + FARTHER_US;
    let mut limits = paced(drawn).peekable();
    // Behind a call of a bucket others may follow at once; behind the only one of its period the next is granted.
    let bears = |limit: &Instance| match (&limit.rule, limit.rule.pace()) {
        (Rule::Rate { burst: None, .. }, Some(pace)) => {
            by_us < pace.interval_us && slack_us + by_us <= pace.period_us - pace.horizon_us
        }
        _ => false,
    };
    (limits.peek().is_some() && limits.all(bears)).then_some(by_us)
}

/// Tells the limiter of late calls, one request at a time.
#[derive(Clone)]
pub struct Late {
    limiter: FleetLimiter,
    provider: String,
    holder: String,
    tasks: TaskTracker,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// By the limits' ids: the latest call that was not told yet.
    limits: HashMap<String, (Instance, i64)>,
    telling: bool,
}

impl Late {
    /// For the calls of one lane; `provider` as the limiter knows it.
    pub fn new(limiter: FleetLimiter, provider: &str, holder: &str, tasks: TaskTracker) -> Self {
        Late {
            limiter,
            provider: provider.to_owned(),
            holder: holder.to_owned(),
            tasks,
            noted: Arc::default(),
        }
    }

    /// Moves the next starts of `drawn` by `by_us`. Returns whether that is done.
    pub async fn move_starts(&self, drawn: &[DrawnLimit], by_us: i64) -> bool {
        let all = paced(drawn).map(|limit| (limit.clone(), by_us));
        let moved = self.limiter.ask(&self.ask(all.collect())).await;
        moved.is_ok()
    }

    /// A call that drew from `drawn` left `late_us` after the end of its slack.
    pub fn note(&self, drawn: &[DrawnLimit], late_us: i64) {
        let paced = paced(drawn);
        let mut noted = self
            .noted
            .lock()
            .expect("no panic while late calls are noted");
        noted.add(paced, late_us.min(FURTHEST_US));
        if noted.limits.is_empty() || noted.telling {
            return;
        }
        noted.telling = true;
        drop(noted);
        let late = self.clone();
        self.tasks.spawn(async move { late.tell().await });
    }

    async fn tell(&self) {
        while let Some(ask) = self.next_ask() {
            for _ in 0..TRIES {
                match self.limiter.ask(&ask).await {
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(error = %error, "a late call could not be told");
                        tokio::time::sleep(BETWEEN).await;
                    }
                }
            }
        }
    }

    /// A request that only says how late calls were; `None` when all is told.
    fn next_ask(&self) -> Option<Ask> {
        let mut noted = self
            .noted
            .lock()
            .expect("no panic while late calls are noted");
        let all = std::mem::take(&mut noted.limits);
        noted.telling = !all.is_empty();
        drop(noted);
        (!all.is_empty()).then(|| self.ask(all.into_values().collect()))
    }

    fn ask(&self, late: Vec<(Instance, i64)>) -> Ask {
        let (limits, late): (Vec<Instance>, Vec<i64>) = late.into_iter().unzip();
        let heard = late.into_iter().enumerate().map(|(limit, late_us)| Heard {
            late_us,
            ..Heard::nothing(limit)
        });
        Ask {
            provider: self.provider.clone(),
            holder: self.holder.clone(),
            heard: heard.collect(),
            limits,
            held: Vec::new(),
            groups: Vec::new(),
            claims: Vec::new(),
            keeps: true,
        }
    }
}

/// The limits that have a next start.
fn paced(drawn: &[DrawnLimit]) -> impl Iterator<Item = &Instance> {
    let limits = drawn.iter().map(|drawn| &drawn.instance);
    limits.filter(|limit| !matches!(limit.rule, Rule::Concurrency { .. } | Rule::Quota { .. }))
}

impl Noted {
    /// Of several late calls one move is enough: by the latest.
    fn add<'l>(&mut self, limits: impl Iterator<Item = &'l Instance>, late_us: i64) {
        for limit in limits {
            let known = self
                .limits
                .entry(limit.id())
                .or_insert_with(|| (limit.clone(), 0));
            known.1 = known.1.max(late_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use paceline_protocol::connector::cooldown::Narrow;

    use super::*;

    fn drawn(rule: Rule) -> DrawnLimit {
        DrawnLimit {
            instance: Instance {
                limit: "l".into(),
                scope: String::new(),
                rule,
            },
            points: 1,
            narrow: Narrow::default(),
        }
    }

    fn rate(calls: u64, burst: Option<u64>) -> DrawnLimit {
        drawn(Rule::Rate {
            calls,
            period_us: 1_000_000,
            burst,
        })
    }

    #[test]
    fn a_grant_is_moved_where_that_costs_less_than_a_call() {
        let leases = drawn(Rule::Concurrency { calls: 4 });
        let slow = [leases.clone(), rate(50, None)];
        assert_eq!(moves_by(&slow, 3_000, 2_000), Some(7_000));
        assert_eq!(moves_by(&slow, 3_000, 15_000), Some(20_000));
        assert_eq!(moves_by(&slow, 3_000, 15_200), None);
        let both = [rate(50, None), rate(500, None)];
        assert_eq!(moves_by(&both, 3_000, 0), None, "at 500/s a call is 2 ms");
    }

    #[test]
    fn a_grant_is_not_moved_where_the_call_that_it_would_crowd_may_be_granted() {
        let spacing = drawn(Rule::Spacing { least_us: 500_000 });
        let leases = drawn(Rule::Concurrency { calls: 4 });
        for limit in [spacing, rate(1, None), rate(50, Some(10)), leases] {
            assert_eq!(
                moves_by(std::slice::from_ref(&limit), 3_000, 0),
                None,
                "{limit:?}"
            );
        }
    }

    #[test]
    fn of_several_late_calls_the_latest_is_told() {
        let limit = |name: &str| Instance {
            limit: name.into(),
            scope: String::new(),
            rule: Rule::Spacing { least_us: 1 },
        };
        let (a, b) = (limit("a"), limit("b"));
        let mut noted = Noted::default();
        noted.add([&a, &b].into_iter(), 5);
        noted.add([&a].into_iter(), 9);
        noted.add([&b].into_iter(), 3);
        let told = |limit: &Instance| noted.limits[&limit.id()].1;
        assert_eq!((told(&a), told(&b)), (9, 5));
    }
}
