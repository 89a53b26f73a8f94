//! What goes wrong at the provider, drawn by seed, cell and attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::RetryAfter;
use crate::chance;
use crate::fares::Answer;

/// One way in which an answer goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// This status with an error body (500, 503, 400 for a cell that never works).
    Status(u16),
    /// A 429 that no limit called for, with this wait in milliseconds in this form.
    Throttle {
        /// What the header says.
        wait_ms: u64,
        /// In which form.
        retry_after: RetryAfter,
    },
    /// The answer comes, but so many milliseconds later.
    Slow(u64),
    /// No answer until the caller gives up.
    Hang,
    /// The connection ends without an answer.
    Reset,
    /// The connection ends in the middle of the body.
    Truncated,
    /// Status 200 with a page of HTML.
    NotJson,
    /// Status 200 with JSON of another shape.
    WrongShape,
    /// Status 200 with a good answer after so many megabytes of white space, length not announced.
    Huge(u64),
    /// Status 302 to this URL.
    Redirect(String),
    /// A good answer, but the first offer has no price.
    PriceMissing,
    /// A good answer, but the first offer's departure is no time.
    BadTime,
}

impl Fault {
    /// The word in log and report.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::Throttle { .. } => "throttle",
            Self::Slow(_) => "slow",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::Truncated => "truncated",
            Self::NotJson => "not_json",
            Self::WrongShape => "wrong_shape",
            Self::Huge(_) => "huge",
            Self::Redirect(_) => "redirect",
            Self::PriceMissing => "price_missing",
            Self::BadTime => "bad_time",
        }
    }

    /// Whether a cell that always meets it ends well all the same.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Slow(_))
    }

    /// Whether it changes this answer: what spoils an offer leaves an answer without offers alone.
    pub fn touches(&self, answer: &Answer) -> bool {
        !matches!(self, Self::PriceMissing | Self::BadTime) || matches!(answer, Answer::Offers(_))
    }
}

/// When a fault strikes. Written as JSON: `{"fault": {"status": 503}, "share": 0.02}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: Fault,
    /// Share of the attempts that it strikes (of the cells, when `sticky`).
    #[serde(default = "always")]
    pub share: f64,
    /// Drawn once for each cell, so that every attempt of the cell meets it.
    #[serde(default)]
    pub sticky: bool,
    /// Only these first attempts of a cell; later ones go well.
    #[serde(default)]
    pub first_attempts: Option<u32>,
    /// Only cells whose name (`ICN-NRT/2026-11-22/2026-11-25`) contains one of these texts; none means all.
    #[serde(default)]
    pub cells: Vec<String>,
}

impl FaultRule {
    /// Strikes this share of the attempts.
    pub fn share(fault: Fault, share: f64) -> Self {
        Self {
            fault,
            share,
            sticky: false,
            first_attempts: None,
            cells: Vec::new(),
        }
    }

    /// Strikes every attempt of this share of the cells.
    pub fn sticky(fault: Fault, share: f64) -> Self {
        Self {
            sticky: true,
            ..Self::share(fault, share)
        }
    }

    /// Strikes every attempt of the cells whose name contains `part`.
    pub fn cells(fault: Fault, part: &str) -> Self {
        Self {
            cells: vec![part.to_owned()],
            ..Self::sticky(fault, 1.0)
        }
    }

    /// Only the first `attempts` of a cell.
    pub fn first(mut self, attempts: u32) -> Self {
        self.first_attempts = Some(attempts);
        self
    }

    fn strikes(&self, place: usize, seed: u64, cell: &str, attempt: u32) -> bool {
        let named = self.cells.is_empty() || self.cells.iter().any(|part| cell.contains(&**part));
        let early = self.first_attempts.is_none_or(|first| attempt <= first);
        if !named || !early {
            return false;
        }
        let turn = if self.sticky { 0 } else { attempt };
        let words = [cell, "fault", &place.to_string(), &turn.to_string()];
        self.share >= 1.0 || chance::fraction(seed, &words) < self.share
    }
}

/// All rules; the first that strikes counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(pub Vec<FaultRule>);

impl Faults {
    /// The fault of this attempt (from 1) of a cell.
    pub fn of(&self, seed: u64, cell: &str, attempt: u32) -> Option<&Fault> {
        self.0
            .iter()
            .enumerate()
            .find(|(place, rule)| rule.strikes(*place, seed, cell, attempt))
            .map(|(_, rule)| &rule.fault)
    }

    /// The fault that every attempt of the cell meets and that spoils it, if there is one.
    pub fn that_spoils(&self, seed: u64, cell: &str) -> Option<&Fault> {
        let for_ever =
            |rule: &FaultRule| rule.first_attempts.is_none() && (rule.sticky || rule.share >= 1.0);
        self.0
            .iter()
            .enumerate()
            .filter(|(_, rule)| for_ever(rule) && !rule.fault.is_harmless())
            .find(|(place, rule)| rule.strikes(*place, seed, cell, 1))
            .map(|(_, rule)| &rule.fault)
    }
}

/// How long an answer takes: somewhere between two times. Written `5ms` or `5ms..20ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// At least.
    pub from: Duration,
    /// At most.
    pub to: Duration,
}

impl Latency {
    /// Always the same.
    pub fn fixed(duration: Duration) -> Self {
        Self {
            from: duration,
            to: duration,
        }
    }

    /// The latency of an attempt.
    pub fn of(&self, seed: u64, cell: &str, attempt: u32) -> Duration {
        if self.to <= self.from {
            return self.from;
        }
        let words = [cell, "latency", &attempt.to_string()];
        self.from + (self.to - self.from).mul_f64(chance::fraction(seed, &words))
    }
}

impl std::str::FromStr for Latency {
    type Err = super::limits::SpellingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || super::limits::SpellingError::new(text, "latency", "5ms or 5ms..20ms");
        let read = |part: &str| super::limits::duration(part).ok_or_else(wrong);
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        Ok(Self {
            from: read(from)?,
            to: read(to)?,
        })
    }
}

fn always() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_attempt_meets_the_same_fault() {
        let faults = Faults(vec![FaultRule::share(Fault::Status(503), 0.3)]);
        let struck = |seed| -> Vec<u32> {
            (1..200)
                .filter(|&n| faults.of(seed, "ICN-NRT", n).is_some())
                .collect()
        };
        assert_eq!(struck(1), struck(1));
        assert_ne!(struck(1), struck(2));
        assert!((35..85).contains(&struck(1).len()));
    }

    #[test]
    fn sticky_cells_never_work_and_others_always_do() {
        let faults = Faults(vec![FaultRule::sticky(Fault::Status(400), 0.2)]);
        for cell in (0..100).map(|n| n.to_string()) {
            let met = (1..6).filter(|&n| faults.of(1, &cell, n).is_some()).count();
            assert_eq!(
                met,
                if faults.that_spoils(1, &cell).is_some() {
                    5
                } else {
                    0
                }
            );
        }
    }

    #[test]
    fn first_attempts_and_names_narrow_a_rule() {
        let faults = Faults(vec![FaultRule::cells(Fault::Hang, "NRT").first(2)]);
        assert_eq!(faults.of(1, "ICN-NRT/x", 2), Some(&Fault::Hang));
        assert_eq!(faults.of(1, "ICN-NRT/x", 3), None);
        assert_eq!(faults.of(1, "ICN-KIX/x", 1), None);
        assert_eq!(faults.that_spoils(1, "ICN-NRT/x"), None);
    }

    #[test]
    fn rules_are_short_in_json() {
        let text = r#"[{"fault":{"status":503},"share":0.02},{"fault":"hang","cells":["NRT"]}]"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.0[0], FaultRule::share(Fault::Status(503), 0.02));
        assert_eq!(faults.0[1].fault, Fault::Hang);
    }

    #[test]
    fn latency_stays_in_its_range() {
        let latency: Latency = "5ms..20ms".parse().unwrap();
        for attempt in 1..100 {
            let drawn = latency.of(1, "x", attempt);
            assert!(drawn >= latency.from && drawn <= latency.to);
        }
        assert!("soon".parse::<Latency>().is_err());
    }
}
