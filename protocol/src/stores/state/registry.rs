//! The registry of open runs: a hash with a mark, so that a lost registry differs from an empty one.

use std::collections::BTreeMap;

use redis::AsyncCommands;

use super::{OpenRun, State, StateError};
use crate::ids::RunRef;

/// The field that says: this registry was put together from S3 and is whole. No run has such a name.
const WHOLE: &str = "#";

impl State {
    /// The open runs; `None` when the registry itself is missing (a lost Redis), to be rebuilt from S3.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn open_runs(&self) -> Result<Option<Vec<OpenRun>>, StateError> {
        let mut connection = self.connection().await?;
        let mut fields: BTreeMap<String, String> = connection
            .hgetall(self.keys.open_runs())
            .await
            .map_err(|e| self.failed(e))?;
        if fields.remove(WHOLE).is_none() {
            return Ok(None);
        }
        Ok(Some(fields.iter().filter_map(readable).collect()))
    }

    /// Puts the registry back after a loss; runs that are there already stay as they are.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn restore_open_runs(&self, runs: &[OpenRun]) -> Result<(), StateError> {
        let key = self.keys.open_runs();
        let mut all = redis::pipe();
        all.atomic();
        for run in runs {
            all.hset_nx(&key, run.run.to_string(), json(run)).ignore();
        }
        all.hset(&key, WHOLE, "1").ignore();
        self.run_pipe(&all).await
    }

    /// Opens a run or changes how it is open; what is known of it is kept from now on, also when the run
    /// had ended. Leaves a lost registry lost: only [`State::restore_open_runs`] knows all the others.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_open_run(&self, run: &OpenRun) -> Result<(), StateError> {
        let mut all = redis::pipe();
        all.hset(self.keys.open_runs(), run.run.to_string(), json(run))
            .ignore();
        for key in self.run_keys(&run.run).await? {
            all.persist(key).ignore();
        }
        self.run_pipe(&all).await
    }

    /// Whether the registry names the run. Where it does not, S3 knows.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn is_registered(&self, run: &RunRef) -> Result<bool, StateError> {
        let mut connection = self.connection().await?;
        connection
            .hexists(self.keys.open_runs(), run.to_string())
            .await
            .map_err(|e| self.failed(e))
    }

    /// Takes a run out of the registry.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn remove_open_run(&self, run: &RunRef) -> Result<(), StateError> {
        let mut one = redis::pipe();
        one.hdel(self.keys.open_runs(), run.to_string()).ignore();
        self.run_pipe(&one).await
    }

    pub(super) async fn run_pipe(&self, pipe: &redis::Pipeline) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        pipe.query_async::<()>(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }
}

fn json(run: &OpenRun) -> String {
    serde_json::to_string(run).expect("an open run has only text keys")
}

/// An entry of a newer fleet is left to that fleet.
fn readable((field, text): (&String, &String)) -> Option<OpenRun> {
    serde_json::from_str(text)
        .inspect_err(|e| tracing::warn!(run.id = %field, error = %e, "an open run cannot be read"))
        .ok()
}
