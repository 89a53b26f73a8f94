//! Calendar windows of quotas: from which instant to which a call counts, in the zone of the reset.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::spec::CalendarWindow;

/// A zone that does not exist, or an instant that no calendar holds.
#[derive(Debug, thiserror::Error)]
#[error("no calendar window in the zone `{zone}`: {source}")]
pub struct BadZone {
    zone: String,
    source: jiff::Error,
}

/// The window that holds `now_us`: when it opened and when it closes, microseconds since 1970.
///
/// `resets_at` is the time of day of the reset, in seconds after midnight; in days and months it is that
/// civil time of `zone` (so a day with a change of summer time has 23 or 25 hours; a reset inside the gap
/// is after it, one that happens twice is the first). Full minutes and hours are those of the zone, moved by
/// the seconds (minutes) of `resets_at`.
///
/// # Errors
/// When `zone` is not an IANA name.
pub fn quota_window(
    window: CalendarWindow,
    resets_at: u32,
    zone: &str,
    now_us: i64,
) -> Result<(i64, i64), BadZone> {
    let bad = |source| BadZone {
        zone: zone.to_owned(),
        source,
    };
    let tz = TimeZone::get(zone).map_err(bad)?;
    let now = Timestamp::from_microsecond(now_us).map_err(bad)?;
    match window {
        CalendarWindow::Minute => Ok(fixed_window(60, resets_at, &tz, now)),
        CalendarWindow::Hour => Ok(fixed_window(3600, resets_at, &tz, now)),
        CalendarWindow::Day => day_window(resets_at, &tz, now).map_err(bad),
        CalendarWindow::Month => month_window(resets_at, &tz, now).map_err(bad),
    }
}

/// Windows of a fixed length, on the zone's own full minutes or hours (some zones are half hours off).
fn fixed_window(length_s: i64, resets_at: u32, tz: &TimeZone, now: Timestamp) -> (i64, i64) {
    let length = length_s * 1_000_000;
    let offset = i64::from(tz.to_offset(now).seconds()) - i64::from(resets_at) % length_s;
    let shift = offset * 1_000_000;
    let opened = (now.as_microsecond() + shift).div_euclid(length) * length - shift;
    (opened, opened + length)
}

fn day_window(resets_at: u32, tz: &TimeZone, now: Timestamp) -> Result<(i64, i64), jiff::Error> {
    let today = now.to_zoned(tz.clone()).date();
    let reset = |date: Date| reset_on(date, resets_at, tz);
    if reset(today)? <= now.as_microsecond() {
        Ok((reset(today)?, reset(today.tomorrow()?)?))
    } else {
        Ok((reset(today.yesterday()?)?, reset(today)?))
    }
}

fn month_window(resets_at: u32, tz: &TimeZone, now: Timestamp) -> Result<(i64, i64), jiff::Error> {
    let first = now.to_zoned(tz.clone()).date().first_of_month();
    let month = Span::new().months(1);
    let reset = |date: Date| reset_on(date, resets_at, tz);
    if reset(first)? <= now.as_microsecond() {
        Ok((reset(first)?, reset(first.checked_add(month)?)?))
    } else {
        Ok((reset(first.checked_sub(month)?)?, reset(first)?))
    }
}

fn reset_on(date: Date, resets_at: u32, tz: &TimeZone) -> Result<i64, jiff::Error> {
    let at = DateTime::from_parts(date, time_of_day(resets_at)?);
    let instant = tz.to_ambiguous_timestamp(at).compatible()?;
    Ok(instant.as_microsecond())
}

fn time_of_day(seconds: u32) -> Result<Time, jiff::Error> {
    let seconds = i64::from(seconds.min(86_399));
    Time::midnight().checked_add(Span::new().seconds(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000_000;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>()
            .expect("an instant")
            .as_microsecond()
    }

    fn window(kind: CalendarWindow, resets_at: u32, zone: &str, now: &str) -> (i64, i64) {
        quota_window(kind, resets_at, zone, at(now)).expect("a window")
    }

    #[test]
    fn a_day_in_seoul_turns_at_15_utc() {
        let day = |now| window(CalendarWindow::Day, 0, "Asia/Seoul", now);
        assert_eq!(
            day("2026-11-21T14:59:59Z"),
            (at("2026-11-20T15:00:00Z"), at("2026-11-21T15:00:00Z"))
        );
        assert_eq!(day("2026-11-21T15:00:00Z").0, at("2026-11-21T15:00:00Z"));
    }

    #[test]
    fn days_of_summer_time_have_23_and_25_hours() {
        let day = |now, resets| {
            let (opened, closes) = window(CalendarWindow::Day, resets, "Europe/Berlin", now);
            (closes - opened) / 3_600_000_000
        };
        assert_eq!(day("2026-03-29T10:00:00Z", 0), 23);
        assert_eq!(day("2026-10-25T10:00:00Z", 0), 25);
        // 02:30 does not exist on the first of them, and comes twice on the other.
        let gap = window(
            CalendarWindow::Day,
            9_000,
            "Europe/Berlin",
            "2026-03-29T10:00:00Z",
        );
        assert_eq!(gap.0, at("2026-03-29T01:30:00Z"));
        let fold = window(
            CalendarWindow::Day,
            9_000,
            "Europe/Berlin",
            "2026-10-25T10:00:00Z",
        );
        assert_eq!(fold.0, at("2026-10-25T00:30:00Z"));
    }

    #[test]
    fn months_turn_on_the_first_at_the_reset() {
        let month = window(
            CalendarWindow::Month,
            3_600,
            "America/New_York",
            "2026-03-01T05:30:00Z",
        );
        assert_eq!(
            month,
            (at("2026-02-01T06:00:00Z"), at("2026-03-01T06:00:00Z"))
        );
    }

    #[test]
    fn hours_and_minutes_are_full_ones_of_the_zone() {
        let hour = window(
            CalendarWindow::Hour,
            0,
            "Asia/Kolkata",
            "2026-11-21T10:10:00Z",
        );
        assert_eq!(
            hour,
            (at("2026-11-21T09:30:00Z"), at("2026-11-21T10:30:00Z"))
        );
        let minute = window(CalendarWindow::Minute, 0, "UTC", "2026-11-21T10:10:59.9Z");
        assert_eq!(
            minute,
            (at("2026-11-21T10:10:00Z"), at("2026-11-21T10:11:00Z"))
        );
    }

    #[test]
    fn an_unknown_zone_is_named() {
        let error =
            quota_window(CalendarWindow::Day, 0, "Mars/Olympus", 0).expect_err("no such zone");
        assert!(error.to_string().contains("Mars/Olympus"));
    }

    proptest! {
        /// Windows hold their instant and meet without gap, over changes of summer time too.
        #[test]
        fn windows_tile_time(
            now in at("2024-01-01T00:00:00Z")..at("2030-01-01T00:00:00Z"),
            resets_at in 0u32..86_400,
            zone in prop::sample::select(vec!["UTC", "Asia/Seoul", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            kind in prop::sample::select(vec![CalendarWindow::Minute, CalendarWindow::Day, CalendarWindow::Month]),
        ) {
            let (opened, closes) = quota_window(kind, resets_at, zone, now).expect("a window");
            prop_assert!(opened <= now && now < closes, "{opened} {now} {closes}");
            prop_assert!(closes - opened <= 32 * DAY);
            let (next, _) = quota_window(kind, resets_at, zone, closes).expect("a window");
            prop_assert_eq!(next, closes);
            let (before, end) = quota_window(kind, resets_at, zone, opened - 1).expect("a window");
            prop_assert_eq!(end, opened);
            prop_assert!(before < opened);
        }
    }
}
