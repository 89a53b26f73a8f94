//! What was collected: parts and failures, and whether every cell is in exactly one of the two.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context, anyhow};
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::manifest::Manifest;
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use serde_json::Value;

use super::{Row, Verdict};
use crate::Bucket;

/// One part.
pub struct Part {
    /// Its key.
    pub key: String,
    /// How its block's cells ended.
    pub ends: CellEnds,
    /// Its records, in order.
    pub rows: Vec<Row>,
    /// The fleet's clock at the block's last answer, microseconds.
    pub version: i64,
}

/// Everything below a run's folder that says how cells ended.
pub struct Collected {
    /// By shard, then by part: rounds of one block are next to each other only after sorting.
    pub parts: BTreeMap<(u64, PartName), Part>,
    /// The rows of all `failures/shard-<n>.ndjson`.
    pub failures: Vec<Row>,
    /// Documents listed as rejected.
    pub rejected: u64,
}

impl Collected {
    /// Reads parts and failures. Parts are read as the plan says.
    pub async fn read(bucket: &Bucket, layout: &RunLayout) -> anyhow::Result<Self> {
        let plan: Plan = serde_json::from_slice(&bucket.get(&layout.plan()).await?.body)?;
        let format = PartFormat::of(&plan);
        let mut parts = BTreeMap::new();
        for key in bucket.keys(&layout.data()).await? {
            let name = PartName::from_key(&key).with_context(|| format!("{key} is no part"))?;
            parts.insert(name, read_part(bucket, key, &format).await?);
        }
        let mut collected = Collected {
            parts,
            failures: Vec::new(),
            rejected: 0,
        };
        for key in bucket.keys(&layout.all_failures()).await? {
            let rows = objects(bucket.get(&key).await?.rows()?)?;
            if key.contains("/documents-") {
                collected.rejected += rows.len() as u64;
            } else {
                collected.failures.extend(rows);
            }
        }
        Ok(collected)
    }

    /// Records over all parts.
    pub fn records(&self) -> u64 {
        self.parts.values().map(|part| part.rows.len() as u64).sum()
    }

    /// All records with the version of their part.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, i64)> {
        let parts = self.parts.values();
        parts.flat_map(|part| part.rows.iter().map(|row| (row, part.version)))
    }

    /// Every cell of the plan is in the output or in the failures, never in both.
    pub fn check_cells(&self, plan: &Plan, verdict: &mut Verdict) {
        let ends = self.ends(plan, verdict);
        // Records of a plan without names do not say their cell; such a test compares them as a whole.
        let named = plan.matrix.names().next().is_some();
        let with_records = match named {
            true => self.cells_with_records(plan, verdict),
            false => {
                let succeeded = ends.iter().filter(|(_, end)| **end == CellEnd::Succeeded);
                succeeded.map(|(cell, _)| *cell).collect()
            }
        };
        let failed = self.failed_cells(verdict);
        for cell in 0..plan.cells() {
            let expected = match ends.get(&cell) {
                None => {
                    verdict.demand(false, || format!("cell {cell} is lost: no part covers it"));
                    continue;
                }
                Some(end) => (*end == CellEnd::Succeeded, *end == CellEnd::Failed),
            };
            let found = (with_records.contains(&cell), failed.contains(&cell));
            verdict.demand(found == expected, || {
                format!("cell {cell}: (in the output, in the failures) is {found:?}, its part says {expected:?}")
            });
        }
        let beyond = failed.range(plan.cells()..).count();
        verdict.demand_equal("failures of cells that the plan does not have", beyond, 0);
    }

    /// How every cell ended: a success of round 0 stands, else the newest round that covers it.
    fn ends(&self, plan: &Plan, verdict: &mut Verdict) -> HashMap<u64, CellEnd> {
        let size = plan.job.shard;
        let mut ends = HashMap::new();
        let mut by_round: Vec<_> = self.parts.iter().collect();
        by_round.sort_by_key(|((_, name), _)| name.round);
        for ((number, name), part) in by_round {
            let shard = plan.shard(*number).filter(|s| name.block < s.blocks(size));
            let Some(shard) = shard else {
                verdict.demand(false, || format!("{} is of no shard of the plan", part.key));
                continue;
            };
            let (first, cells) = shard.block(size, name.block);
            let covered = part.ends.0.len();
            verdict.demand_equal(&part.key, covered, cells as usize);
            for (cell, end) in (first..).zip(&part.ends.0) {
                let stands = matches!(ends.get(&cell), Some(CellEnd::Succeeded | CellEnd::Empty));
                verdict.demand(!stands || *end == CellEnd::Absent, || {
                    format!(
                        "cell {cell} had an answer and was sent again in {}",
                        part.key
                    )
                });
                if *end != CellEnd::Absent {
                    ends.insert(cell, *end);
                }
            }
        }
        ends
    }

    /// The cells that records say they come from. Only cells that ended so may have any.
    fn cells_with_records(&self, plan: &Plan, verdict: &mut Verdict) -> HashSet<u64> {
        let names: Vec<&str> = plan.matrix.names().map(|name| &**name).collect();
        let values = |row: &Row| -> Vec<String> {
            let value = |name: &&str| row.get(*name).map(Value::to_string).unwrap_or_default();
            names.iter().map(value).collect()
        };
        let cells: HashMap<Vec<String>, u64> = (0..plan.cells())
            .map(|cell| {
                (
                    plan.matrix
                        .cell(cell)
                        .iter()
                        .map(Value::to_string)
                        .collect(),
                    cell,
                )
            })
            .collect();
        let mut found = HashSet::new();
        for (row, _) in self.rows() {
            match cells.get(&values(row)) {
                Some(cell) => drop(found.insert(*cell)),
                None => verdict.demand(false, || format!("a record of no cell: {row:?}")),
            }
        }
        found
    }

    fn failed_cells(&self, verdict: &mut Verdict) -> BTreeSet<u64> {
        let mut cells = BTreeSet::new();
        for row in &self.failures {
            let cell = row.get("cell").and_then(Value::as_u64);
            let reason = row.get("reason").and_then(Value::as_str);
            let complete = cell.is_some() && reason.is_some_and(|reason| !reason.is_empty());
            verdict.demand(complete, || {
                format!("a failure without cell or reason: {row:?}")
            });
            let new = cell.is_none_or(|cell| cells.insert(cell));
            verdict.demand(new, || format!("a cell has failed twice: {row:?}"));
        }
        cells
    }

    /// The manifest says what is there.
    pub fn check_manifest(&self, manifest: &Manifest, verdict: &mut Verdict) {
        let sum = manifest.succeeded + manifest.empty + manifest.failed;
        verdict.demand_equal("manifest: succeeded + empty + failed", sum, manifest.cells);
        verdict.demand_equal("manifest: cells", manifest.cells, verdict.cells);
        verdict.demand_equal("manifest: records", manifest.records, self.records());
        let failed = self.failures.len() as u64;
        verdict.demand_equal("manifest: failed", manifest.failed, failed);
        let reasons: u64 = manifest.reasons.values().sum();
        verdict.demand_equal("manifest: reasons", reasons, failed);
        verdict.demand_equal("manifest: rejected", manifest.rejected, self.rejected);
        let listed = manifest.parts.iter().map(|p| (p.key.as_str(), p.records));
        let there = self
            .parts
            .values()
            .map(|p| (p.key.as_str(), p.rows.len() as u64));
        let (listed, there): (BTreeSet<_>, BTreeSet<_>) = (listed.collect(), there.collect());
        for difference in listed.symmetric_difference(&there) {
            verdict.demand(false, || {
                format!("manifest and parts differ in {difference:?}")
            });
        }
    }
}

async fn read_part(bucket: &Bucket, key: String, format: &PartFormat) -> anyhow::Result<Part> {
    let mut object = bucket.get_as_it_is(&key).await?;
    let lines = format.read(&object.body.into());
    object.body = lines.with_context(|| key.clone())?.into_bytes();
    let field = |name: &str| {
        let value = object.metadata.get(name);
        value.with_context(|| format!("{key} has no metadata {name:?}"))
    };
    let rows = objects(object.rows()?).with_context(|| key.clone())?;
    let promised: usize = field("records")?.parse()?;
    anyhow::ensure!(
        rows.len() == promised,
        "{key} holds {} records, its metadata says {promised}",
        rows.len()
    );
    Ok(Part {
        ends: field("ends")?.parse()?,
        version: field("version")?.parse()?,
        rows,
        key,
    })
}

fn objects(rows: Vec<Value>) -> anyhow::Result<Vec<Row>> {
    let object = |row| match row {
        Value::Object(row) => Ok(row),
        other => Err(anyhow!("a row that is no object: {other}")),
    };
    rows.into_iter().map(object).collect()
}
