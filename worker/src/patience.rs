//! Waiting between tries: doubling, jittered, never more than a limit.

use std::time::Duration;

/// The waits of one row of tries.
#[derive(Clone, Debug)]
pub struct Patience {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Patience {
    /// Waits from about `first` on, doubling up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Patience {
            next: first,
            first,
            longest,
        }
    }

    /// The usual one for a server: a quarter of a second to 15 s.
    pub fn for_servers() -> Self {
        Patience::new(Duration::from_millis(250), Duration::from_secs(15))
    }

    /// The next wait. `chance` in 0..1 spreads it over its upper half, so that a fleet does not try in step.
    pub fn next(&mut self, chance: f64) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.longest);
        full.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        let wait = self.next(rand::random());
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut patience = Patience::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| patience.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        patience.reset();
        assert_eq!(patience.next(0.0), Duration::from_millis(500));
    }
}
