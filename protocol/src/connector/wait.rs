//! How long an answer tells its scope to wait.

use std::time::Duration;

use jiff::Timestamp;

/// No answer holds a scope longer than this, unless its rule says so with `at_most:`.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Beyond this many seconds a number is an instant, not a time to wait.
const EPOCH_SECONDS: f64 = 1e9;
/// Beyond this, an instant in milliseconds.
const EPOCH_MILLIS: f64 = 1e12;

/// Reads a hint such as `Retry-After`: seconds (whole or not), an HTTP date, an ISO instant or an epoch.
/// Zero, a negative time and an instant in the past are no hints.
pub(super) fn hint(text: &str, now_us: i64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number, now_us);
    }
    let instant = text.parse::<Timestamp>().ok().or_else(|| {
        jiff::fmt::rfc2822::parse(text)
            .ok()
            .map(|zoned| zoned.timestamp())
    })?;
    until(instant.as_microsecond(), now_us)
}

fn from_number(number: f64, now_us: i64) -> Option<Duration> {
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    if number >= EPOCH_MILLIS {
        until((number * 1e3) as i64, now_us)
    } else if number >= EPOCH_SECONDS {
        until((number * 1e6) as i64, now_us)
    } else {
        Some(Duration::from_secs_f64(number))
    }
}

fn until(instant_us: i64, now_us: i64) -> Option<Duration> {
    let micros = u64::try_from(instant_us - now_us)
        .ok()
        .filter(|us| *us > 0)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000_000;

    #[test]
    fn every_form_of_a_hint() {
        let secs = |s: f64| Some(Duration::from_secs_f64(s));
        assert_eq!(hint("2", NOW), secs(2.0));
        assert_eq!(hint(" 2.5 ", NOW), secs(2.5));
        assert_eq!(hint("1795000030", NOW), secs(30.0));
        assert_eq!(hint("1795000030500", NOW), secs(30.5));
        let at = Timestamp::from_microsecond(NOW + 60_000_000).expect("in range");
        assert_eq!(hint(&at.to_string(), NOW), secs(60.0));
        let date = at
            .to_zoned(jiff::tz::TimeZone::UTC)
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        assert_eq!(hint(&date, NOW), secs(60.0));
    }

    #[test]
    fn no_hint_at_all() {
        for text in [
            "0",
            "-5",
            "0.0",
            "soon",
            "",
            "NaN",
            "inf",
            "1700000000",
            "Wed, 21 Oct 2015 07:28:00 GMT",
        ] {
            assert_eq!(hint(text, NOW), None, "{text}");
        }
    }
}
