//! Numbers and tables as people read them.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// `4200` as `4,200`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A length of time by its two largest units: `84 s` is `1m 24s`.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 && !length.is_zero() => format!("{}ms", length.as_millis()),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, m) => format!("{m}m {:02}s", seconds % 60),
        (0, h, m) => format!("{h}h {m:02}m"),
        (d, h, _) => format!("{d}d {h:02}h"),
    }
}

/// What is closed for longer than this (31 days) does not open by itself: somebody has to look.
const BY_HAND: Duration = Duration::from_secs(31 * 86_400);

/// Whether something that is closed for `length` opens by itself.
pub fn opens_by_itself(length: Duration) -> bool {
    length <= BY_HAND
}

/// For how long something is closed: `for 1m 24s`.
pub fn closed(length: Duration) -> String {
    if opens_by_itself(length) {
        format!("for {}", span(length))
    } else {
        "until `producer resume` or `retry`".into()
    }
}

/// A rate with one digit behind the point below a hundred.
pub fn rate(calls_per_second: f64) -> String {
    if calls_per_second < 100.0 {
        format!("{calls_per_second:.1}/s")
    } else {
        format!("{calls_per_second:.0}/s")
    }
}

/// A share as a percentage with two digits.
pub fn share(of_one: f64) -> String {
    format!("{:.2} %", of_one * 100.0)
}

/// An instant of the fleet's clock, microseconds since 1970, to the millisecond.
pub fn instant(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us)
        .map_or_else(|_| at_us.to_string(), |at| format!("{at:.3}"))
}

/// An empty table with aligned columns and without lines.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied());
    table
}

/// Aligns columns of numbers on the right.
pub fn right(table: &mut Table, columns: &[usize]) {
    for place in columns {
        if let Some(column) = table.column_mut(*place) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Prints a table to stdout without the blanks at the lines' ends.
pub fn print(table: &Table) {
    crate::terminal::data(table.trim_fmt());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_numbers_in_groups() {
        assert_eq!(
            [count(0), count(999), count(4_200), count(10_000_000)],
            ["0", "999", "4,200", "10,000,000"]
        );
    }

    #[test]
    fn what_nobody_waits_for_is_opened_by_hand() {
        assert_eq!(closed(Duration::from_secs(84)), "for 1m 24s");
        let year = Duration::from_secs(400 * 86_400);
        assert_eq!(closed(year), "until `producer resume` or `retry`");
    }

    #[test]
    fn people_read_time_by_two_units() {
        let shown = |s: u64| span(Duration::from_secs(s));
        assert_eq!(
            [shown(0), shown(84), shown(3_720), shown(90_000)],
            ["0s", "1m 24s", "1h 02m", "1d 01h"]
        );
        assert_eq!(span(Duration::from_millis(100)), "100ms");
    }
}
