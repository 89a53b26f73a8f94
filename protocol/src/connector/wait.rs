//! How long an answer tells its scope to wait.

use std::time::Duration;

use jiff::Timestamp;

/// No answer holds a scope longer than this, unless its rule says so with `at_most:`.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Beyond this many seconds a number is an instant, not a time to wait.
const EPOCH_SECONDS: f64 = 1e9;
/// Beyond this, an instant in milliseconds.
const EPOCH_MILLIS: f64 = 1e12;

/// A second, in which an instant told in whole seconds may lie.
const SECOND_US: i64 = 1_000_000;
/// So much later than an exact instant the first call starts: nobody's clock reads the same as ours.
const APART_US: i64 = 20_000;

/// What an answer tells.
enum Told {
    /// A time to wait.
    For(Duration),
    /// An instant, microseconds since 1970.
    Until(i64),
}

/// Reads a hint such as `Retry-After`: seconds (whole or not), an HTTP date, an ISO instant or an epoch.
/// Zero, a negative time and an instant in the past are no hints.
pub(super) fn hint(text: &str, now_us: i64) -> Option<Duration> {
    match read(text)? {
        Told::For(span) => Some(span),
        Told::Until(instant_us) => until(instant_us, now_us),
    }
}

/// As [`hint`], for who must not come too early: an instant in whole seconds had its fraction cut off, so the
/// scope opens when that second is over.
pub(super) fn pause(text: &str, now_us: i64) -> Option<Duration> {
    let Told::Until(instant_us) = read(text)? else {
        return hint(text, now_us);
    };
    let later = match instant_us % SECOND_US {
        0 => SECOND_US,
        _ => APART_US,
    };
    let told = until(instant_us, now_us)?;
    Some(told + Duration::from_micros(later.unsigned_abs()))
}

fn read(text: &str) -> Option<Told> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number);
    }
    let instant = text.parse::<Timestamp>().ok().or_else(|| {
        jiff::fmt::rfc2822::parse(text)
            .ok()
            .map(|zoned| zoned.timestamp())
    })?;
    Some(Told::Until(instant.as_microsecond()))
}

fn from_number(number: f64) -> Option<Told> {
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    Some(if number >= EPOCH_MILLIS {
        Told::Until((number * 1e3) as i64)
    } else if number >= EPOCH_SECONDS {
        Told::Until((number * 1e6) as i64)
    } else {
        Told::For(Duration::from_secs_f64(number))
    })
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
    fn a_pause_outlasts_the_second_that_was_told() {
        let secs = |s: f64| Some(Duration::from_secs_f64(s));
        assert_eq!(pause("2", NOW), secs(2.0));
        assert_eq!(pause("2.5", NOW), secs(2.5));
        assert_eq!(pause("1795000030", NOW), secs(31.0));
        assert_eq!(pause("1795000030500", NOW), secs(30.52));
        assert_eq!(pause("Wed, 18 Nov 2026 11:06:45 GMT", NOW), secs(6.0));
        assert_eq!(pause("2026-11-18T11:06:45.250Z", NOW), secs(5.27));
        for past in ["0", "1795000000", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(pause(past, NOW), None, "{past}");
        }
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
