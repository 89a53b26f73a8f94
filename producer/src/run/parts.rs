//! What a run's parts cover: found by one listing, read from the objects' metadata where their ends count.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use futures::{StreamExt, TryStreamExt, stream};
use paceline_protocol::block::CellEnds;
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::message::{PartSummary, merged_ends};
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::{Plan, Shard};
use paceline_protocol::stores::objects::Objects;

/// How many objects are asked for their metadata at a time.
const AT_A_TIME: usize = 32;

/// The parts of a run by shard, as one listing found them.
#[derive(Clone, Debug, Default)]
pub struct PartsFound(BTreeMap<u64, Vec<PartName>>);

/// Which blocks of a shard a listing covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every block has a part.
    Whole,
    /// Some block has none.
    Lacking,
}

impl PartsFound {
    /// Lists the run's parts.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn list(objects: &Objects, layout: &RunLayout) -> Result<Self> {
        let mut found = PartsFound::default();
        let mut each = |listed: paceline_protocol::stores::objects::Listed| found.add(&listed.key);
        objects.list_each(&layout.data(), &mut each).await?;
        Ok(found)
    }

    /// Notes a part by its key; any other key is ignored.
    pub fn add(&mut self, key: &str) {
        if let Some((shard, part)) = PartName::from_key(key) {
            self.0.entry(shard).or_default().push(part);
        }
    }

    /// A shard's parts in the order of blocks, then rounds.
    pub fn of(&self, shard: u64) -> Vec<PartName> {
        let mut parts = self.0.get(&shard).cloned().unwrap_or_default();
        parts.sort();
        parts
    }
}

/// The newest round that any part was written in.
pub fn newest_round(found: &PartsFound) -> u32 {
    let rounds = found.0.values().flatten().map(|part| part.round);
    rounds.max().unwrap_or(0)
}

/// Whether every one of a shard's `blocks` has a part, of any round.
pub fn coverage(blocks: u32, parts: &[PartName]) -> Coverage {
    let covered = |block| parts.iter().any(|part| part.block == block);
    if (0..blocks).all(covered) {
        Coverage::Whole
    } else {
        Coverage::Lacking
    }
}

/// Reads the ends of a shard's parts from their metadata, in the order of `parts`.
///
/// # Errors
/// When S3 does not answer, or a part lacks its metadata.
pub async fn heads(
    objects: &Objects,
    layout: &RunLayout,
    plan: &Plan,
    shard: u64,
    parts: &[PartName],
) -> Result<Vec<PartSummary>> {
    let suffix = PartFormat::collected(plan).suffix();
    stream::iter(parts.iter().copied())
        .map(|part| async move {
            let key = layout.part(shard, part, suffix);
            let metadata = objects.head(&key).await?;
            let metadata = metadata.with_context(|| format!("{key} went away"))?;
            summary(part, &metadata).with_context(|| format!("{key} lacks its metadata"))
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await
}

fn summary(
    part: PartName,
    metadata: &std::collections::HashMap<String, String>,
) -> Option<PartSummary> {
    let number = |name: &str| metadata.get(name).and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(PartSummary {
        block: part.block,
        round: part.round,
        ends: metadata.get("ends")?.parse().ok()?,
        records: metadata.get("records")?.parse().ok()?,
        truncated: number("truncated"),
        missing: number("missing"),
        unscored: number("unscored"),
    })
}

/// How all cells of a shard ended, in order.
pub fn shard_ends(plan: &Plan, shard: &Shard<'_>, parts: &[PartSummary]) -> Vec<CellEnds> {
    let size = plan.job.shard;
    (0..shard.blocks(size))
        .map(|block| {
            let (_, cells) = shard.block(size, block);
            let of_block = parts.iter().filter(|p| p.block == block);
            merged_ends(cells, of_block)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(round: u32, ends: &str) -> PartSummary {
        PartSummary {
            block: 0,
            round,
            ends: ends.parse().expect("ends"),
            records: 0,
            truncated: 0,
            missing: 0,
            unscored: 0,
        }
    }

    #[test]
    fn a_later_round_says_how_a_cell_ended() {
        let (first, second, third) = (part(0, "1S2F1E"), part(1, "1-1S1F1-"), part(2, "2-1E1-"));
        let merged = merged_ends(4, [&third, &first, &second]);
        assert_eq!(merged.to_string(), "2S2E");
    }

    #[test]
    fn a_block_without_parts_is_absent() {
        assert_eq!(merged_ends(3, []).to_string(), "3-");
    }

    #[test]
    fn a_shard_is_whole_when_every_block_has_a_part() {
        let name = |block, round| PartName { block, round };
        assert_eq!(coverage(2, &[name(0, 0), name(1, 3)]), Coverage::Whole);
        assert_eq!(coverage(2, &[name(0, 0), name(0, 1)]), Coverage::Lacking);
        assert_eq!(coverage(0, &[]), Coverage::Whole);
    }
}
