//! Runs of another job as a finished fleet would have left them in S3, written by hand: what a job reads
//! that follows it.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::Timestamp;
use paceline_protocol::layout::{PartName, RunLayout, part_suffix};
use paceline_protocol::manifest::{Manifest, ManifestPart, RunEnd};
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::spec::{OutputFormat, SpecFolder};
use serde_json::Value;

use crate::{Bucket, Fleet};

/// A job whose runs are written by hand, in NDJSON.
pub struct Parent<'a> {
    /// Whose bucket, whose files.
    pub fleet: &'a Fleet,
    /// The job.
    pub job: &'a str,
}

impl Parent<'_> {
    /// Writes a good run called `run`, planned at `planned_at`, with the records of each of its parts.
    ///
    /// # Errors
    /// When S3 refuses, or the job's file is wrong.
    pub async fn good_run(
        &self,
        run: &str,
        planned_at: &str,
        parts: &[Vec<Value>],
    ) -> anyhow::Result<()> {
        self.run(run, planned_at, parts).await?;
        let bucket = Bucket::of(self.fleet);
        bucket.put(&self.layout(run).success(), b"").await
    }

    /// The same without the mark of success.
    ///
    /// # Errors
    /// When S3 refuses, or the job's file is wrong.
    pub async fn run(
        &self,
        run: &str,
        planned_at: &str,
        parts: &[Vec<Value>],
    ) -> anyhow::Result<()> {
        let bucket = Bucket::of(self.fleet);
        let layout = self.layout(run);
        let plan = self.plan(run, planned_at, parts.len() as u64)?;
        let mut manifest = empty_manifest(&plan);
        self.add(&mut manifest, &plan, 0, parts).await?;
        bucket
            .put(&layout.manifest(), &serde_json::to_vec(&manifest)?)
            .await?;
        bucket
            .put(&layout.plan(), &serde_json::to_vec(&plan)?)
            .await
    }

    /// A good run was retried: this is what its `round` brought.
    ///
    /// # Errors
    /// When S3 refuses, or there is no such run.
    pub async fn retried(&self, run: &str, round: u32, part: &[Value]) -> anyhow::Result<()> {
        let bucket = Bucket::of(self.fleet);
        let layout = self.layout(run);
        let plan: Plan = serde_json::from_slice(&bucket.get(&layout.plan()).await?.body)?;
        let manifest = bucket.get(&layout.manifest()).await?;
        let mut manifest: Manifest = serde_json::from_slice(&manifest.body)?;
        self.add(&mut manifest, &plan, round, &[part.to_vec()])
            .await?;
        bucket
            .put(&layout.manifest(), &serde_json::to_vec(&manifest)?)
            .await?;
        let (planned, date, round) = (
            plan.planned_at.to_string(),
            plan.date.to_string(),
            round.to_string(),
        );
        let said = [
            ("planned", &*planned),
            ("date", &date),
            ("narrowed", "false"),
            ("round", &round),
        ];
        bucket.put_saying(&layout.success(), b"", &said).await
    }

    async fn add(
        &self,
        manifest: &mut Manifest,
        plan: &Plan,
        round: u32,
        parts: &[Vec<Value>],
    ) -> anyhow::Result<()> {
        let bucket = Bucket::of(self.fleet);
        let layout = self.layout(plan.run.as_str());
        let output = &plan.job.outputs.s3;
        for (block, rows) in parts.iter().enumerate() {
            let name = PartName {
                block: u32::try_from(block)?,
                round,
            };
            let key = layout.part(0, name, part_suffix(output.format, output.compress));
            let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
            bucket
                .put(&key, &zstd::encode_all(lines.as_bytes(), 1)?)
                .await?;
            manifest.records += rows.len() as u64;
            manifest.parts.push(ManifestPart {
                key,
                cells: 1,
                records: rows.len() as u64,
            });
        }
        Ok(())
    }

    /// Where the run lies.
    pub fn layout(&self, run: &str) -> RunLayout {
        self.fleet.layout(self.job, run)
    }

    fn plan(&self, run: &str, planned_at: &str, cells: u64) -> anyhow::Result<Plan> {
        let folder = SpecFolder::open(self.fleet.spec.path())?;
        let loaded = folder
            .job(self.job)
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut job = loaded.job;
        job.outputs.s3.format = OutputFormat::Ndjson;
        job.outputs.s3.compress = paceline_protocol::spec::Compression::Zstd;
        let planned_at: Timestamp = planned_at.parse()?;
        let provider = loaded.providers.keys().next().context("a provider")?;
        Ok(Plan {
            version: PLAN_VERSION,
            run: run.parse()?,
            planned_at,
            date: planned_at.to_zoned(jiff::tz::TimeZone::UTC).date(),
            only: BTreeMap::new(),
            allow_shrink: false,
            force: false,
            base: None,
            matrix: Matrix {
                dimensions: vec![PlannedDimension {
                    names: vec![],
                    values: PlannedValues::Rows(vec![vec![]; usize::try_from(cells)?]),
                }],
            },
            segments: vec![Segment {
                lane: provider.clone(),
                provider: provider.clone(),
                first_cell: 0,
                cells,
            }],
            providers: loaded.providers,
            job,
            inputs: Default::default(),
        })
    }
}

fn empty_manifest(plan: &Plan) -> Manifest {
    Manifest {
        job: plan.job.name.clone(),
        run: plan.run.clone(),
        state: RunEnd::Completed,
        planned_at: plan.planned_at,
        finished_at: plan.planned_at,
        cells: plan.cells(),
        succeeded: plan.cells(),
        empty: 0,
        failed: 0,
        reasons: BTreeMap::new(),
        records: 0,
        parts: Vec::new(),
        documents: 0,
        rejected: 0,
        sets: BTreeMap::new(),
        limits: Value::Null,
        truncated: 0,
        missing: 0,
        gone: 0,
        calls_saved: None,
        notes: Vec::new(),
        standings: Vec::new(),
    }
}
