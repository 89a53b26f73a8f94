//! What a return flight costs: distance, season, weekday and length of stay.

use std::f64::consts::TAU;

use jiff::civil::{Date, Weekday};

use super::search::Search;

/// Won for a dollar when a price is quoted in dollars.
const WON_PER_DOLLAR: f64 = 1_380.0;

/// The market's price in won, before a carrier's level.
pub fn base(search: &Search) -> f64 {
    let km = search.distance_km();
    // Long flights are cheaper by the kilometre.
    let by_distance = 42_000.0 + 118.0 * km.powf(0.93);
    by_distance * season(search.depart) * weekday(search) * stay(search.nights())
}

/// Hundredths of the currency's unit; won in steps of half a won, so that trailing zeros occur.
pub fn cents(won: f64, currency: &str) -> u64 {
    match currency {
        "KRW" => (won * 2.0).round() as u64 * 50,
        _ => (won / WON_PER_DOLLAR * 100.0).round() as u64,
    }
}

/// Dear in the summer holidays and around the new year, cheap in spring and autumn.
fn season(day: Date) -> f64 {
    let turn = f64::from(day.day_of_year()) / 365.0;
    let summer = bump(turn, 0.585);
    let new_year = bump(turn, 0.0);
    0.9 + 0.45 * summer + 0.3 * new_year
}

/// 1 at `peak`, falling to nearly 0 a month away; the year is a circle.
fn bump(turn: f64, peak: f64) -> f64 {
    ((1.0 + (TAU * (turn - peak)).cos()) / 2.0).powi(12)
}

fn weekday(search: &Search) -> f64 {
    let out = match search.depart.weekday() {
        Weekday::Friday | Weekday::Saturday => 1.14,
        Weekday::Tuesday | Weekday::Wednesday => 0.93,
        _ => 1.0,
    };
    let back = match search.return_day.weekday() {
        Weekday::Sunday => 1.1,
        Weekday::Monday => 1.04,
        _ => 1.0,
    };
    out * back
}

fn stay(nights: i32) -> f64 {
    match nights {
        0 => 1.35,
        1 | 2 => 1.18,
        3..=9 => 1.0,
        10..=14 => 1.05,
        _ => 1.12,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(destination: &str, depart: &str, back: &str) -> f64 {
        base(&Search::new("ICN", destination, depart, back, false).unwrap())
    }

    #[test]
    fn farther_is_dearer() {
        let fare = |to| price(to, "2026-11-24", "2026-11-28");
        assert!(fare("FUK") < fare("BKK") && fare("BKK") < fare("JFK"));
    }

    #[test]
    fn august_fridays_and_short_stays_are_dearer() {
        let plain = price("NRT", "2026-11-24", "2026-11-28");
        assert!(price("NRT", "2026-08-04", "2026-08-08") > plain);
        assert!(price("NRT", "2026-11-27", "2026-12-01") > plain);
        assert!(price("NRT", "2026-11-24", "2026-11-25") > plain);
    }

    #[test]
    fn won_come_in_halves_and_dollars_in_cents() {
        assert_eq!(cents(80_000.6, "KRW"), 8_000_050);
        assert_eq!(cents(1_380.0, "USD"), 100);
    }
}
