//! A strict trailing window: never more than N arrivals in any span of the period, wherever it begins.

use std::collections::VecDeque;

/// How far out of order arrivals may come: they carry the kernel's time of receipt, but connections are
/// read one after the other.
const DISORDER_US: u64 = 1_000_000;

/// The arrivals that one limit still remembers. Times are microseconds since the simulator's start.
#[derive(Clone, Debug)]
pub struct TrailingWindow {
    allowed: usize,
    period_us: u64,
    arrivals: VecDeque<u64>,
}

impl TrailingWindow {
    /// A window that holds `allowed` arrivals (at least one) in any `period_us`.
    pub fn new(allowed: u32, period_us: u64) -> Self {
        Self {
            allowed: allowed.max(1) as usize,
            period_us,
            arrivals: VecDeque::new(),
        }
    }

    /// Whether an arrival at `at` leaves every window within the limit; if not, the time at which one would.
    ///
    /// # Errors
    /// The earliest time, in the same microseconds, at which the call would have been taken.
    pub fn check(&self, at: u64) -> Result<(), u64> {
        let place = self.place(at);
        // With the newcomer in its place, only runs of N + 1 that hold it can be too dense.
        let first = place.saturating_sub(self.allowed);
        for start in first..=place {
            let end = start + self.allowed;
            if end > self.arrivals.len() {
                break;
            }
            let from = self.with_newcomer(start, place, at);
            if self.with_newcomer(end, place, at) - from < self.period_us {
                return Err(from + self.period_us);
            }
        }
        Ok(())
    }

    /// Calls that fit at `at`, and microseconds until the oldest one is out of the window.
    pub fn left(&self, at: u64) -> (usize, u64) {
        let from = (at + 1).saturating_sub(self.period_us);
        let inside = self.arrivals.iter().filter(|seen| **seen >= from);
        let oldest = inside.clone().next().copied().unwrap_or(at);
        let left = self.allowed.saturating_sub(inside.count());
        (left, (oldest + self.period_us).saturating_sub(at))
    }

    /// Remembers an arrival that was taken.
    pub fn take(&mut self, at: u64) {
        let place = self.place(at);
        self.arrivals.insert(place, at);
        let newest = self.arrivals.back().copied().unwrap_or(at);
        let forgotten = newest.saturating_sub(self.period_us + DISORDER_US);
        while self
            .arrivals
            .front()
            .is_some_and(|&oldest| oldest < forgotten)
        {
            self.arrivals.pop_front();
        }
    }

    /// Where `at` belongs: almost always at the end.
    fn place(&self, at: u64) -> usize {
        let later = self.arrivals.iter().rev().take_while(|&&seen| seen > at);
        self.arrivals.len() - later.count()
    }

    /// The arrival number `index`, if `at` stood at `place`.
    fn with_newcomer(&self, index: usize, place: usize, at: u64) -> u64 {
        match index.cmp(&place) {
            std::cmp::Ordering::Less => self.arrivals[index],
            std::cmp::Ordering::Equal => at,
            std::cmp::Ordering::Greater => self.arrivals[index - 1],
        }
    }
}

/// A token bucket, for limits that allow a burst. Times are microseconds since the simulator's start.
#[derive(Clone, Debug)]
pub struct Bucket {
    tokens_per_us: f64,
    burst: f64,
    tokens: f64,
    filled_at: u64,
}

impl Bucket {
    /// A full bucket of `burst` tokens that gains `calls` in `period_us`.
    pub fn new(calls: u32, period_us: u64, burst: u32) -> Self {
        Self {
            tokens_per_us: f64::from(calls) / period_us as f64,
            burst: f64::from(burst.max(1)),
            tokens: f64::from(burst.max(1)),
            filled_at: 0,
        }
    }

    /// Whole tokens at `at`.
    pub fn left(&self, at: u64) -> u64 {
        self.level(at) as u64
    }

    /// Whether a token is there at `at`.
    ///
    /// # Errors
    /// The earliest time, in the same microseconds, at which one will be.
    pub fn check(&self, at: u64) -> Result<(), u64> {
        let lacking = 1.0 - self.level(at);
        if lacking <= 1e-9 {
            return Ok(());
        }
        Err(at + (lacking / self.tokens_per_us).ceil() as u64)
    }

    /// Takes a token.
    pub fn take(&mut self, at: u64) {
        self.tokens = self.level(at) - 1.0;
        self.filled_at = self.filled_at.max(at);
    }

    fn level(&self, at: u64) -> f64 {
        let gained = at.saturating_sub(self.filled_at) as f64 * self.tokens_per_us;
        (self.tokens + gained).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, counted from scratch: no span of `period` holds more than `allowed`.
    fn fits(arrivals: &[u64], allowed: usize, period: u64) -> bool {
        let mut sorted = arrivals.to_vec();
        sorted.sort_unstable();
        sorted.iter().all(|&start| {
            let inside = sorted.iter().filter(|&&a| a >= start && a - start < period);
            inside.count() <= allowed
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_counter(
            allowed in 1u32..6,
            period in 1u64..200,
            steps in prop::collection::vec((0u64..60, 0u64..20), 1..120),
        ) {
            let mut window = TrailingWindow::new(allowed, period);
            let (mut taken, mut now) = (Vec::new(), 1_000);
            for (step, back) in steps {
                now += step;
                let at = now - back;
                taken.push(at);
                let fits = fits(&taken, allowed as usize, period);
                prop_assert_eq!(window.check(at).is_ok(), fits);
                if fits { window.take(at) } else { taken.pop(); }
            }
        }

        #[test]
        fn a_bucket_never_gives_more_than_burst_and_refill(
            burst in 1u32..5,
            steps in prop::collection::vec(0u64..300, 1..150),
        ) {
            let mut bucket = Bucket::new(10, 1_000, burst);
            let (mut taken, mut now) = (Vec::new(), 0);
            for step in steps {
                now += step;
                if bucket.check(now).is_ok() {
                    bucket.take(now);
                    taken.push(now);
                }
            }
            for (i, &from) in taken.iter().enumerate() {
                for (j, &to) in taken.iter().enumerate().skip(i) {
                    let most = f64::from(burst) + (to - from) as f64 / 100.0;
                    prop_assert!((j - i + 1) as f64 <= most + 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let mut window = TrailingWindow::new(2, 1_000);
        window.take(100);
        window.take(200);
        assert_eq!(window.check(1_099), Err(1_100));
        assert_eq!(window.check(1_100), Ok(()));
    }
}
