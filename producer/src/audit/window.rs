//! The arithmetic of the audit: how full each limit's fullest window was. Pure: calls come in the order
//! of their times, in microseconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The fullest window of a limit, and where it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worst {
    /// Calls in it (of a token bucket: its level).
    pub calls: u64,
    /// When it was so full.
    pub at_us: i64,
}

impl Worst {
    /// Notes a window of `calls`.
    pub fn see(&mut self, calls: u64, at_us: i64) {
        if calls > self.calls {
            *self = Worst { calls, at_us };
        }
    }
}

/// Calls in every trailing window `(t - length, t]`: two calls exactly one length apart never share one.
#[derive(Clone, Debug)]
pub struct Trailing {
    length_us: i64,
    inside: VecDeque<i64>,
    worst: Worst,
}

impl Trailing {
    /// Windows of `length_us`.
    pub fn new(length_us: i64) -> Self {
        Trailing {
            length_us,
            inside: VecDeque::new(),
            worst: Worst::default(),
        }
    }

    /// Notes a call.
    pub fn call(&mut self, at_us: i64) {
        self.inside.push_back(at_us);
        while self
            .inside
            .front()
            .is_some_and(|first| at_us - first >= self.length_us)
        {
            self.inside.pop_front();
        }
        self.worst.see(self.inside.len() as u64, at_us);
    }

    /// The fullest one so far.
    pub fn worst(&self) -> Worst {
        self.worst
    }
}

/// A token bucket that leaks `calls` in `period_us`: its level after each call is at most its size when
/// no stretch of time held more than `size + rate x time`.
#[derive(Clone, Debug)]
pub struct Bucket {
    calls: u64,
    period_us: i64,
    /// Level times `period_us`, so that leaking is exact.
    level: i128,
    last_us: Option<i64>,
    worst: Worst,
}

impl Bucket {
    /// A bucket that is empty.
    pub fn new(calls: u64, period_us: i64) -> Self {
        Bucket {
            calls,
            period_us,
            level: 0,
            last_us: None,
            worst: Worst::default(),
        }
    }

    /// Notes a call, which takes so many of it.
    pub fn call(&mut self, at_us: i64, points: u64) {
        let passed = self.last_us.map_or(0, |last| i128::from(at_us - last));
        self.last_us = Some(at_us);
        self.level = (self.level - passed * i128::from(self.calls)).max(0)
            + i128::from(points) * i128::from(self.period_us);
        // A call that is early by less than a microsecond is no call too many.
        let rounding = i128::from(self.calls);
        let full = (self.level - rounding).max(1) + i128::from(self.period_us) - 1;
        let calls = u64::try_from(full / i128::from(self.period_us)).unwrap_or(u64::MAX);
        self.worst.see(calls, at_us);
    }

    /// The highest level so far, in whole calls, rounded up.
    pub fn worst(&self) -> Worst {
        self.worst
    }
}

/// Calls in flight: a call is so from its sending until its answer's last byte.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    ends: BinaryHeap<Reverse<i64>>,
    worst: Worst,
    /// Microseconds of all calls together.
    pub busy_us: u128,
}

impl InFlight {
    /// Notes a call.
    pub fn call(&mut self, at_us: i64, duration_us: u64) {
        while self.ends.peek().is_some_and(|Reverse(end)| *end <= at_us) {
            self.ends.pop();
        }
        let length = i64::try_from(duration_us).unwrap_or(i64::MAX);
        self.ends.push(Reverse(at_us.saturating_add(length.max(1))));
        self.busy_us += u128::from(duration_us);
        self.worst.see(self.ends.len() as u64, at_us);
    }

    /// The most at a time so far.
    pub fn worst(&self) -> Worst {
        self.worst
    }
}

/// Calls in calendar windows, which the caller names by their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calendar {
    closes_us: i64,
    calls: u64,
}

impl Calendar {
    /// Whether `at_us` lies beyond the window that was named last.
    pub fn is_over(&self, at_us: i64) -> bool {
        at_us >= self.closes_us
    }

    /// Starts the window that ends at `closes_us`.
    pub fn start(&mut self, closes_us: i64) {
        (self.closes_us, self.calls) = (closes_us, 0);
    }

    /// Notes a call in the window; how many it holds then.
    pub fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn times() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(0i64..5_000, 1..120).prop_map(|mut times| {
            times.sort_unstable();
            times
        })
    }

    proptest! {
        #[test]
        fn the_fullest_trailing_window_is_the_one_found_by_counting(times in times(), length in 1i64..2_000) {
            let mut trailing = Trailing::new(length);
            times.iter().for_each(|t| trailing.call(*t));
            let naive = times.iter()
                .map(|end| times.iter().filter(|t| end - length < **t && *t <= end).count() as u64)
                .max();
            prop_assert_eq!(Some(trailing.worst().calls), naive);
        }

        #[test]
        fn a_bucket_is_as_full_as_the_worst_stretch_of_time(times in times(), calls in 1u64..20) {
            let period = 1_000i64;
            let mut bucket = Bucket::new(calls, period);
            times.iter().for_each(|t| bucket.call(*t, 1));
            // For every stretch [i, j]: its calls less what leaked meanwhile, in thousandths of a call.
            let mut naive = 0i128;
            for i in 0..times.len() {
                for j in i..times.len() {
                    let leaked = i128::from(times[j] - times[i]) * i128::from(calls);
                    naive = naive.max((j - i + 1) as i128 * i128::from(period) - leaked);
                }
            }
            let rounded = (naive - i128::from(calls)).max(1).div_euclid(i128::from(period));
            let exact = (naive - i128::from(calls)).max(1).rem_euclid(i128::from(period)) == 0;
            prop_assert_eq!(i128::from(bucket.worst().calls), rounded + i128::from(!exact));
        }

        #[test]
        fn the_most_calls_in_flight_are_those_found_by_counting(
            calls in prop::collection::vec((0i64..2_000, 1u64..500), 1..80),
        ) {
            let mut calls = calls;
            calls.sort_unstable();
            let mut flight = InFlight::default();
            calls.iter().for_each(|(at, length)| flight.call(*at, *length));
            let at_a_time = |t: i64| calls.iter()
                .filter(|(at, length)| *at <= t && t < at + *length as i64)
                .count() as u64;
            let naive = calls.iter().map(|(at, _)| at_a_time(*at)).max();
            prop_assert_eq!(Some(flight.worst().calls), naive);
        }
    }

    #[test]
    fn calls_exactly_one_window_apart_share_none() {
        let mut trailing = Trailing::new(1_000_000);
        [0, 1_000_000, 2_000_000]
            .iter()
            .for_each(|t| trailing.call(*t));
        assert_eq!(trailing.worst().calls, 1);
        trailing.call(2_999_999);
        assert_eq!(
            trailing.worst(),
            Worst {
                calls: 2,
                at_us: 2_999_999
            }
        );
    }

    #[test]
    fn a_bucket_holds_its_burst_and_then_its_pace() {
        let mut bucket = Bucket::new(10, 1_000_000);
        (0..5).for_each(|_| bucket.call(0, 1));
        (1..100).for_each(|n| bucket.call(n * 100_000, 1));
        assert_eq!(bucket.worst(), Worst { calls: 5, at_us: 0 });
        bucket.call(9_900_000, 1);
        assert_eq!(bucket.worst().calls, 6);
    }
}
