//! What a provider's answer closed: a cooldown for the whole fleet, one probe after it, then a ramp.
//!
//! A closure has a name: the whole provider ([`PROVIDER`]), a credential's public name, or a limit in one
//! scope ([`super::Instance::id`]). When its time is over, ONE call may try; all others wait for what it hears.
//! A good answer opens it gently: two calls a second, and twice as many each second; or slower, where such a ramp
//! was refused ([`Slower`]). A probe that is refused
//! closes it for twice as long; refused [`BREAKER`] times in a row, with no good answer between, it stays shut until
//! somebody looks. A refusal in the ramp begins a row of its own: who serves some calls has banned nobody. Maintenance
//! ends by itself, however long it takes: it is probed on and on, every [`LONGEST_DOUBLED_US`] in the end.

use super::slower::{Slower, THROTTLED};

/// The name of the whole provider; no credential is called so.
pub const PROVIDER: &str = "*";
/// A probe that nobody reports on is taken for lost after so long (15 s).
pub const PROBE_US: i64 = 15_000_000;
/// While a probe is on its way, asking again is worth it after so long (1 s).
pub const PROBE_AGAIN_US: i64 = 1_000_000;
/// From one start to the next in the first second of the ramp (two a second); half as long each second.
pub const RAMP_US: i64 = 500_000;
/// After so long the ramp is over, and the closure forgotten, unless a ramp was refused.
pub const RAMP_OVER_US: i64 = 9_000_000;
/// Nobody probed a closure for so long: nothing is left of it (1 h).
pub const FORGOTTEN_US: i64 = 3_600_000_000;
/// Refusals of probes in a row that make a closure final.
pub const BREAKER: u32 = 6;
/// A final closure lasts until somebody opens it, at most so long (1 day).
pub const BREAKER_US: i64 = 86_400_000_000;
/// Waits that double from refusal to refusal end here, unless the first was longer (10 min).
pub const LONGEST_DOUBLED_US: i64 = 600_000_000;
/// The reason that never makes a closure final.
pub const MAINTENANCE: &str = "maintenance";
/// Reasons that begin so end only when somebody looks.
pub const DEAD: [&str; 2] = ["auth_expired", "breaker"];

/// Something closed by a provider's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Nothing starts before.
    pub until_us: i64,
    /// Refusals after the first one with no good answer between them.
    pub strikes: u32,
    /// Start of the probe that is on its way; 0: none.
    pub probe_us: i64,
    /// When a good probe opened it; 0: it did not yet.
    pub ramp_us: i64,
    /// In the ramp: when the next call may start.
    pub next_us: i64,
    /// Why, in one word.
    pub reason: String,
    /// The pace below which it is kept.
    pub slower: Slower,
}

/// What a closure means for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Not before; `true`: not before somebody looked.
    Shut(i64, bool),
    /// The next call is the probe.
    Probe,
    /// The ramp: not before this instant.
    Ramp(i64),
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The provider answered as usual.
    Well,
    /// It was not sent after all: the next call is the probe.
    NotSent,
    /// Nobody answered: the next probe is due in a second.
    Unanswered,
}

impl Probed {
    /// As the script knows it.
    pub fn code(self) -> u8 {
        match self {
            Probed::Well => 0,
            Probed::NotSent => 1,
            Probed::Unanswered => 2,
        }
    }
}

impl Closed {
    /// Whether nothing is left of it at `now_us`.
    pub fn is_over(&self, now_us: i64) -> bool {
        let ramped = self.ramp_us > 0 && now_us >= self.slower.over_us(self.ramp_us, RAMP_OVER_US);
        let forgotten = self.probe_us == 0 && self.ramp_us == 0;
        ramped || (forgotten && now_us >= self.until_us + FORGOTTEN_US)
    }

    /// What it means for a call at `now_us`.
    pub(super) fn door(&self, now_us: i64) -> Door {
        if self.until_us > now_us {
            Door::Shut(self.until_us, self.is_dead())
        } else if self.ramp_us > 0 {
            Door::Ramp(self.next_us)
        } else if self.probe_us > 0 && now_us < self.probe_us + PROBE_US {
            Door::Shut(now_us + PROBE_AGAIN_US, false)
        } else {
            Door::Probe
        }
    }

    /// Charges a call at `start_us`, granted at `now_us`.
    pub(super) fn charge(&mut self, now_us: i64, start_us: i64) {
        if self.ramp_us > 0 {
            self.next_us = self.next_us.max(start_us) + self.ramp_interval_us(start_us);
            self.slower.start(start_us);
        } else if self.until_us <= now_us {
            self.probe_us = start_us;
        }
    }

    fn ramp_interval_us(&self, at_us: i64) -> i64 {
        let seconds = ((at_us - self.ramp_us) / 1_000_000).clamp(0, 9);
        match self.slower.least_us {
            0 => RAMP_US >> seconds,
            least => self
                .slower
                .now_us(at_us, self.ramp_us)
                .max((2 * least) >> seconds),
        }
    }

    fn is_dead(&self) -> bool {
        DEAD.iter().any(|dead| self.reason.starts_with(dead))
    }

    /// Another refusal at `now_us`, which asks for `for_us`.
    pub(super) fn again(&mut self, now_us: i64, for_us: i64, reason: &str) {
        let tried = self.until_us <= now_us && (self.probe_us > 0 || self.ramp_us > 0);
        if !tried {
            // A call that was on its way heard the same: no second strike.
            if now_us + for_us > self.until_us {
                self.until_us = now_us + for_us;
                self.reason = reason.to_owned();
            }
            return;
        }
        let was_served = self.ramp_us > 0;
        if was_served && reason == THROTTLED {
            self.slower.refused(now_us, self.ramp_us);
        }
        let most = if reason == MAINTENANCE {
            BREAKER - 1
        } else {
            u32::MAX
        };
        self.strikes = if was_served {
            0
        } else {
            most.min(self.strikes + 1)
        };
        (self.probe_us, self.ramp_us, self.next_us) = (0, 0, 0);
        (self.slower.start_us, self.slower.mean_us) = (0, 0);
        if self.strikes >= BREAKER {
            self.until_us = now_us + BREAKER_US.max(for_us);
            self.reason = format!("breaker:{reason}");
            return;
        }
        let doubled = for_us.saturating_mul(1 << self.strikes);
        self.until_us = now_us + doubled.min(LONGEST_DOUBLED_US.max(for_us));
        self.reason = reason.to_owned();
    }

    /// The probe that started at `start_us` ended at `now_us`.
    pub(super) fn probed(&mut self, now_us: i64, start_us: i64, how: Probed) {
        if self.probe_us != start_us || self.until_us > now_us {
            return;
        }
        self.probe_us = 0;
        match how {
            Probed::Well => (self.ramp_us, self.next_us) = (now_us, now_us),
            Probed::NotSent => {}
            Probed::Unanswered => self.until_us = now_us + PROBE_AGAIN_US,
        }
    }

    /// Somebody looked: the next call is the probe.
    pub(super) fn reopen(&mut self, now_us: i64) {
        *self = Closed {
            until_us: now_us,
            reason: std::mem::take(&mut self.reason),
            ..Closed::default()
        };
    }
}
