//! What travels over RabbitMQ. Every message is JSON with a version; unknown fields are refused.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::block::{CellEnd, CellEnds};
use crate::ids::{RunId, RunRef};
use crate::trace::TraceContext;

/// The version of the first messages' form; see [`crate::version::message`] for what this build writes and reads.
pub const MESSAGE_VERSION: u32 = 1;

/// One shard to work on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMessage {
    /// [`MESSAGE_VERSION`].
    pub v: u32,
    /// One id for each time the shard is published anew; kept when the broker redelivers.
    pub publication: Uuid,
    /// The job.
    pub job: String,
    /// The run.
    pub run: RunId,
    /// The lane, so that the shard finds back to its queue from a delay.
    pub lane: String,
    /// The shard's number.
    pub shard: u64,
    /// 0 for the run itself, else which retry.
    pub round: u32,
    /// Its run's place among traces. It travels in a header, which older builds do not look at.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
}

impl ShardMessage {
    /// The run with its job.
    pub fn run_ref(&self) -> RunRef {
        RunRef {
            job: self.job.clone(),
            run: self.run.clone(),
        }
    }
}

/// A shard's parts are durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// [`MESSAGE_VERSION`].
    pub v: u32,
    /// The job.
    pub job: String,
    /// The run.
    pub run: RunId,
    /// The shard; absent in the receipt of a run of zero shards.
    pub shard: Option<u64>,
    /// 0 for the run itself, else which retry.
    pub round: u32,
    /// Its parts, in the order of blocks.
    pub parts: Vec<PartSummary>,
    /// Of a finished run that is made again: which [`Rebuild`](crate::rebuild::Rebuild).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Uuid>,
    /// The place among traces of what collected the shard; in a header too.
    #[serde(skip)]
    pub trace: Option<TraceContext>,
}

impl Receipt {
    /// The run with its job.
    pub fn run_ref(&self) -> RunRef {
        RunRef {
            job: self.job.clone(),
            run: self.run.clone(),
        }
    }
}

/// What a receipt and the manifest know of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSummary {
    /// The block within the shard.
    pub block: u32,
    /// The round it was written in.
    pub round: u32,
    /// How its cells ended.
    pub ends: CellEnds,
    /// Records in it.
    pub records: u64,
    /// Cells that an engine's documented end cut off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated: u64,
    /// Ids that got no detail and are only counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: u64,
    /// Scores of rankings that are no numbers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unscored: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// How each cell of a block ended, over its parts so far: for each cell the newest round that covers it.
/// `Absent` where none does.
pub fn merged_ends<'a>(cells: u32, parts: impl IntoIterator<Item = &'a PartSummary>) -> CellEnds {
    let mut parts: Vec<&PartSummary> = parts.into_iter().collect();
    parts.sort_by_key(|part| part.round);
    let mut merged = vec![CellEnd::Absent; cells as usize];
    for part in parts {
        for (into, end) in merged.iter_mut().zip(&part.ends.0) {
            if *end != CellEnd::Absent {
                *into = *end;
            }
        }
    }
    CellEnds(merged)
}

/// What everybody hears on the control exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Control {
    /// A run was opened, resumed or got a retry: look at the registry.
    RunsChanged,
    /// Stop taking shards of it and hand back what is in hand.
    Pause {
        /// Which run.
        run: RunRef,
    },
    /// Drop what is in hand of it.
    Cancel {
        /// Which run.
        run: RunRef,
    },
    /// A limit was changed by an operator.
    LimitsChanged {
        /// Of which provider.
        provider: String,
    },
}
