//! The pool, its time limits, and the refusal of a server that may evict.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError};

use super::{State, StateError};
use crate::keys::Keys;
use crate::settings::shown_url;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long one command may take: the largest script applies some ten thousand members.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait for a free connection of the pool, whose default is for ever.
const POOL_LIMIT: Duration = Duration::from_secs(10);
/// Connections of one process. Commands are short; more would only queue inside Redis.
const POOL_SIZE: usize = 8;
/// How long a connection is used after the pool has tried it: a worker settles a hundred blocks in that
/// time, and trying the connection is a round trip of its own.
const TRIED_FOR: Duration = Duration::from_secs(1);

/// The connection that the pool tried last. It takes commands of several callers side by side.
pub(super) struct Tried {
    connection: MultiplexedConnection,
    at: Instant,
}

impl State {
    /// Connects; refuses a Redis that may evict.
    ///
    /// # Errors
    /// When it cannot be reached or may evict.
    pub async fn connect(url: &str, keys: Keys) -> Result<Self, StateError> {
        let shown: Arc<str> = shown_url(url).into();
        let pool = pool(url).map_err(|why| StateError::Failed {
            url: shown.to_string(),
            why,
        })?;
        let tried = Arc::default();
        let state = State {
            pool,
            tried,
            keys,
            shown,
        };
        state.refuse_eviction().await?;
        Ok(state)
    }

    /// One round trip.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn ping(&self) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        redis::cmd("PING")
            .query_async::<String>(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The server's version, from `INFO`.
    ///
    /// # Errors
    /// When Redis does not answer, or does not allow `INFO`.
    pub async fn version(&self) -> Result<String, StateError> {
        let mut connection = self.connection().await?;
        let info = redis::cmd("INFO")
            .arg("server")
            .query_async::<String>(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        let version = field_of_info(&info, "redis_version:");
        Ok(version.unwrap_or("unknown").to_owned())
    }

    /// A connection that answered a moment ago.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, StateError> {
        if let Some(tried) = &*self.tried()
            && tried.at.elapsed() < TRIED_FOR
        {
            return Ok(tried.connection.clone());
        }
        let pooled = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => self.failed(error),
            other => self.failed_because(other),
        })?;
        let connection = MultiplexedConnection::clone(&pooled);
        *self.tried() = Some(Tried {
            connection: connection.clone(),
            at: Instant::now(),
        });
        Ok(connection)
    }

    fn tried(&self) -> std::sync::MutexGuard<'_, Option<Tried>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command that failed; the next one gets a connection that the pool tries first.
    pub(super) fn failed(&self, error: RedisError) -> StateError {
        self.tried().take();
        match is_denied(&error) {
            true => StateError::Denied {
                url: self.shown.to_string(),
                why: error.to_string(),
            },
            false => self.failed_because(error),
        }
    }

    pub(super) fn failed_because(&self, why: impl ToString) -> StateError {
        StateError::Failed {
            url: self.shown.to_string(),
            why: why.to_string(),
        }
    }

    /// Limits and rankings carry a time to live or none; a server that evicts may drop either.
    async fn refuse_eviction(&self) -> Result<(), StateError> {
        let policy = self.eviction_policy().await?;
        if policy == "noeviction" {
            return Ok(());
        }
        Err(StateError::Evicts {
            url: self.shown.to_string(),
            policy,
        })
    }

    /// From `INFO`, which a restricted user may have, else from `CONFIG`, which it may not.
    async fn eviction_policy(&self) -> Result<String, StateError> {
        let mut connection = self.connection().await?;
        let info = redis::cmd("INFO")
            .arg("memory")
            .query_async::<String>(&mut connection)
            .await;
        match info {
            Ok(info) => {
                if let Some(policy) = policy_in_info(&info) {
                    return Ok(policy.to_owned());
                }
            }
            Err(error) if is_denied(&error) => return Err(self.failed(error)),
            Err(_) => {}
        }
        let (_, policy) = redis::cmd("CONFIG")
            .arg("GET")
            .arg("maxmemory-policy")
            .query_async::<(String, String)>(&mut connection)
            .await
            .map_err(|e| {
                self.failed_because(format!("its maxmemory-policy cannot be read: {e}"))
            })?;
        Ok(policy)
    }
}

/// Whether Redis did not let us in: a wrong user or password, or none where one is needed.
fn is_denied(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

fn policy_in_info(info: &str) -> Option<&str> {
    field_of_info(info, "maxmemory_policy:")
}

fn field_of_info<'i>(info: &'i str, field: &str) -> Option<&'i str> {
    info.lines()
        .find_map(|line| line.trim_end().strip_prefix(field))
}

/// A URL that cannot be read is not shown: what is wrong with it may be the password.
fn pool(url: &str) -> Result<Pool, String> {
    let info = connection_info(url)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT));
    let manager = Manager::new_with_config(info, config).map_err(|e| e.to_string())?;
    Pool::builder(manager)
        .max_size(POOL_SIZE)
        .wait_timeout(Some(POOL_LIMIT))
        .create_timeout(Some(CONNECT_LIMIT))
        .recycle_timeout(Some(ANSWER_LIMIT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|e| e.to_string())
}

/// Small commands must not wait for Nagle, which the client leaves on.
fn connection_info(url: &str) -> Result<ConnectionInfo, String> {
    let info = url
        .into_connection_info()
        .map_err(|_| "this is not a URL like redis://host:6379/0".to_owned())?;
    Ok(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_found_in_info() {
        let info = "# Memory\r\nused_memory:1\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(policy_in_info(info), Some("allkeys-lru"));
        assert_eq!(policy_in_info("# Memory\r\n"), None);
    }

    #[test]
    fn a_bad_url_is_not_repeated() {
        let error = pool("redis://:secret@host:notaport").expect_err("not a port");
        assert!(!error.contains("secret"), "{error}");
    }
}
