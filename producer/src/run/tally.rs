//! What a run's parts come to, for a manifest that no finisher writes: that of a cancelled run.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::manifest::{Manifest, ManifestPart, RunEnd};
use paceline_protocol::message::PartSummary;
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::{Plan, Shard};
use paceline_protocol::stores::objects::Objects;

use super::parts::{self, PartsFound};

/// The manifest of a run that ends here and now with what its parts hold.
///
/// # Errors
/// When S3 does not answer.
pub async fn cancelled(
    objects: &Objects,
    layout: &RunLayout,
    plan: &Plan,
    now: Timestamp,
) -> Result<Manifest> {
    let found = PartsFound::list(objects, layout).await?;
    let mut manifest = empty(plan, now)?;
    for shard in plan.all_shards() {
        let names = found.of(shard.number);
        if names.is_empty() {
            continue;
        }
        let heads = parts::heads(objects, layout, plan, shard.number, &names).await?;
        add_shard(&mut manifest, layout, plan, &shard, &heads);
    }
    Ok(manifest)
}

fn empty(plan: &Plan, now: Timestamp) -> Result<Manifest> {
    let limits: BTreeMap<&String, _> = plan
        .providers
        .iter()
        .map(|(name, provider)| (name, &provider.limits))
        .collect();
    Ok(Manifest {
        job: plan.job.name.clone(),
        run: plan.run.clone(),
        state: RunEnd::Cancelled,
        planned_at: plan.planned_at,
        finished_at: now,
        cells: plan.cells(),
        succeeded: 0,
        empty: 0,
        failed: 0,
        reasons: BTreeMap::new(),
        records: 0,
        parts: Vec::new(),
        documents: 0,
        rejected: 0,
        sets: BTreeMap::new(),
        limits: serde_json::to_value(limits)?,
        truncated: 0,
        missing: 0,
        gone: 0,
        calls_saved: plan.inputs.calls_saved(plan.cells()),
        notes: vec![
            "cancelled: neither alias nor sets were published; parts collected so far stay".into(),
        ],
        standings: Vec::new(),
    })
}

fn add_shard(
    manifest: &mut Manifest,
    layout: &RunLayout,
    plan: &Plan,
    shard: &Shard<'_>,
    heads: &[PartSummary],
) {
    manifest.missing += heads.iter().map(|part| part.missing).sum::<u64>();
    manifest.truncated += heads.iter().map(|part| part.truncated).sum::<u64>();
    for ends in parts::shard_ends(plan, shard, heads) {
        manifest.succeeded += ends.count(CellEnd::Succeeded);
        manifest.empty += ends.count(CellEnd::Empty);
        manifest.failed += ends.count(CellEnd::Failed);
    }
    let suffix = PartFormat::collected(plan).suffix();
    for part in heads {
        let name = PartName {
            block: part.block,
            round: part.round,
        };
        manifest.records += part.records;
        manifest.parts.push(ManifestPart {
            key: layout.part(shard.number, name, suffix),
            cells: covered(&part.ends),
            records: part.records,
        });
    }
}

fn covered(ends: &CellEnds) -> u64 {
    ends.0.len() as u64 - ends.count(CellEnd::Absent)
}
