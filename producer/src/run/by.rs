//! How far a run has come by the values of any dimension, out of the parts that are there.

use std::collections::BTreeMap;

use anyhow::Result;
use paceline_protocol::block::CellEnd;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::objects::Objects;

use super::parts::{PartsFound, heads, shard_ends};
use crate::watch::{Counts, cells_by_value};

/// Cells by their ends, for each value of the dimension `name`.
///
/// # Errors
/// When S3 does not answer.
pub async fn counts_by(
    objects: &Objects,
    plan: &Plan,
    layout: &RunLayout,
    found: &PartsFound,
    name: &str,
) -> Result<BTreeMap<String, Counts>> {
    let mut counts = cells_by_value(plan, name);
    let Some(column) = plan.matrix.names().position(|n| &**n == name) else {
        return Ok(counts);
    };
    for shard in plan.all_shards() {
        let names = found.of(shard.number);
        if names.is_empty() {
            continue;
        }
        let parts = heads(objects, layout, plan, shard.number, &names).await?;
        let mut cell = shard.first_cell;
        for ends in shard_ends(plan, &shard, &parts) {
            for end in ends.0 {
                let value = &plan.matrix.cell(cell)[column];
                cell += 1;
                let value = match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let counted = counts.entry(value).or_default();
                match end {
                    CellEnd::Succeeded => counted.succeeded += 1,
                    CellEnd::Empty => counted.empty += 1,
                    CellEnd::Failed => counted.failed += 1,
                    CellEnd::Absent => {}
                }
            }
        }
    }
    Ok(counts)
}
