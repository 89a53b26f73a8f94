//! Loading one shard: settle the parts that are not settled, write their documents, mark the shard, and
//! finish the run when it was the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::layout::PartName;
use paceline_protocol::message::{PartSummary, Receipt};
use tracing::Instrument;

use super::runs::{OpenedRun, Stage};
use super::stores::Stores;
use super::{LoadError, Loader};
use crate::crash;
use crate::output::documents::Rejected;
use crate::output::doubles::Doubles;
use crate::output::part::{PartMeta, name_of};
use crate::output::settle::{BlockPlace, block_counts};
use crate::traced;
use paceline_protocol::message::merged_ends;

/// Objects of one shard that are read at once.
const READ_AT_ONCE: usize = 4;

/// A part out of S3.
pub(crate) struct LoadedPart {
    pub(crate) summary: PartSummary,
    pub(crate) version: i64,
    stage: Stage,
    /// Nothing of a collected part whose records are merged first.
    body: Bytes,
    /// What of the records does not count.
    doubles: Option<Arc<Doubles>>,
    key: String,
}

impl LoadedPart {
    /// How many of its records do not count.
    fn doubles(&self) -> u64 {
        let part = name_of(&self.summary);
        let of_part = self.doubles.as_ref().map(|all| all.of_part(part).len());
        of_part.unwrap_or(0) as u64
    }
}

impl Loader {
    /// Everything that a receipt asks for.
    pub(crate) async fn receipt(
        &self,
        run: &Arc<OpenedRun>,
        receipt: &Receipt,
    ) -> Result<(), LoadError> {
        let span = traced::load(&run.plan, receipt, &self.stores.publisher.receipts_queue());
        let loaded = self.load_and_finish(run, receipt).instrument(span.lines());
        let loaded = loaded.await;
        if let Err(error) = &loaded {
            span.failed(error.to_string());
        }
        loaded
    }

    async fn load_and_finish(
        &self,
        run: &Arc<OpenedRun>,
        receipt: &Receipt,
    ) -> Result<(), LoadError> {
        let Some(shard) = receipt.shard else {
            return self.finish_if_complete(run).await;
        };
        if !self.stores.state.knows(&run.run).await? {
            self.publish_receipts(run).await?;
        }
        let loaded = self.load_shard(run, shard, receipt).await?;
        if loaded >= run.plan.shards() {
            self.finish_if_complete(run).await?;
        }
        Ok(())
    }

    /// Returns how many shards of the run are loaded now.
    async fn load_shard(
        &self,
        run: &OpenedRun,
        shard: u64,
        receipt: &Receipt,
    ) -> Result<u64, LoadError> {
        let names = self.part_names(run, shard, receipt).await?;
        let parts = self
            .stores
            .parts(run, shard, names, Stage::Collected)
            .await?;
        self.settle_parts(run, shard, &parts).await?;
        let rejected = if run.plan.merges() {
            0
        } else {
            self.write_documents(run, shard, &parts).await?
        };
        crash::point("load-before-mark");
        let summaries: Vec<PartSummary> = parts.into_iter().map(|part| part.summary).collect();
        let state = &self.stores.state;
        let loaded = state
            .shard_loaded(&run.run, shard, &summaries, rejected)
            .await?;
        if rejected > 0 {
            self.stop_if_too_many_rejected(run).await?;
        }
        Ok(loaded)
    }

    /// The parts that the receipt names; of a retry, or when it names none, all that the shard has: then
    /// what the shard came to is complete, whichever receipt is loaded last.
    async fn part_names(
        &self,
        run: &OpenedRun,
        shard: u64,
        receipt: &Receipt,
    ) -> Result<Vec<PartName>, LoadError> {
        if receipt.round == 0 && !receipt.parts.is_empty() {
            return Ok(receipt.parts.iter().map(name_of).collect());
        }
        let listed = self
            .stores
            .objects
            .list(&run.layout.shard_data(shard))
            .await?;
        let mut names: Vec<PartName> = listed
            .iter()
            .filter_map(|object| PartName::from_key(&object.key))
            .map(|(_, name)| name)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Counts each part whose bit is missing, and applies its members.
    pub(crate) async fn settle_parts(
        &self,
        run: &OpenedRun,
        shard: u64,
        parts: &[LoadedPart],
    ) -> Result<(), LoadError> {
        for (place, part) in self.unsettled(run, shard, parts).await? {
            let before = run.ends_before(parts, &place);
            let counts = block_counts(&run.plan, &place, &part.summary, before.as_ref());
            let not_yet = run.plan.merges() && part.stage == Stage::Collected;
            let sets = if run.rankings.is_empty() || part.summary.records == 0 || not_yet {
                Vec::new()
            } else {
                let (ends, body) = (&part.summary.ends, run.text(part)?);
                run.rankings
                    .updates(&run.plan, &place, ends, part.version, &body)
                    .sets
            };
            self.stores
                .state
                .settle_block(&run.run, place.bit(&run.plan), &counts, &sets)
                .await?;
        }
        Ok(())
    }

    /// The parts whose bit is missing. In each round the bits of a shard lie next to each other, and are
    /// asked for together.
    async fn unsettled<'a>(
        &self,
        run: &OpenedRun,
        shard: u64,
        parts: &'a [LoadedPart],
    ) -> Result<Vec<(BlockPlace, &'a LoadedPart)>, LoadError> {
        let mut rounds: BTreeMap<u32, BTreeMap<u64, (BlockPlace, &LoadedPart)>> = BTreeMap::new();
        for part in parts {
            let place = run.place(shard, part)?;
            let round = rounds.entry(place.round).or_default();
            round.insert(place.bit(&run.plan), (place, part));
        }
        let mut unsettled = Vec::new();
        for round in rounds.into_values() {
            let (Some(first), Some(last)) = (round.keys().next(), round.keys().last()) else {
                continue;
            };
            let (first, count) = (*first, (last - first) as u32 + 1);
            let set = self.stores.state.settled(&run.run, first, count).await?;
            let is_set = |bit: u64| set.get((bit - first) as usize) == Some(&true);
            let missing = round.into_iter().filter(|(bit, _)| !is_set(*bit));
            unsettled.extend(missing.map(|(_, found)| found));
        }
        Ok(unsettled)
    }

    /// Writes the documents of a shard's parts; returns how many were rejected, which it lists in S3.
    pub(crate) async fn write_documents(
        &self,
        run: &OpenedRun,
        shard: u64,
        parts: &[LoadedPart],
    ) -> Result<u64, LoadError> {
        let (Some(ids), Some(writer)) = (&run.ids, run.writer().await?) else {
            return Ok(0);
        };
        crash::point("load-before-bulk");
        let mut rejected: Vec<Rejected> = Vec::new();
        let mut writing = Vec::new();
        for part in parts.iter().filter(|part| part.summary.records > 0) {
            let (documents, without_id) = ids.documents(&run.text(part)?, part.version);
            rejected.extend(without_id);
            writing.push(writer.write(documents));
        }
        for settled in futures::future::join_all(writing).await {
            let settled = settled.map_err(|stopped| LoadError::Unsupported(stopped.to_string()))?;
            rejected.extend(settled);
        }
        self.list_rejected(run, shard, &rejected).await?;
        self.count_records(run, parts, rejected.len() as u64);
        Ok(rejected.len() as u64)
    }

    async fn list_rejected(
        &self,
        run: &OpenedRun,
        shard: u64,
        rejected: &[Rejected],
    ) -> Result<(), LoadError> {
        if rejected.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        rejected
            .iter()
            .for_each(|document| document.write(&mut rows));
        let key = run.layout.rejected_documents(shard);
        self.stores.objects.put(&key, rows.into(), &[]).await?;
        tracing::warn!(run.id = %run.run, shard.id = shard, documents = rejected.len(), reason = rejected[0].reason, "documents were rejected; they are listed in {key}");
        Ok(())
    }

    fn count_records(&self, run: &OpenedRun, parts: &[LoadedPart], rejected: u64) {
        let records: u64 = parts.iter().map(|part| part.summary.records).sum();
        let counted = &self.stores.metrics.records;
        let stage = |stage: &str| counted.with_label_values(&[run.run.job.as_str(), stage]);
        let doubles: u64 = parts.iter().map(LoadedPart::doubles).sum();
        stage("duplicate").inc_by(doubles);
        stage("written").inc_by(records.saturating_sub(rejected + doubles));
        stage("rejected").inc_by(rejected);
    }
}

impl Stores {
    /// Parts of a shard, in the order of their names.
    pub(crate) async fn parts(
        &self,
        run: &OpenedRun,
        shard: u64,
        names: Vec<PartName>,
        stage: Stage,
    ) -> Result<Vec<LoadedPart>, LoadError> {
        let doubles = match stage {
            Stage::Collected => None,
            Stage::Given => self.doubles(run, shard).await?,
        };
        let heads = stage == Stage::Collected && run.plan.merges();
        self.read_parts(run, shard, names, stage, doubles, heads)
            .await
    }

    /// The same, also of those collected parts whose records are merged first.
    pub(crate) async fn whole_parts(
        &self,
        run: &OpenedRun,
        shard: u64,
        names: Vec<PartName>,
        stage: Stage,
    ) -> Result<Vec<LoadedPart>, LoadError> {
        match stage {
            Stage::Given => self.parts(run, shard, names, stage).await,
            Stage::Collected => self.read_parts(run, shard, names, stage, None, false).await,
        }
    }

    async fn read_parts(
        &self,
        run: &OpenedRun,
        shard: u64,
        names: Vec<PartName>,
        stage: Stage,
        doubles: Option<Arc<Doubles>>,
        only_heads: bool,
    ) -> Result<Vec<LoadedPart>, LoadError> {
        stream::iter(names)
            .map(|name| self.part(run, shard, name, stage, doubles.clone(), only_heads))
            .buffered(READ_AT_ONCE)
            .try_collect()
            .await
    }

    async fn part(
        &self,
        run: &OpenedRun,
        shard: u64,
        name: PartName,
        stage: Stage,
        doubles: Option<Arc<Doubles>>,
        only_its_head: bool,
    ) -> Result<LoadedPart, LoadError> {
        let key = run.part_key(stage, shard, name);
        let wrong = |why: String| LoadError::Part {
            key: key.clone(),
            why,
        };
        let object = if only_its_head {
            let head = self.objects.head(&key).await?;
            head.map(|metadata| (metadata, Bytes::new()))
        } else {
            let object = self.objects.get(&key).await?;
            object.map(|object| (object.metadata, object.body))
        };
        let (metadata, body) =
            object.ok_or_else(|| wrong("it is missing, though a receipt names it".to_owned()))?;
        let meta = PartMeta::from_metadata(&metadata).map_err(|error| wrong(error.to_string()))?;
        Ok(LoadedPart {
            summary: meta.summary(name.block),
            version: meta.version,
            stage,
            body,
            doubles,
            key,
        })
    }

    /// What `dedupe` takes out of a shard; with `changes` it is not in `data/` anyway.
    async fn doubles(
        &self,
        run: &OpenedRun,
        shard: u64,
    ) -> Result<Option<Arc<Doubles>>, LoadError> {
        if run.plan.job.dedupe.is_none() || run.plan.job.changes.is_some() {
            return Ok(None);
        }
        let key = run.layout.shard_doubles(shard);
        Ok(self.read_json(&key).await?.map(Arc::new))
    }
}

impl OpenedRun {
    /// A part's records that count.
    pub(crate) fn text(&self, part: &LoadedPart) -> Result<String, LoadError> {
        let text = self.format_of(part.stage).read(&part.body);
        let text = text.map_err(|error| LoadError::Part {
            key: part.key.clone(),
            why: error.to_string(),
        })?;
        Ok(match &part.doubles {
            Some(doubles) => doubles.without(name_of(&part.summary), &text),
            None => text,
        })
    }

    pub(crate) fn place(&self, shard: u64, part: &LoadedPart) -> Result<BlockPlace, LoadError> {
        let PartSummary { block, round, .. } = part.summary;
        let place = BlockPlace::of(&self.plan, shard, block, round);
        place.ok_or_else(|| LoadError::Part {
            key: part.key.clone(),
            why: "the plan has no such block".to_owned(),
        })
    }

    /// How the cells of a retry's block had ended before it.
    fn ends_before(&self, parts: &[LoadedPart], place: &BlockPlace) -> Option<CellEnds> {
        let earlier = parts
            .iter()
            .map(|part| &part.summary)
            .filter(|part| part.block == place.block && part.round < place.round);
        (place.round > 0).then(|| merged_ends(place.cells, earlier))
    }

    /// Whether the parts of a shard are all that round `round` owes: every block has one, and every cell
    /// that had failed before the round is covered by it.
    pub(crate) fn owes_nothing(&self, shard: u64, parts: &[PartSummary], round: u32) -> bool {
        let Some(found) = self.plan.shard(shard) else {
            return true;
        };
        let size = self.plan.job.shard;
        (0..found.blocks(size)).all(|block| {
            let (_, cells) = found.block(size, block);
            let of_block = || parts.iter().filter(|part| part.block == block);
            let before = merged_ends(cells, of_block().filter(|part| part.round < round));
            let owed = |end: &CellEnd| matches!(end, CellEnd::Failed | CellEnd::Absent);
            of_block().any(|part| part.round == round) || !before.0.iter().any(owed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_block_then_round() {
        let mut names = [
            PartName { block: 1, round: 0 },
            PartName { block: 0, round: 1 },
            PartName { block: 0, round: 0 },
        ];
        names.sort();
        assert_eq!(
            names.map(|name| name.to_string()),
            ["part-0", "part-r1-0", "part-1"]
        );
    }
}
