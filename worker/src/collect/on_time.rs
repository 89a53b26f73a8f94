//! Sleeping until an instant, to a fraction of a millisecond.
//!
//! The runtime's timers wake up to a millisecond late. That is half of what a short spacing has room for, and on a
//! busy machine the rest goes as well; grants that nobody could use in time would be lost. So where slack is short
//! the last stretch is slept on a timer of the kernel's. That is five system calls and a waking up for each call; where
//! many calls are due the runtime wakes once for several, and has to be good enough.

use std::time::{Duration, Instant};

/// The runtime's timer wakes within two of its ticks; from here on the kernel's counts.
const LAST_STRETCH: Duration = Duration::from_millis(2);

/// A call that may leave so long after its start has time for the runtime's timer.
const PLENTY_OF_SLACK: Duration = Duration::from_millis(5);
/// One of many has, too.
const ENOUGH_SLACK: Duration = Duration::from_millis(3);
/// So many calls in flight are many.
const MANY: usize = 16;

/// Sleeps until `due`, which may be missed by `slack`; the call is one of `in_flight`.
pub async fn sleep_until(due: Instant, slack: Duration, in_flight: usize) {
    let enough = match in_flight < MANY {
        true => PLENTY_OF_SLACK,
        false => ENOUGH_SLACK,
    };
    if slack >= enough {
        return tokio::time::sleep_until(due.into()).await;
    }
    if let Some(before) = due.checked_sub(LAST_STRETCH)
        && before > Instant::now()
    {
        tokio::time::sleep_until(before.into()).await;
    }
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() && !exactly(left).await {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Sleeps for a time below a second on a timer of its own; `false` when there is none to be had.
#[cfg(target_os = "linux")]
async fn exactly(left: Duration) -> bool {
    use nix::sys::time::TimeSpec;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
    use std::os::fd::OwnedFd;
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags);
    let Ok(timer) = timer else { return false };
    let once = Expiration::OneShot(TimeSpec::from_duration(left));
    if timer.set(once, TimerSetTimeFlags::empty()).is_err() {
        return false;
    }
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for descriptors that are closed meanwhile; this one is owned"
    )]
    let timer = AsyncFd::with_interest(OwnedFd::from(timer), Interest::READABLE);
    match timer {
        Ok(timer) => timer.readable().await.is_ok(),
        Err(_) => false,
    }
}

/// Other systems have the runtime's timers alone.
#[cfg(not(target_os = "linux"))]
async fn exactly(_left: Duration) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_wakes_before_the_instant() {
        for us in [0, 50, 700, 1_900, 2_100, 5_300] {
            for (slack, in_flight) in [(Duration::ZERO, 1), (ENOUGH_SLACK, 1), (ENOUGH_SLACK, MANY)]
            {
                let due = Instant::now() + Duration::from_micros(us);
                sleep_until(due, slack, in_flight).await;
                assert!(Instant::now() >= due, "{us} us");
            }
        }
    }

    #[tokio::test]
    async fn an_instant_that_has_passed_does_not_wait() {
        let due = Instant::now();
        tokio::time::timeout(Duration::from_secs(5), sleep_until(due, Duration::ZERO, 1))
            .await
            .expect("it returns");
    }
}
