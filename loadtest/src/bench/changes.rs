//! Nights of a job with `changes` as collectors leave them behind: plan, `raw/` and receipts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use futures::{TryStreamExt as _, stream};
use jiff::Timestamp;
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, PartName, RunLayout};
use paceline_protocol::message::{MESSAGE_VERSION, PartSummary, Receipt};
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment, Shard,
};
use paceline_protocol::spec::{Changes, ShardSize};
use paceline_protocol::stores::state::OpenRun;

use super::load::{RunStores, bare_job};
use crate::chance::scatter;

const JOB: &str = "bench-changes";
const LANE: &str = "nobody";
/// Records of a cell.
const RECORDS: u64 = 1_000;
/// 20,000 records are a part.
const SHARD: ShardSize = ShardSize {
    cells: 100,
    checkpoint: 20,
};
/// Objects that are written at once.
const AT_ONCE: usize = 4;
/// Microseconds of some day.
const VERSION: i64 = 1_795_000_000_000_000;

/// A night: of a hundred records of the first one, in the second one is gone and another one new, one has
/// moved, ten have changed, and all were looked at again.
pub struct ComparedRun {
    plan: Plan,
    layout: RunLayout,
    second: bool,
}

impl ComparedRun {
    /// A night of `rows` records (rounded up to whole cells); the second one is compared with `base`.
    ///
    /// # Errors
    /// When `run` is no run id.
    pub fn new(run: &str, base: Option<&str>, rows: u64, prefix: &str) -> anyhow::Result<Self> {
        let plan = plan(run, base, rows.div_ceil(RECORDS))?;
        let layout = RunLayout::new(prefix, &plan.run_ref()).collecting(&plan);
        Ok(ComparedRun {
            plan,
            layout,
            second: base.is_some(),
        })
    }

    /// How many records it has.
    pub fn rows(&self) -> u64 {
        self.plan.cells() * RECORDS
    }

    /// How many of the base are gone.
    pub fn gone(&self) -> u64 {
        if self.second {
            self.rows().div_ceil(100)
        } else {
            0
        }
    }

    /// Where the run's end is written.
    pub fn manifest(&self) -> String {
        self.layout.manifest()
    }

    /// Writes plan and parts, and opens the run.
    ///
    /// # Errors
    /// When a store does not take it.
    pub async fn write(&self, stores: &RunStores) -> anyhow::Result<()> {
        let plan = serde_json::to_vec(&self.plan).context("a plan is plain data")?;
        let objects = &stores.objects;
        objects.put(&self.layout.plan(), plan.into(), &[]).await?;
        let shards: Vec<u64> = (0..self.plan.shards()).collect();
        stream::iter(shards.into_iter().map(anyhow::Ok))
            .try_for_each_concurrent(AT_ONCE, |shard| self.write_shard(stores, shard))
            .await?;
        let open = OpenRun {
            run: self.run(),
            lanes: vec![LANE.to_owned()],
            priority: 5,
            paused: false,
            reason: None,
            round: 0,
            opened_at: None,
        };
        let entry = serde_json::to_vec(&open).context("an open run is plain data")?;
        let key = layout::open_run(&stores.prefix, &open.run);
        objects.put(&key, entry.into(), &[]).await?;
        Ok(stores.state.set_open_run(&open).await?)
    }

    async fn write_shard(&self, stores: &RunStores, shard: u64) -> anyhow::Result<()> {
        let shard = self.plan.shard(shard).context("a shard of the plan")?;
        for block in 0..shard.blocks(SHARD) {
            let summary = summary(&shard, block);
            let metadata = [
                ("ends", summary.ends.to_string()),
                ("records", summary.records.to_string()),
                ("version", VERSION.to_string()),
                ("round", "0".to_owned()),
            ];
            let name = PartName { block, round: 0 };
            let key = self.layout.part(shard.number, name, "ndjson.zst");
            let body = zstd::encode_all(self.lines(&shard, block).as_bytes(), 1)?;
            stores.objects.put(&key, body.into(), &metadata).await?;
        }
        Ok(())
    }

    /// Publishes the receipts of all shards, in order.
    ///
    /// # Errors
    /// When the broker does not take them.
    pub async fn publish(&self, stores: &RunStores) -> anyhow::Result<()> {
        for shard in self.plan.all_shards() {
            let receipt = Receipt {
                v: MESSAGE_VERSION,
                job: JOB.to_owned(),
                run: self.plan.run.clone(),
                shard: Some(shard.number),
                round: 0,
                parts: (0..shard.blocks(SHARD))
                    .map(|block| summary(&shard, block))
                    .collect(),
                rebuild: None,
                trace: None,
            };
            stores.publisher.receipt(&receipt).await?;
        }
        Ok(())
    }

    fn run(&self) -> RunRef {
        self.plan.run_ref()
    }

    /// The records of a block, a line each.
    fn lines(&self, shard: &Shard<'_>, block: u32) -> String {
        let (first, cells) = shard.block(SHARD, block);
        let mut lines = String::new();
        for cell in first..first + u64::from(cells) {
            for n in cell * RECORDS..(cell + 1) * RECORDS {
                self.push_line(&mut lines, cell, n);
            }
        }
        lines
    }

    fn push_line(&self, lines: &mut String, cell: u64, n: u64) {
        let kind = if self.second { n % 100 } else { 50 };
        let id = scatter(if kind == 0 { n + self.rows() } else { n });
        let moved = u64::from(kind == 1);
        let title = if (2..12).contains(&kind) {
            "changed"
        } else {
            "as before"
        };
        let day = 20 + u64::from(self.second);
        writeln!(
            lines,
            r#"{{"cell":{cell},"id":"{id:016x}","title":"An event of some length, {title} ({n})","starts_at":"2026-12-24T09:35:00Z","rank":{},"lon":{moved}.{},"lat":35.{n},"updated_at":"2026-11-{day}T09:35:00Z"}}"#,
            n % 100,
            n % 977,
        )
        .expect("writing into a string cannot fail");
    }
}

fn summary(shard: &Shard<'_>, block: u32) -> PartSummary {
    let (_, cells) = shard.block(SHARD, block);
    PartSummary {
        block,
        round: 0,
        ends: CellEnds(vec![CellEnd::Succeeded; cells as usize]),
        records: u64::from(cells) * RECORDS,
        truncated: 0,
        missing: 0,
        unscored: 0,
    }
}

fn plan(run: &str, base: Option<&str>, cells: u64) -> anyhow::Result<Plan> {
    let now = Timestamp::now();
    let mut job = bare_job(JOB, LANE, SHARD);
    job.changes = Some(Changes {
        id: "{{ id }}".into(),
        ignore: vec!["updated_at".into()],
        moved: vec!["lat".into(), "lon".into()],
    });
    Ok(Plan {
        version: PLAN_VERSION,
        run: run.parse()?,
        planned_at: now,
        date: now.to_zoned(jiff::tz::TimeZone::UTC).date(),
        only: BTreeMap::new(),
        allow_shrink: false,
        force: false,
        base: base.map(str::parse).transpose()?,
        job,
        providers: BTreeMap::new(),
        matrix: Matrix {
            dimensions: vec![PlannedDimension {
                names: vec!["cell".into()],
                values: PlannedValues::Range {
                    first: 0,
                    count: cells,
                },
            }],
        },
        segments: vec![Segment {
            lane: LANE.to_owned(),
            provider: LANE.to_owned(),
            first_cell: 0,
            cells,
        }],
        inputs: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_is_gone() {
        let ids = |run: &ComparedRun| -> std::collections::BTreeSet<String> {
            let shard = run.plan.shard(0).expect("a shard");
            let lines = run.lines(&shard, 0);
            let id = |line: &str| {
                let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
                row["id"].as_str().expect("text").to_owned()
            };
            lines.lines().map(id).collect()
        };
        let first = ComparedRun::new("n1", None, 2_000, "p").expect("a run");
        let second = ComparedRun::new("n2", Some("n1"), 2_000, "p").expect("a run");
        assert_eq!(second.rows(), 2_000);
        let (before, now) = (ids(&first), ids(&second));
        assert_eq!(before.difference(&now).count() as u64, second.gone());
        assert_eq!(now.len(), 2_000);
    }
}
