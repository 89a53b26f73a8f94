//! A run's own sorted sets: made anew, published under the job's names, forgotten.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{AsyncCommands, Script};

use super::{PublishSet, State, StateError};
use crate::ids::RunRef;

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publish.lua")));
static FORGET: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("forget.lua")));

/// Sets that are deleted in one step.
const DELETED_AT_ONCE: usize = 500;

impl State {
    /// Forgets a run's sets, bits and counters of blocks, so that they can be made again from the parts.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_blocks(&self, run: &RunRef) -> Result<(), StateError> {
        let names = self.set_names(run).await?;
        let mut call = FORGET.prepare_invoke();
        call.key(self.keys.run_sets(run))
            .key(self.keys.settled_blocks(run))
            .key(self.keys.progress(run))
            .key(self.keys.progress_by(run))
            .key(self.keys.published_sets(run));
        for name in &names {
            call.key(self.keys.run_set(run, name))
                .key(self.keys.run_set_cells(run, name));
        }
        let mut connection = self.connection().await?;
        call.invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// The best members of a set that a job has published, with their scores; none where there is no such set.
    ///
    /// # Errors
    /// When Redis does not answer, or holds something else under this name.
    pub async fn published_set(
        &self,
        name: &str,
        highest_first: bool,
        most: usize,
    ) -> Result<Vec<(String, f64)>, StateError> {
        self.head(name, highest_first, most).await
    }

    /// The same of one of the run's own sets.
    ///
    /// # Errors
    /// As [`State::published_set`].
    pub async fn own_set(
        &self,
        run: &RunRef,
        name: &str,
        highest_first: bool,
        most: usize,
    ) -> Result<Vec<(String, f64)>, StateError> {
        let own = self.keys.run_set(run, name);
        self.head(&own, highest_first, most).await
    }

    /// The places of members in a set that a job has published, from 1; none for one that is not there.
    ///
    /// # Errors
    /// As [`State::published_set`].
    pub async fn places(
        &self,
        name: &str,
        highest_first: bool,
        members: &[&str],
    ) -> Result<Vec<Option<u64>>, StateError> {
        let asked = if highest_first { "ZREVRANK" } else { "ZRANK" };
        let mut all = redis::pipe();
        for member in members {
            all.cmd(asked).arg(name).arg(*member);
        }
        let mut connection = self.connection().await?;
        let places: Vec<Option<u64>> = all
            .query_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(places.into_iter().map(|p| p.map(|p| p + 1)).collect())
    }

    async fn head(
        &self,
        key: &str,
        highest_first: bool,
        most: usize,
    ) -> Result<Vec<(String, f64)>, StateError> {
        let mut asked = redis::cmd("ZRANGE");
        asked.arg(key).arg(0).arg(most.max(1) - 1);
        if highest_first {
            asked.arg("REV");
        }
        let mut connection = self.connection().await?;
        asked
            .arg("WITHSCORES")
            .query_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Names and sizes of the run's own sets; of those that were published, the size they had.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn run_sets(&self, run: &RunRef) -> Result<BTreeMap<String, u64>, StateError> {
        let names = self.set_names(run).await?;
        let mut asked = redis::pipe();
        asked.hgetall(self.keys.published_sets(run));
        for name in &names {
            asked.zcard(self.keys.run_set(run, name));
        }
        let mut connection = self.connection().await?;
        let mut answers: Vec<redis::Value> = asked
            .query_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        let sizes = answers.split_off(1.min(answers.len()));
        let published: BTreeMap<String, u64> = self.value(answers.pop())?;
        let mut sets = BTreeMap::new();
        for (name, size) in names.into_iter().zip(sizes) {
            let size = match self.value::<u64>(Some(size))? {
                0 => published.get(&name).copied().unwrap_or(0),
                own => own,
            };
            sets.insert(name, size);
        }
        Ok(sets)
    }

    fn value<T: redis::FromRedisValue>(
        &self,
        answer: Option<redis::Value>,
    ) -> Result<T, StateError> {
        T::from_redis_value(answer.unwrap_or(redis::Value::Nil)).map_err(|e| self.failed_because(e))
    }

    async fn set_names(&self, run: &RunRef) -> Result<Vec<String>, StateError> {
        let mut connection = self.connection().await?;
        connection
            .smembers(self.keys.run_sets(run))
            .await
            .map_err(|e| self.failed(e))
    }

    /// Adds members with their final scores to one of the run's own sets; doing it again changes nothing.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn add_members(
        &self,
        run: &RunRef,
        set: &str,
        members: &[(f64, String)],
    ) -> Result<(), StateError> {
        if members.is_empty() {
            return Ok(());
        }
        let mut add = redis::pipe();
        add.zadd_multiple(self.keys.run_set(run, set), members)
            .ignore();
        add.sadd(self.keys.run_sets(run), set).ignore();
        self.run_pipe(&add).await
    }

    /// Gives the run's own sets the job's names and removes the names in `gone`, all in one step. A set
    /// that was published before by this run stays.
    ///
    /// # Errors
    /// When Redis does not answer; [`StateError::LostSet`] when one of `sets` is neither there nor
    /// published: then nothing was changed, and the sets have to be made again from the parts.
    pub async fn publish_sets(
        &self,
        run: &RunRef,
        sets: &[PublishSet],
        gone: &[String],
    ) -> Result<(), StateError> {
        let mut call = PUBLISH.prepare_invoke();
        call.key(self.keys.published_sets(run)).arg(sets.len());
        for set in sets {
            call.key(self.keys.run_set(run, &set.name))
                .key(self.keys.run_set_cells(run, &set.name))
                .key(&set.name);
            call.arg(&set.name).arg(milliseconds(set.expire));
        }
        for name in gone {
            call.key(name);
        }
        let mut connection = self.connection().await?;
        let lost: String = call
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        if lost.is_empty() {
            return Ok(());
        }
        Err(StateError::LostSet {
            run: run.clone(),
            set: lost,
        })
    }

    /// Forgets a finished run's own keys after `ttl`, unless [`State::set_open_run`] opens it again. Done
    /// while the run is still open, no retry can have opened it before.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn expire_run(&self, run: &RunRef, ttl: Duration) -> Result<(), StateError> {
        let milliseconds = ttl.as_millis() as i64;
        let mut all = redis::pipe();
        for key in self.run_keys(run).await? {
            all.pexpire(key, milliseconds).ignore();
        }
        self.run_pipe(&all).await
    }

    /// Forgets everything of a finished run, so that it can be made again from S3 alone. What it published stays.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget_run(&self, run: &RunRef) -> Result<(), StateError> {
        let mut all = redis::pipe();
        for key in self.run_keys(run).await? {
            all.unlink(key).ignore();
        }
        self.run_pipe(&all).await
    }

    /// Deletes published sets by their names; names that are not there are fine.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn delete_sets(&self, names: &[&String]) -> Result<(), StateError> {
        for some in names.chunks(DELETED_AT_ONCE) {
            let mut all = redis::pipe();
            for name in some {
                all.unlink(*name).ignore();
            }
            self.run_pipe(&all).await?;
        }
        Ok(())
    }

    pub(super) async fn run_keys(&self, run: &RunRef) -> Result<Vec<String>, StateError> {
        let mut keys = vec![
            self.keys.progress(run),
            self.keys.progress_by(run),
            self.keys.settled_blocks(run),
            self.keys.loaded_shards(run),
            self.keys.shard_summaries(run),
            self.keys.run_sets(run),
            self.keys.published_sets(run),
        ];
        for name in self.set_names(run).await? {
            keys.push(self.keys.run_set(run, &name));
            keys.push(self.keys.run_set_cells(run, &name));
        }
        Ok(keys)
    }
}

/// 0 says: for ever. A time to live is never rounded down to that.
fn milliseconds(expire: Option<Duration>) -> u64 {
    expire.map_or(0, |ttl| (ttl.as_millis() as u64).max(1))
}
