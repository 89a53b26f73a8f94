//! Pages that were answered more than once: what a perfect resume would not have called again.

use std::collections::HashMap;

use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::outcome::Outcome;

/// The pages that were answered, a bit each: 64 cells that are next to each other share a word, so that ten million
/// cells take little more than a few megabytes.
#[derive(Debug, Default)]
pub struct Answered {
    endpoints: Vec<String>,
    /// By endpoint, page and a 64th of the cell.
    pages: HashMap<(usize, u32, u64), u64>,
    /// Answers beyond the first of each page.
    pub repeated: u64,
}

impl Answered {
    /// Notes a row of the job's own endpoint or one of its steps.
    pub fn note(&mut self, row: &LedgerRow) {
        let answered = matches!(row.outcome, Outcome::Ok | Outcome::Empty);
        let not_the_jobs = matches!(row.endpoint.as_str(), "token" | "login" | "ready");
        if !answered || not_the_jobs {
            return;
        }
        let key = (self.endpoint(&row.endpoint), row.page, row.cell / 64);
        let (word, bit) = (self.pages.entry(key).or_default(), 1u64 << (row.cell % 64));
        self.repeated += u64::from(*word & bit != 0);
        *word |= bit;
    }

    fn endpoint(&mut self, name: &str) -> usize {
        let known = self.endpoints.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.endpoints.push(name.to_owned());
            self.endpoints.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::row;

    #[test]
    fn only_a_second_answer_is_a_repetition() {
        let mut answered = Answered::default();
        let mut note = |cell, page, outcome| {
            let row = LedgerRow {
                cell,
                page,
                outcome,
                ..row(0)
            };
            answered.note(&row);
        };
        note(7, 0, Outcome::Retryable);
        note(7, 0, Outcome::Ok);
        note(7, 1, Outcome::Ok);
        note(8, 0, Outcome::Empty);
        note(7, 0, Outcome::Throttled);
        note(7, 1, Outcome::Ok);
        note(8, 0, Outcome::Ok);
        assert_eq!(answered.repeated, 2);
    }
}
