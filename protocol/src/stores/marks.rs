//! Marks of calendar quotas in S3 (CORE 17): the counter in Redis never passes the newest mark, so after
//! a loss of Redis counting goes on from that mark and the quota holds.
//!
//! Each mark is an object of its own below the window's prefix; the highest one counts, so that a slow
//! writer cannot take a mark back.

use crate::layout;
use crate::limit::{Instance, Rule, SetMark, next_mark, tag_of};
use crate::stores::limiter::{FleetLimiter, LimiterError};
use crate::stores::objects::{ObjectError, Objects};
use bytes::Bytes;
use std::time::Duration;

/// Why a mark was not set. No mark means no call under this quota.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// Redis is away.
    #[error(transparent)]
    Limiter(#[from] LimiterError),
}

/// Puts the next mark of `quota` to S3, then lets the counter go up to it. `seen_us` is the clock of the
/// answer that asked for it.
///
/// # Errors
/// When a store does not answer; doing it again is harmless.
pub async fn advance(
    objects: &Objects,
    limiter: &FleetLimiter,
    prefix: &str,
    provider: &str,
    quota: &Instance,
    seen_us: i64,
) -> Result<(), MarkError> {
    let Rule::Quota {
        calls, opened_us, ..
    } = quota.rule
    else {
        return Ok(());
    };
    let folder = layout::quota_marks(
        prefix,
        tag_of(provider),
        &quota.limit,
        &quota.scope,
        opened_us,
    );
    // A mark that somebody else has put but not set yet would count as used up.
    if !limiter.begin_mark(provider, quota).await? {
        tokio::time::sleep(BUSY).await;
        return Ok(());
    }
    let put = async {
        let before = highest(objects, &folder).await?;
        let mark = next_mark(calls, before);
        if mark > before {
            objects
                .put(&format!("{folder}{mark}"), Bytes::new(), &[])
                .await?;
        }
        let set = SetMark {
            opened_us,
            seen_us,
            before,
            mark,
        };
        // Not taken: the counter was lost again or the window turned; the next answer asks anew.
        let _taken = limiter.set_mark(provider, quota, &set).await?;
        Ok(())
    };
    let put = put.await;
    limiter.end_mark(provider, quota).await?;
    put
}

/// Who finds somebody else at it asks again after so long.
const BUSY: Duration = Duration::from_millis(50);

async fn highest(objects: &Objects, folder: &str) -> Result<u64, ObjectError> {
    let marks = objects.list(folder).await?;
    Ok(marks
        .iter()
        .filter_map(|m| m.key.rsplit('/').next()?.parse().ok())
        .max()
        .unwrap_or(0))
}
