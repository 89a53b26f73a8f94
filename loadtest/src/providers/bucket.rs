//! A token bucket that takes a call or does not, as gateways have them.

/// Calls are stamped when they are read, not when they arrived: so much earlier than they should one may come.
const JITTER_US: f64 = 60_000.0;

/// So many calls at once, refilled at a rate.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    per_us: f64,
    capacity: f64,
    left: f64,
    at_us: u64,
}

impl TokenBucket {
    /// A full one that refills by `per_second` up to `capacity`.
    pub fn new(per_second: f64, capacity: f64) -> Self {
        TokenBucket {
            per_us: per_second / 1e6,
            capacity,
            left: capacity,
            at_us: 0,
        }
    }

    /// Takes a call at `at_us`; false when there was none left.
    pub fn take(&mut self, at_us: u64) -> bool {
        let since = at_us.saturating_sub(self.at_us) as f64;
        self.left = (self.left + since * self.per_us).min(self.capacity);
        self.at_us = self.at_us.max(at_us);
        if self.left + JITTER_US * self.per_us < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// Whole calls that are left.
    pub fn left(&self) -> u64 {
        self.left.max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_its_capacity_and_then_its_rate() {
        let mut bucket = TokenBucket::new(2.0, 2.0);
        assert!(bucket.take(10) && bucket.take(20));
        assert!(!bucket.take(100_000));
        assert!(bucket.take(500_010) && !bucket.take(600_000));
        assert_eq!(bucket.left(), 0);
    }
}
