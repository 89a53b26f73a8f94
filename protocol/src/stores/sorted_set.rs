//! A sorted set in a Redis that is not the fleet's own, read in pieces.
//!
//! The set may change while it is read. What is in it all the time comes at least once; of a member that
//! comes twice the later score counts.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, RedisError};

/// Members that are asked for at a time.
const PIECE: usize = 1_000;
/// How long a connection, and each answer, may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a set could not be read. No text holds the address, which may have a password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SortedSetError {
    /// Another try may go better.
    #[error("the source's Redis {0}")]
    Away(String),
    /// The server, or what it was asked, decided.
    #[error("the source's Redis {0}")]
    Final(String),
}

impl From<RedisError> for SortedSetError {
    fn from(error: RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        match code {
            "WRONGTYPE" => SortedSetError::Final("has no sorted set under this name".into()),
            "WRONGPASS" | "NOAUTH" | "NOPERM" => {
                SortedSetError::Final(format!("refuses the user ({code})"))
            }
            "" => SortedSetError::Away("does not answer".into()),
            code => SortedSetError::Away(format!("answers {code}")),
        }
    }
}

/// All members of a set with their scores; none where there is no such set.
///
/// # Errors
/// See [`SortedSetError`].
pub async fn members(url: &str, name: &str) -> Result<BTreeMap<String, f64>, SortedSetError> {
    // What is wrong with an address may be its password, so it is not said.
    let client = Client::open(url).map_err(|_| {
        SortedSetError::Final("has an address that is none like redis://host:6379/0".into())
    })?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LIMIT))
        .set_response_timeout(Some(LIMIT));
    let mut redis = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    let mut members = BTreeMap::new();
    let mut cursor = 0u64;
    loop {
        let (next, piece): (u64, Vec<(String, f64)>) = redis::cmd("ZSCAN")
            .arg(name)
            .arg(cursor)
            .arg("COUNT")
            .arg(PIECE)
            .query_async(&mut redis)
            .await?;
        members.extend(piece);
        cursor = next;
        if cursor == 0 {
            return Ok(members);
        }
    }
}
