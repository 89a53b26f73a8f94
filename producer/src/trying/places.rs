//! Where a record would go: the part, the objects, the sorted sets, the document.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use minijinja::Value;
use paceline_protocol::connector::RunNames;
use paceline_protocol::layout::{PartName, RunLayout, part_suffix};
use paceline_protocol::plan::Plan;
use paceline_protocol::record_names::{FixedNames, RecordNames};
use paceline_protocol::spec::IndexMode;
use paceline_protocol::template::environment;

use super::shown::RecordShown;
use crate::stores::Archive;

/// The places of one cell.
pub(super) struct Places<'a> {
    plan: &'a Plan,
    archive: &'a Archive,
    cell: u64,
    fixed: FixedNames,
}

impl<'a> Places<'a> {
    pub(super) fn of(plan: &'a Plan, archive: &'a Archive, cell: u64) -> Self {
        let names = RunNames::of(plan);
        let known = ["params", "run", "today", "parent"];
        let mut fixed: HashMap<String, Value> = HashMap::new();
        for name in known {
            if let Some(value) = names.get(name) {
                fixed.insert(name.to_owned(), value);
            }
        }
        fixed.insert("now".into(), Value::from(plan.planned_at.to_string()));
        Places {
            plan,
            archive,
            cell,
            fixed: Arc::new(fixed),
        }
    }

    /// The key of the cell's part.
    pub(super) fn part(&self) -> String {
        let shards = self.plan.all_shards();
        let in_it = |shard: &paceline_protocol::plan::Shard<'_>| {
            (shard.first_cell..shard.first_cell + u64::from(shard.cells)).contains(&self.cell)
        };
        let Some(shard) = shards.into_iter().find(in_it) else {
            return String::new();
        };
        let checkpoint = u64::from(self.plan.job.shard.checkpoint.max(1));
        let block = (self.cell - shard.first_cell) / checkpoint;
        let name = PartName {
            block: u32::try_from(block).unwrap_or(u32::MAX),
            round: 0,
        };
        let output = &self.plan.job.outputs.s3;
        let layout = RunLayout::new(&self.archive.fleet.prefix, &self.plan.run_ref());
        let key = layout.part(
            shard.number,
            name,
            part_suffix(output.format, output.compress),
        );
        format!("s3://{}/{key}", self.archive.fleet.bucket)
    }

    /// One record with its places.
    ///
    /// # Errors
    /// When the line is no record.
    pub(super) fn record(&self, line: &str) -> Result<RecordShown> {
        let record: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)?;
        let names = RecordNames::new(record.clone(), &self.fixed);
        let jinja = environment();
        let render = |template: &str| match jinja.render_str(template, names.context()) {
            Ok(text) => text,
            Err(error) => format!("({error})"),
        };
        let outputs = &self.plan.job.outputs;
        let mut goes_to = Vec::new();
        for key in outputs.s3.key.iter().chain(&outputs.s3.merged) {
            let bucket = outputs.s3.bucket.as_ref();
            let bucket = bucket.unwrap_or(&self.archive.fleet.bucket);
            goes_to.push(format!("object s3://{bucket}/{}", render(key)));
        }
        for ranking in &outputs.rankings {
            let score = render(&ranking.score);
            let is_one = score.trim().parse().is_ok_and(f64::is_finite);
            let note = match is_one {
                true => "",
                false => " (no number: it is in no set)",
            };
            let (key, member) = (render(&ranking.key), render(&ranking.member));
            goes_to.push(format!("set {key}: {member} with score {score}{note}"));
        }
        if let Some(index) = &outputs.index {
            let index_name = match index.mode {
                IndexMode::Snapshot => format!("{} (a new one behind this alias)", index.name),
                IndexMode::Upsert => index.name.clone(),
            };
            goes_to.push(format!("index {index_name}: id {}", render(&index.id)));
        }
        Ok(RecordShown {
            // In the order of its part.
            record: serde_json::from_str(line)?,
            goes_to,
        })
    }
}
