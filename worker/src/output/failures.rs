//! Rows of `failures/shard-<n>.ndjson`: `{cell, <dimensions>, reason, outcome, status, field, attempts}`.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::Plan;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why a cell failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The cell.
    pub cell: u64,
    /// In a word or two (`status 404`, `poison`); a key of the manifest's `reasons`.
    pub reason: String,
    /// What its last answer meant.
    pub outcome: Outcome,
    /// HTTP status, 0 without an answer.
    pub status: u16,
    /// The field that did not fit.
    pub field: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

/// What the finisher reads of a row.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct FailedCell {
    /// The cell.
    pub cell: u64,
    /// Why.
    pub reason: String,
}

/// The reason of a failure whose row was lost.
pub const UNKNOWN: &str = "unknown";

impl Failure {
    /// A failure of which nothing is known but that it is one.
    fn unknown(cell: u64) -> Self {
        Failure {
            cell,
            reason: UNKNOWN.to_owned(),
            outcome: Outcome::Permanent,
            status: 0,
            field: None,
            attempts: 0,
        }
    }

    /// The row without its newline, the cell's dimensions out of the plan.
    pub fn line(&self, plan: &Plan) -> String {
        let mut row = Vec::new();
        self.write(plan, &mut row);
        let row = String::from_utf8(row).expect("JSON is UTF-8");
        row.trim_end().to_owned()
    }

    /// Appends the row as one line.
    pub fn write(&self, plan: &Plan, into: &mut Vec<u8>) {
        let mut row = Map::new();
        row.insert("cell".to_owned(), self.cell.into());
        for (name, value) in plan.matrix.names().zip(plan.matrix.cell(self.cell)) {
            row.insert(name.to_string(), value);
        }
        row.insert("reason".to_owned(), self.reason.clone().into());
        row.insert("outcome".to_owned(), self.outcome.as_str().into());
        row.insert("status".to_owned(), self.status.into());
        row.insert("field".to_owned(), self.field.clone().into());
        row.insert("attempts".to_owned(), self.attempts.into());
        serde_json::to_writer(&mut *into, &Value::Object(row))
            .expect("writing JSON into memory cannot fail");
        into.push(b'\n');
    }
}

/// The rows of one shard's failures object by cell, in the hands of one holder of the shard.
///
/// A worker that was stopped and woke up may hold the same shard. A part is written by one of them, and who comes second
/// adopts it; the failures object is put over what was there. So a row that somebody else put is kept until the block's
/// part says which of its cells failed.
#[derive(Debug, Default)]
pub struct FailureRows {
    /// Each without its newline.
    rows: BTreeMap<u64, String>,
    /// The cells of each block whose part is not known to be there.
    open: Vec<Range<u64>>,
    unsaved: bool,
}

impl FailureRows {
    /// The `rows` that stand of a shard that is resumed with these blocks `open`; `unsaved` when the object has others.
    pub fn new(rows: BTreeMap<u64, String>, open: Vec<Range<u64>>, unsaved: bool) -> Self {
        FailureRows {
            rows,
            open,
            unsaved,
        }
    }

    /// A cell failed whose block's part is about to be put.
    pub fn add(&mut self, failure: &Failure, plan: &Plan) {
        self.rows.insert(failure.cell, failure.line(plan));
        self.unsaved = true;
    }

    /// The object as it lies there: its rows for cells of open blocks may be those of a part that stands.
    pub fn keep(&mut self, object: &[u8]) {
        for (row, line) in rows(object) {
            if self.open.iter().any(|cells| cells.contains(&row.cell)) {
                let line = || String::from_utf8_lossy(line).into_owned();
                self.rows.entry(row.cell).or_insert_with(line);
            }
        }
    }

    /// The part of the block that begins with `first_cell` is there: its cells ended so, over all rounds.
    pub fn settle(&mut self, first_cell: u64, ends: &CellEnds) {
        self.open.retain(|cells| cells.start != first_cell);
        for (cell, end) in (first_cell..).zip(&ends.0) {
            if *end != CellEnd::Failed && self.rows.remove(&cell).is_some() {
                self.unsaved = true;
            }
        }
    }

    /// What the object should hold, when it holds something else.
    pub fn unsaved(&self) -> Option<Bytes> {
        self.unsaved.then(|| {
            let lines = self.rows.values().flat_map(|row| [row.as_str(), "\n"]);
            Bytes::from(lines.collect::<String>())
        })
    }

    /// The object holds them.
    pub fn saved(&mut self) {
        self.unsaved = false;
    }
}

/// What `object` should hold instead, where it does not name just the cells of `failed` (rising): rows of other cells go, and
/// whose row is lost failed for an unknown reason. `None` where it is right.
pub fn mended(object: &[u8], failed: &[u64], plan: &Plan) -> Option<Bytes> {
    let found: BTreeMap<u64, &[u8]> = rows(object).map(|(row, line)| (row.cell, line)).collect();
    if found.keys().eq(failed) {
        return None;
    }
    let mut body = Vec::new();
    for cell in failed {
        match found.get(cell) {
            Some(line) => body.extend_from_slice(line),
            None => body.extend_from_slice(Failure::unknown(*cell).line(plan).as_bytes()),
        }
        body.push(b'\n');
    }
    Some(body.into())
}

/// The rows of a failures object with their lines; a line that is no row is left out.
pub fn rows(body: &[u8]) -> impl Iterator<Item = (FailedCell, &[u8])> {
    body.split(|byte| *byte == b'\n')
        .filter_map(|line| Some((serde_json::from_slice(line).ok()?, line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::plan;

    fn failure(cell: u64, reason: &str) -> Failure {
        Failure {
            reason: reason.into(),
            ..Failure::unknown(cell)
        }
    }

    fn object(failures: &[Failure]) -> Vec<u8> {
        let mut body = Vec::new();
        for failure in failures {
            failure.write(&plan(16), &mut body);
        }
        body
    }

    fn named(body: &[u8]) -> Vec<(u64, String)> {
        rows(body).map(|(row, _)| (row.cell, row.reason)).collect()
    }

    fn ends(text: &str) -> CellEnds {
        text.parse().expect("ends")
    }

    #[test]
    fn whose_part_comes_second_names_the_failures_of_the_first() {
        // Blocks of four cells; somebody else put a part in which 5 failed, and was answered 404 for 9, whose block is open.
        let mut mine = FailureRows::new(BTreeMap::new(), vec![4..8, 8..12], false);
        mine.add(&failure(6, "mine"), &plan(16));
        mine.keep(&object(&[failure(5, "theirs"), failure(9, "theirs")]));
        mine.settle(4, &ends("1S1F2S"));
        let body = mine.unsaved().expect("unsaved");
        let theirs = |cell| (cell, "theirs".to_owned());
        assert_eq!(named(&body), [theirs(5), theirs(9)]);
        mine.saved();
        assert_eq!(mine.unsaved(), None);
        mine.settle(8, &ends("4E"));
        assert_eq!(named(&mine.unsaved().expect("unsaved")), [theirs(5)]);
    }

    #[test]
    fn rows_of_blocks_that_are_settled_here_are_not_taken_from_anybody() {
        let open = std::iter::once(4..8).collect();
        let mut mine = FailureRows::new(BTreeMap::new(), open, false);
        mine.keep(&object(&[failure(1, "a retry ended it well")]));
        assert_eq!(mine.unsaved(), None);
        mine.add(&failure(4, "mine"), &plan(16));
        assert_eq!(named(&mine.unsaved().expect("unsaved")).len(), 1);
    }

    #[test]
    fn at_the_end_just_the_cells_that_failed_are_named() {
        let found = object(&[failure(1, "status 404"), failure(2, "stray")]);
        let mended = mended(&found, &[1, 3], &plan(16)).expect("it was wrong");
        let row = |cell, reason: &str| (cell, reason.to_owned());
        assert_eq!(named(&mended), [row(1, "status 404"), row(3, UNKNOWN)]);
        assert_eq!(super::mended(&mended, &[1, 3], &plan(16)), None);
        assert_eq!(super::mended(b"", &[], &plan(16)), None);
        let gone = super::mended(&found, &[], &plan(16)).expect("it was wrong");
        assert!(gone.is_empty());
    }
}
