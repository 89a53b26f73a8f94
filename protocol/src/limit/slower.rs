//! A provider that serves less than its file allows: who is refused again in the ramp after a cooldown asks too
//! fast, however the file reads.
//!
//! The starts of a ramp are measured. When it ends in a refusal, the next ramps stay a tenth below the pace that was
//! refused, and begin at half of that instead of at two calls a second. Each further refusal takes another tenth, down
//! to a third of what was refused first: refusals by chance, which no pace avoids, cost no more than that. What
//! is not refused is tried faster after half a minute each, by 3, 9, 22, 47 and 97 % (as CUBIC, RFC 9438, grows:
//! slowly near the last refusal, faster away from it), and is forgotten after three minutes.

/// An undisturbed ramp is tried faster after so long (30 s).
pub const RAISED_AFTER_US: i64 = 30_000_000;
/// So many times; then nothing is left of it.
pub const RAISED_AT_MOST: i64 = 6;
/// What is refused earlier in a first ramp says nothing of the pace (1.5 s).
pub const PACE_KNOWN_AFTER_US: i64 = 1_500_000;
/// The reason whose refusals say something of the pace.
pub const THROTTLED: &str = "throttled";

/// What the refusals of ramps taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slower {
    /// The last start in this ramp; 0: none yet.
    pub start_us: i64,
    /// From one start of this ramp to the next, the mean of about the last eight; 0: not known.
    pub mean_us: i64,
    /// From one start to the next at least, in an undisturbed ramp's first half minute; 0: no ramp was refused.
    pub least_us: i64,
    /// From one start to the next when a ramp was refused first.
    pub refused_us: i64,
}

impl Slower {
    /// A call of a ramp starts at `start_us`.
    pub(super) fn start(&mut self, start_us: i64) {
        if self.start_us > 0 {
            let gap = (start_us - self.start_us).clamp(0, 10_000_000);
            self.mean_us = match self.mean_us {
                0 => gap,
                mean => (7 * mean + gap) / 8,
            };
        }
        self.start_us = start_us;
    }

    /// The ramp that opened at `ramp_us` was refused at `now_us`.
    pub(super) fn refused(&mut self, now_us: i64, ramp_us: i64) {
        if self.least_us > 0 {
            let least = self.now_us(now_us, ramp_us);
            self.least_us = (least * 10 / 9).min(self.refused_us * 3);
        } else if now_us - ramp_us >= PACE_KNOWN_AFTER_US {
            self.least_us = self.mean_us * 10 / 9;
            self.refused_us = self.mean_us;
        }
    }

    /// From one start to the next at least, at `at_us` of the ramp that opened at `ramp_us`; 0: as the file says.
    pub fn now_us(&self, at_us: i64, ramp_us: i64) -> i64 {
        let quiet = (at_us - ramp_us) / RAISED_AFTER_US;
        let raised = quiet.clamp(0, RAISED_AT_MOST);
        self.least_us * 32 / (31 + (1 << raised))
    }

    /// When nothing is left of a ramp that opened at `ramp_us`, if no pace was refused after `usual_us`.
    pub(super) fn over_us(&self, ramp_us: i64, usual_us: i64) -> i64 {
        match self.least_us {
            0 => ramp_us + usual_us,
            _ => ramp_us + RAISED_AFTER_US * RAISED_AT_MOST,
        }
    }
}
