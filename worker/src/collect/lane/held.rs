//! A shard in hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use paceline_protocol::limit::ClaimRef;
use paceline_protocol::message::{PartSummary, ShardMessage};
use paceline_protocol::stores::broker::TakenShard;
use paceline_protocol::stores::traces::Span;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit};

use crate::collect::run::{Run, RunAtProvider};
use crate::collect::work::ShardWork;
use crate::output::failures::FailureRows;
use crate::output::finished::FullBlock;

/// A shard in hand, from its claim to its ack.
pub struct Held {
    /// Its delivery.
    pub taken: TakenShard,
    /// What is still to do.
    pub work: ShardWork,
    /// Blocks that were complete when it was resumed.
    pub full: Vec<FullBlock>,
    /// What its settling tasks share.
    pub shard: Arc<ShardInHand>,
    /// Parts of this round, those that were there before among them.
    pub parts: Vec<PartSummary>,
    /// When it was taken: no delivery is held longer than ten minutes.
    pub since: Instant,
    /// One of the shards that this process works on at once; none while its lane's limits, its scope or answers alone are
    /// waited for.
    pub permit: Option<OwnedSemaphorePermit>,
    /// One of the shards of its lane.
    pub in_lane: InLane,
    /// Beside others, or alone.
    pub company: Company,
}

/// A shard of a lane in this process, from before its claim until it is gone.
pub struct InLane(Arc<AtomicUsize>);

impl InLane {
    /// Counts one more in `lane`.
    pub fn enter(lane: &Arc<AtomicUsize>) -> Self {
        lane.fetch_add(1, Ordering::Relaxed);
        InLane(lane.clone())
    }
}

impl Drop for InLane {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A suspected poison shard is worked alone, so that it takes no neighbour with it.
pub enum Company {
    /// Beside others.
    Shared(OwnedRwLockReadGuard<()>),
    /// No other shard is in hand.
    Alone(OwnedRwLockWriteGuard<()>),
}

/// What a shard's calls and settling tasks share.
pub struct ShardInHand {
    /// Its message.
    pub message: ShardMessage,
    /// Its run.
    pub run: Arc<Run>,
    /// Its run at its provider.
    pub at: Arc<RunAtProvider>,
    /// Its claim.
    pub claim: ClaimRef,
    /// Its parts of earlier rounds.
    pub earlier: Vec<PartSummary>,
    /// The claim is lost or the run has ended: nothing more is called or written.
    pub lost: AtomicBool,
    /// The run has ended while this worker had the claim: what was answered is left to a retry.
    pub ended: AtomicBool,
    /// What is told of it in traces; nothing where nothing is traced.
    pub span: Span,
    /// The rows of its failures object.
    pub failures: tokio::sync::Mutex<FailureRows>,
}

impl ShardInHand {
    /// Whether nothing more may be called or written.
    pub fn is_lost(&self) -> bool {
        self.lost.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The run has ended.
    pub fn end(&self) {
        if !self.is_lost() {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.lose();
    }

    /// Whether its run has ended, and nobody else had the claim before.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// From now on nothing more is called or written.
    pub fn lose(&self) {
        self.lost.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
