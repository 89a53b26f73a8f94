//! The fleet's clock, which is Redis'. Schedules and deadlines go by it, so that replicas whose machines' clocks are
//! apart start nothing early, and take no start for missed that is still to come.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use paceline_protocol::stores::limiter::FleetLimiter;

use crate::show;

/// An answer that took longer says too little.
const SOON: Duration = Duration::from_secs(1);
/// From this difference on a clock is worth a word.
const MAY_DIFFER: SignedDuration = SignedDuration::from_secs(2);

/// How far this machine's clock is from the fleet's, as it was seen last.
#[derive(Debug, Default)]
pub(super) struct FleetClock {
    /// Microseconds to be added to ours.
    apart_us: AtomicI64,
    told: AtomicBool,
}

impl FleetClock {
    /// The fleet's time.
    pub(super) fn now(&self) -> Timestamp {
        let apart = SignedDuration::from_micros(self.apart_us.load(Ordering::Relaxed));
        let ours = Timestamp::now();
        ours.checked_add(apart).unwrap_or(ours)
    }

    /// Looks at Redis' clock. While it does not answer, the last look counts.
    pub(super) async fn look(&self, limiter: &FleetLimiter) {
        let Ok((theirs_us, sent, received)) = limiter.clock().await else {
            return;
        };
        let ours = Timestamp::now();
        let way = received.duration_since(sent);
        if way < SOON {
            let since = received.elapsed() + way / 2;
            let apart = apart(ours, theirs_us, since);
            self.apart_us.store(micros(apart), Ordering::Relaxed);
            self.tell(apart);
        }
    }

    fn tell(&self, apart: SignedDuration) {
        let far = apart.abs() > MAY_DIFFER;
        if far && !self.told.swap(true, Ordering::Relaxed) {
            let by = show::span(apart.unsigned_abs());
            tracing::warn!(
                "this machine's clock is {by} apart from Redis'; schedules go by Redis'"
            );
        }
    }
}

fn micros(span: SignedDuration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or_default()
}

/// What is to be added to our clock, when it said `ours` and theirs had said `theirs_us` so long `since`.
fn apart(ours: Timestamp, theirs_us: i64, since: Duration) -> SignedDuration {
    let since = SignedDuration::try_from(since).unwrap_or_default();
    SignedDuration::from_micros(theirs_us.saturating_sub(ours.as_microsecond())) + since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_by_the_fleets() {
        let ours: Timestamp = "2026-11-27T03:01:30Z".parse().expect("a time");
        let theirs: Timestamp = "2026-11-27T03:00:00Z".parse().expect("a time");
        let apart = apart(ours, theirs.as_microsecond(), Duration::from_millis(4));
        assert_eq!(apart, SignedDuration::from_millis(-89_996));
        let clock = FleetClock::default();
        clock.apart_us.store(micros(apart), Ordering::Relaxed);
        let ahead = Timestamp::now().duration_since(clock.now());
        assert!(ahead.as_secs() >= 89, "{ahead}");
    }
}
