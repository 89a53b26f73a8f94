//! A speed over the last seconds, from a counter that is read now and then.

use std::collections::VecDeque;
use std::time::Duration;

/// Over how long the speed is taken.
const OVER: Duration = Duration::from_secs(10);

/// Readings of one counter.
#[derive(Debug, Default)]
pub struct RateMeter(VecDeque<(Duration, u64)>);

impl RateMeter {
    /// Notes that the counter stood at `count` at `now` (since any fixed instant). A counter that went far
    /// back (Redis was lost) starts anew; a little back is what was counted too early.
    pub fn note(&mut self, now: Duration, count: u64) {
        if self.0.back().is_some_and(|(_, last)| count < *last / 2) {
            self.0.clear();
        }
        self.0.push_back((now, count));
        while self.0.len() > 2 && self.0[1].0 + OVER <= now {
            self.0.pop_front();
        }
    }

    /// Counts a second; `None` before the second reading.
    pub fn per_second(&self) -> Option<f64> {
        let ((from, low), (to, high)) = (self.0.front()?, self.0.back()?);
        let passed = to.checked_sub(*from).filter(|passed| !passed.is_zero())?;
        Some(high.saturating_sub(*low) as f64 / passed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let mut meter = RateMeter::default();
        for second in 0..30u64 {
            let count = if second < 15 {
                second * 10
            } else {
                150 + (second - 15) * 50
            };
            meter.note(Duration::from_secs(second), count);
        }
        assert_eq!(meter.per_second(), Some(50.0));
    }

    #[test]
    fn a_counter_that_goes_a_little_back_goes_on() {
        let mut meter = RateMeter::default();
        for (second, count) in [(0, 100), (1, 160), (2, 150), (3, 190)] {
            meter.note(Duration::from_secs(second), count);
        }
        assert_eq!(meter.per_second(), Some(30.0));
        meter.note(Duration::from_secs(4), 95);
        assert_eq!(meter.per_second(), Some(0.0));
    }

    #[test]
    fn a_counter_that_was_lost_starts_anew() {
        let mut meter = RateMeter::default();
        meter.note(Duration::from_secs(0), 100);
        meter.note(Duration::from_secs(1), 0);
        assert_eq!(meter.per_second(), None);
        meter.note(Duration::from_secs(2), 40);
        assert_eq!(meter.per_second(), Some(40.0));
    }
}
