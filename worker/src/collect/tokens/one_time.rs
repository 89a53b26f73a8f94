//! One-time codes: one for each step of 30 s, and each works once, whoever uses it.

use std::time::Duration;

use paceline_protocol::template::TOTP_STEP_S;

/// A code is not used in the last moment of its step: it could come too late.
const TOO_LATE_US: i64 = 1_000_000;

/// Which codes of an account are used up, as its lease's holder knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes {
    last: Option<u64>,
    /// Taken, but surely not sent.
    unsent: Option<u64>,
}

impl Codes {
    /// From the step of the last one.
    pub fn new(last: Option<u64>) -> Self {
        Codes { last, unsent: None }
    }

    /// Whether anything is known.
    pub fn is_known(&self) -> bool {
        self.last.is_some()
    }

    /// Nothing is known any more: whatever may have been used by `now_us` counts as used.
    pub fn lost(&mut self, now_us: i64) {
        self.last = Some(step_at(now_us + TOO_LATE_US));
    }

    /// How long until a code may be used, from `now_us` on.
    pub fn wait(&self, now_us: i64) -> Duration {
        let used =
            |step: u64| self.last.is_some_and(|last| step <= last) && self.unsent != Some(step);
        let mut at_us = now_us;
        while used(step_at(at_us)) || ends_in_us(at_us) < TOO_LATE_US {
            at_us += ends_in_us(at_us);
        }
        Duration::from_micros(u64::try_from(at_us - now_us).unwrap_or(0))
    }

    /// Whether the code of the step of `at_us` is still to be used up in the fleet's record.
    pub fn is_new(&self, step: u64) -> bool {
        self.unsent != Some(step)
    }

    /// It is used up.
    pub fn used(&mut self, step: u64) {
        (self.last, self.unsent) = (self.last.max(Some(step)), None);
    }

    /// It was not sent after all.
    pub fn not_sent(&mut self, step: u64) {
        self.unsent = Some(step);
    }
}

/// The step of an instant, microseconds since 1970.
pub fn step_at(us: i64) -> u64 {
    u64::try_from(us / (TOTP_STEP_S * 1_000_000)).unwrap_or(0)
}

fn ends_in_us(us: i64) -> i64 {
    let step = TOTP_STEP_S * 1_000_000;
    step - us.rem_euclid(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    #[test]
    fn a_code_is_used_once() {
        let mut codes = Codes::new(Some(3));
        assert_eq!(codes.wait(100 * S), Duration::from_secs(20), "until 120");
        assert_eq!(codes.wait(121 * S), Duration::ZERO);
        codes.used(step_at(121 * S));
        assert_eq!(codes.wait(121 * S), Duration::from_secs(29));
        codes.not_sent(4);
        assert_eq!(codes.wait(122 * S), Duration::ZERO);
        assert!(!codes.is_new(4) && codes.is_new(5));
        codes.used(4);
        assert_eq!(codes.wait(122 * S), Duration::from_secs(28));
    }

    #[test]
    fn the_first_ever_waits_for_nothing_and_the_first_after_a_loss_one_step() {
        let mut codes = Codes::new(None);
        assert_eq!(codes.wait(100 * S), Duration::ZERO);
        codes.lost(100 * S);
        assert_eq!(codes.wait(100 * S), Duration::from_secs(20));
        assert_eq!(codes.wait(119 * S + S / 2), Duration::from_millis(500));
    }

    #[test]
    fn no_code_is_sent_in_its_last_moment() {
        let codes = Codes::new(None);
        assert_eq!(codes.wait(119 * S + S / 2), Duration::from_millis(500));
    }
}
