//! A run as collectors leave it behind: plan, parts and receipts, written without a single call.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indexmap::IndexMap;
use jiff::Timestamp;
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, PartName, RunLayout};
use paceline_protocol::message::{MESSAGE_VERSION, PartSummary, Receipt};
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment, Shard,
};
use paceline_protocol::spec::{Gate, IndexMode, IndexOutput, Job, Outputs, ShardSize};
use paceline_protocol::stores::broker::Publisher;
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::stores::state::{BlockCounts, OpenRun, State};
use serde_json::json;

const JOB: &str = "bench-load";
const LANE: &str = "nobody";
/// Cells of a shard and of a part: those of the fare calendar.
const SHARD: ShardSize = ShardSize {
    cells: 140,
    checkpoint: 20,
};
/// Objects that are written at once.
const AT_ONCE: usize = 16;
/// What an external version begins with: microseconds of some day.
const VERSION: i64 = 1_795_000_000_000_000;
/// Most documents and bytes of one raw `_bulk`: those of the loader.
const BULK: (usize, usize) = (5_000, 5 << 20);

/// The stores that a collected run lies in.
pub struct RunStores {
    /// Plan and parts.
    pub objects: Objects,
    /// Bits of the parts.
    pub state: State,
    /// Receipts.
    pub publisher: Publisher,
    /// `PACELINE_PREFIX`
    pub prefix: String,
}

/// A run that is collected and not yet loaded.
pub struct CollectedRun {
    plan: Plan,
    layout: RunLayout,
    records: u64,
}

impl CollectedRun {
    /// A run of `documents` documents (rounded up to whole cells), `records` in a cell.
    ///
    /// # Errors
    /// When `run` is no run id.
    pub fn new(run: &str, documents: u64, records: u64, prefix: &str) -> anyhow::Result<Self> {
        let plan = plan(run, documents.div_ceil(records))?;
        let layout = RunLayout::new(prefix, &plan.run_ref());
        Ok(CollectedRun {
            plan,
            layout,
            records,
        })
    }

    /// The run with its job.
    pub fn run(&self) -> RunRef {
        self.plan.run_ref()
    }

    /// How many documents it has.
    pub fn documents(&self) -> u64 {
        self.plan.cells() * self.records
    }

    /// How many shards it has.
    pub fn shards(&self) -> u64 {
        self.plan.shards()
    }

    /// The index that a loader makes of it.
    pub fn index(&self) -> String {
        format!("{JOB}-{}", self.plan.run)
    }

    /// Where the run's end is written.
    pub fn manifest(&self) -> String {
        self.layout.manifest()
    }

    /// Settings and mapping, as a loader makes them.
    pub fn index_body() -> serde_json::Value {
        let properties: serde_json::Map<String, serde_json::Value> = mapping()
            .into_iter()
            .map(|(field, kind)| (field, json!({ "type": kind })))
            .collect();
        json!({
            "settings": { "index": { "refresh_interval": "-1", "number_of_replicas": 0 } },
            "mappings": { "dynamic": false, "properties": properties },
        })
    }

    /// Writes plan, parts and the parts' bits, and opens the run.
    ///
    /// # Errors
    /// When a store does not take it.
    pub async fn write(&self, stores: &RunStores) -> anyhow::Result<()> {
        let plan = serde_json::to_vec(&self.plan).context("a plan is plain data")?;
        stores
            .objects
            .put(&self.layout.plan(), plan.into(), &[])
            .await?;
        let shards: Vec<u64> = (0..self.shards()).collect();
        stream::iter(shards.into_iter().map(anyhow::Ok))
            .try_for_each_concurrent(AT_ONCE, |shard| self.write_shard(stores, shard))
            .await?;
        let open = self.open();
        let entry = serde_json::to_vec(&open).context("an open run is plain data")?;
        let key = layout::open_run(&stores.prefix, &open.run);
        stores.objects.put(&key, entry.into(), &[]).await?;
        Ok(stores.state.set_open_run(&open).await?)
    }

    async fn write_shard(&self, stores: &RunStores, shard: u64) -> anyhow::Result<()> {
        let shard = self.plan.shard(shard).context("a shard of the plan")?;
        for block in 0..shard.blocks(SHARD) {
            let summary = self.summary(&shard, block);
            let metadata = [
                ("ends", summary.ends.to_string()),
                ("records", summary.records.to_string()),
                ("version", VERSION.to_string()),
                ("round", "0".to_owned()),
            ];
            let key = self
                .layout
                .part(shard.number, PartName { block, round: 0 }, "ndjson.zst");
            let body = zstd::encode_all(self.lines(&shard, block).as_bytes(), 3)?;
            stores.objects.put_new(&key, body.into(), &metadata).await?;
            let bit = self.plan.block_bit(shard.number, block);
            let counts = BlockCounts {
                succeeded: summary.ends.count(CellEnd::Succeeded),
                records: summary.records,
                ..BlockCounts::default()
            };
            stores
                .state
                .settle_block(&self.run(), bit, &counts, &[])
                .await?;
        }
        Ok(())
    }

    /// Publishes the receipts of all shards.
    ///
    /// # Errors
    /// When the broker does not take them.
    pub async fn publish(&self, stores: &RunStores) -> anyhow::Result<()> {
        stream::iter(self.plan.all_shards().map(anyhow::Ok))
            .try_for_each_concurrent(AT_ONCE, async |shard| {
                let blocks = 0..shard.blocks(SHARD);
                let receipt = Receipt {
                    v: MESSAGE_VERSION,
                    job: JOB.to_owned(),
                    run: self.plan.run.clone(),
                    shard: Some(shard.number),
                    round: 0,
                    parts: blocks.map(|block| self.summary(&shard, block)).collect(),
                    rebuild: None,
                    trace: None,
                };
                Ok(stores.publisher.receipt(&receipt).await?)
            })
            .await
    }

    /// All documents as the bodies of as few `_bulk`s as the loader would make of them.
    pub fn bulks(&self) -> Vec<Bytes> {
        let (mut bulks, mut body, mut documents) = (Vec::new(), String::new(), 0);
        for shard in self.plan.all_shards() {
            for block in 0..shard.blocks(SHARD) {
                for line in self.lines(&shard, block).lines() {
                    if documents == BULK.0 || body.len() >= BULK.1 {
                        bulks.push(std::mem::take(&mut body).into());
                        documents = 0;
                    }
                    push_document(&mut body, line);
                    documents += 1;
                }
            }
        }
        bulks.push(body.into());
        bulks
    }

    fn open(&self) -> OpenRun {
        OpenRun {
            run: self.run(),
            lanes: vec![LANE.to_owned()],
            priority: 5,
            paused: false,
            reason: None,
            round: 0,
            opened_at: None,
        }
    }

    fn summary(&self, shard: &Shard<'_>, block: u32) -> PartSummary {
        let (_, cells) = shard.block(SHARD, block);
        PartSummary {
            block,
            round: 0,
            ends: CellEnds(vec![CellEnd::Succeeded; cells as usize]),
            records: u64::from(cells) * self.records,
            truncated: 0,
            missing: 0,
            unscored: 0,
        }
    }

    /// The records of a block, a line each.
    fn lines(&self, shard: &Shard<'_>, block: u32) -> String {
        let (first, cells) = shard.block(SHARD, block);
        let mut lines = String::new();
        for cell in first..first + u64::from(cells) {
            let values = self.plan.matrix.cell(cell);
            for offer in 0..self.records {
                let price = 100_000 + (cell * 7919 + offer * 131) % 900_000;
                writeln!(
                    lines,
                    r#"{{"destination":{},"depart":{},"nights":{},"carrier":"C{offer}","price":{price}.00,"currency":"KRW","departs_at":"2026-11-22T09:35:00+09:00"}}"#,
                    values[0], values[1], values[2],
                )
                .expect("writing into a string cannot fail");
            }
        }
        lines
    }
}

/// Two lines of a `_bulk`; the id is the one that the job's template gives.
fn push_document(body: &mut String, line: &str) {
    let text = |name: &str| {
        let (_, rest) = line
            .split_once(&format!("\"{name}\":"))
            .unwrap_or(("", line));
        let end = rest.find(',').unwrap_or(rest.len());
        rest[..end].trim_matches('"')
    };
    let names = ["destination", "depart", "nights", "carrier"].map(text);
    let id = names.join("-");
    writeln!(
        body,
        r#"{{"index":{{"_id":"{id}","version":{VERSION},"version_type":"external"}}}}
{line}"#
    )
    .expect("writing into a string cannot fail");
}

fn mapping() -> IndexMap<String, &'static str> {
    [
        ("destination", "keyword"),
        ("depart", "date"),
        ("nights", "integer"),
        ("carrier", "keyword"),
        ("price", "double"),
    ]
    .map(|(field, kind)| (field.to_owned(), kind))
    .into()
}

fn plan(run: &str, cells: u64) -> anyhow::Result<Plan> {
    const DAYS: u64 = 100;
    const NIGHTS: u64 = 14;
    let destinations = cells.div_ceil(DAYS * NIGHTS);
    let codes = (0..destinations).map(|n| vec![format!("D{n:03}").into()]);
    let dimension = |name: &str, values| PlannedDimension {
        names: vec![name.into()],
        values,
    };
    let now = Timestamp::now();
    let first = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let nights = PlannedValues::Range {
        first: 1,
        count: NIGHTS,
    };
    Ok(Plan {
        version: PLAN_VERSION,
        run: run.parse()?,
        planned_at: now,
        date: first,
        only: BTreeMap::new(),
        allow_shrink: true,
        force: true,
        base: None,
        job: job(),
        providers: BTreeMap::new(),
        matrix: Matrix {
            dimensions: vec![
                dimension("destination", PlannedValues::Rows(codes.collect())),
                dimension("depart", PlannedValues::Dates { first, count: DAYS }),
                dimension("nights", nights),
            ],
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

fn job() -> Job {
    let mapping = mapping().into_iter();
    let index = IndexOutput {
        name: JOB.to_owned(),
        mode: IndexMode::Snapshot,
        id: "{{ destination }}-{{ depart }}-{{ nights }}-{{ carrier }}".into(),
        keep: 1,
        mapping: mapping.map(|(field, kind)| (field, kind.into())).collect(),
    };
    let mut job = bare_job(JOB, LANE, SHARD);
    job.outputs.index = Some(index);
    job
}

/// A job that is never collected, without outputs beside its parts.
pub(super) fn bare_job(name: &str, provider: &str, shard: ShardSize) -> Job {
    Job {
        name: name.to_owned(),
        provider: Some(provider.to_owned()),
        endpoint: Some(provider.to_owned()),
        after: None,
        trigger: None,
        params: IndexMap::new(),
        split: IndexMap::new(),
        source: None,
        shard,
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
        notify: Vec::new(),
    }
}

/// Sends `bulks` by `send`, two at once, as the loader does.
///
/// # Errors
/// The first that `send` has.
pub async fn two_at_once<F>(bulks: Vec<Bytes>, send: impl Fn(Bytes) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    stream::iter(bulks)
        .map(send)
        .buffer_unordered(2)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bodies_hold_every_document_under_its_id() {
        let run = CollectedRun::new("r1", 1_000, 4, "p").expect("a run");
        let bulks = run.bulks();
        let text = std::str::from_utf8(&bulks[0]).expect("text");
        assert_eq!(text.lines().count(), 2_000);
        assert!(text.starts_with(r#"{"index":{"_id":"D000-"#), "{text:.80}");
        let day = run.plan.date;
        assert!(text.contains(&format!("\"D000-{day}-1-C3\"")));
    }

    #[test]
    fn shards_and_parts_have_all_records() {
        let run = CollectedRun::new("r1", 10_000, 4, "p").expect("a run");
        assert_eq!(run.documents(), 10_000);
        let all = run.plan.all_shards();
        let records: u64 = all
            .flat_map(|shard| {
                (0..shard.blocks(SHARD))
                    .map(|k| run.summary(&shard, k).records)
                    .collect::<Vec<_>>()
            })
            .sum();
        assert_eq!(records, 10_000);
    }
}
