//! The short words of the files: spans of time, rates, quotas, times of reset, cron lines. Each reader
//! says in its error what would be right.

use std::time::Duration;

use super::model::{CalendarWindow, Span, StatusRange};

/// `500ms 30s 10m 24h 2d`: whole numbers with one unit.
pub fn span(text: &str) -> Result<Span, &'static str> {
    const RIGHT: &str = "a time is a whole number and a unit: 500ms, 30s, 10m, 24h, 7d";
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or(RIGHT)?;
    let (digits, unit) = text.split_at(unit);
    let n: u64 = digits.parse().map_err(|_| RIGHT)?;
    let millis = unit_millis(unit).ok_or(RIGHT)?;
    n.checked_mul(millis)
        .filter(|ms| *ms <= 3660 * 86_400_000)
        .map(|ms| Span(Duration::from_millis(ms)))
        .ok_or("at most ten years")
}

fn unit_millis(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    })
}

/// `50/s 300/min 100/h 1/5s`: calls in a period.
pub fn rate(text: &str) -> Result<(u64, Span), &'static str> {
    const RIGHT: &str = "a rate is calls per period: 50/s, 300/min, 1000/h, 1/5s";
    let (calls, period) = text.split_once('/').ok_or(RIGHT)?;
    let calls = calls.trim().parse().map_err(|_| RIGHT)?;
    let period = match period.trim() {
        "s" | "sec" | "second" => Span::secs(1),
        "m" | "min" | "minute" => Span::secs(60),
        "h" | "hour" => Span::secs(3600),
        "d" | "day" => Span::secs(86_400),
        period => span(period).map_err(|_| RIGHT)?,
    };
    Ok((calls, period))
}

/// `25000/day`: calls in a calendar window.
pub fn quota(text: &str) -> Result<(u64, CalendarWindow), &'static str> {
    const RIGHT: &str =
        "a quota is calls per calendar window: 600/minute, 1000/hour, 25000/day, 500000/month";
    let (calls, window) = text.split_once('/').ok_or(RIGHT)?;
    let calls = calls.trim().parse().map_err(|_| RIGHT)?;
    let window = match window.trim() {
        "min" | "minute" => CalendarWindow::Minute,
        "h" | "hour" => CalendarWindow::Hour,
        "d" | "day" => CalendarWindow::Day,
        "month" => CalendarWindow::Month,
        _ => return Err(RIGHT),
    };
    Ok((calls, window))
}

/// `00:00 Asia/Seoul`: seconds after midnight and an IANA zone (UTC when not named).
pub fn resets(text: &str) -> Result<(u32, String), String> {
    const RIGHT: &str = "a reset is a time of day and a zone: 00:00 Asia/Seoul";
    let (time, zone) = text.split_once(' ').unwrap_or((text, "UTC"));
    let time: jiff::civil::Time = format!("{time}:00").parse().map_err(|_| RIGHT)?;
    let seconds = i32::from(time.hour()) * 3600 + i32::from(time.minute()) * 60;
    Ok((seconds.unsigned_abs(), self::zone(zone.trim())?))
}

/// The name of a charset.
pub fn charset(label: &str) -> Result<String, &'static str> {
    let known = crate::connector::is_charset(label);
    known
        .then(|| label.to_owned())
        .ok_or("charsets are called as on the web: utf-8, euc-kr, cp949, shift_jis, windows-1252")
}

/// An IANA zone name that is in the time zone database.
pub fn zone(name: &str) -> Result<String, String> {
    match jiff::tz::TimeZone::get(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(unknown_zone(name)),
    }
}

fn unknown_zone(name: &str) -> String {
    let zones: Vec<String> = jiff::tz::db().available().map(|z| z.to_string()).collect();
    let known: Vec<&str> = zones.iter().map(String::as_str).collect();
    match super::diagnostic::nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`? zones have IANA names"),
        None => "zones have IANA names: UTC, Asia/Seoul, Europe/Paris".to_owned(),
    }
}

/// `200`, `4xx`: a status or a class of them.
pub fn status(text: &str) -> Result<StatusRange, &'static str> {
    const RIGHT: &str = "a status is a number from 100 to 599, or a class of them: 4xx, 5xx";
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().map_err(|_| RIGHT)?;
        return (1..=5)
            .contains(&class)
            .then_some(StatusRange {
                first: class * 100,
                last: class * 100 + 99,
            })
            .ok_or(RIGHT);
    }
    let status: u16 = text.parse().map_err(|_| RIGHT)?;
    (100..=599)
        .contains(&status)
        .then_some(StatusRange {
            first: status,
            last: status,
        })
        .ok_or(RIGHT)
}

/// `8mb`, `512kb`, a number of bytes.
pub fn bytes(text: &str) -> Result<u64, &'static str> {
    const RIGHT: &str = "a size is a whole number of bytes, kb, mb or gb: 64mb";
    let lower = text.to_ascii_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(lower.len());
    let n: u64 = lower[..end].parse().map_err(|_| RIGHT)?;
    let unit = match lower[end..].trim() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        _ => return Err(RIGHT),
    };
    n.checked_mul(unit).filter(|n| *n > 0).ok_or(RIGHT)
}

/// The five fields of a cron line: name, least, most, names of values from the least on.
const CRON: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    (
        "month",
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (
        "day of week",
        0,
        7,
        &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ),
];

/// Whether `text` is a cron line of five fields.
pub fn cron(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != CRON.len() {
        return Err(format!(
            "cron has five fields (minute hour day month weekday), these are {}",
            fields.len()
        ));
    }
    for (field, (name, least, most, names)) in fields.iter().zip(CRON) {
        for item in field.split(',') {
            if !cron_item(item, least, most, names) {
                return Err(format!(
                    "`{item}` is no {name}: {least} to {most}, a range 1-5, a step */10, or a list 1,15"
                ));
            }
        }
    }
    match is_never(&fields) {
        true => Err("none of these months has such a day, so it would never start".to_owned()),
        false => Ok(()),
    }
}

/// Days that none of the months has, such as the 30th of February.
fn is_never(fields: &[&str]) -> bool {
    let numbers = |field: &str| {
        let all: Option<Vec<u32>> = field.split(',').map(|item| item.parse().ok()).collect();
        all
    };
    let (Some(days), Some(months), "*") = (numbers(fields[2]), numbers(fields[3]), fields[4])
    else {
        return false;
    };
    let longest = |month: &u32| match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let most = months.iter().map(longest).max().unwrap_or(31);
    days.iter().all(|day| *day > most)
}

fn cron_item(item: &str, least: u32, most: u32, names: &[&str]) -> bool {
    let (range, step) = item.split_once('/').unwrap_or((item, "1"));
    let step_fits = step
        .parse::<u32>()
        .is_ok_and(|n| (1..=most.max(1)).contains(&n));
    let value = |text: &str| {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text));
        let n = named
            .map(|i| least + i as u32)
            .or_else(|| text.parse().ok())?;
        (least..=most).contains(&n).then_some(n)
    };
    let range_fits = match range.split_once('-') {
        _ if range == "*" => true,
        Some((from, to)) => matches!((value(from), value(to)), (Some(a), Some(b)) if a <= b),
        None => value(range).is_some(),
    };
    step_fits && range_fits
}

/// `today`, `today+1`, `today-6` or an ISO date.
pub fn day(text: &str) -> Result<Day, &'static str> {
    const RIGHT: &str = "a day is `today`, `today+1`, `today-6` or an ISO date such as 2026-11-21";
    if let Some(rest) = text.strip_prefix("today") {
        if rest.is_empty() {
            return Ok(Day::FromToday(0));
        }
        let signed = rest.starts_with(['+', '-']);
        let days = rest
            .parse::<i32>()
            .ok()
            .filter(|n| signed && n.abs() <= 36_600);
        return days.map(Day::FromToday).ok_or(RIGHT);
    }
    text.parse().map(Day::On).map_err(|_| RIGHT)
}

/// A day of a `dates:` dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// So many days after the run's date.
    FromToday(i32),
    /// A fixed day.
    On(jiff::civil::Date),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("365d", 31_536_000_000u64),
        ] {
            assert_eq!(span(text), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for bad in [
            "",
            "10",
            "m",
            "1.5s",
            "10 s",
            "-1s",
            "10x",
            "99999999999999999999s",
            "9999999d",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_quotas() {
        assert_eq!(rate("50/s"), Ok((50, Span::secs(1))));
        assert_eq!(rate("300/min"), Ok((300, Span::secs(60))));
        assert_eq!(rate("1/5s"), Ok((1, Span::secs(5))));
        assert_eq!(quota("25000/day"), Ok((25_000, CalendarWindow::Day)));
        for bad in ["50", "50/x", "/s", "1.5/s", "50 per s"] {
            assert!(rate(bad).is_err() && quota(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resets_and_zones() {
        assert_eq!(
            resets("09:30 Asia/Seoul"),
            Ok((34_200, "Asia/Seoul".into()))
        );
        assert_eq!(resets("00:00"), Ok((0, "UTC".into())));
        assert!(resets("24:00 UTC").is_err());
        assert!(resets("00:00 Asia/Soul").is_err_and(|hint| hint.contains("Asia/Seoul")));
    }

    #[test]
    fn cron_lines() {
        for good in [
            "0 3 * * *",
            "*/10 * * * *",
            "15 1,13 1-5 jan-mar MON",
            "0 0 * * 7",
            "0 0 29 2 *",
            "0 0 31 2,3 *",
            "0 0 31 2 mon",
        ] {
            assert_eq!(cron(good), Ok(()), "{good}");
        }
        for bad in [
            "0 3 * *",
            "60 * * * *",
            "* 24 * * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "* * 0 * *",
            "0 0 30 2 *",
            "0 0 31 4,6 *",
        ] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn days_statuses_and_sizes() {
        assert_eq!(day("today-6"), Ok(Day::FromToday(-6)));
        assert!(day("2026-11-21").is_ok() && day("today6").is_err() && day("2026-13-01").is_err());
        assert_eq!(
            status("5xx"),
            Ok(StatusRange {
                first: 500,
                last: 599
            })
        );
        assert!(status("700").is_err() && status("9xx").is_err());
        assert_eq!(bytes("64mb"), Ok(64 << 20));
        assert!(bytes("0").is_err() && bytes("x").is_err());
    }
}
