//! Calls that left later than their slack allows: between the last look at the clock and the socket a busy machine
//! can stop a process for longer than any window has room for.
//!
//! What has left cannot be called back. But the call that it may crowd comes a whole period later and is not granted
//! yet: the limits of the late call are told at once, and their next starts move by what it was late.
//!
//! A grant that is late before its call has left is dropped where that costs less. Where calls are far apart the next
//! starts are moved first, and then it is sent: a few milliseconds are lost to the fleet and not a whole call.
//!
//! What a dropped grant took of quotas and of buckets of points goes back at once too. With the next request for
//! grants it would come too late: of a quota that is used up otherwise nobody asks any more before its reset. And who
//! counts a run's calls by its grants hears how many were dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paceline_protocol::connector::cooldown::DrawnLimit;
use paceline_protocol::ids::RunRef;
use paceline_protocol::limit::{Ask, Back, FURTHEST_US, Heard, Instance, Rule};
use paceline_protocol::stores::limiter::FleetLimiter;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Event;

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

/// Tells the limiter of late calls and dropped grants, one request at a time.
#[derive(Clone)]
pub struct Late {
    lane: mpsc::UnboundedSender<Event>,
    limiter: FleetLimiter,
    provider: String,
    holder: String,
    tasks: TaskTracker,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// By the limits' ids: what was not told yet.
    limits: HashMap<String, Untold>,
    /// By run: dropped grants.
    dropped: HashMap<String, u64>,
    telling: bool,
}

struct Untold {
    limit: Instance,
    /// How late the latest call was.
    late_us: i64,
    /// What dropped grants had taken.
    back: Option<Back>,
}

impl Late {
    /// For the calls of one lane; `provider` as the limiter knows it.
    pub(super) fn new(
        lane: mpsc::UnboundedSender<Event>,
        limiter: FleetLimiter,
        provider: &str,
        holder: &str,
        tasks: TaskTracker,
    ) -> Self {
        Late {
            lane,
            limiter,
            provider: provider.to_owned(),
            holder: holder.to_owned(),
            tasks,
            noted: Arc::default(),
        }
    }

    /// Moves the next starts of `drawn` by `by_us`. Returns whether that is done.
    pub async fn move_starts(&self, drawn: &[DrawnLimit], by_us: i64) -> bool {
        let all = paced(drawn).map(|limit| Untold {
            late_us: by_us,
            ..Untold::nothing(limit)
        });
        let moved = self.limiter.ask(&self.ask(all.collect())).await;
        moved.is_ok()
    }

    /// A call that drew from `drawn` left `late_us` after the end of its slack.
    pub fn note(&self, drawn: &[DrawnLimit], late_us: i64) {
        self.tell_of(|noted| noted.late(paced(drawn), late_us.min(FURTHEST_US)));
    }

    /// A grant that drew from `drawn` at `of_us` is dropped: nothing was sent. `run` where it is known.
    pub fn give_back(&self, run: Option<&RunRef>, drawn: &[DrawnLimit], of_us: i64) {
        self.tell_of(|noted| {
            drawn.iter().for_each(|drawn| noted.dropped(drawn, of_us));
            if let Some(run) = run {
                *noted.dropped.entry(run.to_string()).or_default() += 1;
            }
        });
    }

    fn tell_of(&self, note: impl FnOnce(&mut Noted)) {
        let mut noted = self
            .noted
            .lock()
            .expect("no panic while late calls are noted");
        note(&mut noted);
        if noted.is_empty() || noted.telling {
            return;
        }
        noted.telling = true;
        drop(noted);
        let late = self.clone();
        self.tasks.spawn(async move { late.tell().await });
    }

    async fn tell(&self) {
        while let Some((untold, dropped)) = self.take_noted() {
            self.tell_limits(untold).await;
            for (run, grants) in dropped {
                let counted = self.limiter.dropped(&self.provider, &run, grants).await;
                if let Err(error) = counted {
                    tracing::debug!(%error, run.id = run, "dropped grants stay counted as calls");
                }
            }
        }
    }

    async fn tell_limits(&self, untold: Vec<Untold>) {
        if untold.is_empty() {
            return;
        }
        let mut ask = self.ask(untold);
        for _ in 0..TRIES {
            match self.limiter.ask(&ask).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(error = %error, "a late call could not be told");
                    // Nobody knows whether it was heard: what is given back twice would be granted twice.
                    ask.heard.iter_mut().for_each(|heard| heard.back = None);
                    tokio::time::sleep(BETWEEN).await;
                }
            }
        }
        let quotas: Vec<(String, u64)> = given_back(&ask).collect();
        if !quotas.is_empty() {
            drop(self.lane.send(Event::GivenBack(quotas)));
        }
    }

    /// What is to be told now; `None` when all is told.
    fn take_noted(&self) -> Option<(Vec<Untold>, HashMap<String, u64>)> {
        let mut noted = self
            .noted
            .lock()
            .expect("no panic while late calls are noted");
        noted.telling = !noted.is_empty();
        let limits = std::mem::take(&mut noted.limits);
        let dropped = std::mem::take(&mut noted.dropped);
        noted
            .telling
            .then(|| (limits.into_values().collect(), dropped))
    }

    /// A request that only says how late calls were, and what goes back.
    fn ask(&self, untold: Vec<Untold>) -> Ask {
        let heard = untold.iter().enumerate().map(|(limit, untold)| Heard {
            late_us: untold.late_us,
            back: untold.back,
            ..Heard::nothing(limit)
        });
        Ask {
            heard: heard.collect(),
            limits: untold.into_iter().map(|untold| untold.limit).collect(),
            ..Ask::nothing(&self.provider, &self.holder)
        }
    }
}

/// What a request gives back, by the limits' ids.
fn given_back(ask: &Ask) -> impl Iterator<Item = (String, u64)> {
    ask.heard.iter().filter_map(|heard| {
        let limit = ask.limits.get(heard.limit)?;
        Some((limit.id(), heard.back?.points))
    })
}

/// The limits that have a next start.
fn paced(drawn: &[DrawnLimit]) -> impl Iterator<Item = &Instance> {
    let limits = drawn.iter().map(|drawn| &drawn.instance);
    limits.filter(|limit| !matches!(limit.rule, Rule::Concurrency { .. } | Rule::Quota { .. }))
}

impl Noted {
    fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.dropped.is_empty()
    }

    /// Of several late calls one move is enough: by the latest.
    fn late<'l>(&mut self, limits: impl Iterator<Item = &'l Instance>, late_us: i64) {
        for limit in limits {
            let known = self.of(limit);
            known.late_us = known.late_us.max(late_us);
        }
    }

    fn dropped(&mut self, drawn: &DrawnLimit, of_us: i64) {
        let points = match drawn.instance.rule {
            Rule::Quota { .. } => 1,
            Rule::Cost { .. } => drawn.points,
            _ => return,
        };
        let known = self.of(&drawn.instance);
        if known.limit != drawn.instance {
            // A quota's next window began meanwhile: of the one before nothing counts any more.
            *known = Untold {
                late_us: known.late_us,
                ..Untold::nothing(&drawn.instance)
            };
        }
        let before = known.back.unwrap_or(Back { points: 0, of_us });
        known.back = Some(Back {
            points: before.points + points,
            of_us: before.of_us.min(of_us),
        });
    }

    fn of(&mut self, limit: &Instance) -> &mut Untold {
        let nothing = || Untold::nothing(limit);
        self.limits.entry(limit.id()).or_insert_with(nothing)
    }
}

impl Untold {
    fn nothing(limit: &Instance) -> Self {
        Untold {
            limit: limit.clone(),
            late_us: 0,
            back: None,
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
        noted.late([&a, &b].into_iter(), 5);
        noted.late([&a].into_iter(), 9);
        noted.late([&b].into_iter(), 3);
        let told = |limit: &Instance| noted.limits[&limit.id()].late_us;
        assert_eq!((told(&a), told(&b)), (9, 5));
    }

    #[test]
    fn what_dropped_grants_took_of_quotas_goes_back_together() {
        let day = |opened_us| {
            drawn(Rule::Quota {
                calls: 10,
                opened_us,
                closes_us: opened_us + 86_400,
            })
        };
        let mut noted = Noted::default();
        noted.dropped(&rate(50, None), 7);
        assert!(noted.limits.is_empty(), "a start that is over is over");
        noted.dropped(&day(0), 9);
        noted.dropped(&day(0), 7);
        let back = |noted: &Noted| noted.limits["l:"].back.map(|b| (b.points, b.of_us));
        assert_eq!(back(&noted), Some((2, 7)));
        noted.dropped(&day(86_400), 86_401);
        assert_eq!(back(&noted), Some((1, 86_401)));
    }
}
