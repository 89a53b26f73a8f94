//! Rows of `failures/shard-<n>.ndjson`: `{cell, <dimensions>, reason, outcome, status, field, attempts}`.

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

impl Failure {
    /// Appends the row as one line, the cell's dimensions out of the plan.
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

/// The rows of a failures object with their lines; a line that is no row is left out.
pub fn rows(body: &[u8]) -> impl Iterator<Item = (FailedCell, &[u8])> {
    body.split(|byte| *byte == b'\n')
        .filter_map(|line| Some((serde_json::from_slice(line).ok()?, line)))
}
