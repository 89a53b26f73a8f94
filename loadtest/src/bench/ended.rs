//! Runs that have ended, as loaders leave them in S3.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::{Manifest, RunEnd};
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::spec::SpecFolder;
use paceline_protocol::stores::objects::Objects;

use super::BenchJob;

/// Cells of each.
const CELLS: u64 = 1_400;
/// Objects that are put at once.
const AT_ONCE: usize = 16;

/// Writes `count` ended runs of the bench's job, whose files are in `folder`, one an hour up to now.
///
/// # Errors
/// When the files are wrong or S3 does not take them.
pub async fn write_ended_runs(
    objects: &Objects,
    prefix: &str,
    folder: &Path,
    count: u32,
) -> anyhow::Result<()> {
    let loaded = SpecFolder::open(folder)?.job(BenchJob::NAME);
    let loaded = loaded.map_err(|error| anyhow::anyhow!("the bench's own job: {error:?}"))?;
    let now = Timestamp::now();
    stream::iter(0..count)
        .map(|number| {
            let hours = SignedDuration::from_hours(i64::from(count - number));
            let (job, providers) = (loaded.job.clone(), loaded.providers.clone());
            async move {
                let lane = "fare-search".to_owned();
                let plan = Plan {
                    version: PLAN_VERSION,
                    run: format!("ended-{number:05}").parse()?,
                    planned_at: now - hours,
                    date: now.to_zoned(jiff::tz::TimeZone::UTC).date(),
                    only: BTreeMap::new(),
                    allow_shrink: false,
                    force: false,
                    base: None,
                    job,
                    providers,
                    matrix: Matrix {
                        dimensions: vec![PlannedDimension {
                            names: vec!["cell".into()],
                            values: PlannedValues::Range {
                                first: 0,
                                count: CELLS,
                            },
                        }],
                    },
                    segments: vec![Segment {
                        lane: lane.clone(),
                        provider: lane,
                        first_cell: 0,
                        cells: CELLS,
                    }],
                    inputs: Default::default(),
                };
                write(objects, prefix, &plan).await
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

async fn write(objects: &Objects, prefix: &str, plan: &Plan) -> anyhow::Result<()> {
    let layout = RunLayout::new(prefix, &plan.run_ref());
    let manifest = Manifest {
        job: plan.job.name.clone(),
        run: plan.run.clone(),
        state: RunEnd::Completed,
        planned_at: plan.planned_at,
        finished_at: plan.planned_at + SignedDuration::from_mins(28),
        cells: CELLS,
        succeeded: CELLS - 12,
        empty: 8,
        failed: 4,
        reasons: BTreeMap::from([("status 500".to_owned(), 4)]),
        records: 3 * CELLS,
        parts: Vec::new(),
        documents: 3 * CELLS,
        rejected: 0,
        sets: BTreeMap::new(),
        limits: serde_json::Value::Null,
        truncated: 0,
        missing: 0,
        gone: 0,
        calls_saved: None,
        notes: Vec::new(),
        standings: Vec::new(),
    };
    let plan = serde_json::to_vec(plan).context("a plan is plain data")?;
    objects.put(&layout.plan(), plan.into(), &[]).await?;
    let manifest = serde_json::to_vec(&manifest)?;
    objects
        .put(&layout.manifest(), manifest.into(), &[])
        .await?;
    Ok(())
}
