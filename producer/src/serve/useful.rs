//! How many workers are of use now: as many as the open budget can keep busy, and no more than find work.
//!
//! A queue's length says nothing here: more workers do not add permits, they only wait with them. A worker
//! is of use for `calls a second x seconds of a call / calls in flight of a worker` (Little's law), where the
//! calls a second are those of a budget that is open.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Seconds of a call while nobody has told of any.
pub const UNMEASURED: f64 = 0.5;
/// Over how long a call's seconds are taken.
const OVER: Duration = Duration::from_secs(60);
/// Fewer calls than these say nothing of the last minute.
const TELLING: u64 = 20;

/// The work of one lane of an open run.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneNow {
    /// Whose budget it draws from.
    pub provider: String,
    /// The label of the workers that may take it; empty: any.
    pub egress: String,
    /// Whether the provider takes calls now.
    pub open: bool,
    /// What the budget gives; `None`: no limit says.
    pub calls_per_second: Option<f64>,
    /// Calls in flight that the budget allows; `None`: no limit says.
    pub in_flight: Option<u64>,
    /// Seconds of a call.
    pub call_s: f64,
    /// Shards that wait or are in hand.
    pub shards: u64,
}

/// What one worker takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSize {
    /// `worker collect --concurrency`
    pub concurrency: u64,
    /// `worker collect --shards`
    pub shards: u64,
}

/// Useful workers by egress label. A provider's budget counts once, however many runs draw from it.
pub fn useful_workers(lanes: &[LaneNow], worker: WorkerSize) -> BTreeMap<String, u64> {
    let mut budgets: BTreeMap<(&str, &str), (f64, u64)> = BTreeMap::new();
    for lane in lanes {
        let of_lane = (&*lane.egress, &*lane.provider);
        let (busy, shards) = budgets.entry(of_lane).or_insert((0.0, 0));
        // Two runs see the same budget, perhaps through different endpoints: the larger view counts.
        *busy = busy.max(calls_in_flight(lane));
        *shards += lane.shards;
    }
    let mut useful: BTreeMap<String, f64> = BTreeMap::new();
    for ((egress, _), (busy, shards)) in budgets {
        let by_budget = busy / worker.concurrency.max(1) as f64;
        let by_work = shards as f64 / worker.shards.max(1) as f64;
        *useful.entry(egress.to_owned()).or_default() += by_budget.min(by_work);
    }
    let whole = |(egress, workers): (String, f64)| (egress, workers.ceil() as u64);
    useful.into_iter().map(whole).collect()
}

/// Calls that the lane's budget can keep in flight; without end where no limit says.
fn calls_in_flight(lane: &LaneNow) -> f64 {
    if !lane.open {
        return 0.0;
    }
    let by_rate = lane.calls_per_second.map(|rate| rate * lane.call_s);
    let by_leases = lane.in_flight.map(|calls| calls as f64);
    by_rate
        .unwrap_or(f64::INFINITY)
        .min(by_leases.unwrap_or(f64::INFINITY))
}

/// The seconds of a call over the last minute, out of two counters that only grow.
#[derive(Clone, Debug, Default)]
pub struct CallMeter(VecDeque<(Duration, u64, u64)>);

impl CallMeter {
    /// Notes that `calls` had taken `busy_ms` together at `now` (since any fixed instant); returns the seconds of
    /// a call. Counters that went back (Redis was lost) start anew.
    pub fn note(&mut self, now: Duration, calls: u64, busy_ms: u64) -> f64 {
        if self.0.back().is_some_and(|(_, last, _)| calls < *last) {
            self.0.clear();
        }
        self.0.push_back((now, calls, busy_ms));
        while self.0.len() > 2 && self.0[1].0 + OVER <= now {
            self.0.pop_front();
        }
        let (before, busy_before) = self.0.front().map_or((0, 0), |(_, c, b)| (*c, *b));
        let (last_calls, last_ms) = (calls - before, busy_ms.saturating_sub(busy_before));
        match (last_calls, calls) {
            (TELLING.., _) => seconds(last_ms, last_calls),
            (_, 1..) => seconds(busy_ms, calls),
            _ => UNMEASURED,
        }
    }
}

fn seconds(busy_ms: u64, calls: u64) -> f64 {
    busy_ms as f64 / 1000.0 / calls as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerSize = WorkerSize {
        concurrency: 64,
        shards: 2,
    };

    fn lane() -> LaneNow {
        LaneNow {
            provider: "fare-search".into(),
            egress: String::new(),
            open: true,
            calls_per_second: Some(50.0),
            in_flight: None,
            call_s: 0.2,
            shards: 1_000,
        }
    }

    fn anywhere(lanes: &[LaneNow]) -> u64 {
        useful_workers(lanes, WORKER)
            .get("")
            .copied()
            .unwrap_or_default()
    }

    #[test]
    fn a_full_queue_adds_no_worker_beyond_the_budget() {
        assert_eq!(anywhere(&[lane()]), 1);
        let fast = LaneNow {
            calls_per_second: Some(2_000.0),
            ..lane()
        };
        // 400 calls in flight are six workers and a quarter.
        assert_eq!(anywhere(std::slice::from_ref(&fast)), 7);
        let little_work = LaneNow { shards: 5, ..fast };
        assert_eq!(anywhere(&[little_work]), 3);
    }

    #[test]
    fn none_is_of_use_for_a_closed_budget_or_without_work() {
        let closed = LaneNow {
            open: false,
            ..lane()
        };
        assert_eq!(anywhere(&[closed]), 0);
        let done = LaneNow {
            shards: 0,
            ..lane()
        };
        assert_eq!(anywhere(&[done]), 0);
        assert_eq!(anywhere(&[]), 0);
    }

    #[test]
    fn calls_in_flight_that_are_allowed_bound_it_too() {
        let slow = LaneNow {
            calls_per_second: None,
            in_flight: Some(100),
            call_s: 30.0,
            ..lane()
        };
        assert_eq!(anywhere(std::slice::from_ref(&slow)), 2);
        let unlimited = LaneNow {
            in_flight: None,
            shards: 9,
            ..slow
        };
        assert_eq!(anywhere(&[unlimited]), 5);
    }

    #[test]
    fn two_runs_share_a_budget_and_two_providers_do_not() {
        let fast = LaneNow {
            calls_per_second: Some(640.0),
            ..lane()
        };
        assert_eq!(anywhere(&[fast.clone(), fast.clone()]), 2);
        let other = LaneNow {
            provider: "other".into(),
            ..fast.clone()
        };
        assert_eq!(anywhere(&[fast.clone(), other]), 4);
        let elsewhere = LaneNow {
            egress: "static".into(),
            ..fast.clone()
        };
        let by_egress = useful_workers(&[fast, elsewhere], WORKER);
        assert_eq!(
            by_egress,
            BTreeMap::from([(String::new(), 2), ("static".into(), 2)])
        );
    }

    /// `series.txt` holds what `producer serve` saw, a line for each look; the last columns are what should follow.
    #[test]
    fn the_recorded_series_add_no_worker_that_would_only_wait() {
        let mut looks = 0;
        for line in include_str!("useful/series.txt").lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields[at].parse::<f64>().expect("a number");
            let look = LaneNow {
                open: fields[1] == "open",
                calls_per_second: (fields[2] != "-").then(|| number(2)),
                in_flight: (fields[3] != "-").then(|| number(3) as u64),
                call_s: number(4),
                shards: number(5) as u64,
                ..lane()
            };
            for (concurrency, expected) in [(64, number(6)), (2, number(7))] {
                let worker = WorkerSize {
                    concurrency,
                    ..WORKER
                };
                let useful = useful_workers(std::slice::from_ref(&look), worker)[""];
                assert_eq!(useful, expected as u64, "{line}");
            }
            looks += 1;
        }
        assert!(looks > 20, "{looks} looks");
    }

    #[test]
    fn a_call_takes_what_the_last_minute_says() {
        let mut meter = CallMeter::default();
        let at = Duration::from_secs;
        assert_eq!(meter.note(at(0), 0, 0), UNMEASURED);
        assert_eq!(meter.note(at(5), 10, 1_000), 0.1);
        for second in (10..120).step_by(5) {
            meter.note(at(second), second * 10, second * 1_000);
        }
        // From here on calls take 2 s.
        let mut last = 0.0;
        for second in (120..240).step_by(5) {
            last = meter.note(at(second), second * 10, 120_000 + (second - 120) * 20_000);
        }
        assert!((last - 2.0).abs() < 0.01, "{last}");
        assert_eq!(meter.note(at(245), 0, 0), UNMEASURED, "Redis was lost");
    }
}
