//! Shards that a finish works on at once: many small ones, few large ones.

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use paceline_protocol::message::PartSummary;

use super::super::{LoadError, PREFETCH};
use super::Finish;

/// Records of the shards in hand, which lie in memory; one shard may have more.
const RECORDS_AT_ONCE: u64 = 40_000;

impl Finish<'_> {
    /// Works on every shard, as many at once as there may be receipts in hand. What comes of them is in
    /// no order; the first error ends it.
    pub(super) async fn each_shard<'s, T>(
        &'s self,
        work: impl Fn(u64, &'s [PartSummary]) -> BoxFuture<'s, Result<T, LoadError>>,
    ) -> Result<Vec<T>, LoadError> {
        let mut left = self.shards.iter();
        let mut in_hand = FuturesUnordered::new();
        let mut records = 0;
        let mut done = Vec::new();
        loop {
            while in_hand.len() < usize::from(PREFETCH) && records < RECORDS_AT_ONCE {
                let Some((shard, (parts, _))) = left.next() else {
                    break;
                };
                let theirs: u64 = parts.iter().map(|part| part.records).sum();
                records += theirs;
                let worked = work(*shard, parts);
                in_hand.push(async move { (theirs, worked.await) });
            }
            let Some((theirs, worked)) = in_hand.next().await else {
                return Ok(done);
            };
            records -= theirs;
            done.push(worked?);
        }
    }
}
