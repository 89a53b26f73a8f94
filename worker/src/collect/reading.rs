//! One read of a cell whose source is no HTTP API, and what it means for the cell.

use std::sync::Arc;
use std::time::Instant;

use paceline_protocol::outcome::Outcome;
use tokio_util::sync::CancellationToken;

use super::call::{CallEnd, backoff};
use super::lane::held::ShardInHand;
use super::lane::shared::LaneShared;
use super::source::{Read, Unread};
use crate::output::failures::Failure;
use crate::output::finished::CellResult;

/// Everything that one read needs.
pub struct Reading {
    /// Its shard.
    pub shard: Arc<ShardInHand>,
    /// Its lane.
    pub lane: Arc<LaneShared>,
    /// The cell.
    pub cell: u64,
    /// Reads of this cell before.
    pub attempts: u32,
    /// The end of the grace: the read is cut off.
    pub cut_off: CancellationToken,
}

impl Reading {
    /// Reads.
    pub async fn run(self) -> CallEnd {
        let Some(source) = &self.shard.at.source else {
            let reason = "the plan has no such source".to_owned();
            return CallEnd::Ended(self.failed(reason, Outcome::Permanent, None));
        };
        crate::crash::point("read-before");
        let connector = &self.shard.at.connector;
        let read = tokio::select! {
            read = source.read(&self.shard.run.plan, connector, self.cell) => read,
            () = self.cut_off.cancelled() => return CallEnd::CutOff { attempts: self.attempts + 1 },
        };
        crate::crash::point("read-after");
        match read {
            Ok(Read {
                lines,
                records,
                stand_in,
            }) => CallEnd::Ended(CellResult {
                lines,
                records,
                failure: None,
                truncated: false,
                missing: 0,
                stand_in,
                answered_us: self.lane.fleet_us(Instant::now()),
            }),
            Err(Unread::Again(reason)) => self.again(reason),
            Err(Unread::Never { reason, field }) => {
                CallEnd::Ended(self.failed(reason, Outcome::Permanent, field))
            }
        }
    }

    fn again(&self, reason: String) -> CallEnd {
        let provider = self.shard.at.connector.provider();
        let retry = self.shard.run.plan.providers.get(provider);
        let retry = retry.map(|p| p.retry).unwrap_or_default();
        let attempts = self.attempts + 1;
        if attempts >= retry.attempts {
            return CallEnd::Ended(self.failed(reason, Outcome::Retryable, None));
        }
        tracing::debug!(run.id = %self.shard.run.id, cell = self.cell, reason, "a cell is read again");
        CallEnd::Again {
            attempts,
            wait: backoff(retry, attempts, rand::random()),
        }
    }

    fn failed(&self, reason: String, outcome: Outcome, field: Option<String>) -> CellResult {
        let failure = Failure {
            cell: self.cell,
            reason,
            outcome,
            status: 0,
            field,
            attempts: self.attempts + 1,
        };
        CellResult::failed(failure, self.lane.fleet_us(Instant::now()))
    }
}
