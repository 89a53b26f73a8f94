//! Receipts that got lost (with Redis, with the broker) are published again: at once when a run's state is
//! missing altogether, else when this loader has had nothing to do for a while; then it also listens anew.
//! Loading again is harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, PartName};
use paceline_protocol::message::{PartSummary, Receipt};
use paceline_protocol::version;
use tokio::time::Instant;
use uuid::Uuid;

use super::runs::{OpenedRun, Opening};
use super::{LoadError, Loader};

/// Idle for so long, a loader looks for the first time, then at doubled distances.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

/// When to look next.
pub(crate) struct Sweep {
    at: Instant,
    distance: Duration,
}

impl Default for Sweep {
    fn default() -> Self {
        Sweep {
            at: Instant::now() + FIRST,
            distance: FIRST,
        }
    }
}

impl Sweep {
    /// Something arrived: it is not yet time.
    pub(crate) fn put_off(&mut self) {
        *self = Sweep::default();
    }

    pub(crate) async fn due(&self) {
        tokio::time::sleep_until(self.at).await;
    }

    pub(crate) async fn sweep(&mut self, loader: &Loader) {
        if let Err(error) = loader.publish_lost_receipts().await {
            tracing::warn!(%error, "could not look for lost receipts");
        }
        self.distance = (self.distance * 2).min(LONGEST);
        self.at = Instant::now() + self.distance;
    }
}

/// What an open run and a rebuild have in common.
#[derive(serde::Deserialize)]
struct Entry {
    run: RunRef,
    /// Which rebuild.
    id: Option<Uuid>,
}

impl Loader {
    async fn publish_lost_receipts(&self) -> Result<(), LoadError> {
        let prefix = &self.stores.fleet.prefix;
        let objects = &self.stores.objects;
        let mut listed = objects.list(&layout::open_runs(prefix)).await?;
        listed.extend(objects.list(&layout::rebuilds(prefix)).await?);
        let mut still_open = BTreeSet::new();
        for object in listed {
            let open: Option<Entry> = self.stores.read_json(&object.key).await?;
            let Some(open) = open else { continue };
            still_open.insert(open.run.clone());
            match self.runs.open(&open.run, open.id).await {
                Ok(Opening::Open(run)) => self.publish_receipts(&run).await?,
                // A newer loader looks after it.
                Ok(Opening::Ended) | Err(LoadError::Newer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // Others end runs too; their indices may be gone when a retry opens them again.
        self.runs.keep_only(&still_open);
        Ok(())
    }

    /// Publishes a receipt for every shard that has a part in each block, and parts that are not loaded;
    /// one without a shard when all are loaded and yet the run is open.
    pub(crate) async fn publish_receipts(&self, run: &OpenedRun) -> Result<(), LoadError> {
        let found = self.parts_in_s3(run).await?;
        let loaded = self.stores.state.loaded_shards(&run.run).await?;
        let mut published = 0;
        for (shard, names) in &found {
            let known = loaded.get(shard).map(|(parts, _)| parts.as_slice());
            if is_lost(run, *shard, names, known) {
                let round = names.iter().map(|name| name.round).max().unwrap_or(0);
                self.stores
                    .publisher
                    .receipt(&receipt(run, Some(*shard), round))
                    .await?;
                published += 1;
            }
        }
        if published == 0 && loaded.len() as u64 >= run.plan.shards() {
            self.stores
                .publisher
                .receipt(&receipt(run, None, 0))
                .await?;
        }
        if published > 0 {
            tracing::warn!(run.id = %run.run, shards = published, "published lost receipts again");
        }
        Ok(())
    }

    /// The names of all parts, by shard.
    pub(super) async fn parts_in_s3(
        &self,
        run: &OpenedRun,
    ) -> Result<BTreeMap<u64, BTreeSet<PartName>>, LoadError> {
        let mut found: BTreeMap<u64, BTreeSet<PartName>> = BTreeMap::new();
        let mut each = |object: paceline_protocol::stores::objects::Listed| {
            if let Some((shard, name)) = PartName::from_key(&object.key) {
                found.entry(shard).or_default().insert(name);
            }
        };
        self.stores
            .objects
            .list_each(&run.layout.data(), &mut each)
            .await?;
        Ok(found)
    }
}

/// Whether S3 has a whole shard of which Redis does not know every part.
fn is_lost(
    run: &OpenedRun,
    shard: u64,
    names: &BTreeSet<PartName>,
    known: Option<&[PartSummary]>,
) -> bool {
    let blocks = run
        .plan
        .shard(shard)
        .map_or(0, |found| found.blocks(run.plan.job.shard));
    let whole = (0..blocks).all(|block| names.iter().any(|name| name.block == block));
    let loaded = |name: &PartName| {
        known.is_some_and(|parts| {
            parts
                .iter()
                .any(|part| (part.block, part.round) == (name.block, name.round))
        })
    };
    whole && !names.iter().all(loaded)
}

/// A receipt that names no parts: the loader lists them.
fn receipt(run: &OpenedRun, shard: Option<u64>, round: u32) -> Receipt {
    Receipt {
        v: version::message(),
        job: run.run.job.clone(),
        run: run.run.run.clone(),
        shard,
        round,
        parts: Vec::new(),
        rebuild: run.rebuild.as_ref().map(|rebuild| rebuild.id),
        trace: None,
    }
}
