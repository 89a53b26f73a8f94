//! The lease of whoever finishes a run of a job. It saves work; correctness does not stand on it.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use super::{State, StateError};

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take_lease.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release_lease.lua")));

impl State {
    /// Takes the lease of finishing a run of `job`, for `ttl`, or renews the holder's own; false when
    /// somebody else has it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn take_finisher(
        &self,
        job: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<bool, StateError> {
        let mut connection = self.connection().await?;
        TAKE.key(self.keys.finisher(job))
            .arg(holder)
            .arg(ttl.as_millis().max(1) as u64)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Gives it back (only the holder's own).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn release_finisher(&self, job: &str, holder: &str) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        RELEASE
            .key(self.keys.finisher(job))
            .arg(holder)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }
}
