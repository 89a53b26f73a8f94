//! A shard that came back dead: its missing cells become failures, so that the run ends. Of one whose run is past its
//! deadline, the cells that were answered count.

use std::collections::BTreeSet;

use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::layout::PartName;
use paceline_protocol::message::{PartSummary, Receipt, ShardMessage};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::stores::objects::PutNew;

use super::runs::{OpenedRun, Stage};
use super::{LoadError, Loader};
use crate::output::failures::{self, Failure};
use crate::output::finished::{CellResult, FullBlock, OpenCells, OpenError, read_open_rounds};
use crate::output::part::PartMeta;
use crate::output::settle::BlockPlace;
use paceline_protocol::message::merged_ends;
use paceline_protocol::version;

/// The reason of its cells' failures.
const REASON: &str = "poison";
/// The same when nothing is wrong with the shard, but its run is past its deadline.
const DEADLINE: &str = "deadline";

/// A block that the dead shard never wrote; its cells that are owed become failures.
struct MissingBlock {
    block: u32,
    first_cell: u64,
    ends: CellEnds,
}

impl Loader {
    /// Writes failures and empty parts for what the shard still owes; returns the receipt to go on with.
    pub(crate) async fn bury(
        &self,
        run: &OpenedRun,
        shard: &ShardMessage,
        reason: &str,
    ) -> Result<Receipt, LoadError> {
        let word = if reason == DEADLINE { DEADLINE } else { REASON };
        if word == DEADLINE {
            tracing::warn!(run.id = %run.run, shard.id = shard.shard, "past the run's deadline: missing cells become failures");
        } else {
            tracing::error!(run.id = %run.run, shard.id = shard.shard, reason, "a shard is dead: its missing cells become failures");
            self.stores
                .metrics
                .dead_letters
                .with_label_values(&[REASON])
                .inc();
        }
        let receipt = Receipt {
            v: version::message(),
            job: shard.job.clone(),
            run: shard.run.clone(),
            shard: Some(shard.shard),
            round: shard.round,
            parts: Vec::new(),
            rebuild: None,
            trace: None,
        };
        let mut open = match word {
            DEADLINE => self.left_open(run, shard).await?,
            _ => OpenCells::default(),
        };
        // A worker may put one of the blocks meanwhile: then that part is adopted, and the failures are
        // written again without its cells.
        while let missing = self.missing_blocks(run, shard).await?
            && !missing.is_empty()
        {
            let ended: Vec<FullBlock> = missing
                .iter()
                .map(|block| block.ended(&open, word))
                .collect();
            self.put_failures(run, shard.shard, &ended).await?;
            for block in &ended {
                self.put_part(run, shard, block).await?;
            }
            // Whatever is missing still was put by somebody else.
            open = OpenCells::default();
        }
        Ok(receipt)
    }

    /// What workers left of the shard when its run was ended.
    async fn left_open(
        &self,
        run: &OpenedRun,
        shard: &ShardMessage,
    ) -> Result<OpenCells, LoadError> {
        let objects = &self.stores.objects;
        let read = read_open_rounds(objects, &run.layout, shard.shard, shard.round).await;
        match read {
            Err(OpenError::Objects(away)) => Err(away.into()),
            Err(error @ OpenError::NotThat { .. }) => {
                tracing::error!(run.id = %run.run, shard.id = shard.shard, %error, "its answers are lost");
                Ok(OpenCells::default())
            }
            Ok(open) => Ok(open),
        }
    }

    async fn missing_blocks(
        &self,
        run: &OpenedRun,
        shard: &ShardMessage,
    ) -> Result<Vec<MissingBlock>, LoadError> {
        let parts = self.summaries(run, shard.shard).await?;
        let size = run.plan.job.shard;
        let Some(found) = run.plan.shard(shard.shard) else {
            return Ok(Vec::new());
        };
        let blocks = (0..found.blocks(size)).filter_map(|block| {
            let (first_cell, cells) = found.block(size, block);
            let of_block = parts.iter().filter(|part| part.block == block);
            let ends = owed(cells, of_block, shard.round)?;
            Some(MissingBlock {
                block,
                first_cell,
                ends,
            })
        });
        Ok(blocks.collect())
    }

    /// What the shard came to, by its parts in S3.
    pub(super) async fn summaries(
        &self,
        run: &OpenedRun,
        shard: u64,
    ) -> Result<Vec<PartSummary>, LoadError> {
        let mut summaries = Vec::new();
        for object in self
            .stores
            .objects
            .list(&run.layout.shard_data(shard))
            .await?
        {
            let Some((_, name)) = PartName::from_key(&object.key) else {
                continue;
            };
            let metadata = self
                .stores
                .objects
                .head(&object.key)
                .await?
                .unwrap_or_default();
            let meta = PartMeta::from_metadata(&metadata).map_err(|error| LoadError::Part {
                key: object.key.clone(),
                why: error.to_string(),
            })?;
            summaries.push(meta.summary(name.block));
        }
        Ok(summaries)
    }

    /// The failures that are there, but for the cells of `ended`, and those of them that failed.
    async fn put_failures(
        &self,
        run: &OpenedRun,
        shard: u64,
        ended: &[FullBlock],
    ) -> Result<(), LoadError> {
        let key = run.layout.failures(shard);
        let cells: BTreeSet<u64> = ended.iter().flat_map(FullBlock::cells).collect();
        let mut body = Vec::new();
        if let Some(object) = self.stores.objects.get(&key).await? {
            for (row, line) in failures::rows(&object.body) {
                if !cells.contains(&row.cell) {
                    body.extend_from_slice(line);
                    body.push(b'\n');
                }
            }
        }
        for failure in ended.iter().flat_map(FullBlock::failures) {
            failure.write(&run.plan, &mut body);
        }
        Ok(self.stores.objects.put(&key, body.into(), &[]).await?)
    }

    async fn put_part(
        &self,
        run: &OpenedRun,
        shard: &ShardMessage,
        block: &FullBlock,
    ) -> Result<PutNew, LoadError> {
        let name = PartName {
            block: block.number,
            round: shard.round,
        };
        let key = run.part_key(Stage::Collected, shard.shard, name);
        let lines = block.lines();
        let format = run.format_of(Stage::Collected);
        let body = format.write(&lines).map_err(|error| LoadError::Part {
            key: key.clone(),
            why: error.to_string(),
        })?;
        let mut meta = PartMeta::of(block, shard.round);
        let place = BlockPlace::of(&run.plan, shard.shard, block.number, shard.round);
        if let Some(place) = place {
            let (ends, version) = (&meta.ends, meta.version);
            let ranked = run
                .rankings
                .updates(&run.plan, &place, ends, version, &lines);
            meta.unscored = ranked.unscored;
        }
        if let Some(stand_ins) = block.stand_ins_object() {
            let key = run.layout.part_stand_ins(shard.shard, name);
            self.stores.objects.put(&key, stand_ins, &[]).await?;
        }
        Ok(self
            .stores
            .objects
            .put_new(&key, body, &meta.to_metadata())
            .await?)
    }
}

impl MissingBlock {
    /// What it owes: the answer that a worker left, else a failure for `reason`.
    fn ended(&self, open: &OpenCells, reason: &str) -> FullBlock {
        let results = self.ends.0.iter().zip(self.first_cell..);
        let result = |(end, cell): (&CellEnd, u64)| {
            let left = || open.finished.get(&cell).cloned();
            let failed = || CellResult::failed(not_called(cell, reason), 0);
            (*end == CellEnd::Failed).then(|| left().unwrap_or_else(failed))
        };
        FullBlock {
            number: self.block,
            first_cell: self.first_cell,
            results: results.map(result).collect(),
        }
    }
}

/// How a part ends that makes failures of what round `round` owes of a block; `None` when it owes nothing.
fn owed<'a>(
    cells: u32,
    parts: impl Iterator<Item = &'a PartSummary>,
    round: u32,
) -> Option<CellEnds> {
    let parts: Vec<&PartSummary> = parts.collect();
    if parts.iter().any(|part| part.round == round) {
        return None;
    }
    let before = merged_ends(cells, parts.into_iter().filter(|part| part.round < round));
    let ends: Vec<CellEnd> = before
        .0
        .into_iter()
        .map(|end| match end {
            CellEnd::Failed | CellEnd::Absent => CellEnd::Failed,
            CellEnd::Succeeded | CellEnd::Empty => CellEnd::Absent,
        })
        .collect();
    ends.contains(&CellEnd::Failed).then_some(CellEnds(ends))
}

fn not_called(cell: u64, reason: &str) -> Failure {
    Failure {
        cell,
        reason: reason.to_owned(),
        outcome: Outcome::Permanent,
        status: 0,
        field: None,
        attempts: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(round: u32, ends: &str) -> PartSummary {
        PartSummary {
            block: 0,
            round,
            ends: ends.parse().expect("ends"),
            records: 0,
            truncated: 0,
            missing: 0,
            unscored: 0,
        }
    }

    #[test]
    fn only_what_is_owed_becomes_a_failure() {
        let ends =
            |parts: &[PartSummary], round| owed(4, parts.iter(), round).map(|e| e.to_string());
        assert_eq!(ends(&[], 0).as_deref(), Some("4F"));
        assert_eq!(ends(&[part(0, "4S")], 0), None);
        assert_eq!(ends(&[part(0, "1S2F1E")], 1).as_deref(), Some("1-2F1-"));
        assert_eq!(ends(&[part(0, "4S")], 1), None);
        assert_eq!(ends(&[], 1).as_deref(), Some("4F"));
    }
}
