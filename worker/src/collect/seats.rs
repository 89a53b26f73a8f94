//! How many calls this process may have in flight, over all of its lanes (`--concurrency`).

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A seat for each call in flight. It is taken with the grant and given back when the call has ended.
#[derive(Debug)]
pub struct Seats {
    all: usize,
    taken: AtomicUsize,
    freed: Notify,
    shown: IntGauge,
}

impl Seats {
    /// `all` seats; how many are taken is shown in `shown`.
    pub fn new(all: usize, shown: IntGauge) -> Self {
        Seats {
            all,
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
            shown,
        }
    }

    /// Seats that nobody has. Who finds none waits for [`Seats::freed`] instead of looking again and again.
    pub fn free(&self) -> usize {
        self.all.saturating_sub(self.taken())
    }

    /// Calls in flight.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one. There may be none: a grant that was asked for before others came is used all the same.
    pub fn take(&self) {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        self.show(before + 1);
    }

    /// Gives one back. Returns whether there was none before.
    pub fn give_back(&self) -> bool {
        let before = self.taken.fetch_sub(1, Ordering::Relaxed);
        self.show(before - 1);
        let was_full = before >= self.all;
        if was_full {
            self.freed.notify_waiters();
        }
        was_full
    }

    /// Ends when, after this was called, a seat came free of none.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    fn show(&self, taken: usize) {
        self.shown.set(i64::try_from(taken).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(all: usize) -> Seats {
        Seats::new(all, IntGauge::new("inflight", "calls").expect("a gauge"))
    }

    #[tokio::test]
    async fn who_found_none_hears_of_the_first_that_comes_free() {
        let seats = seats(2);
        seats.take();
        let too_early = seats.freed();
        assert!(!seats.give_back(), "one was free all the time");
        seats.take();
        seats.take();
        assert_eq!(seats.free(), 0);
        let freed = seats.freed();
        assert!(seats.give_back());
        freed.await;
        too_early.await;
        assert_eq!((seats.free(), seats.shown.get()), (1, 1));
    }

    #[test]
    fn more_than_all_may_be_taken_and_none_is_free_until_all_are_back() {
        let seats = seats(1);
        seats.take();
        seats.take();
        assert!(seats.give_back());
        assert_eq!(seats.free(), 0);
        assert!(seats.give_back());
        assert_eq!(seats.free(), 1);
    }
}
