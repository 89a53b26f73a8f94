//! A picture of a run's calls over time against what was allowed, as an SVG that stands alone.
//!
//! Calls are counted in slots of a second; when a run has outlived the picture's columns, two slots become one, so
//! that ten million rows take no more memory than a hundred.

use std::fmt::Write as _;
use std::time::Duration;

use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::outcome::Outcome;

/// Columns of the picture at most.
const COLUMNS: usize = 240;
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 240.0;
/// Room for the words around it.
const MARGIN: f64 = 48.0;

/// Calls in one slot of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    good: u64,
    refused: u64,
    wasted: u64,
}

/// A run's calls by time.
#[derive(Clone, Debug)]
pub struct Timeline {
    first_us: Option<i64>,
    slot_us: i64,
    slots: Vec<Slot>,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline {
            first_us: None,
            slot_us: 1_000_000,
            slots: Vec::new(),
        }
    }
}

impl Timeline {
    /// Notes a row. Rows come in the order of their sending.
    pub fn note(&mut self, row: &LedgerRow) {
        let first = *self.first_us.get_or_insert(row.sent_us);
        let passed = (row.sent_us - first).max(0);
        while passed / self.slot_us >= COLUMNS as i64 {
            self.halve();
        }
        let place = usize::try_from(passed / self.slot_us).unwrap_or(0);
        if self.slots.len() <= place {
            self.slots.resize(place + 1, Slot::default());
        }
        let slot = &mut self.slots[place];
        match row.outcome {
            Outcome::Ok | Outcome::Empty => slot.good += 1,
            Outcome::Throttled | Outcome::QuotaExhausted => slot.refused += 1,
            _ => slot.wasted += 1,
        }
    }

    fn halve(&mut self) {
        self.slot_us *= 2;
        let join = |pair: &[Slot]| {
            pair.iter().fold(Slot::default(), |a, b| Slot {
                good: a.good + b.good,
                refused: a.refused + b.refused,
                wasted: a.wasted + b.wasted,
            })
        };
        self.slots = self.slots.chunks(2).map(join).collect();
    }

    /// Calls a second in each slot, whatever they came to, and how long a slot is.
    pub fn speeds(&self) -> (Duration, Vec<f64>) {
        let slot_s = self.slot_us as f64 / 1e6;
        let all = |slot: &Slot| (slot.good + slot.refused + slot.wasted) as f64 / slot_s;
        let speeds = self.slots.iter().map(all).collect();
        (Duration::from_secs_f64(slot_s), speeds)
    }

    /// The picture; `allowed` is in calls a second, where a limit says so.
    pub fn svg(&self, title: &str, allowed: Option<f64>) -> String {
        let (slot, speeds) = self.speeds();
        let slot_s = slot.as_secs_f64();
        let rate = |calls: u64| calls as f64 / slot_s;
        let fullest = speeds.into_iter().fold(1.0, f64::max);
        let top = fullest.max(allowed.unwrap_or(0.0)) * 1.1;
        let y = |calls_s: f64| MARGIN + HEIGHT * (1.0 - calls_s / top);
        let column = WIDTH / self.slots.len().max(1) as f64;
        let mut svg = head(title);
        for (place, slot) in self.slots.iter().enumerate() {
            let x = MARGIN + place as f64 * column;
            let parts = [
                (slot.good, "#2b8a3e"),
                (slot.wasted, "#e8590c"),
                (slot.refused, "#c92a2a"),
            ];
            let mut below = 0.0;
            for (calls, colour) in parts.into_iter().filter(|(calls, _)| *calls > 0) {
                let (from, to) = (y(below), y(below + rate(calls)));
                below += rate(calls);
                // Writing into a string cannot fail.
                let _ = writeln!(
                    svg,
                    r#"<rect x="{x:.2}" y="{to:.2}" width="{:.2}" height="{:.2}" fill="{colour}"/>"#,
                    column.max(0.5),
                    from - to
                );
            }
        }
        if let Some(allowed) = allowed {
            let at = y(allowed);
            let _ = writeln!(
                svg,
                r##"<line x1="{MARGIN}" x2="{:.0}" y1="{at:.2}" y2="{at:.2}" stroke="#1c7ed6" stroke-dasharray="6 4"/>"##,
                MARGIN + WIDTH
            );
            let _ = writeln!(
                svg,
                r##"<text x="{:.0}" y="{:.0}" fill="#1c7ed6">allowed {allowed:.1}/s</text>"##,
                MARGIN + 4.0,
                at - 4.0
            );
        }
        let length = self.slots.len() as f64 * slot_s;
        let _ = writeln!(
            svg,
            r#"<text x="{MARGIN}" y="{:.0}">0 s</text><text x="{:.0}" y="{:.0}" text-anchor="end">{length:.0} s</text>"#,
            MARGIN + HEIGHT + 16.0,
            MARGIN + WIDTH,
            MARGIN + HEIGHT + 16.0
        );
        let _ = writeln!(
            svg,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="middle">calls a second: green answered, orange wasted, red refused; the fullest slot {fullest:.1}/s</text>"#,
            MARGIN + WIDTH / 2.0,
            MARGIN + HEIGHT + 32.0
        );
        svg.push_str("</svg>\n");
        svg
    }
}

fn head(title: &str) -> String {
    let title = title
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"24\" font-size=\"16\">{title}</text>\n",
        WIDTH + 2.0 * MARGIN,
        HEIGHT + 2.0 * MARGIN
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::row;

    #[test]
    fn a_long_run_keeps_its_calls_in_few_columns() {
        let mut timeline = Timeline::default();
        for second in 0..5_000 {
            timeline.note(&row(second * 1_000_000));
        }
        assert!(timeline.slots.len() <= COLUMNS);
        let calls: u64 = timeline.slots.iter().map(|slot| slot.good).sum();
        assert_eq!(calls, 5_000);
        let svg = timeline.svg("a <run>", Some(2.0));
        assert!(svg.contains("a &lt;run&gt;") && svg.contains("allowed 2.0/s"));
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }

    #[test]
    fn a_run_without_calls_has_an_empty_picture() {
        assert!(Timeline::default().svg("none", None).ends_with("</svg>\n"));
    }
}
