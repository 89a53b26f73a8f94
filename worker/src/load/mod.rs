//! The role `worker load`: takes receipts, fills Elasticsearch, and finishes the run that a receipt
//! completes. Stateless; any number may run.
//!
//! Every arrival is worked on by a task of its own and acked last. Whatever fails is tried again with
//! patience, since every step may be done twice; whatever is not acked when the process ends comes again.

mod bulk;
mod finish;
mod poison;
mod receipt;
mod runs;
mod stores;
mod sweep;
mod trouble;

pub use bulk::{BulkWriter, MAX_BYTES, MAX_DOCUMENTS};

use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::ids::RunRef;
use paceline_protocol::stores::broker::{Arrival, Receipts, TakenArrival};
use paceline_protocol::topology::DelayLevel;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::admin::Readiness;
use crate::config::LoadSettings;
use crate::crash;
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::servers::NotConnected;
use crate::shutdown::Shutdown;
use runs::{OpenedRun, Opening, Runs};
use stores::Stores;
use sweep::Sweep;
use trouble::Trouble;

/// Receipts in hand at once: enough that a `_bulk` fills while others are read.
const PREFETCH: u16 = 32;

/// A receipt that meets nothing but trouble for so long is left to other loaders, when there are any.
const KEPT_IN_TROUBLE: Duration = Duration::from_secs(20);

/// Why something could not be done; all of it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// S3.
    #[error(transparent)]
    Objects(#[from] paceline_protocol::stores::objects::ObjectError),
    /// Redis.
    #[error(transparent)]
    State(#[from] paceline_protocol::stores::state::StateError),
    /// RabbitMQ.
    #[error(transparent)]
    Broker(#[from] paceline_protocol::stores::broker::BrokerError),
    /// Elasticsearch.
    #[error(transparent)]
    Index(#[from] paceline_protocol::stores::index::IndexError),
    /// An object that should be there is not, or cannot be read.
    #[error("{key}: {why}")]
    Object {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A part that should be there is not, or cannot be read.
    #[error("the part {key}: {why}")]
    Part {
        /// Its key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// What was made of the parts cannot be written in the job's format.
    #[error("an object cannot be written: {0}")]
    Body(#[from] paceline_protocol::part::BodyError),
    /// The folder of temporary files.
    #[error("a temporary file: {0}")]
    Disk(#[from] std::io::Error),
    /// The run's plan cannot be read by this version.
    #[error("{0}")]
    Unsupported(String),
    /// A newer build wrote it, in this version: it is left to one.
    #[error("a newer build wrote it, in version {0}")]
    Newer(u32),
    /// The lease of finishing was lost while finishing.
    #[error("the lease of finishing the run was lost")]
    LeaseLost,
}

/// Loads until the drain, then finishes what is in hand.
///
/// # Errors
/// When a server can never be used as it is set up.
pub async fn run(
    settings: LoadSettings,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let connected = stores::connect(&settings, &readiness, &shutdown, metrics).await;
    let (stores, receipts) = match connected {
        Ok(connected) => connected,
        Err(NotConnected::Draining(what)) => {
            tracing::info!("stopped while waiting for {what}");
            return Ok(());
        }
        Err(never) => return Err(never.into()),
    };
    readiness.ready(stores.look(&settings));
    tracing::info!(elasticsearch.url = stores.index.shown_url(), "loading");
    let loader = Loader {
        runs: Runs::new(stores.clone()),
        stores,
        shutdown,
    };
    loader.take_until_drained(receipts).await;
    Ok(())
}

/// What every arrival's task shares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Loader {
    pub(crate) stores: Arc<Stores>,
    pub(crate) runs: Runs,
    shutdown: Shutdown,
}

impl Loader {
    async fn take_until_drained(&self, mut receipts: Receipts) {
        let mut in_hand = JoinSet::new();
        let mut sweep = Sweep::default();
        while !self.shutdown.is_draining() {
            tokio::select! {
                () = self.shutdown.draining() => {}
                taken = receipts.next() => {
                    sweep.put_off();
                    in_hand.spawn(self.clone().settle(taken));
                }
                Some(_) = in_hand.join_next() => {}
                () = sweep.due(), if in_hand.is_empty() => {
                    receipts.begin_anew();
                    tokio::select! {
                        () = sweep.sweep(self) => {}
                        () = self.shutdown.draining() => {}
                    }
                }
            }
            self.count(&in_hand);
        }
        while in_hand.join_next().await.is_some() {
            self.count(&in_hand);
        }
    }

    fn count(&self, in_hand: &JoinSet<()>) {
        let count = i64::try_from(in_hand.len()).unwrap_or(i64::MAX);
        self.stores.metrics.worker_inflight.set(count);
    }

    /// Does everything that an arrival asks for, however often that takes, and acks it.
    async fn settle(self, taken: TakenArrival) {
        let mut patience = Patience::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut trouble = Trouble::of(&taken.arrival);
        let begun = Instant::now();
        while let Err(error) = self.work_on(&taken.arrival).await {
            if let LoadError::Newer(version) = error {
                return self.leave_to_newer(taken, version).await;
            }
            trouble.tell(&error);
            if let Some(run) = trouble.run() {
                // Who waits for the run reads it; where Redis is away, they hear that.
                let why = error.to_string();
                drop(self.stores.state.tell_loader_waits(run, &why).await);
            }
            if begun.elapsed() > KEPT_IN_TROUBLE && self.is_one_of_several().await {
                return self.leave_to_others(taken).await;
            }
            tokio::select! {
                () = patience.wait() => {}
                // Not acked: it comes again to whoever takes receipts then.
                () = self.shutdown.draining() => return,
            }
        }
        crash::point("load-before-ack");
        taken.ack().await;
    }

    async fn is_one_of_several(&self) -> bool {
        let loaders = self.stores.publisher.loaders().await;
        loaders.is_ok_and(|loaders| loaders > 1)
    }

    /// A server may be away for this loader alone.
    async fn leave_to_others(&self, taken: TakenArrival) {
        tracing::warn!("a receipt is given back, so that another loader may take it");
        self.give_back(taken).await;
    }

    /// Gives back what a newer build wrote, unharmed, so that one may take it.
    async fn leave_to_newer(&self, taken: TakenArrival, version: u32) {
        tracing::warn!(
            version,
            "a receipt is of a newer build, or of its run: it is given back. Upgrade this loader"
        );
        self.give_back(taken).await;
    }

    /// Gives it back through a delay, however often that takes.
    async fn give_back(&self, taken: TakenArrival) {
        let mut patience = Patience::new(Duration::from_millis(250), Duration::from_secs(30));
        while let Err(error) = taken
            .give_back(&self.stores.publisher, DelayLevel::S5)
            .await
        {
            tracing::warn!(%error, "it could not be given back yet");
            tokio::select! {
                () = patience.wait() => {}
                () = self.shutdown.draining() => return,
            }
        }
        taken.ack().await;
    }

    async fn work_on(&self, arrival: &Arrival) -> Result<(), LoadError> {
        match arrival {
            Arrival::Receipt(receipt) => {
                match self.loadable(&receipt.run_ref(), receipt.rebuild).await? {
                    Some(run) => self.receipt(&run, receipt).await,
                    None => Ok(()),
                }
            }
            Arrival::DeadShard(shard, reason) => match self.loadable(&shard.run_ref(), None).await?
            {
                Some(run) => {
                    let receipt = self.bury(&run, shard, reason).await?;
                    self.receipt(&run, &receipt).await
                }
                None => Ok(()),
            },
            Arrival::Newer(version) => Err(LoadError::Newer(*version)),
            Arrival::Unreadable(why) => {
                tracing::error!(
                    why,
                    "a message on the receipts queue cannot be read; it is dropped"
                );
                Ok(())
            }
        }
    }

    /// The run, when there is something to load of it: it is open, and this version can. One that this
    /// version cannot load is ended, which says so.
    async fn loadable(
        &self,
        run: &RunRef,
        rebuild: Option<Uuid>,
    ) -> Result<Option<Arc<OpenedRun>>, LoadError> {
        let Opening::Open(run) = self.runs.open(run, rebuild).await? else {
            return Ok(None);
        };
        if let Some(why) = run.unloadable.clone() {
            self.end_unloadable(&run, why).await?;
            return Ok(None);
        }
        Ok(Some(run))
    }

    /// Forgets a run that has ended.
    pub(crate) fn close(&self, run: &OpenedRun) {
        self.runs.forget(&run.run);
    }
}
