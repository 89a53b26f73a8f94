//! Documents that an earlier round of the run has loaded and that are none any more: a retry brought a record
//! because of which theirs does not count (`dedupe`, `changes`), under another document's id.

use std::collections::BTreeMap;

use bytes::Bytes;
use paceline_protocol::part::lines;
use paceline_protocol::stores::index::{IndexError, Item};
use serde_json::json;

use super::super::LoadError;
use super::super::runs::Stage;
use super::Finish;
use super::scores::take_turns;
use crate::output::documents::DocumentIds;
use crate::output::part::name_of;
use crate::output::sorted::{KeyParts, SortKey, Sorter};

/// Documents that are deleted at once.
const AT_ONCE: usize = 1_000;

/// What is known of a record's document: the version that an earlier round gave it; none, when it stays.
type Loaded = Option<i64>;

impl Finish<'_> {
    /// Deletes them, each unless a newer answer of another run has written it since. Before the first retry
    /// nothing was loaded that does not count.
    pub(super) async fn delete_stale(&self) -> Result<(), LoadError> {
        let (Some(ids), Some(output)) = (&self.run.ids, self.run.output()) else {
            return Ok(());
        };
        if self.open.round == 0 {
            return Ok(());
        }
        let name = self.run.index_name(output).await?;
        let mut sorter = Sorter::default();
        self.sort_ids(ids, Stage::Given, &mut sorter).await?;
        self.sort_ids(ids, Stage::Collected, &mut sorter).await?;
        let mut stale: BTreeMap<String, i64> = BTreeMap::new();
        let mut current: Option<(String, Loaded)> = None;
        for (number, entry) in (0..).zip(sorter.finish()?) {
            let (key, value) = entry?;
            let (id, loaded) = (KeyParts(&key).text(), version_of(&value));
            match &mut current {
                Some((known, version)) if *known == id => *version = both(*version, loaded),
                _ => {
                    stale.extend(done(current.replace((id, loaded))));
                    if stale.len() >= AT_ONCE {
                        self.delete(&name, std::mem::take(&mut stale)).await?;
                    }
                }
            }
            take_turns(number).await;
        }
        stale.extend(done(current));
        self.delete(&name, stale).await
    }

    /// The document ids of a stage's records; of those collected, what earlier rounds may have loaded.
    async fn sort_ids(
        &self,
        ids: &DocumentIds,
        stage: Stage,
        sorter: &mut Sorter,
    ) -> Result<(), LoadError> {
        let stores = &self.loader.stores;
        for (shard, (parts, _)) in &self.shards {
            let earlier = |round: u32| stage == Stage::Given || round < self.open.round;
            let parts = parts.iter().filter(|part| earlier(part.round));
            let names = parts.map(name_of).collect();
            for part in stores.whole_parts(self.run, *shard, names, stage).await? {
                let loaded = (stage == Stage::Collected).then_some(part.version);
                for line in lines(&self.run.text(&part)?) {
                    // A record without an id has no document.
                    if let Ok(id) = ids.id(line, part.version) {
                        sorter.push(SortKey::default().text(&id).bytes(), bytes_of(loaded))?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn delete(&self, name: &str, stale: BTreeMap<String, i64>) -> Result<(), LoadError> {
        if stale.is_empty() {
            return Ok(());
        }
        let deleted = stale.len();
        let actions = stale.into_iter().map(|(id, version)| {
            let action = json!({ "_id": id, "version": version, "version_type": "external_gte" });
            format!("{}\n", json!({ "delete": action }))
        });
        let body: Bytes = actions.collect::<String>().into();
        for item in self
            .loader
            .stores
            .index
            .delete_documents(name, body)
            .await?
        {
            match item {
                Item::Stored => {}
                Item::Again => return Err(IndexError::Busy("deleting documents".into()).into()),
                Item::Rejected(why) => {
                    tracing::warn!(run.id = %self.run.run, index.name = name, why, "a document that does not count any more stays")
                }
            }
        }
        tracing::info!(run.id = %self.run.run, index.name = name, documents = deleted, "documents that do not count any more were deleted");
        Ok(())
    }
}

/// Of two records with one document: it stays when it is one's that counts.
fn both(one: Loaded, other: Loaded) -> Loaded {
    Some(one?.max(other?))
}

fn done(document: Option<(String, Loaded)>) -> Option<(String, i64)> {
    let (id, version) = document?;
    Some((id, version?))
}

fn bytes_of(loaded: Loaded) -> Vec<u8> {
    loaded.map_or_else(Vec::new, |version| version.to_be_bytes().to_vec())
}

fn version_of(value: &[u8]) -> Loaded {
    Some(i64::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_a_record_that_counts_stays() {
        assert_eq!(both(Some(3), Some(5)), Some(5));
        assert_eq!(both(None, Some(5)), None);
        assert_eq!(both(Some(3), None), None);
        for loaded in [None, Some(0), Some(-1), Some(i64::MAX)] {
            assert_eq!(version_of(&bytes_of(loaded)), loaded);
        }
        assert_eq!(done(Some(("a".into(), None))), None);
        assert_eq!(done(Some(("a".into(), Some(1)))), Some(("a".into(), 1)));
    }
}
