//! Which lanes have a collector: each tells of its choice now and then. There are as many entries as different
//! choices, however many workers run.

use std::sync::LazyLock;

use redis::Script;

use super::{State, StateError};
use crate::lanes::LaneChoice;

static TAKERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("takers.lua")));

/// For how long a collector is believed to run after it told of itself, in seconds.
const BELIEVED_S: u64 = 20;

impl State {
    /// Tells that a collector with this choice runs.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn tell_taker(&self, choice: &LaneChoice) -> Result<(), StateError> {
        let text = serde_json::to_string(choice).expect("a choice is plain JSON");
        self.takers_script(&text).await.map(drop)
    }

    /// The choices of the collectors that run.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn takers(&self) -> Result<Vec<LaneChoice>, StateError> {
        let found = self.takers_script("").await?;
        let read = found
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok());
        Ok(read.collect())
    }

    async fn takers_script(&self, told: &str) -> Result<Vec<String>, StateError> {
        let mut connection = self.connection().await?;
        TAKERS
            .key(self.keys.takers())
            .arg(told)
            .arg(BELIEVED_S)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }
}
