//! What the replicas of `producer serve` share: who of them starts runs, what they remember of schedules,
//! and which webhooks have been told.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{AsyncCommands, Script};

use super::{State, StateError};

static SERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("serve_lease.lua")));
static NOTE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("serve_note.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release_lease.lua")));

impl State {
    /// Takes or renews the lease of starting runs, for `ttl`. Returns the holder's fence, a number that
    /// grows with each new holder; `None` when somebody else has the lease.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn take_serving(
        &self,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<u64>, StateError> {
        let mut connection = self.connection().await?;
        let [lease, fence] = self.keys.serving();
        let number: u64 = SERVE
            .key(lease)
            .key(fence)
            .arg(holder)
            .arg(ttl.as_millis().max(1) as u64)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        Ok((number > 0).then_some(number))
    }

    /// Gives it back (only the holder's own).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn release_serving(&self, holder: &str) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        let [lease, _] = self.keys.serving();
        RELEASE
            .key(lease)
            .arg(holder)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// What was remembered under `name`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn serve_note(&self, name: &str) -> Result<Option<String>, StateError> {
        let mut connection = self.connection().await?;
        connection
            .hget(self.keys.serve_notes(), name)
            .await
            .map_err(|e| self.failed(e))
    }

    /// All that is remembered, by name.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn serve_notes(&self) -> Result<BTreeMap<String, String>, StateError> {
        let mut connection = self.connection().await?;
        connection
            .hgetall(self.keys.serve_notes())
            .await
            .map_err(|e| self.failed(e))
    }

    /// Remembers `note` under `name`, unless a later holder of the lease has come: then false.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn put_serve_note(
        &self,
        fence: u64,
        name: &str,
        note: &str,
    ) -> Result<bool, StateError> {
        let mut connection = self.connection().await?;
        let [_, newest] = self.keys.serving();
        NOTE.key(newest)
            .key(self.keys.serve_notes())
            .arg(fence)
            .arg(name)
            .arg(note)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Remembers that the start of `<job>/<run>` has begun, at `now` in seconds.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn note_start(&self, run: &str, now: i64) -> Result<(), StateError> {
        let mut one = redis::pipe();
        one.zadd(self.keys.starts(), run, now).ignore();
        self.run_pipe(&one).await
    }

    /// The start is whole, or never will be.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_start(&self, run: &str) -> Result<(), StateError> {
        let mut one = redis::pipe();
        one.zrem(self.keys.starts(), run).ignore();
        self.run_pipe(&one).await
    }

    /// When the start of `<job>/<run>` was noted last, in seconds; `None`: it is whole, or never was.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn start_noted(&self, run: &str) -> Result<Option<i64>, StateError> {
        let mut connection = self.connection().await?;
        let score: Option<f64> = connection
            .zscore(self.keys.starts(), run)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(score.map(|seconds| seconds as i64))
    }

    /// The starts that had begun by `before` and have not ended.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn starts_before(&self, before: i64) -> Result<Vec<String>, StateError> {
        let mut connection = self.connection().await?;
        connection
            .zrangebyscore(self.keys.starts(), "-inf", before)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Remembers that a webhook was called, as the newest of at most `most`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn note_delivery(&self, note: &str, most: usize) -> Result<(), StateError> {
        let key = self.keys.deliveries();
        let mut both = redis::pipe();
        both.lpush(&key, note).ignore();
        both.cmd("LTRIM")
            .arg(&key)
            .arg(0)
            .arg(most.max(1) - 1)
            .ignore();
        self.run_pipe(&both).await
    }

    /// The webhooks that were called last, newest first.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn deliveries(&self, most: usize) -> Result<Vec<String>, StateError> {
        let mut connection = self.connection().await?;
        redis::cmd("LRANGE")
            .arg(self.keys.deliveries())
            .arg(0)
            .arg(most.max(1) - 1)
            .query_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Whether a webhook has been told of the event `id`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn was_told(&self, id: &str) -> Result<bool, StateError> {
        let mut connection = self.connection().await?;
        connection
            .exists(self.keys.told(id))
            .await
            .map_err(|e| self.failed(e))
    }

    /// Remembers for `ttl` that a webhook has been told of the event `id`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_told(&self, id: &str, ttl: Duration) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        connection
            .set_ex(self.keys.told(id), "1", ttl.as_secs().max(1))
            .await
            .map_err(|e| self.failed(e))
    }
}
