//! How long to wait before the next try at a store that is away: exponential, with full jitter, so that
//! a fleet does not come back in step.

use std::time::Duration;

/// The waits of one outage. Made anew when the store answers.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits that begin below `first` and never pass `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Backoff {
            ceiling: first,
            longest,
        }
    }

    /// The next wait: somewhere between half of the ceiling and all of it; the ceiling doubles.
    pub(crate) fn wait(&mut self) -> Duration {
        self.wait_at(rand::random::<f64>())
    }

    /// The next wait for a `chance` in `0..1`.
    fn wait_at(&mut self, chance: f64) -> Duration {
        let wait = self.ceiling.mul_f64(0.5 + chance / 2.0);
        self.ceiling = (self.ceiling * 2).min(self.longest);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let waits: Vec<u128> = (0..4).map(|_| backoff.wait_at(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 300, 300]);
    }

    #[test]
    fn chance_takes_away_at_most_half() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(backoff.wait_at(0.0), Duration::from_millis(50));
    }
}
