//! Parting with a shard: its receipt when it is done, a hand-back when it is not. Always publish,
//! confirm, release, ack, in this order: an ack is an optimisation, being able to do it twice is the guarantee.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::limit::ClaimRef;
use paceline_protocol::message::{PartSummary, Receipt, ShardMessage};
use paceline_protocol::stores::broker::{BrokerError, Publisher, TakenShard};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::state::State;
use paceline_protocol::topology::DelayLevel;
use paceline_protocol::version;
use uuid::Uuid;

use super::lane::held::ShardInHand;
use super::settle::{SettleError, Stores};
use crate::output::finished::{FullBlock, OpenCells, encode_open};
use crate::patience::Patience;

/// What parting with a shard needs.
#[derive(Clone)]
pub struct Parting {
    /// S3 and Redis.
    pub stores: Stores,
    /// RabbitMQ.
    pub publisher: Publisher,
    /// Claims.
    pub limiter: FleetLimiter,
    /// This worker, as claims know it.
    pub holder: String,
}

/// Why it has to be tried again.
#[derive(Debug, thiserror::Error)]
enum PartingError {
    #[error(transparent)]
    Settle(#[from] SettleError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Objects(#[from] paceline_protocol::stores::objects::ObjectError),
}

/// So often the ledger of a shard that is dropped is tried (about half a minute); what is left goes with the next one.
const LEDGER_TRIES: u32 = 10;

/// How a shard goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// To its queue, for whoever takes it next.
    Now,
    /// Through the delay queue of this level.
    Delayed(DelayLevel),
}

impl Parting {
    /// Sends the receipt of a shard whose parts are all there, and acks it. Tries until it is done.
    pub async fn done(&self, shard: &ShardInHand, taken: TakenShard, mut parts: Vec<PartSummary>) {
        parts.sort_by_key(|part| part.block);
        let receipt = Receipt {
            v: version::message(),
            job: shard.run.id.job.clone(),
            run: shard.run.id.run.clone(),
            shard: Some(shard.message.shard),
            round: shard.message.round,
            parts,
            rebuild: None,
            trace: shard.span.context(),
        };
        until_done(&self.stores.state, "sending a receipt", shard, || async {
            self.stores.save_failures(shard).await?;
            shard.run.ledger.flush(&self.stores.objects).await?;
            crate::crash::point("done-before-receipt");
            self.confirmed(self.publisher.receipt(&receipt)).await
        })
        .await;
        crate::crash::point("done-before-ack");
        self.release(shard).await;
        taken.ack().await;
        crate::crash::point("done-after-ack");
    }

    /// Leaves what is finished of the open blocks in `open/` and gives the shard back without burning its
    /// delivery count. Tries until it is done.
    pub async fn hand_back(
        &self,
        shard: &ShardInHand,
        taken: TakenShard,
        open: OpenCells,
        back: Back,
    ) {
        let again = ShardMessage {
            publication: Uuid::new_v4(),
            ..shard.message.clone()
        };
        until_done(
            &self.stores.state,
            "handing a shard back",
            shard,
            || async {
                self.keep_open(shard, &open).await?;
                shard.run.ledger.flush(&self.stores.objects).await?;
                match back {
                    Back::Now => self.confirmed(self.publisher.shard(&again)).await,
                    Back::Delayed(level) => {
                        let delayed = self.publisher.delayed_shard(&again, level);
                        self.confirmed(delayed).await
                    }
                }
            },
        )
        .await;
        crate::crash::point("back-before-ack");
        self.release(shard).await;
        taken.ack().await;
    }

    /// Publishes, and notes how long the broker took to confirm it.
    async fn confirmed(
        &self,
        published: impl Future<Output = Result<(), BrokerError>>,
    ) -> Result<(), PartingError> {
        let began = Instant::now();
        published.await?;
        let took = &self.stores.metrics.queue_publish_confirm;
        took.observe(began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn keep_open(&self, shard: &ShardInHand, open: &OpenCells) -> Result<(), PartingError> {
        if open.finished.is_empty() && open.unfinished.is_empty() {
            return Ok(());
        }
        let key = shard
            .run
            .layout
            .open(shard.message.shard, shard.message.round);
        let body = encode_open(open).expect("compressing in memory cannot fail");
        Ok(self.stores.objects.put(&key, body, &[]).await?)
    }

    /// Leaves what was answered in `open/` for a retry of the run, which has ended. That is worth no more than a try: the
    /// calls could be made again.
    pub async fn leave_to_a_retry(&self, shard: &ShardInHand, open: &OpenCells) {
        if open.finished.is_empty() {
            return;
        }
        if let Err(error) = self.keep_open(shard, open).await {
            tracing::warn!(run.id = %shard.run.id, shard.id = shard.message.shard, error = %error, "answers that were there when the run ended are lost; a retry makes their calls again");
        }
    }

    /// Drops a shard whose claim is lost or whose run has ended: nothing of it is written but the calls that were made
    /// for it, which its provider has counted (and what [`leave_to_a_retry`](Self::leave_to_a_retry) leaves).
    pub async fn drop(&self, shard: &ShardInHand, taken: TakenShard) {
        taken.ack().await;
        let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(5));
        for _ in 0..LEDGER_TRIES {
            match shard.run.ledger.flush(&self.stores.objects).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(run.id = %shard.run.id, error = %error, "the ledger is not written yet")
                }
            }
            patience.wait().await;
        }
    }

    /// A claim that cannot be released ends by itself.
    async fn release(&self, shard: &ShardInHand) {
        self.release_claim(shard.at.connector.budgets(), &shard.claim)
            .await;
    }

    /// Gives a claim back; one that cannot be released ends by itself.
    pub async fn release_claim(&self, provider: &str, claim: &ClaimRef) {
        if let Err(error) = self.limiter.release(provider, claim, &self.holder).await {
            tracing::debug!(shard.id = claim.shard, error = %error, "the claim was not released and will expire");
        }
    }
}

/// Tries `step` until it succeeds or the shard is lost.
async fn until_done<F>(state: &State, what: &str, shard: &ShardInHand, mut step: impl FnMut() -> F)
where
    F: Future<Output = Result<(), PartingError>>,
{
    let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(10));
    while let Err(error) = step().await {
        if shard.is_lost() {
            return;
        }
        tracing::warn!(run.id = %shard.run.id, shard.id = shard.message.shard, error = %error, "{what} failed and is tried again");
        if let PartingError::Broker(error) = &error {
            // Once all cells have ended this is what the run waits for.
            let why = format!("{what}: {error}");
            drop(state.tell_loader_waits(&shard.run.id, &why).await);
        }
        patience.wait().await;
    }
}

/// Settles a block, trying until it is done. `None` when the shard was lost meanwhile.
pub async fn settle_until_done(
    stores: &Stores,
    shard: &Arc<ShardInHand>,
    block: &FullBlock,
) -> Option<PartSummary> {
    let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        if shard.is_lost() {
            return None;
        }
        match stores.settle(shard, block).await {
            Ok(summary) => return Some(summary),
            Err(error) => {
                tracing::warn!(run.id = %shard.run.id, shard.id = shard.message.shard, error = %error, "settling a block failed and is tried again");
                patience.wait().await;
            }
        }
    }
}
