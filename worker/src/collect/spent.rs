//! How long calls take, told with the next settled block: out of it the fleet's need for workers is reckoned.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Calls, and the time that they were in flight, since they were last told.
#[derive(Debug, Default)]
pub struct Spent {
    calls: AtomicU64,
    busy_ms: AtomicU64,
}

impl Spent {
    /// A call was in flight for so long.
    pub fn add(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.busy_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Calls and milliseconds so far; from now on they count as told.
    pub fn take(&self) -> (u64, u64) {
        let calls = self.calls.swap(0, Ordering::Relaxed);
        (calls, self.busy_ms.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_told_once() {
        let spent = Spent::default();
        spent.add(Duration::from_millis(120));
        spent.add(Duration::from_millis(80));
        assert_eq!(spent.take(), (2, 200));
        assert_eq!(spent.take(), (0, 0));
    }
}
