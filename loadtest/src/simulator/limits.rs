//! What the simulated provider allows, as configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every limit of the provider. All of them hold at once; a call that one refuses draws from none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls in a period, several periods at once.
    pub rates: Vec<Rate>,
    /// Least time between two calls.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub spacing: Option<Duration>,
    /// Calls in flight.
    pub concurrency: Option<u32>,
    /// Calls of each key in a calendar window.
    pub quota: Option<Quota>,
    /// What a 429 says about waiting.
    pub retry_after: RetryAfter,
    /// Whether answers tell of the first rate: `x-ratelimit-limit`, `-burst`, `-remaining`, `-reset`.
    pub tell: bool,
    /// Whether `GET /health` draws from the shared rates and the concurrency, as a strict provider has it.
    pub count_health: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rates: Vec::new(),
            spacing: None,
            concurrency: None,
            quota: None,
            retry_after: RetryAfter::Seconds,
            tell: false,
            count_health: true,
        }
    }
}

impl Limits {
    /// No limit at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// One strict trailing window of a second.
    pub fn per_second(calls: u32) -> Self {
        Self {
            rates: vec![Rate::strict(calls, Duration::from_secs(1))],
            ..Self::default()
        }
    }
}

/// Calls in a period: a strict trailing window, or with `burst` a token bucket. Written `50/s`, `600/1m`,
/// `10/s,burst=5`, `1/s,per=key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// How many.
    pub calls: u32,
    /// In what time.
    pub period: Duration,
    /// Size of the bucket; none is a strict window.
    pub burst: Option<u32>,
    /// Each key has its own.
    pub per_key: bool,
}

impl Rate {
    /// A strict trailing window, shared by all keys.
    pub fn strict(calls: u32, period: Duration) -> Self {
        Self {
            calls,
            period,
            burst: None,
            per_key: false,
        }
    }
}

/// A text that is no rate, quota or latency.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}; write {example}")]
pub struct SpellingError {
    text: String,
    what: &'static str,
    example: &'static str,
}

impl SpellingError {
    pub(super) fn new(text: &str, what: &'static str, example: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            what,
            example,
        }
    }
}

impl FromStr for Rate {
    type Err = SpellingError;

    fn from_str(text: &str) -> Result<Self, SpellingError> {
        let wrong =
            || SpellingError::new(text, "rate", "50/s, 600/1m, 10/s,burst=5 or 1/s,per=key");
        let mut words = text.split(',');
        let (calls, period) = words
            .next()
            .and_then(|w| w.split_once('/'))
            .ok_or_else(wrong)?;
        let calls = calls
            .trim()
            .parse()
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(wrong)?;
        let mut rate = Self::strict(calls, period_of(period).ok_or_else(wrong)?);
        for word in words {
            match word.trim().split_once('=') {
                Some(("burst", size)) => rate.burst = Some(size.parse().map_err(|_| wrong())?),
                Some(("per", "key")) => rate.per_key = true,
                _ => return Err(wrong()),
            }
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period.as_secs_f64() {
            1.0 => write!(f, "{}/s", self.calls)?,
            _ => write!(f, "{}/{:#}", self.calls, friendly(self.period))?,
        }
        if let Some(burst) = self.burst {
            write!(f, ",burst={burst}")?;
        }
        if self.per_key {
            f.write_str(",per=key")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Rate {
    type Error = SpellingError;

    fn try_from(text: String) -> Result<Self, SpellingError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

/// Calls of each key in windows of a calendar: `25000/day` from midnight in `utc_offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// How many for each key.
    pub calls: u64,
    /// Length of a window; a day unless a test is in a hurry.
    #[serde(
        default = "day",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub every: Duration,
    /// East of UTC, in seconds: windows begin at multiples of `every` in this offset's time.
    #[serde(default = "seoul")]
    pub utc_offset_s: i64,
}

impl Quota {
    /// So many a day from midnight in Seoul.
    pub fn daily(calls: u64) -> Self {
        Self {
            calls,
            every: day(),
            utc_offset_s: seoul(),
        }
    }

    /// The number of the window that `wall_us` (microseconds since 1970) falls into.
    pub fn window(&self, wall_us: i64) -> i64 {
        let local_us = wall_us + self.utc_offset_s * 1_000_000;
        local_us.div_euclid(self.every.as_micros().max(1) as i64)
    }

    /// How long after `wall_us` the window ends.
    pub fn resets_in(&self, wall_us: i64) -> Duration {
        let every_us = self.every.as_micros().max(1) as i64;
        let local_us = wall_us + self.utc_offset_s * 1_000_000;
        Duration::from_micros((every_us - local_us.rem_euclid(every_us)) as u64)
    }
}

/// The form of the `Retry-After` header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// No header.
    None,
    /// Whole seconds, rounded up.
    #[default]
    Seconds,
    /// Seconds with three digits behind the point.
    Float,
    /// An HTTP date, rounded up to the second.
    Date,
    /// Always 0, which is no hint.
    Zero,
}

/// A period as in `s`, `1m`, `250ms`, `day`.
fn period_of(text: &str) -> Option<Duration> {
    let text = text.trim();
    let counted = match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => text.to_owned(),
        false => format!("1{text}"),
    };
    duration(&counted).filter(|d| !d.is_zero())
}

/// A duration as people write it: `250ms`, `1m30s`, `2h`, `1day`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = match text.trim().strip_suffix("day") {
        Some(days) => format!("{}h", days.trim().parse::<u32>().ok()? * 24),
        None => text.trim().to_owned(),
    };
    let signed: jiff::SignedDuration = text.parse().ok()?;
    signed.try_into().ok()
}

fn friendly(duration: Duration) -> jiff::SignedDuration {
    duration.try_into().unwrap_or(jiff::SignedDuration::MAX)
}

fn day() -> Duration {
    Duration::from_secs(86_400)
}

fn seoul() -> i64 {
    9 * 3_600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_they_are_written() {
        for text in ["50/s", "600/1m", "10/s,burst=5", "1/250ms,per=key"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        assert_eq!("25000/day".parse::<Rate>().unwrap().period, day());
        for text in ["50", "0/s", "/s", "5/", "5/s,boost=1", "5/0s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight_in_seoul() {
        let quota = Quota::daily(10);
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let (before, after) = (at("2026-11-21T14:59:59Z"), at("2026-11-21T15:00:00Z"));
        assert_eq!(quota.window(before) + 1, quota.window(after));
        assert_eq!(quota.resets_in(before), Duration::from_secs(1));
    }

    #[test]
    fn limits_travel_as_json() {
        let limits = Limits {
            spacing: Some(Duration::from_millis(100)),
            quota: Some(Quota::daily(25_000)),
            ..Limits::per_second(50)
        };
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
        let short: Limits = serde_json::from_str(r#"{"rates":["5/s"]}"#).unwrap();
        assert_eq!(short, Limits::per_second(5));
    }
}
