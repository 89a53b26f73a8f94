//! Elasticsearch 7 to 9 and OpenSearch over plain HTTP: only what all of them understand.

mod bulk;
mod http;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use http::{Answer, Wire};

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
    /// It does not let us in: waiting does not help.
    #[error(
        "Elasticsearch at {url} refused us ({status} {why}): correct user and password in ELASTICSEARCH_URL, or ELASTICSEARCH_API_KEY"
    )]
    Denied {
        /// Where, without secrets.
        url: String,
        /// HTTP status.
        status: u16,
        /// Its reason, shortened.
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
pub struct Index {
    wire: Wire,
}

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
    pub fn new(url: &str, api_key: Option<&str>) -> Result<Self, IndexError> {
        Ok(Index {
            wire: Wire::new(url, api_key)?,
        })
    }

    /// Where it is, without secrets.
    pub fn shown_url(&self) -> &str {
        &self.wire.shown
    }

    /// The lowest node version, as `8.19.8`. The trimmed server has no `GET /`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn version(&self) -> Result<String, IndexError> {
        let answer = self
            .wire
            .get("_nodes?filter_path=nodes.*.version")
            .await?
            .good();
        let answer = answer.map_err(|error| match error {
            IndexError::Refused {
                status: status @ 401,
                why,
            } => IndexError::Denied {
                url: self.wire.shown.to_string(),
                status,
                why,
            },
            other => other,
        })?;
        let nodes = answer["nodes"].as_object().into_iter().flatten();
        nodes
            .filter_map(|(_, node)| node["version"].as_str())
            .min_by_key(|version| numbers(version))
            .map(str::to_owned)
            .ok_or_else(|| self.wire.unreachable("it names no version"))
    }

    /// Creates an index; one that is there already is fine. Returns whether it was created.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create(&self, name: &str, body: &Value) -> Result<bool, IndexError> {
        let path = concrete(name)?;
        let answer = self.wire.send(Method::PUT, &path, body).await?;
        if answer.is("resource_already_exists_exception") {
            return Ok(false);
        }
        answer.good().map(|_| true)
    }

    /// One `_bulk` of index actions (`{"index":{...}}` and document lines) into the concrete index `name`;
    /// one [`Item`] for each document, in order. The whole answer 429 or 503 is [`IndexError::Busy`].
    ///
    /// # Errors
    /// When the outcome is unknown or the request was refused as a whole; sending the same again is harmless.
    pub async fn bulk(&self, name: &str, body: Bytes) -> Result<Vec<Item>, IndexError> {
        let path = format!("{}/_bulk?{}", concrete(name)?, bulk::ASKED);
        let sent = bulk::documents(&body);
        let text = self.wire.bulk(&path, body).await?;
        bulk::read(&text, sent)
    }

    /// One `_bulk` of delete actions, a line each; a document that is not there, or in a newer version,
    /// counts as [`Item::Stored`].
    ///
    /// # Errors
    /// As [`Index::bulk`].
    pub async fn delete_documents(&self, name: &str, body: Bytes) -> Result<Vec<Item>, IndexError> {
        let path = format!("{}/_bulk?{}", concrete(name)?, bulk::ASKED);
        let sent = bulk::lines(&body);
        let text = self.wire.bulk(&path, body).await?;
        bulk::read(&text, sent)
    }

    /// Makes everything searchable.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn refresh(&self, name: &str) -> Result<(), IndexError> {
        let path = format!("{}/_refresh", concrete(name)?);
        self.wire
            .send(Method::POST, &path, &Value::Null)
            .await?
            .good()?;
        Ok(())
    }

    /// Documents in an index or behind an alias.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn count(&self, name: &str) -> Result<u64, IndexError> {
        let path = format!("{}/_count", concrete(name)?);
        let answer = self.wire.get(&path).await?.good()?;
        answer["count"]
            .as_u64()
            .ok_or_else(|| self.wire.unreachable("its count is no number"))
    }

    /// Changes dynamic settings of an index.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn settings(&self, name: &str, settings: &Value) -> Result<(), IndexError> {
        let path = format!("{}/_settings", concrete(name)?);
        self.wire.send(Method::PUT, &path, settings).await?.good()?;
        Ok(())
    }

    /// Waits until an index is green, at most `limit`. False when it did not become so.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn wait_green(&self, name: &str, limit: Duration) -> Result<bool, IndexError> {
        let path = format!(
            "_cluster/health/{}?wait_for_status=green&timeout={}ms",
            concrete(name)?,
            limit.as_millis()
        );
        let answer = self.wire.get_within(&path, limit + SLACK).await?;
        if answer.status == 408 {
            return Ok(false);
        }
        Ok(answer.good()?["timed_out"] == Value::Bool(false))
    }

    /// The concrete indices behind an alias, none when there is no such alias.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn behind(&self, alias: &str) -> Result<Vec<String>, IndexError> {
        let path = format!("_alias/{}", concrete(alias)?);
        let answer = self.wire.get(&path).await?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        Ok(names(&answer.good()?))
    }

    /// Swaps an alias in one call: `remove` (each must be behind it, else the whole call is refused), `add`.
    /// After an unknown outcome, ask [`Index::behind`].
    ///
    /// # Errors
    /// When it is refused.
    pub async fn swap(&self, alias: &str, remove: &[String], add: &str) -> Result<(), IndexError> {
        let removed = remove
            .iter()
            .map(|index| json!({"remove": {"index": index, "alias": alias, "must_exist": true}}));
        let added = std::iter::once(json!({"add": {"index": add, "alias": alias}}));
        let actions: Vec<Value> = removed.chain(added).collect();
        let body = json!({"actions": actions});
        self.wire
            .send(Method::POST, "_aliases", &body)
            .await?
            .good()?;
        Ok(())
    }

    /// Name -> mapping `_meta` of the indices whose name fits `pattern` (`fares-*`) and that have one.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn metas(&self, pattern: &str) -> Result<Vec<(String, Value)>, IndexError> {
        let pattern = http::segment(pattern);
        let path = format!("{pattern}/_mapping?filter_path=*.mappings._meta");
        let answer = self.wire.get(&path).await?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        let found: BTreeMap<String, Value> =
            serde_json::from_value(answer.good()?).unwrap_or_default();
        Ok(found
            .into_iter()
            .map(|(name, index)| (name, index["mappings"]["_meta"].clone()))
            .collect())
    }

    /// Whether there is a concrete index of this name.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn exists(&self, name: &str) -> Result<bool, IndexError> {
        let path = concrete(name)?;
        let answer = self.wire.send(Method::HEAD, &path, &Value::Null).await?;
        match answer.status {
            404 => Ok(false),
            _ => answer.good().map(|_| true),
        }
    }

    /// Deletes a concrete index; one that is not there is fine.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn delete(&self, name: &str) -> Result<(), IndexError> {
        let path = concrete(name)?;
        let answer = self.wire.send(Method::DELETE, &path, &Value::Null).await?;
        if answer.status == 404 {
            return Ok(());
        }
        answer.good().map(drop)
    }

    /// Tells the version of each document of a concrete index; none when it is not there. A scroll, since that
    /// is the one way to all documents that every version of Elasticsearch and OpenSearch has.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn versions(
        &self,
        name: &str,
        each: &mut (dyn FnMut(i64) + Send),
    ) -> Result<(), IndexError> {
        let all = json!({"size": 5_000, "_source": false, "version": true, "sort": ["_doc"]});
        let mut of_hit = |hit: &Value| {
            hit["_version"].as_i64().into_iter().for_each(&mut *each);
            true
        };
        self.scroll(name, &all, &mut of_hit).await.map(drop)
    }

    /// Tells `columns` of each document that `query` finds in an index or behind an alias, in no order, until
    /// `each` says that it is enough. False when there is no such index.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses the query.
    pub async fn documents(
        &self,
        name: &str,
        query: &Value,
        columns: &[String],
        each: &mut (dyn FnMut(&Value) -> bool + Send),
    ) -> Result<bool, IndexError> {
        let asked = json!({"size": 1_000, "query": query, "_source": columns, "sort": ["_doc"]});
        let mut of_hit = |hit: &Value| each(&hit["_source"]);
        self.scroll(name, &asked, &mut of_hit).await
    }

    /// Every hit of a search, until `each` says that it is enough; false when there is no such index.
    async fn scroll(
        &self,
        name: &str,
        search: &Value,
        each: &mut (dyn FnMut(&Value) -> bool + Send),
    ) -> Result<bool, IndexError> {
        let name = concrete(name)?;
        let path = format!("{name}/_search?scroll=1m&allow_partial_search_results=false");
        let mut answer = self.wire.send(Method::POST, &path, search).await?;
        if answer.status == 404 {
            return Ok(false);
        }
        loop {
            let page = answer.good()?;
            all_shards(&page)?;
            let hits = page["hits"]["hits"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            let scroll = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            if hits.is_empty() || !hits.iter().all(&mut *each) {
                let done = json!({"scroll_id": page["_scroll_id"]});
                self.wire
                    .send(Method::DELETE, "_search/scroll", &done)
                    .await?;
                return Ok(true);
            }
            answer = self
                .wire
                .send(Method::POST, "_search/scroll", &scroll)
                .await?;
        }
    }

    /// A search, as it is (for the demo and tests).
    ///
    /// # Errors
    /// When it is refused.
    pub async fn search(&self, name: &str, body: &Value) -> Result<Value, IndexError> {
        let path = format!("{}/_search", concrete(name)?);
        self.wire.send(Method::POST, &path, body).await?.good()
    }
}

/// Refuses a page that lacks the hits of shards that did not answer: they would pass as hits that are not there.
fn all_shards(page: &Value) -> Result<(), IndexError> {
    let failed = page["_shards"]["failed"].as_u64().unwrap_or(0);
    if failed > 0 || page["timed_out"] == true {
        let why = format!("{failed} shards of the index did not answer");
        return Err(IndexError::Busy(why));
    }
    Ok(())
}

/// What our own limit grants beyond the server's.
const SLACK: Duration = Duration::from_secs(10);

/// A path segment that names one index or alias: a pattern or an empty name could mean all of them.
fn concrete(name: &str) -> Result<String, IndexError> {
    let bad =
        name.is_empty() || name.starts_with(['_', '-', '+']) || name.contains(['*', '?', ',']);
    if bad {
        return Err(IndexError::Refused {
            status: 400,
            why: format!("`{name}` does not name one index"),
        });
    }
    Ok(http::segment(name))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map_while(|n| n.parse().ok()).collect()
}

fn names(answer: &Value) -> Vec<String> {
    answer
        .as_object()
        .map(|indices| indices.keys().cloned().collect())
        .unwrap_or_default()
}

impl Answer {
    /// Its body when it is a success.
    fn good(self) -> Result<Value, IndexError> {
        http::good(self.status, &self.body).map(|()| self.body)
    }

    fn is(&self, kind: &str) -> bool {
        self.body["error"]["type"] == kind
    }
}
