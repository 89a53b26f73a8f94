//! The numbers behind a limit: how far apart calls start, how late one may be, how far ahead one may be
//! planned. Redis is given these numbers; it derives none of its own.

use super::Rule;

/// No call may be sent later than this after its start, however roomy its limits are (200 ms).
pub const LATEST_US: i64 = 200_000;
/// Nothing is planned further ahead than this: it is also the pause after a loss of state (1 s).
pub const FURTHEST_US: i64 = 1_000_000;
/// Limits that allow it are planned so far ahead (100 ms).
const NEAREST_US: i64 = 100_000;
/// How many calls of a slow limit one batch may plan, as long as they fit below [`FURTHEST_US`].
const BATCH_CALLS: i64 = 5;

/// Share of a window that is kept free, in thousandths: pace 99.2 %.
const ROOM_PER_MILLE: i64 = 8;
/// Windows of few calls stand or fall by single ones: those of so many keep a hundredth free.
const SOME_CALLS: i64 = 10;
/// Pace 99.0 %.
const SOME_ROOM_PER_MILLE: i64 = 10;
/// Windows of more calls than this lose some to lateness, so that less of the hundredth is left to be kept free.
const MANY_CALLS: i64 = 500;
/// What those keep: pace 99.4 %.
const MANY_ROOM_PER_MILLE: i64 = 6;
/// Limits of fewer calls a window keep at least 2 % free, up to [`FEW_ROOM_US`].
const FEW_CALLS: i64 = 5;
/// The most that a window of few calls keeps free.
const FEW_ROOM_US: i64 = 20_000;
/// A window of one call (a spacing) is broken by what the ways of two calls differ by, which does not shrink with it: it keeps
/// a tenth free, from 3 to 5 ms (up to 4.3 ms were seen on a busy machine).
const SINGLE_ROOM_US: (i64, i64) = (3_000, 5_000);
/// Below this, timers of a millisecond's grain would miss more starts than they make.
const LEAST_ROOM_US: i64 = 2_000;
/// Starts are met to well within this, where the machine has time for us (3 ms).
const ENOUGH_SLACK_US: i64 = 3_000;
/// What a window of one call is met in, by a timer of its own: the rest is for the way.
const SINGLE_SLACK_US: i64 = 1_500;
/// A bucket is refilled this much slower than it says, in thousandths, for clocks that run apart.
const DRIFT_PER_MILLE: i64 = 1;

/// How one limit paces calls. All in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one start to the next.
    pub interval_us: i64,
    /// How much earlier than that a start may be while the bucket is full (0 without `burst`).
    pub burst_us: i64,
    /// A call that arrives at most so long after its start breaks nothing.
    pub room_us: i64,
    /// So long after its start a call may be sent: the room less what its way may vary by.
    pub slack_us: i64,
    /// How far ahead of Redis' clock a start may lie.
    pub horizon_us: i64,
    /// The period that use is shown over.
    pub period_us: i64,
    /// Of a bucket of points: nanoseconds until one point is restored; else 0.
    pub point_ns: i64,
}

impl Pace {
    /// The pace of a rate or a spacing; `None` for what is not paced.
    pub fn of(rule: &Rule) -> Option<Pace> {
        match *rule {
            Rule::Rate {
                calls,
                period_us,
                burst: None,
            } => Some(Pace::spaced(signed(calls), signed(period_us))),
            Rule::Rate {
                calls,
                period_us,
                burst: Some(burst),
            } => Some(Pace::bucket(
                signed(calls),
                signed(period_us),
                signed(burst),
            )),
            Rule::Spacing { least_us } => Some(Pace::spaced(1, signed(least_us))),
            Rule::Cost {
                points,
                period_us,
                burst,
            } => Some(Pace::points(
                signed(points),
                signed(period_us),
                signed(burst),
            )),
            Rule::Concurrency { .. } | Rule::Quota { .. } => None,
        }
    }

    /// Evenly spaced: `calls` intervals last a period and the room. So the first of `calls + 1` calls,
    /// late by the room, and the last, in time, are still a whole period apart.
    fn spaced(calls: i64, period_us: i64) -> Pace {
        let wanted = wanted_room(calls, period_us);
        let nearest = (period_us + wanted + calls / 2) / calls;
        let enough = nearest * calls - period_us >= wanted * 2 / 3;
        let interval_us = if enough { nearest } else { nearest + 1 };
        let room_us = (interval_us * calls - period_us).min(LATEST_US);
        let pace = Pace::new(interval_us, 0, room_us, period_us);
        // Of a call that left late the fleet hears before the call a period later is granted.
        let in_time_us = match calls {
            1 => FURTHEST_US,
            _ => (period_us / 2).max(NEAREST_US),
        };
        let enough_us = match calls {
            1 => SINGLE_SLACK_US,
            _ => ENOUGH_SLACK_US,
        };
        Pace {
            slack_us: room_us - kept_for_the_way(room_us, enough_us),
            horizon_us: pace.horizon_us.min(in_time_us),
            ..pace
        }
    }

    /// A token bucket: at most `burst` and what was refilled, in any stretch of time. Some of the burst
    /// is given up for the room; a bucket too small for that is spaced instead.
    fn bucket(calls: i64, period_us: i64, burst: i64) -> Pace {
        let refill = ceil_div(period_us, calls);
        let full = refill * (burst - 1);
        let room_us = (full / 4).clamp(LEAST_ROOM_US, LATEST_US);
        let slower = refill + ceil_div(refill * DRIFT_PER_MILLE, 1000);
        let interval_us = slower.max(refill + (room_us - full).max(0));
        Pace::new(interval_us, (full - room_us).max(0), room_us, period_us)
    }

    /// A bucket of points: as a token bucket, but a call takes several.
    fn points(points: i64, period_us: i64, burst: i64) -> Pace {
        let slower = i128::from(period_us) * i128::from(1000 + DRIFT_PER_MILLE);
        let point_ns = slower.div_euclid(i128::from(points)) + 1;
        let point_ns = i64::try_from(point_ns).unwrap_or(MOST_NS).min(MOST_NS);
        let full_us = points_us(burst, point_ns);
        let room_us = (full_us / 4).clamp(LEAST_ROOM_US, LATEST_US);
        let interval_us = points_us(1, point_ns).max(1);
        Pace {
            point_ns,
            ..Pace::new(interval_us, (full_us - room_us).max(0), room_us, period_us)
        }
    }

    /// How far a call of `points` moves the next start.
    pub fn charge_us(&self, points: u64) -> i64 {
        match self.point_ns {
            0 => self.interval_us,
            point_ns => points_us(i64::try_from(points).unwrap_or(i64::MAX), point_ns),
        }
    }

    /// How long after the bucket was last empty of calls one of `points` may start.
    pub fn wait_us(&self, points: u64) -> i64 {
        let charge = if self.point_ns == 0 {
            0
        } else {
            self.charge_us(points)
        };
        charge - self.burst_us
    }

    fn new(interval_us: i64, burst_us: i64, room_us: i64, period_us: i64) -> Pace {
        Pace {
            interval_us,
            burst_us,
            room_us,
            slack_us: room_us - kept_for_the_way(room_us, ENOUGH_SLACK_US),
            horizon_us: (interval_us * BATCH_CALLS).clamp(NEAREST_US, FURTHEST_US),
            period_us,
            point_ns: 0,
        }
    }

    /// Where a lost state goes on. Before the loss no start lay beyond the horizon, so nothing that was
    /// granted then lies beyond this less one interval.
    pub fn restart_us(&self, now_us: i64) -> i64 {
        now_us + self.horizon_us + self.interval_us + self.burst_us
    }

    /// No state written with this pace lies further ahead, whatever the horizon was then; one that does
    /// was written by a clock that has stepped back since.
    pub fn cap_us(&self, now_us: i64) -> i64 {
        now_us + FURTHEST_US + self.interval_us + self.burst_us
    }
}

/// What of a room is kept for what the way to the provider may vary by: a third of it, and all that leaves a worker enough
/// to send in, at most 5 ms.
fn kept_for_the_way(room_us: i64, enough_us: i64) -> i64 {
    (room_us / 3).max(room_us - enough_us).min(5_000)
}

/// The room that a window of `calls` in `period_us` should keep.
fn wanted_room(calls: i64, period_us: i64) -> i64 {
    let per_mille = if calls <= SOME_CALLS {
        SOME_ROOM_PER_MILLE
    } else if calls <= MANY_CALLS {
        ROOM_PER_MILLE
    } else {
        MANY_ROOM_PER_MILLE
    };
    let share = period_us * per_mille / 1000;
    let few = if calls < FEW_CALLS {
        (period_us / 50).min(FEW_ROOM_US)
    } else {
        0
    };
    let single = match calls {
        1 => (period_us / 10).clamp(SINGLE_ROOM_US.0, SINGLE_ROOM_US.1),
        _ => 0,
    };
    share.max(few).max(single).clamp(LEAST_ROOM_US, LATEST_US)
}

/// How many calls lie between two marks of a quota of `calls` (CORE 17): 1 %, at least 50.
pub fn mark_step(calls: u64) -> u64 {
    calls.div_ceil(100).max(50)
}

/// The mark after `mark`, which is put to S3 before the counter may pass `mark`.
pub fn next_mark(calls: u64, mark: u64) -> u64 {
    mark.saturating_add(mark_step(calls)).min(calls)
}

/// How far starts stay away from both ends of a calendar window of this length, so that a call on its
/// way, or a provider's clock a little off, does not put it into the neighbour: 0.5 %, at most 1 s.
pub fn window_guard_us(opened_us: i64, closes_us: i64) -> i64 {
    ((closes_us - opened_us) / 200).min(1_000_000)
}

/// Windows up to this length have no marks in S3: a lost counter stays closed until the window turns.
pub const UNMARKED_WINDOW_US: i64 = 120_000_000;

/// A point is restored in at most this (11 days): what is derived of it stays a number that Lua holds exactly.
const MOST_NS: i64 = 1_000_000_000_000_000;
/// No call takes longer to be restored (10 days).
pub const MOST_CHARGE_US: i64 = 864_000_000_000;

/// Microseconds in which `points` are restored, rounded up.
fn points_us(points: i64, point_ns: i64) -> i64 {
    let us = (i128::from(points) * i128::from(point_ns) + 999) / 1000;
    i64::try_from(us)
        .unwrap_or(MOST_CHARGE_US)
        .min(MOST_CHARGE_US)
}

fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

/// Counts and periods of a file are far below what a signed number holds; a call count of 0 would never
/// open and is refused by the reader, here it counts as 1 so that nothing divides by zero.
fn signed(n: u64) -> i64 {
    i64::try_from(n)
        .unwrap_or(i64::MAX / 1_000_000)
        .clamp(1, i64::MAX / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(calls: u64, period_us: u64) -> Pace {
        Pace::of(&Rule::Rate {
            calls,
            period_us,
            burst: None,
        })
        .expect("paced")
    }

    #[test]
    fn a_second_keeps_its_room_and_99_percent() {
        for calls in [5, 10, 50, 100, 500, 2_000, 3_000, 5_000, 10_000] {
            let pace = rate(calls, 1_000_000);
            let share = 1e6 / (pace.interval_us as f64 * calls as f64);
            assert!(share >= 0.99, "{calls}/s uses {share}");
            assert!(pace.room_us >= 4_000, "{calls}/s has {pace:?}");
            assert_eq!(pace.interval_us * calls as i64 - 1_000_000, pace.room_us);
        }
    }

    #[test]
    fn what_is_not_needed_to_send_in_is_kept_for_the_way() {
        let way = |pace: Pace| pace.room_us - pace.slack_us;
        let (fifty, many) = (rate(50, 1_000_000), rate(2_000, 1_000_000));
        assert_eq!((fifty.slack_us, way(fifty)), (3_000, 5_000));
        assert_eq!((many.slack_us, way(many)), (3_000, 3_000));
        assert_eq!(rate(1, 1_000_000).slack_us, 15_000);
        let spacing = Pace::of(&Rule::Spacing { least_us: 40_000 }).expect("paced");
        assert_eq!((spacing.room_us, spacing.slack_us), (4_000, 1_500));
        let short = Pace::of(&Rule::Spacing { least_us: 10_000 }).expect("paced");
        assert_eq!((short.room_us, short.slack_us), (3_000, 1_500));
    }

    #[test]
    fn few_calls_and_long_periods_keep_more() {
        assert_eq!(rate(1, 1_000_000).room_us, 20_000);
        assert_eq!(rate(1_000, 60_000_000).room_us, 200_000);
        assert_eq!(rate(4, 60_000_000).room_us, 200_000);
        assert_eq!(
            Pace::of(&Rule::Spacing { least_us: 100_000 })
                .expect("paced")
                .interval_us,
            105_000
        );
    }

    #[test]
    fn slow_limits_are_planned_further_ahead() {
        assert_eq!(rate(2_000, 1_000_000).horizon_us, 100_000);
        assert_eq!(rate(50, 1_000_000).horizon_us, 100_800);
        assert_eq!(rate(1, 1_000_000).horizon_us, 1_000_000);
        assert_eq!(rate(5, 1_000_000).horizon_us, 500_000);
        assert_eq!(rate(50, 60_000_000).horizon_us, 1_000_000);
    }

    #[test]
    fn marks_are_one_percent_or_fifty_calls_apart() {
        assert_eq!(mark_step(25_000), 250);
        assert_eq!(next_mark(1_000, 0), 50);
        assert_eq!(next_mark(1_000, 980), 1_000);
    }
}
