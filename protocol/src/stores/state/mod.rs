//! Redis apart from limits: the open runs, progress, a run's sorted sets. All of it is rebuildable from S3.
//!
//! Every change that has several parts is one script, so that it happens as a whole or not at all, and
//! doing it again changes nothing: a command that timed out may have been applied.

mod connection;
mod lease;
mod progress;
mod registry;
mod serving;
mod sets;
mod takers;
mod tokens;

pub use tokens::{KeptToken, TokenSeen};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::RunRef;
use crate::keys::Keys;
use crate::spec::KeepScore;

pub use progress::Bits;

/// Why Redis did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is away, slow, or refused.
    #[error("Redis at {url}: {why}")]
    Failed {
        /// Where, without secrets.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It does not let us in: waiting does not help.
    #[error("Redis at {url} refused us ({why}): correct user and password in REDIS_URL")]
    Denied {
        /// Where, without secrets.
        url: String,
        /// What it said.
        why: String,
    },
    /// It may evict keys.
    #[error(
        "Redis at {url} has maxmemory-policy {policy}: it may drop limits and rankings; set it to noeviction"
    )]
    Evicts {
        /// Where, without secrets.
        url: String,
        /// The policy.
        policy: String,
    },
    /// A run's own sorted set is gone although its blocks are counted.
    #[error("the set {set} of run {run} was lost: it has to be made again from the parts")]
    LostSet {
        /// Whose.
        run: RunRef,
        /// The name that the job gives it.
        set: String,
    },
}

/// The client: a pool (deadpool) with time limits. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pool: deadpool_redis::Pool,
    tried: Arc<Mutex<Option<connection::Tried>>>,
    keys: Keys,
    shown: Arc<str>,
}

/// So begins what a collector tells of a run whose shards are not in the broker any more.
pub const QUEUE_GONE: &str = "the queue";

/// So begins the reason of a run that was paused because its provider refused again and again.
pub const STOPPED_BY_PROVIDER: &str = "stopped by provider";

/// An open run in the registry; the same JSON lies at `open-runs/<job>/<run>.json` in S3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// Which run.
    pub run: RunRef,
    /// Its lanes.
    pub lanes: Vec<String>,
    /// 1 to 9.
    pub priority: u8,
    /// Whether workers may take its shards.
    pub paused: bool,
    /// Why it is paused, when somebody said so.
    pub reason: Option<String>,
    /// The round that is being collected (0, or which retry).
    pub round: u32,
    /// When this round was opened; older builds do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
}

/// What settling a block adds to a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockCounts {
    /// Cells by end.
    pub succeeded: u64,
    /// Cells by end.
    pub empty: u64,
    /// Cells by end.
    pub failed: u64,
    /// Records.
    pub records: u64,
    /// The same cells by the value of `progress_by`: (succeeded, empty, failed).
    pub by: BTreeMap<String, (u64, u64, u64)>,
    /// A retry takes its cells out of the failed ones again.
    pub no_longer_failed: u64,
    /// The same, by the value of `progress_by`.
    pub no_longer_failed_by: BTreeMap<String, u64>,
    /// Calls that were not told of yet, of whichever block of the run.
    pub calls: u64,
    /// How long they were in flight, added up, in milliseconds.
    pub busy_ms: u64,
}

/// Members for one of the run's sorted sets.
#[derive(Clone, Debug, PartialEq)]
pub struct SetUpdate {
    /// The name that the job gives it.
    pub name: String,
    /// Which score stays.
    pub keep: KeepScore,
    /// Member, score, and the cell it comes from (for `last`).
    pub members: Vec<(String, f64, u64)>,
}

/// A run's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Cells by end.
    pub succeeded: u64,
    /// Cells by end.
    pub empty: u64,
    /// Cells by end.
    pub failed: u64,
    /// Records.
    pub records: u64,
    /// Blocks that are settled.
    pub blocks: u64,
    /// Calls that workers have told of.
    pub calls: u64,
    /// How long these were in flight, added up, in milliseconds.
    pub busy_ms: u64,
    /// Shards that are loaded.
    pub shards_loaded: u64,
    /// By the value of `progress_by`: (succeeded, empty, failed).
    pub by: BTreeMap<String, (u64, u64, u64)>,
}

/// A set to be published: the run's own set `name` takes the name `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishSet {
    /// The name.
    pub name: String,
    /// Time to live.
    pub expire: Option<Duration>,
}
