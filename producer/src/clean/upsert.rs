//! What of an index that several runs wrote could not be made again without some of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use futures::{StreamExt, TryStreamExt, stream};
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::stores::index::Index;

use super::Removal;
use crate::stores::Archive;

/// Objects that are asked for their metadata at a time.
const AT_A_TIME: usize = 32;

/// By index, how many documents no run that stays could give again: those whose version is that of a part that
/// goes, since a document has the version of the part that wrote it last.
///
/// # Errors
/// When a server is away.
pub async fn lost_documents(
    archive: &Archive,
    index: &Index,
    removals: &[Removal],
) -> Result<BTreeMap<String, u64>> {
    let mut going: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    for removal in removals {
        if let Some(name) = &removal.found.upserts {
            let versions = versions(archive, removal).await?;
            going.entry(name).or_default().extend(versions);
        }
    }
    let mut lost = BTreeMap::new();
    for (name, versions) in going {
        let mut count = 0;
        let mut each = |version: i64| count += u64::from(versions.contains(&version));
        index.versions(name, &mut each).await?;
        if count > 0 {
            lost.insert(name.to_owned(), count);
        }
    }
    Ok(lost)
}

/// The versions of the parts that go.
async fn versions(archive: &Archive, removal: &Removal) -> Result<Vec<i64>> {
    let layout = RunLayout::new(&archive.fleet.prefix, &removal.found.run);
    let data = layout.giving().data();
    let parts = removal
        .keys
        .iter()
        .filter(|key| key.starts_with(&data) && PartName::from_key(key).is_some());
    let read = stream::iter(parts).map(|key| async move {
        let metadata = archive.objects.head(key).await?;
        let version: Option<i64> = metadata.and_then(|m| m.get("version")?.parse().ok());
        version.with_context(|| format!("{key} has no version in its metadata"))
    });
    read.buffered(AT_A_TIME).try_collect().await
}
