//! `view: {heatmap: {of: destination, x: depart, y: nights, value: price, agg: min}}`: records as a grid.
//! Pure; the records come from elsewhere.

use std::cmp::Ordering;
use std::collections::HashMap;

use paceline_protocol::plan::{Matrix, Plan};
use paceline_protocol::record_names::ReadRecord;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

/// The longest axis that is listed with its empty places.
const LONGEST: u64 = 10_000;

/// How a job's records are shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Heatmap {
    /// One grid for each value of it.
    pub(super) of: Option<String>,
    x: String,
    y: String,
    value: String,
    #[serde(default)]
    agg: Agg,
}

/// What of several records in one place counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Agg {
    #[default]
    Min,
    Max,
    Last,
    Sum,
    Avg,
    Count,
}

impl Agg {
    fn word(self) -> &'static str {
        match self {
            Agg::Min => "min",
            Agg::Max => "max",
            Agg::Last => "last",
            Agg::Sum => "sum",
            Agg::Avg => "avg",
            Agg::Count => "count",
        }
    }
}

impl Heatmap {
    /// The heat map of a `view:`.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub(super) fn read(view: &Value) -> Result<Self, String> {
        let heatmap = view
            .get("heatmap")
            .ok_or("its view is no heatmap, and nothing else can be shown yet")?;
        serde_json::from_value(heatmap.clone()).map_err(|error| format!("view.heatmap: {error}"))
    }

    /// The values of `of` in the order of the plan, when it is a dimension.
    pub(super) fn choices(&self, matrix: &Matrix) -> Vec<Value> {
        let of = self.of.as_deref();
        of.and_then(|of| Axis::find(matrix, of))
            .map(|axis| axis.values())
            .unwrap_or_default()
    }
}

/// How a value is written in an address (`?of=NRT`).
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A dimension's own name, or one of its columns.
pub(super) struct Axis<'m> {
    matrix: &'m Matrix,
    /// Cells between two places.
    stride: u64,
    len: u64,
    /// Where its value stands in a cell.
    column: usize,
}

impl<'m> Axis<'m> {
    pub(super) fn find(matrix: &'m Matrix, name: &str) -> Option<Self> {
        let mut column = 0;
        for (place, dimension) in matrix.dimensions.iter().enumerate() {
            if let Some(own) = dimension.names.iter().position(|known| **known == *name) {
                let inner = &matrix.dimensions[place + 1..];
                return Some(Axis {
                    matrix,
                    stride: inner.iter().map(|d| d.values.len()).product(),
                    len: dimension.values.len(),
                    column: column + own,
                });
            }
            column += dimension.names.len();
        }
        None
    }

    /// Its values, each once, in order.
    fn values(&self) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        if self.stride == 0 {
            return values;
        }
        for place in 0..self.len.min(LONGEST) {
            let value = self
                .matrix
                .cell(place * self.stride)
                .swap_remove(self.column);
            if seen.insert(value.to_string()) {
                values.push(value);
            }
        }
        values
    }

    /// The places that have this value.
    pub(super) fn places(&self, text: &str) -> Vec<bool> {
        let is_it = |place: u64| {
            let value = self
                .matrix
                .cell(place * self.stride)
                .swap_remove(self.column);
            as_text(&value) == text
        };
        match self.stride {
            0 => Vec::new(),
            _ => (0..self.len).map(is_it).collect(),
        }
    }

    /// The place of a cell.
    pub(super) fn place(&self, cell: u64) -> u64 {
        match (self.stride, self.len) {
            (0, _) | (_, 0) => 0,
            (stride, len) => cell / stride % len,
        }
    }
}

/// One place of the grid.
struct Spot {
    x: Value,
    y: Value,
    /// The record that counts, when one does.
    record: Option<ReadRecord>,
    value: Number,
    sum: f64,
    count: u64,
}

/// A grid that takes in records.
pub(super) struct Grid<'h> {
    heatmap: &'h Heatmap,
    /// Only records with this value of `of`.
    of: Option<String>,
    spots: HashMap<(String, String), Spot>,
}

impl<'h> Grid<'h> {
    pub(super) fn new(heatmap: &'h Heatmap, of: Option<&str>) -> Self {
        Grid {
            heatmap,
            of: of.map(str::to_owned),
            spots: HashMap::new(),
        }
    }

    /// Takes a record in, unless it belongs to another grid or lacks a number.
    pub(super) fn add(&mut self, record: ReadRecord) {
        let Heatmap {
            of,
            x,
            y,
            value,
            agg,
            ..
        } = self.heatmap;
        if let (Some(name), Some(wanted)) = (of, &self.of)
            && record
                .get(name)
                .is_none_or(|found| as_text(found) != *wanted)
        {
            return;
        }
        let number = match record.get(value) {
            Some(Value::Number(number)) => number.clone(),
            _ if *agg == Agg::Count => Number::from(1),
            _ => return,
        };
        let (Some(x), Some(y)) = (record.get(x).cloned(), record.get(y).cloned()) else {
            return;
        };
        let place = (x.to_string(), y.to_string());
        let spot = self.spots.entry(place).or_insert_with(|| Spot {
            x,
            y,
            record: None,
            value: number.clone(),
            sum: 0.0,
            count: 0,
        });
        spot.take(record, number, *agg);
    }

    /// The grid as JSON.
    pub(super) fn shown(self, plan: &Plan) -> Value {
        let heatmap = self.heatmap;
        let axis = |name: &str, found: Vec<Value>| {
            let values = match Axis::find(&plan.matrix, name) {
                Some(axis) if axis.len <= LONGEST => axis.values(),
                _ => sorted(found),
            };
            json!({ "name": name, "values": values })
        };
        let spots = self.spots.values();
        let (xs, ys): (Vec<Value>, Vec<Value>) =
            spots.map(|spot| (spot.x.clone(), spot.y.clone())).unzip();
        let (x, y) = (axis(&heatmap.x, xs), axis(&heatmap.y, ys));
        let mut spots: Vec<Spot> = self.spots.into_values().collect();
        spots.sort_by(|a, b| order(&a.x, &b.x).then_with(|| order(&a.y, &b.y)));
        let cells: Vec<Value> = spots.into_iter().map(|spot| spot.shown(heatmap)).collect();
        json!({
            "job": plan.job.name, "run": plan.run, "date": plan.date, "planned_at": plan.planned_at,
            "of": heatmap.of.as_ref().map(|name| json!({ "name": name, "value": self.of })),
            "x": x, "y": y, "value": heatmap.value, "agg": heatmap.agg.word(), "cells": cells,
        })
    }
}

impl Spot {
    fn take(&mut self, record: ReadRecord, number: Number, agg: Agg) {
        let new = float(&number);
        let old = float(&self.value);
        self.sum += new;
        self.count += 1;
        let counts = self.count == 1
            || match agg {
                Agg::Min => new < old,
                Agg::Max => new > old,
                Agg::Last => true,
                Agg::Sum | Agg::Avg | Agg::Count => false,
            };
        if counts {
            self.value = number;
            self.record = matches!(agg, Agg::Min | Agg::Max | Agg::Last).then_some(record);
        }
    }

    /// The place and its value; where one record counts, its other fields too.
    fn shown(self, heatmap: &Heatmap) -> Value {
        let mut cell = Map::new();
        cell.insert(heatmap.x.clone(), self.x);
        cell.insert(heatmap.y.clone(), self.y);
        let value = match heatmap.agg {
            Agg::Sum => json!(self.sum),
            Agg::Avg => json!(self.sum / self.count as f64),
            Agg::Count => json!(self.count),
            Agg::Min | Agg::Max | Agg::Last => Value::Number(self.value),
        };
        cell.insert(heatmap.value.clone(), value);
        for (name, value) in self.record.unwrap_or_default() {
            if heatmap.of.as_ref() != Some(&name) && !cell.contains_key(&name) {
                cell.insert(name, value);
            }
        }
        Value::Object(cell)
    }
}

fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(f64::NAN)
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_by(order);
    values.dedup();
    values
}

/// Numbers by size, else as text.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => as_text(a).cmp(&as_text(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::plan::{PlannedDimension, PlannedValues};

    fn matrix() -> Matrix {
        let rows = |names: &[&str], rows: &[&[Value]]| PlannedDimension {
            names: names.iter().map(|name| (*name).into()).collect(),
            values: PlannedValues::Rows(rows.iter().map(|row| row.to_vec()).collect()),
        };
        Matrix {
            dimensions: vec![
                rows(&["destination"], &[&[json!("NRT")], &[json!("KIX")]]),
                rows(
                    &["depart", "day"],
                    &[
                        &[json!("2026-12-01"), json!(2)],
                        &[json!("2026-12-02"), json!(3)],
                    ],
                ),
                PlannedDimension {
                    names: vec!["nights".into()],
                    values: PlannedValues::Range { first: 9, count: 3 },
                },
            ],
        }
    }

    #[test]
    fn an_axis_knows_the_place_of_each_cell() {
        let matrix = matrix();
        for name in ["destination", "depart", "day", "nights"] {
            let axis = Axis::find(&matrix, name).expect("an axis");
            let column = matrix
                .names()
                .position(|known| **known == *name)
                .expect("a column");
            for cell in 0..matrix.cells().expect("cells") {
                let value = as_text(&matrix.cell(cell)[column]);
                let places = axis.places(&value);
                assert!(places[axis.place(cell) as usize], "{name} {cell}");
            }
        }
        let nights = Axis::find(&matrix, "nights").expect("an axis").values();
        assert_eq!(nights, [json!(9), json!(10), json!(11)]);
        assert!(Axis::find(&matrix, "price").is_none());
    }

    fn record(destination: &str, nights: i64, price: &str, carrier: &str) -> ReadRecord {
        let text = format!(
            "{{\"destination\":\"{destination}\",\"depart\":\"2026-12-01\",\"nights\":{nights},\"price\":{price},\"carrier\":\"{carrier}\"}}"
        );
        serde_json::from_str(&text).expect("a record")
    }

    #[test]
    fn the_lowest_record_counts_with_its_digits() {
        let view = json!({"heatmap": {"of": "destination", "x": "depart", "y": "nights", "value": "price", "agg": "min"}});
        let heatmap = Heatmap::read(&view).expect("a heat map");
        let mut grid = Grid::new(&heatmap, Some("NRT"));
        for (to, nights, price, carrier) in [
            ("NRT", 10, "90.50", "A"),
            ("NRT", 10, "80.10", "B"),
            ("NRT", 9, "7", "C"),
            ("KIX", 10, "1", "D"),
            ("NRT", 10, "null", "E"),
        ] {
            grid.add(record(to, nights, price, carrier));
        }
        let mut spots: Vec<Spot> = grid.spots.into_values().collect();
        spots.sort_by(|a, b| order(&a.y, &b.y));
        let shown: Vec<String> = spots
            .into_iter()
            .map(|s| s.shown(&heatmap).to_string())
            .collect();
        assert_eq!(shown.len(), 2);
        assert!(
            shown[0].contains("\"carrier\":\"C\"") && shown[1].contains("80.10"),
            "{shown:?}"
        );
        assert!(
            shown[1].contains("\"carrier\":\"B\"") && !shown[1].contains("NRT"),
            "{shown:?}"
        );
        assert!(Heatmap::read(&json!({"table": {}})).is_err());
        assert!(Heatmap::read(&json!({"heatmap": {"x": "a"}})).is_err());
    }
}
