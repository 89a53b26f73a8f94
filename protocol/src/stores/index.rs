//! Elasticsearch 7 to 9 and OpenSearch over plain HTTP.

use bytes::Bytes;
use serde_json::Value;

/// Why the index did not do it.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It cannot be reached, or does not answer in time.
    #[error("Elasticsearch at {url}: {why}")]
    Unreachable {
        /// Where, without secrets.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It is full or read-only for now (429, 503, `cluster_block`): wait, lose nothing.
    #[error("Elasticsearch is busy: {0}")]
    Busy(String),
    /// It refused.
    #[error("Elasticsearch answered {status}: {why}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason, shortened.
        why: String,
    },
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Index {}

/// What became of one document of a `_bulk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Indexed, or already there in this or a newer version.
    Stored,
    /// To be sent again (429, 503).
    Again,
    /// Refused for good, with the reason.
    Rejected(String),
}

impl Index {
    /// A client for `url` (may carry user and password) and perhaps an API key.
    ///
    /// # Errors
    /// When `url` is not one.
    pub fn new(_url: &str, _api_key: Option<&str>) -> Result<Self, IndexError> {
        todo!()
    }

    /// Where it is, without secrets.
    pub fn shown_url(&self) -> &str {
        todo!()
    }

    /// The lowest node version, as `8.19.8`. The trimmed server has no `GET /`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn version(&self) -> Result<String, IndexError> {
        todo!()
    }

    /// Creates an index; one that is there already is fine. Returns whether it was created.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create(&self, _name: &str, _body: &Value) -> Result<bool, IndexError> {
        todo!()
    }

    /// One `_bulk` of index actions (`{"index":{...}}` and document lines) into the concrete index `name`;
    /// one [`Item`] for each document, in order. The whole answer 429 or 503 is [`IndexError::Busy`].
    ///
    /// # Errors
    /// When the outcome is unknown or the request was refused as a whole; sending the same again is harmless.
    pub async fn bulk(&self, _name: &str, _body: Bytes) -> Result<Vec<Item>, IndexError> {
        todo!()
    }

    /// Makes everything searchable.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn refresh(&self, _name: &str) -> Result<(), IndexError> {
        todo!()
    }

    /// Documents in an index or behind an alias.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn count(&self, _name: &str) -> Result<u64, IndexError> {
        todo!()
    }

    /// Changes dynamic settings of an index.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn settings(&self, _name: &str, _settings: &Value) -> Result<(), IndexError> {
        todo!()
    }

    /// Waits until an index is green, at most `limit`. False when it did not become so.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn wait_green(
        &self,
        _name: &str,
        _limit: std::time::Duration,
    ) -> Result<bool, IndexError> {
        todo!()
    }

    /// The concrete indices behind an alias, none when there is no such alias.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn behind(&self, _alias: &str) -> Result<Vec<String>, IndexError> {
        todo!()
    }

    /// Swaps an alias in one call: `remove` (each must be behind it, else the whole call is refused), `add`.
    /// After an unknown outcome, ask [`Index::behind`].
    ///
    /// # Errors
    /// When it is refused.
    pub async fn swap(
        &self,
        _alias: &str,
        _remove: &[String],
        _add: &str,
    ) -> Result<(), IndexError> {
        todo!()
    }

    /// Name -> mapping `_meta` of the indices whose name fits `pattern` (`fares-*`).
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn metas(&self, _pattern: &str) -> Result<Vec<(String, Value)>, IndexError> {
        todo!()
    }

    /// Deletes a concrete index; one that is not there is fine.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn delete(&self, _name: &str) -> Result<(), IndexError> {
        todo!()
    }

    /// A search, as it is (for the demo and tests).
    ///
    /// # Errors
    /// When it is refused.
    pub async fn search(&self, _name: &str, _body: &Value) -> Result<Value, IndexError> {
        todo!()
    }
}
