//! Whether the index holds what the parts hold: the cheap proof first, then the distinct ids, then one more
//! load of the whole run.

use std::time::Duration;

use futures::FutureExt;

use paceline_protocol::message::PartSummary;
use paceline_protocol::spec::IndexMode;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::LoadError;
use super::super::runs::Stage;
use super::Finish;
use super::gate::Verdict;
use super::tally::Tally;
use crate::output::part::name_of;
use paceline_protocol::part::lines;

/// Hashes that are held at once: 64 MiB.
const HASHES_AT_ONCE: u64 = 4 << 20;
/// How long copies may take before the alias is swapped without them.
const GREEN_WITHIN: Duration = Duration::from_secs(120);

impl Finish<'_> {
    /// Counts the documents, judges the count, and makes the index ready to be read. Returns the count.
    pub(super) async fn check_documents(
        &mut self,
        tally: &mut Tally,
        verdict: &mut Verdict,
    ) -> Result<u64, LoadError> {
        let Some(output) = self.run.output().filter(|_| tally.cells > 0) else {
            return Ok(0);
        };
        let name = self.run.index_name(output).await?;
        self.run.writer().await?;
        self.loader.stores.index.refresh(&name).await?;
        if output.mode == IndexMode::Upsert {
            // The index holds other runs' documents too, so only what these parts come to can be said.
            return match self.run.plan.job.dedupe {
                Some(_) => Ok(tally.documents()),
                None => self.distinct_documents(tally).await,
            };
        }
        let mut count = self.loader.stores.index.count(&name).await?;
        if verdict.passed && !self.is_expected(count, tally).await? {
            count = self.load_again(&name, tally).await?;
            if !self.is_expected(count, tally).await? {
                verdict.fail(format!("the index {name} holds {count} documents, which is not what the parts hold, also after it was loaded again"));
            }
        }
        self.make_readable(&name, verdict).await?;
        Ok(count)
    }

    async fn is_expected(&self, count: u64, tally: &Tally) -> Result<bool, LoadError> {
        if count == tally.documents() {
            return Ok(true);
        }
        Ok(count == self.distinct_documents(tally).await?)
    }

    async fn distinct_documents(&self, tally: &Tally) -> Result<u64, LoadError> {
        let distinct = self.distinct_ids(tally.records).await?;
        Ok(distinct.saturating_sub(tally.rejected))
    }

    /// Distinct document ids over all parts, in bounded memory: one pass over the parts for each slice
    /// of the hashes.
    async fn distinct_ids(&self, records: u64) -> Result<u64, LoadError> {
        let slices = records.div_ceil(HASHES_AT_ONCE).max(1);
        let mut distinct = 0;
        for slice in 0..slices {
            let mut hashes = Hashes::new(slice, slices);
            for (shard, (parts, _)) in &self.shards {
                self.add_hashes(*shard, parts, &mut hashes).await?;
            }
            distinct += hashes.distinct();
        }
        Ok(distinct)
    }

    async fn add_hashes(
        &self,
        shard: u64,
        parts: &[PartSummary],
        hashes: &mut Hashes,
    ) -> Result<(), LoadError> {
        let Some(ids) = &self.run.ids else {
            return Ok(());
        };
        let names = parts
            .iter()
            .filter(|part| part.records > 0)
            .map(name_of)
            .collect();
        for part in self
            .loader
            .stores
            .parts(self.run, shard, names, Stage::Given)
            .await?
        {
            let text = self.run.text(&part)?;
            for (place, line) in lines(&text).enumerate() {
                match ids.id(line, part.version) {
                    Ok(id) => hashes.add(id.as_bytes()),
                    // A record without an id is one rejected document of its own.
                    Err(_) => hashes
                        .add(format!("\0{shard}/{}/{place}", name_of(&part.summary)).as_bytes()),
                }
            }
        }
        Ok(())
    }

    /// Writes every part again; what is already there stays. Returns the count then.
    async fn load_again(&mut self, name: &str, tally: &mut Tally) -> Result<u64, LoadError> {
        tracing::warn!(run.id = %self.run.run, index.name = name, "documents are missing: the run is loaded again");
        self.load_all().await?;
        let stores = &self.loader.stores;
        if !self.run.plan.merges() {
            for (shard, (parts, rejected)) in &self.shards {
                let state = &stores.state;
                state
                    .shard_loaded(&self.run.run, *shard, parts, *rejected)
                    .await?;
            }
        }
        tally.rejected = self.shards.values().map(|(_, rejected)| rejected).sum();
        stores.index.refresh(name).await?;
        Ok(stores.index.count(name).await?)
    }

    /// Writes the documents of every shard, and notes how many were rejected.
    pub(super) async fn load_all(&mut self) -> Result<(), LoadError> {
        let loaded = self.each_shard(|shard, parts| self.load_one(shard, parts).boxed());
        for (shard, rejected) in loaded.await? {
            if let Some((_, known)) = self.shards.get_mut(&shard) {
                *known = rejected;
            }
        }
        Ok(())
    }

    async fn load_one(&self, shard: u64, parts: &[PartSummary]) -> Result<(u64, u64), LoadError> {
        let names = parts.iter().map(name_of).collect();
        let stores = &self.loader.stores;
        let parts = stores.parts(self.run, shard, names, Stage::Given).await?;
        let rejected = self.loader.write_documents(self.run, shard, &parts).await?;
        Ok((shard, rejected))
    }

    /// Brings back what was off while loading: refreshes and copies.
    async fn make_readable(&self, name: &str, verdict: &mut Verdict) -> Result<(), LoadError> {
        let index = &self.loader.stores.index;
        // With 0-1 a single node has none and is green; a cluster has one.
        let settings =
            json!({ "index": { "refresh_interval": null, "auto_expand_replicas": "0-1" } });
        index.settings(name, &settings).await?;
        if verdict.publish && !index.wait_green(name, GREEN_WITHIN).await? {
            verdict.notes.push(format!(
                "the index {name} was published before its copies were complete"
            ));
        }
        Ok(())
    }
}

/// The hashes of one slice: 128 bits each, so that two ids share one with a chance below 1e-20 at
/// a billion ids.
struct Hashes {
    slice: u128,
    slices: u128,
    held: Vec<u128>,
}

impl Hashes {
    fn new(slice: u64, slices: u64) -> Self {
        Hashes {
            slice: slice.into(),
            slices: slices.into(),
            held: Vec::new(),
        }
    }

    fn add(&mut self, id: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(id).into();
        let half = digest.first_chunk().expect("it has 32 bytes");
        let hash = u128::from_be_bytes(*half);
        if hash % self.slices == self.slice {
            self.held.push(hash);
        }
    }

    fn distinct(mut self) -> u64 {
        self.held.sort_unstable();
        self.held.dedup();
        self.held.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_together_count_every_id_once() {
        for slices in [1, 3, 8] {
            let distinct = |slice| {
                let mut hashes = Hashes::new(slice, slices);
                (0..1000).for_each(|n| hashes.add(format!("id-{}", n % 700).as_bytes()));
                hashes.distinct()
            };
            assert_eq!((0..slices).map(distinct).sum::<u64>(), 700, "{slices}");
        }
    }
}
