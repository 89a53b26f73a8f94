//! Pages that were answered more than once: what a perfect resume would not have called again.

use std::collections::HashSet;

use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::outcome::Outcome;

/// The pages that were answered. The first page of a cell is a bit, so that ten million cells take
/// little more than a megabyte.
#[derive(Debug, Default)]
pub struct Answered {
    first_pages: Vec<u64>,
    others: HashSet<(String, u64, u32)>,
    /// Answers beyond the first of each page.
    pub repeated: u64,
}

impl Answered {
    /// Notes a row of the job's own `endpoint` or one of its steps.
    pub fn note(&mut self, row: &LedgerRow, endpoint: &str) {
        let answered = matches!(row.outcome, Outcome::Ok | Outcome::Empty);
        let not_the_jobs = matches!(row.endpoint.as_str(), "token" | "login" | "ready");
        if !answered || not_the_jobs {
            return;
        }
        let new = if row.page == 0 && row.endpoint == endpoint {
            self.first_page(row.cell)
        } else {
            self.others
                .insert((row.endpoint.clone(), row.cell, row.page))
        };
        self.repeated += u64::from(!new);
    }

    fn first_page(&mut self, cell: u64) -> bool {
        let (word, bit) = ((cell / 64) as usize, 1u64 << (cell % 64));
        if self.first_pages.len() <= word {
            self.first_pages.resize(word + 1, 0);
        }
        let new = self.first_pages[word] & bit == 0;
        self.first_pages[word] |= bit;
        new
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
            answered.note(&row, "fares");
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
