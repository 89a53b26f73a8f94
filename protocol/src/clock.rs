//! The fleet's clock is Redis'. A process knows it as an interval and never uses its own clock of day.
//!
//! Every reply of Redis carries its clock, read at some time between sending and receiving. So the
//! clock is ahead of the process' monotonic one by something between `now - received` and `now - sent`;
//! several replies narrow it. The interval is widened as time goes by, since two clocks run apart.

use std::time::{Duration, Instant};

use crate::limit::Grant;

/// How much two clocks may run apart: 200 parts per million.
const DRIFT_PPM: i64 = 200;

/// What a process knows of the fleet's clock. Microseconds since 1970; local time is monotonic and passed in.
#[derive(Clone, Debug)]
pub struct FleetClock {
    origin: Instant,
    known: Option<Known>,
    epoch: u64,
}

/// The fleet's clock less the local one, when it was last narrowed.
#[derive(Clone, Copy, Debug)]
struct Known {
    least_us: i64,
    most_us: i64,
    at_us: i64,
}

/// What to do with a grant at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendDecision {
    /// Its start has not surely come; look again after so long.
    Wait(Duration),
    /// Now.
    Send,
    /// Too late, or nobody can say: drop it and ask again.
    Late,
}

impl FleetClock {
    /// A clock that nothing is known of. `origin` is any instant not later than those passed in later.
    pub fn new(origin: Instant) -> Self {
        FleetClock {
            origin,
            known: None,
            epoch: 0,
        }
    }

    /// Takes a reply's clock in, and returns the [epoch](Self::epoch) that its grants belong to.
    pub fn observe(&mut self, now_us: i64, sent: Instant, received: Instant) -> u64 {
        let (sent_us, received_us) = (self.local(sent), self.local(received));
        let (least, most) = (now_us - received_us, now_us - sent_us);
        let narrowed = self.known.and_then(|known| {
            let (before_least, before_most) = known.widened(received_us);
            let (least_us, most_us) = (least.max(before_least), most.min(before_most));
            (least_us <= most_us).then_some(Known {
                least_us,
                most_us,
                at_us: received_us.max(known.at_us),
            })
        });
        if narrowed.is_none() {
            // First reply, or the fleet's clock has stepped: what was known, and every start that was
            // given before, belongs to another clock.
            self.epoch += 1;
        }
        let anew = Known {
            least_us: least,
            most_us: most,
            at_us: received_us,
        };
        self.known = Some(narrowed.unwrap_or(anew));
        self.epoch
    }

    /// Rises each time that the clock is known anew; a grant of an older epoch is not used.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The latest reading that the fleet's clock may show at `at`; `None` before the first reply.
    pub fn latest(&self, at: Instant) -> Option<i64> {
        let local = self.local(at);
        self.known.map(|k| local + k.widened(local).1)
    }

    /// The earliest reading that it may show at `at`.
    pub fn earliest(&self, at: Instant) -> Option<i64> {
        let local = self.local(at);
        self.known.map(|k| local + k.widened(local).0)
    }

    /// How far the two readings are apart at `at`.
    pub fn width_us(&self, at: Instant) -> Option<i64> {
        Some(self.latest(at)? - self.earliest(at)?)
    }

    /// The local instant at which the fleet's clock has surely reached `start_us`.
    pub fn instant_of(&self, start_us: i64) -> Option<Instant> {
        let known = self.known?;
        let mut local = start_us - known.least_us;
        // The wait itself widens the interval; each turn leaves a 5,000th of what was missing.
        for _ in 0..3 {
            local = start_us - known.widened(local).0;
        }
        let since = u64::try_from(local.max(0)).unwrap_or(0);
        Some(self.origin + Duration::from_micros(since + 1))
    }

    /// Whether a grant of `epoch` may be sent at `at`: not before its start has surely come, and not when its
    /// slack may be over. Also late is one that lies further ahead than any grant can.
    pub fn may_send(&self, grant: &Grant, epoch: u64, at: Instant) -> SendDecision {
        let (Some(earliest), Some(latest)) = (self.earliest(at), self.latest(at)) else {
            return SendDecision::Late;
        };
        let passed = latest > grant.start_us + grant.slack_us;
        let wait_us = grant.start_us - earliest;
        if epoch != self.epoch || passed || wait_us > 2 * crate::limit::FURTHEST_US {
            return SendDecision::Late;
        }
        if wait_us <= 0 {
            return SendDecision::Send;
        }
        let due = self.instant_of(grant.start_us).unwrap_or(at);
        SendDecision::Wait(
            due.saturating_duration_since(at)
                .max(Duration::from_micros(1)),
        )
    }

    fn local(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.origin).as_micros();
        i64::try_from(since).unwrap_or(i64::MAX / 4)
    }
}

impl Known {
    fn widened(&self, local_us: i64) -> (i64, i64) {
        let apart = ((local_us - self.at_us).abs() * DRIFT_PPM + 999_999) / 1_000_000;
        (self.least_us - apart, self.most_us + apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(n: i64) -> Duration {
        Duration::from_micros(u64::try_from(n).expect("not negative"))
    }

    fn grant(start_us: i64, slack_us: i64) -> Grant {
        Grant {
            group: 0,
            credential: None,
            start_us,
            slack_us,
            probe: false,
        }
    }

    #[test]
    fn nothing_is_sent_before_the_first_reply() {
        let origin = Instant::now();
        let clock = FleetClock::new(origin);
        assert_eq!(
            clock.may_send(&grant(0, 1_000), 0, origin),
            SendDecision::Late
        );
    }

    #[test]
    fn a_grant_waits_is_sent_and_is_late() {
        let origin = Instant::now();
        let mut clock = FleetClock::new(origin);
        let epoch = clock.observe(1_000_000, origin, origin + us(400));
        let due = grant(1_050_000, 5_000);
        let SendDecision::Wait(wait) = clock.may_send(&due, epoch, origin + us(1_000)) else {
            panic!("it must wait");
        };
        let at = origin + us(1_000) + wait;
        assert_eq!(clock.may_send(&due, epoch, at), SendDecision::Send);
        assert!(clock.earliest(at).expect("known") >= due.start_us);
        assert_eq!(
            clock.may_send(&due, epoch, at + us(4_500)),
            SendDecision::Send
        );
        assert_eq!(
            clock.may_send(&due, epoch, at + us(4_900)),
            SendDecision::Late
        );
    }

    #[test]
    fn a_wide_interval_gives_nothing() {
        let origin = Instant::now();
        let mut clock = FleetClock::new(origin);
        let epoch = clock.observe(1_000_000, origin, origin + us(8_000));
        let due = grant(1_020_000, 5_000);
        let at = clock.instant_of(due.start_us).expect("known");
        assert_eq!(clock.may_send(&due, epoch, at), SendDecision::Late);
    }

    #[test]
    fn a_step_starts_a_new_epoch() {
        let origin = Instant::now();
        let mut clock = FleetClock::new(origin);
        let before = clock.observe(10_000_000, origin, origin + us(200));
        let after = clock.observe(4_000_000, origin + us(1_000), origin + us(1_200));
        assert!(after > before);
        let old = grant(4_001_000, 200_000);
        assert_eq!(
            clock.may_send(&old, before, origin + us(2_500)),
            SendDecision::Late
        );
        assert_eq!(
            clock.may_send(&old, after, origin + us(2_500)),
            SendDecision::Send
        );
    }

    proptest! {
        /// Whatever the way there and back takes, and however two clocks drift, the truth is inside.
        #[test]
        fn the_truth_is_always_inside(
            offset in 0i64..2_000_000_000_000_000,
            ppm in -190i64..190,
            replies in prop::collection::vec((0i64..3_000_000, 0i64..20_000, 0i64..20_000), 1..40),
            later in 0i64..5_000_000,
        ) {
            let origin = Instant::now();
            let mut clock = FleetClock::new(origin);
            let truth = |local: i64| offset + local + local * ppm / 1_000_000;
            let mut local = 0;
            for (pause, there, back) in replies {
                let sent = local + pause;
                let read = sent + there;
                local = read + back;
                clock.observe(truth(read), origin + us(sent), origin + us(local));
                prop_assert_eq!(clock.epoch(), 1, "nothing stepped");
            }
            let at = origin + us(local + later);
            let now = truth(local + later);
            // A microsecond either way is the rounding of the model itself.
            prop_assert!(clock.earliest(at).expect("known") <= now + 1);
            prop_assert!(clock.latest(at).expect("known") >= now - 1);
        }

        /// At the instant of a start it has come, and not much earlier than it had to.
        #[test]
        fn a_start_has_surely_come(start in 0i64..10_000_000, rtt in 1i64..5_000) {
            let origin = Instant::now();
            let mut clock = FleetClock::new(origin);
            clock.observe(1_000_000, origin, origin + us(rtt));
            let at = clock.instant_of(1_000_000 + rtt + start).expect("known");
            prop_assert!(clock.earliest(at).expect("known") >= 1_000_000 + rtt + start);
            prop_assert!(clock.earliest(at - us(3)).expect("known") < 1_000_000 + rtt + start);
        }
    }
}
