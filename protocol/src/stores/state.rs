//! Redis apart from limits: the open runs, progress, a run's sorted sets. All of it is rebuildable from S3.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::RunRef;
use crate::keys::Keys;
use crate::message::PartSummary;
use crate::spec::KeepScore;

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
}

/// The client: a pool (deadpool) with time limits. Cheap to clone.
#[derive(Clone)]
pub struct State {}

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

impl State {
    /// Connects; refuses a Redis that may evict.
    ///
    /// # Errors
    /// When it cannot be reached or may evict.
    pub async fn connect(_url: &str, _keys: Keys) -> Result<Self, StateError> {
        todo!()
    }

    /// One round trip.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn ping(&self) -> Result<(), StateError> {
        todo!()
    }

    /// The open runs; `None` when the registry itself is missing (a lost Redis), to be rebuilt from S3.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn open_runs(&self) -> Result<Option<Vec<OpenRun>>, StateError> {
        todo!()
    }

    /// Puts the registry back after a loss; runs that are there already stay as they are.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn restore_open_runs(&self, _runs: &[OpenRun]) -> Result<(), StateError> {
        todo!()
    }

    /// Opens a run or changes how it is open.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_open_run(&self, _run: &OpenRun) -> Result<(), StateError> {
        todo!()
    }

    /// Takes a run out of the registry.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn remove_open_run(&self, _run: &RunRef) -> Result<(), StateError> {
        todo!()
    }

    /// Counts a block and applies its members to the run's own sets, once: a block whose bit is set
    /// changes nothing. Returns whether it was new.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn settle_block(
        &self,
        _run: &RunRef,
        _bit: u64,
        _counts: &BlockCounts,
        _sets: &[SetUpdate],
    ) -> Result<bool, StateError> {
        todo!()
    }

    /// Which of the bits `from..from + count` of the settled blocks are set.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn settled(
        &self,
        _run: &RunRef,
        _from: u64,
        _count: u32,
    ) -> Result<Vec<bool>, StateError> {
        todo!()
    }

    /// Forgets a run's sets, bits and counters of blocks, so that they can be made again from the parts.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_blocks(&self, _run: &RunRef) -> Result<(), StateError> {
        todo!()
    }

    /// The run's counters.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn progress(&self, _run: &RunRef) -> Result<Progress, StateError> {
        todo!()
    }

    /// Marks a shard loaded and keeps what it came to. Returns how many shards are loaded.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn shard_loaded(
        &self,
        _run: &RunRef,
        _shard: u64,
        _parts: &[PartSummary],
        _rejected: u64,
    ) -> Result<u64, StateError> {
        todo!()
    }

    /// Whether the run's state is there at all (it is made by the first settled block or loaded shard).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn knows(&self, _run: &RunRef) -> Result<bool, StateError> {
        todo!()
    }

    /// What every loaded shard came to: parts, rejected documents.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn loaded_shards(
        &self,
        _run: &RunRef,
    ) -> Result<BTreeMap<u64, (Vec<PartSummary>, u64)>, StateError> {
        todo!()
    }

    /// Names and sizes of the run's own sets.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn run_sets(&self, _run: &RunRef) -> Result<BTreeMap<String, u64>, StateError> {
        todo!()
    }

    /// Gives the run's own sets the job's names and removes the names in `gone`, all in one step (on a
    /// cluster: one by one). A set that was published before by this run stays.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn publish_sets(
        &self,
        _run: &RunRef,
        _sets: &[PublishSet],
        _gone: &[String],
    ) -> Result<(), StateError> {
        todo!()
    }

    /// Forgets a finished run's own keys after `ttl`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn expire_run(&self, _run: &RunRef, _ttl: Duration) -> Result<(), StateError> {
        todo!()
    }

    /// Takes the lease of finishing a run of `job`, for `ttl`; false when somebody else has it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn take_finisher(
        &self,
        _job: &str,
        _holder: &str,
        _ttl: Duration,
    ) -> Result<bool, StateError> {
        todo!()
    }

    /// Gives it back (only the holder's own).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn release_finisher(&self, _job: &str, _holder: &str) -> Result<(), StateError> {
        todo!()
    }
}
