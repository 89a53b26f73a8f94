//! Settling a block: what it adds to the run's counters, and which bit says that it was added.

use std::collections::BTreeMap;

use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::message::PartSummary;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::state::BlockCounts;

/// Where a part belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// The shard.
    pub shard: u64,
    /// The block within it.
    pub block: u32,
    /// The round.
    pub round: u32,
    /// The block's first cell.
    pub first_cell: u64,
    /// How many cells.
    pub cells: u32,
}

impl BlockPlace {
    /// The place of a block; `None` when the plan has no such block.
    pub fn of(plan: &Plan, shard: u64, block: u32, round: u32) -> Option<Self> {
        let size = plan.job.shard;
        let found = plan.shard(shard)?;
        if block >= found.blocks(size) {
            return None;
        }
        let (first_cell, cells) = found.block(size, block);
        Some(BlockPlace {
            shard,
            block,
            round,
            first_cell,
            cells,
        })
    }

    /// The bit of the part in the run's bitmap: rounds lie behind each other, each with a bit for every
    /// block (`blocks of the run * round + bit of the block`).
    pub fn bit(&self, plan: &Plan) -> u64 {
        let blocks = plan.shards() * plan.blocks_per_shard();
        blocks * u64::from(self.round) + plan.block_bit(self.shard, self.block)
    }
}

/// What a part adds to the run's counters. `before` is how the block's cells had ended in earlier
/// rounds; `None` in round 0.
pub fn block_counts(
    plan: &Plan,
    place: &BlockPlace,
    part: &PartSummary,
    before: Option<&CellEnds>,
) -> BlockCounts {
    let mut counts = BlockCounts {
        succeeded: part.ends.count(CellEnd::Succeeded),
        empty: part.ends.count(CellEnd::Empty),
        failed: part.ends.count(CellEnd::Failed),
        records: part.records,
        by: by_value(plan, place, &part.ends),
        ..BlockCounts::default()
    };
    if let Some(before) = before {
        let cells = before.0.iter().zip(&part.ends.0);
        let again =
            |(was, is): &(&CellEnd, &CellEnd)| **was == CellEnd::Failed && **is != CellEnd::Absent;
        let back: Vec<CellEnd> = cells
            .map(|pair| {
                if again(&pair) {
                    CellEnd::Failed
                } else {
                    CellEnd::Absent
                }
            })
            .collect();
        let back = CellEnds(back);
        counts.no_longer_failed = back.count(CellEnd::Failed);
        let by = by_value(plan, place, &back).into_iter();
        counts.no_longer_failed_by = by.map(|(value, (_, _, failed))| (value, failed)).collect();
    }
    counts
}

/// The cells by the value of `progress_by`.
fn by_value(plan: &Plan, place: &BlockPlace, ends: &CellEnds) -> BTreeMap<String, (u64, u64, u64)> {
    let mut by: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    let Some(name) = plan.job.progress_by.as_deref() else {
        return by;
    };
    let Some(column) = plan.matrix.names().position(|n| &**n == name) else {
        return by;
    };
    for (i, end) in ends.0.iter().enumerate() {
        let values = plan.matrix.cell(place.first_cell + i as u64);
        let value = match &values[column] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let (succeeded, empty, failed) = by.entry(value).or_default();
        match end {
            CellEnd::Succeeded => *succeeded += 1,
            CellEnd::Empty => *empty += 1,
            CellEnd::Failed => *failed += 1,
            CellEnd::Absent => {}
        }
    }
    by
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use indexmap::IndexMap;
    use paceline_protocol::message::merged_ends;
    use paceline_protocol::plan::{Matrix, PLAN_VERSION, PlannedDimension, PlannedValues, Segment};
    use paceline_protocol::spec::{
        Gate, IndexMode, IndexOutput, Job, KeepScore, Outputs, Ranking, ShardSize, Template,
    };

    /// A plan of `nights` cells of one city, shards of 8 cells with blocks of 4.
    pub(crate) fn plan(nights: u64) -> Plan {
        let dimension = |name: &str, values| PlannedDimension {
            names: vec![name.into()],
            values,
        };
        Plan {
            version: PLAN_VERSION,
            run: "2026-11-21".parse().expect("a run id"),
            planned_at: "2026-11-20T18:00:00Z".parse().expect("an instant"),
            date: "2026-11-21".parse().expect("a date"),
            only: BTreeMap::new(),
            allow_shrink: false,
            force: false,
            base: None,
            job: job(),
            providers: BTreeMap::new(),
            matrix: Matrix {
                dimensions: vec![
                    dimension("city", PlannedValues::Rows(vec![vec!["NRT".into()]])),
                    dimension(
                        "night",
                        PlannedValues::Range {
                            first: 0,
                            count: nights,
                        },
                    ),
                ],
            },
            segments: vec![Segment {
                lane: "fare-search".into(),
                provider: "fare-search".into(),
                first_cell: 0,
                cells: nights,
            }],
            inputs: Default::default(),
        }
    }

    fn job() -> Job {
        Job {
            name: "fares".into(),
            provider: Some("fare-search".into()),
            endpoint: Some("fares".into()),
            after: None,
            trigger: None,
            params: IndexMap::new(),
            split: IndexMap::new(),
            source: None,
            shard: ShardSize {
                cells: 8,
                checkpoint: 4,
            },
            schedule: None,
            gate: Gate::default(),
            dedupe: None,
            progress_by: None,
            changes: None,
            fields: IndexMap::new(),
            outputs: Outputs::default(),
            retention: None,
            priority: 5,
            view: None,
            notify: vec![],
        }
    }

    /// A ranking out of its templates.
    pub(crate) fn ranking(key: &str, member: &str, score: &str, keep: KeepScore) -> Ranking {
        Ranking {
            key: key.into(),
            member: member.into(),
            score: score.into(),
            keep,
            expire: None,
            normalise: None,
        }
    }

    /// A snapshot index whose ids come from `id`.
    pub(crate) fn snapshot(id: impl Into<Template>) -> IndexOutput {
        IndexOutput {
            name: "fares".into(),
            mode: IndexMode::Snapshot,
            id: id.into(),
            keep: 2,
            mapping: IndexMap::new(),
        }
    }

    fn part(round: u32, ends: &str) -> PartSummary {
        PartSummary {
            block: 0,
            round,
            ends: ends.parse().expect("ends"),
            records: 1,
            truncated: 0,
            missing: 0,
            unscored: 0,
        }
    }

    #[test]
    fn every_part_has_a_bit_of_its_own() {
        let plan = plan(20);
        let mut bits = std::collections::BTreeSet::new();
        for round in 0..3 {
            for (shard, block) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)] {
                let place = BlockPlace::of(&plan, shard, block, round).expect("in the plan");
                assert!(bits.insert(place.bit(&plan)), "{place:?}");
            }
        }
        assert_eq!(BlockPlace::of(&plan, 2, 1, 0), None);
        assert_eq!(BlockPlace::of(&plan, 3, 0, 0), None);
    }

    #[test]
    fn the_newest_round_that_covers_a_cell_counts() {
        let parts = [part(1, "2-1S1F"), part(0, "1S1E2F"), part(2, "3-1E")];
        assert_eq!(merged_ends(4, &parts).to_string(), "1S1E1S1E");
        assert_eq!(merged_ends(2, []).to_string(), "2-");
    }

    #[test]
    fn a_retry_takes_its_cells_out_of_the_failed() {
        let mut plan = plan(4);
        plan.job.progress_by = Some("night".into());
        let place = BlockPlace::of(&plan, 0, 0, 1).expect("in the plan");
        let before = "1S3F".parse().expect("ends");
        let counts = block_counts(&plan, &place, &part(1, "2-1S1F"), Some(&before));
        assert_eq!(
            (counts.succeeded, counts.failed, counts.no_longer_failed),
            (1, 1, 2)
        );
        assert_eq!(counts.by["2"], (1, 0, 0));
    }
}
