//! A heat map as a table: the longer axis goes down, so that it fits a narrow screen. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Shades, the best first.
const SHADES: [&str; 7] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6"];

/// The table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heat {
    /// Heads of the columns.
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<HeatRow>,
    /// Whether the columns are `x`, as the view says, or the rows are.
    pub(super) columns_are_x: bool,
    /// The best cell: x, y, and its value.
    pub(super) best: Option<(String, String, String)>,
    pub(super) worst: String,
    /// Cells that have a value.
    pub(super) known: usize,
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HeatRow {
    pub(super) name: String,
    pub(super) cells: Vec<HeatCell>,
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HeatCell {
    /// Its shade; empty without a value.
    pub(super) shade: &'static str,
    pub(super) text: String,
    /// The best of all.
    pub(super) best: bool,
    /// The best of its row.
    pub(super) first: bool,
}

/// Draws the cells (x, y, value).
pub(super) fn draw(cells: &[(String, String, f64)], highest: bool) -> Heat {
    let xs = sorted(cells.iter().map(|(x, _, _)| x.as_str()));
    let ys = sorted(cells.iter().map(|(_, y, _)| y.as_str()));
    let columns_are_x = xs.len() <= ys.len();
    let (columns, names) = if columns_are_x {
        (&xs, &ys)
    } else {
        (&ys, &xs)
    };
    let at: BTreeMap<(&str, &str), f64> = cells
        .iter()
        .map(|(x, y, value)| {
            let place = if columns_are_x {
                (y.as_str(), x.as_str())
            } else {
                (x.as_str(), y.as_str())
            };
            (place, *value)
        })
        .collect();
    let mut ranked: Vec<f64> = at.values().copied().collect();
    ranked.sort_by(|a, b| {
        if highest {
            b.total_cmp(a)
        } else {
            a.total_cmp(b)
        }
    });
    let best = ranked.first().copied();
    let rows = names
        .iter()
        .map(|name| row(name, columns, &at, &ranked, highest))
        .collect();
    let best_cell = cells.iter().find(|(_, _, value)| Some(*value) == best);
    Heat {
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        rows,
        columns_are_x,
        best: best_cell.map(|(x, y, value)| (x.clone(), y.clone(), exact(*value))),
        worst: ranked.last().map(|value| exact(*value)).unwrap_or_default(),
        known: at.len(),
    }
}

fn row(
    name: &str,
    columns: &[&str],
    at: &BTreeMap<(&str, &str), f64>,
    ranked: &[f64],
    highest: bool,
) -> HeatRow {
    let values: Vec<Option<f64>> = columns
        .iter()
        .map(|column| at.get(&(name, *column)).copied())
        .collect();
    let better = |a: &f64, b: &f64| {
        if highest {
            b.total_cmp(a)
        } else {
            a.total_cmp(b)
        }
    };
    let first = values.iter().flatten().copied().min_by(better);
    let cells = values.into_iter().map(|value| {
        let Some(value) = value else {
            return HeatCell::default();
        };
        HeatCell {
            shade: shade(value, ranked, highest),
            text: short(value),
            best: ranked.first() == Some(&value),
            first: first == Some(value),
        }
    });
    HeatRow {
        name: name.to_owned(),
        cells: cells.collect(),
    }
}

/// By the share of all cells that are better.
fn shade(value: f64, ranked: &[f64], highest: bool) -> &'static str {
    let before = ranked.partition_point(|other| {
        if highest {
            *other > value
        } else {
            *other < value
        }
    });
    let place = before * SHADES.len() / ranked.len().max(1);
    SHADES[place.min(SHADES.len() - 1)]
}

/// Numbers by their size, everything else as text.
fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let each: BTreeSet<&str> = names.collect();
    let mut all: Vec<&str> = each.into_iter().collect();
    if all.iter().all(|name| name.parse::<f64>().is_ok()) {
        all.sort_by(|a, b| {
            let number = |name: &str| name.parse::<f64>().unwrap_or(0.0);
            number(a).total_cmp(&number(b))
        });
    }
    all
}

/// The shortest digits.
pub(super) fn exact(value: f64) -> String {
    format!("{value}")
}

/// About three digits: `412k`, `1.25M`.
fn short(value: f64) -> String {
    let (unit, letter) = match value.abs() {
        size if size >= 1e9 => (1e9, "G"),
        size if size >= 1e6 => (1e6, "M"),
        size if size >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let scaled = value / unit;
    let digits = match scaled.abs() {
        size if size >= 100.0 || (letter.is_empty() && scaled.fract() == 0.0) => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_axis_goes_down_and_the_best_is_marked() {
        let cell = |x: &str, y: u32, value: f64| (x.to_owned(), y.to_string(), value);
        let cells = [
            cell("2026-12-01", 2, 300.0),
            cell("2026-12-01", 10, 100.0),
            cell("2026-12-02", 2, 200.0),
            cell("2026-12-03", 2, 250.0),
        ];
        let heat = draw(&cells, false);
        assert_eq!(heat.columns, ["2", "10"], "numbers by size");
        assert!(!heat.columns_are_x);
        assert_eq!(heat.rows.len(), 3);
        assert!(heat.rows[0].cells[1].best && heat.rows[0].cells[1].first);
        assert_eq!(heat.rows[0].cells[1].shade, "h0");
        assert_eq!(heat.rows[1].cells[1], HeatCell::default());
        assert_eq!(heat.best.expect("a best one").2, "100");
        assert_eq!(draw(&[], false).known, 0);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [80_000.5, 412_300.0, 1_250_000.0, 99.5, 120.0, 9_999.0].map(short);
        assert_eq!(shown, ["80.0k", "412k", "1.25M", "99.5", "120", "9999"]);
    }
}
