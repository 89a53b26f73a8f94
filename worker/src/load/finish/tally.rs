//! What a run came to, out of what its shards came to.

use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::message::PartSummary;
use paceline_protocol::plan::Plan;

use super::Shards;
use paceline_protocol::message::merged_ends;

/// A run's sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) cells: u64,
    pub(super) succeeded: u64,
    pub(super) empty: u64,
    pub(super) failed: u64,
    /// Cells without a part: only in a run that was stopped.
    pub(super) not_collected: u64,
    pub(super) records: u64,
    pub(super) rejected: u64,
    /// Cells that an engine's documented end cut off.
    pub(super) truncated: u64,
    /// Ids that got no detail and are only counted.
    pub(super) missing: u64,
    /// Scores of rankings that are no numbers.
    pub(super) unscored: u64,
    /// Records that `dedupe` takes out.
    pub(super) doubles: u64,
}

impl Tally {
    pub(super) fn of(plan: &Plan, shards: &Shards) -> Self {
        let mut tally = Tally {
            cells: plan.cells(),
            ..Tally::default()
        };
        for (shard, (parts, rejected)) in shards {
            for (_, ends) in blocks(plan, *shard, parts) {
                tally.succeeded += ends.count(CellEnd::Succeeded);
                tally.empty += ends.count(CellEnd::Empty);
                tally.failed += ends.count(CellEnd::Failed);
            }
            tally.records += parts.iter().map(|part| part.records).sum::<u64>();
            tally.missing += parts.iter().map(|part| part.missing).sum::<u64>();
            tally.truncated += parts.iter().map(|part| part.truncated).sum::<u64>();
            tally.unscored += parts.iter().map(|part| part.unscored).sum::<u64>();
            tally.rejected += rejected;
        }
        let ended = tally.succeeded + tally.empty + tally.failed;
        tally.not_collected = tally.cells.saturating_sub(ended);
        tally
    }

    /// What a reader of the numbers alone would not see.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.truncated > 0 {
            notes.push(format!(
                "{} of the cells that succeeded have not all of their records: their provider announced more than its pages held, or ends its pages before (`truncated`)",
                self.truncated
            ));
        }
        if self.missing > 0 {
            notes.push(format!(
                "{} ids got no detail: their records have the fields of the list alone (`missing`)",
                self.missing
            ));
        }
        notes
    }

    /// Documents, when no two records share one.
    pub(super) fn documents(&self) -> u64 {
        self.records
            .saturating_sub(self.doubles)
            .saturating_sub(self.rejected)
    }
}

/// First cell and ends of each block of a shard, over all rounds.
pub(super) fn blocks<'a>(
    plan: &'a Plan,
    shard: u64,
    parts: &'a [PartSummary],
) -> impl Iterator<Item = (u64, CellEnds)> + 'a {
    let size = plan.job.shard;
    plan.shard(shard).into_iter().flat_map(move |found| {
        (0..found.blocks(size)).map(move |block| {
            let (first_cell, cells) = found.block(size, block);
            let of_block = parts.iter().filter(|part| part.block == block);
            (first_cell, merged_ends(cells, of_block))
        })
    })
}

/// The cells of a shard that failed in the end.
pub(super) fn failed_cells(plan: &Plan, shard: u64, parts: &[PartSummary]) -> Vec<u64> {
    let mut failed = Vec::new();
    for (first_cell, ends) in blocks(plan, shard, parts) {
        let places = ends.0.iter().zip(first_cell..);
        failed.extend(
            places
                .filter(|(end, _)| **end == CellEnd::Failed)
                .map(|(_, cell)| cell),
        );
    }
    failed
}

/// Cells that a part covers.
pub(super) fn covered(part: &PartSummary) -> u64 {
    part.ends.0.len() as u64 - part.ends.count(CellEnd::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::plan;

    fn part(block: u32, round: u32, ends: &str, records: u64) -> PartSummary {
        PartSummary {
            block,
            round,
            ends: ends.parse().expect("ends"),
            records,
            truncated: 0,
            missing: 0,
            unscored: 0,
        }
    }

    #[test]
    fn a_retry_changes_how_its_cells_ended() {
        let plan = plan(16);
        let shards: Shards = [
            (
                0,
                (
                    vec![
                        part(0, 0, "2S2F", 5),
                        part(1, 0, "4E", 0),
                        part(0, 1, "2-1S1F", 3),
                    ],
                    1,
                ),
            ),
            (1, (vec![part(0, 0, "4S", 4)], 0)),
        ]
        .into();
        let tally = Tally::of(&plan, &shards);
        assert_eq!(
            tally,
            Tally {
                cells: 16,
                succeeded: 7,
                empty: 4,
                failed: 1,
                not_collected: 4,
                records: 12,
                rejected: 1,
                truncated: 0,
                missing: 0,
                unscored: 0,
                doubles: 0,
            }
        );
        assert_eq!(failed_cells(&plan, 0, &shards[&0].0), [3]);
        assert_eq!(covered(&shards[&0].0[2]), 2);
    }
}
