//! Calendar windows of quotas: from reset to reset, in the provider's zone.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use paceline_protocol::spec::CalendarWindow;

/// The window around `at`: its start and its end, microseconds since 1970. An unknown zone counts as
/// UTC (the reader has refused it long before).
pub fn window_at(window: CalendarWindow, resets_at: u32, zone: &str, at: Timestamp) -> (i64, i64) {
    let zone = TimeZone::get(zone).unwrap_or(TimeZone::UTC);
    let micros = |local: DateTime| {
        let instant = local.to_zoned(zone.clone()).map(|z| z.timestamp());
        instant.map_or(i64::MAX, |at| at.as_microsecond())
    };
    let now = at.to_zoned(zone.clone());
    match window {
        CalendarWindow::Minute => aligned(at, 60_000_000),
        CalendarWindow::Hour => aligned_hour(&now),
        CalendarWindow::Day => {
            let today = now.date();
            let first = if now.datetime() < reset(today, resets_at) {
                day(today, -1)
            } else {
                today
            };
            (
                micros(reset(first, resets_at)),
                micros(reset(day(first, 1), resets_at)),
            )
        }
        CalendarWindow::Month => {
            let this = now.date().first_of_month();
            let first = if now.datetime() < reset(this, resets_at) {
                month(this, -1)
            } else {
                this
            };
            (
                micros(reset(first, resets_at)),
                micros(reset(month(first, 1), resets_at)),
            )
        }
    }
}

fn aligned(at: Timestamp, length_us: i64) -> (i64, i64) {
    let start = at.as_microsecond().div_euclid(length_us) * length_us;
    (start, start + length_us)
}

/// Full hours of the zone, some of which lie half an hour beside UTC's.
fn aligned_hour(now: &jiff::Zoned) -> (i64, i64) {
    const HOUR: i64 = 3_600_000_000;
    let offset = i64::from(now.offset().seconds()) * 1_000_000;
    let local = now.timestamp().as_microsecond() + offset;
    let start = local.div_euclid(HOUR) * HOUR - offset;
    (start, start + HOUR)
}

fn reset(day: Date, resets_at: u32) -> DateTime {
    day.to_datetime(jiff::civil::Time::midnight())
        .saturating_add(i64::from(resets_at).seconds())
}

fn day(date: Date, days: i64) -> Date {
    date.saturating_add(days.days())
}

fn month(date: Date, months: i64) -> Date {
    date.saturating_add(months.months())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(window: CalendarWindow, resets_at: u32, zone: &str, at: &str) -> (String, String) {
        let at = at.parse().expect("an instant");
        let (from, to) = window_at(window, resets_at, zone, at);
        let text = |us| {
            Timestamp::from_microsecond(us)
                .expect("in range")
                .to_string()
        };
        (text(from), text(to))
    }

    #[test]
    fn a_day_in_seoul_starts_at_three_in_the_afternoon_utc() {
        let (from, to) = shown(CalendarWindow::Day, 0, "Asia/Seoul", "2026-11-21T14:59:59Z");
        assert_eq!(
            (from.as_str(), to.as_str()),
            ("2026-11-20T15:00:00Z", "2026-11-21T15:00:00Z")
        );
        let (from, _) = shown(CalendarWindow::Day, 0, "Asia/Seoul", "2026-11-21T15:00:00Z");
        assert_eq!(from, "2026-11-21T15:00:00Z");
    }

    #[test]
    fn a_month_resets_at_its_first_day() {
        let (from, to) = shown(CalendarWindow::Month, 3_600, "UTC", "2026-12-01T00:30:00Z");
        assert_eq!(
            (from.as_str(), to.as_str()),
            ("2026-11-01T01:00:00Z", "2026-12-01T01:00:00Z")
        );
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_its_window(
            second in 1_600_000_000i64..2_000_000_000,
            resets_at in 0u32..86_400,
            zone in prop::sample::select(vec!["UTC", "Asia/Seoul", "Europe/Berlin", "Asia/Kolkata"]),
            kind in 0usize..4,
        ) {
            let window = [CalendarWindow::Minute, CalendarWindow::Hour, CalendarWindow::Day, CalendarWindow::Month][kind];
            let at = Timestamp::from_second(second).expect("in range");
            let (from, to) = window_at(window, resets_at, zone, at);
            prop_assert!(from <= at.as_microsecond() && at.as_microsecond() < to);
        }
    }
}
