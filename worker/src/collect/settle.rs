//! Settling a full block, in the order that keeps the promise: failures, part, sets. Every step can be
//! done again by whoever goes on after a crash.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use paceline_protocol::layout::PartName;
use paceline_protocol::message::PartSummary;
use paceline_protocol::stores::objects::{ObjectError, Objects, PutNew};
use paceline_protocol::stores::state::{BlockCounts, State, StateError};

use super::lane::held::ShardInHand;
use crate::metrics::Metrics;
use crate::output::failures::FailureRows;
use crate::output::finished::FullBlock;
use crate::output::part::{PartError, PartMeta};
use crate::output::rankings::Ranked;
use crate::output::settle::{BlockPlace, block_counts};
use paceline_protocol::message::merged_ends;

/// What became full within so long is counted together: one round trip to Redis instead of one for each block. Its part is
/// in S3 by then.
const TOGETHER: Duration = Duration::from_millis(300);

/// The stores that settling writes to.
#[derive(Clone)]
pub struct Stores {
    /// Parts and failures.
    pub objects: Objects,
    /// Counters and sets.
    pub state: State,
    /// How long it took.
    pub metrics: Arc<Metrics>,
}

/// Why a step has to be done again.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// Redis is away.
    #[error(transparent)]
    State(#[from] StateError),
    /// What lies under the part's key is not a part.
    #[error("{key}: {why}")]
    Part {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: PartError,
    },
}

/// A part as it lies in S3, ours or the one that was there first.
struct Stored {
    meta: PartMeta,
    ranked: Ranked,
    /// It was there first.
    adopted: bool,
}

impl Stores {
    /// Makes a full block durable and counts it. Returns its part's summary.
    ///
    /// # Errors
    /// When a store does not answer; doing it again is harmless.
    pub async fn settle(
        &self,
        shard: &ShardInHand,
        block: &FullBlock,
    ) -> Result<PartSummary, SettleError> {
        crate::crash::point("settle-before-failures");
        self.add_failures(shard, block).await?;
        crate::crash::point("settle-before-part");
        self.put_stand_ins(shard, block).await?;
        let stored = self.store_part(shard, block).await?;
        self.settle_failures(shard, block, &stored).await?;
        crate::crash::point("settle-before-sets");
        let summary = stored.meta.summary(block.number);
        self.count(shard, &summary, &stored).await?;
        crate::crash::point("settle-after-sets");
        Ok(summary)
    }

    /// Puts the shard's failures with those of `block` among them, before its part says that they are.
    async fn add_failures(
        &self,
        shard: &ShardInHand,
        block: &FullBlock,
    ) -> Result<(), SettleError> {
        if block.failures().next().is_none() {
            return Ok(());
        }
        // Whoever was stopped for a while may find that somebody else has put the part: then its failures stand.
        let key = part_key(shard, block.number);
        if self.objects.head(&key).await?.is_some() {
            return Ok(());
        }
        self.change_failures(shard, |failures| {
            for failure in block.failures() {
                failures.add(failure, &shard.run.plan);
            }
        })
        .await
    }

    /// Makes the rows those of the part that stands, ours or the one that was there first.
    async fn settle_failures(
        &self,
        shard: &ShardInHand,
        block: &FullBlock,
        stored: &Stored,
    ) -> Result<(), SettleError> {
        let summary = stored.meta.summary(block.number);
        let of_block = |part: &&PartSummary| part.block == block.number;
        let parts = shard.earlier.iter().filter(of_block).chain([&summary]);
        let ends = merged_ends(summary.ends.0.len() as u32, parts);
        match stored.adopted {
            true => {
                let settle = |failures: &mut FailureRows| failures.settle(block.first_cell, &ends);
                self.change_failures(shard, settle).await
            }
            false => {
                let mut failures = shard.failures.lock().await;
                failures.settle(block.first_cell, &ends);
                Ok(())
            }
        }
    }

    /// Makes the failures object what `change` makes of it, over the one that is there and no other: whoever else has the
    /// shard at the same time may have put one meanwhile.
    async fn change_failures(
        &self,
        shard: &ShardInHand,
        change: impl Fn(&mut FailureRows),
    ) -> Result<(), SettleError> {
        let key = shard.run.layout.failures(shard.message.shard);
        let mut failures = shard.failures.lock().await;
        loop {
            let found = self.objects.get(&key).await?;
            if let Some(object) = &found {
                failures.keep(&object.body);
            }
            change(&mut failures);
            let Some(body) = failures.unsaved() else {
                return Ok(());
            };
            let over = found.as_ref().and_then(|object| object.etag.as_deref());
            if self.objects.put_over(&key, body, over).await? {
                failures.saved();
                return Ok(());
            }
        }
    }

    /// Says which objects did not count for the cells of `block`, before its part says that they ended: what was read
    /// is known now alone.
    async fn put_stand_ins(
        &self,
        shard: &ShardInHand,
        block: &FullBlock,
    ) -> Result<(), SettleError> {
        let Some(body) = block.stand_ins_object() else {
            return Ok(());
        };
        let part = part_name(shard, block.number);
        let key = shard.run.layout.part_stand_ins(shard.message.shard, part);
        Ok(self.objects.put(&key, body, &[]).await?)
    }

    /// Puts the failures when the object differs from what stands.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn save_failures(&self, shard: &ShardInHand) -> Result<(), SettleError> {
        if shard.failures.lock().await.unsaved().is_none() {
            return Ok(());
        }
        self.change_failures(shard, |_| {}).await
    }

    /// Puts the part unless there is one; then that one counts.
    async fn store_part(
        &self,
        shard: &ShardInHand,
        block: &FullBlock,
    ) -> Result<Stored, SettleError> {
        let format = &shard.run.format;
        let mut meta = PartMeta::of(block, shard.message.round);
        let lines = block.lines();
        let ranked = self.ranked(shard, block.number, &meta, &lines);
        meta.unscored = ranked.unscored;
        let key = part_key(shard, block.number);
        let body = format.write(&lines).map_err(|why| SettleError::Part {
            key: key.clone(),
            why: why.into(),
        })?;
        let began = Instant::now();
        let put = self.objects.put_new(&key, body, &meta.to_metadata()).await;
        self.observe("part", began, put.is_err());
        match put? {
            PutNew::Created => {
                let job = shard.run.id.job.as_str();
                self.metrics
                    .records
                    .with_label_values(&[job, "extracted"])
                    .inc_by(meta.records);
                Ok(Stored {
                    meta,
                    ranked,
                    adopted: false,
                })
            }
            PutNew::Exists => self.adopt(shard, block.number, key).await,
        }
    }

    /// What a part's records add to the sorted sets.
    fn ranked(&self, shard: &ShardInHand, block: u32, meta: &PartMeta, lines: &str) -> Ranked {
        let plan = &shard.run.plan;
        let place = BlockPlace::of(plan, shard.message.shard, block, meta.round);
        let rankings = &shard.run.rankings;
        place.map_or_else(Ranked::default, |place| {
            rankings.updates(plan, &place, &meta.ends, meta.version, lines)
        })
    }

    async fn adopt(
        &self,
        shard: &ShardInHand,
        block: u32,
        key: String,
    ) -> Result<Stored, SettleError> {
        let object = self.objects.get(&key).await?;
        let object = object.ok_or_else(|| ObjectError::Failed {
            what: "get",
            key: key.clone(),
            why: "it vanished".into(),
        })?;
        let read = || {
            let meta = PartMeta::from_metadata(&object.metadata)?;
            let lines = shard.run.format.read(&object.body)?;
            let ranked = self.ranked(shard, block, &meta, &lines);
            Ok(Stored {
                meta,
                ranked,
                adopted: true,
            })
        };
        read().map_err(|why| SettleError::Part { key, why })
    }

    /// Adds the part to counters and sets, once.
    async fn count(
        &self,
        shard: &ShardInHand,
        summary: &PartSummary,
        stored: &Stored,
    ) -> Result<(), SettleError> {
        let plan = &shard.run.plan;
        let Some(place) = BlockPlace::of(plan, shard.message.shard, summary.block, summary.round)
        else {
            return Ok(());
        };
        let earlier = shard
            .earlier
            .iter()
            .filter(|part| part.block == summary.block);
        let before = (summary.round > 0).then(|| merged_ends(place.cells, earlier));
        next_beat().await;
        let (calls, busy_ms) = shard.run.spent.take();
        let counts = BlockCounts {
            calls,
            busy_ms,
            ..block_counts(plan, &place, summary, before.as_ref())
        };
        let began = Instant::now();
        let settled = self
            .state
            .settle_block(&shard.run.id, place.bit(plan), &counts, &stored.ranked.sets)
            .await;
        self.observe("sets", began, settled.is_err());
        settled?;
        Ok(())
    }

    fn observe(&self, output: &str, began: Instant, failed: bool) {
        self.metrics
            .output_batch_duration
            .with_label_values(&[output])
            .observe(began.elapsed().as_secs_f64());
        if failed {
            self.metrics
                .output_errors
                .with_label_values(&[output])
                .inc();
        }
    }
}

/// The part that a block of `shard` makes in the round under way.
fn part_name(shard: &ShardInHand, block: u32) -> PartName {
    let round = shard.message.round;
    PartName { block, round }
}

fn part_key(shard: &ShardInHand, block: u32) -> String {
    let (layout, suffix) = (&shard.run.layout, shard.run.format.suffix());
    layout.part(shard.message.shard, part_name(shard, block), suffix)
}

/// The next instant at which every block of this process that waits is counted. Their commands are then written to the
/// one connection that they share before any answer is waited for.
async fn next_beat() {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let beat = BEGUN.elapsed().div_duration_f64(TOGETHER).floor() as u32 + 1;
    tokio::time::sleep_until((*BEGUN + TOGETHER * beat).into()).await;
}
