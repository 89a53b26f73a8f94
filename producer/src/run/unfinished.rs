//! What an open run still lacks: the pure decision for one shard, and the walk over all of them.
//!
//! In round 0 a shard is left when a block of it has no part. In a retry it is left when a block has
//! failed or missing cells and no part of that round yet.

use std::collections::BTreeSet;

use anyhow::Result;
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::message::PartSummary;
use paceline_protocol::plan::{Plan, Shard};
use paceline_protocol::stores::objects::{Listed, Objects};

use super::parts::{self, Coverage, PartsFound};

/// What is left of a run's round.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// Shards to be published, in order.
    pub open: Vec<u64>,
    /// Shards whose blocks all have parts: only a receipt may be missing.
    pub whole: Vec<u64>,
    /// Cells that will be sent.
    pub cells: u64,
}

/// Looks at the run's parts and says what is left of `round`.
///
/// # Errors
/// When S3 does not answer.
pub async fn left_to_do(
    objects: &Objects,
    layout: &RunLayout,
    plan: &Plan,
    found: &PartsFound,
    round: u32,
) -> Result<Left> {
    let with_failures = match round {
        0 => BTreeSet::new(),
        _ => shards_with_failures(objects, layout).await?,
    };
    let mut left = Left::default();
    for shard in plan.all_shards() {
        let names = found.of(shard.number);
        let whole = parts::coverage(shard.blocks(plan.job.shard), &names) == Coverage::Whole;
        let cells = if round == 0 {
            if whole { 0 } else { u64::from(shard.cells) }
        } else if whole && !with_failures.contains(&shard.number) {
            0
        } else {
            let heads = parts::heads(objects, layout, plan, shard.number, &names).await?;
            cells_of_round(plan, &shard, &heads, round)
        };
        left.note(shard.number, cells, whole);
    }
    Ok(left)
}

impl Left {
    /// The shard at a place of [`Left::open`].
    pub fn shard<'p>(&self, plan: &'p Plan, place: u64) -> Option<Shard<'p>> {
        plan.shard(*self.open.get(usize::try_from(place).ok()?)?)
    }

    fn note(&mut self, shard: u64, cells: u64, whole: bool) {
        if cells > 0 {
            self.cells += cells;
            self.open.push(shard);
        } else if whole {
            self.whole.push(shard);
        }
    }
}

/// Cells of a shard that a retry's `round` has still to send.
fn cells_of_round(plan: &Plan, shard: &Shard<'_>, heads: &[PartSummary], round: u32) -> u64 {
    let done = |block: usize| {
        heads
            .iter()
            .any(|part| part.block as usize == block && part.round == round)
    };
    parts::shard_ends(plan, shard, heads)
        .iter()
        .enumerate()
        .filter(|(block, _)| !done(*block))
        .map(|(_, ends)| unwell(ends))
        .sum()
}

fn unwell(ends: &CellEnds) -> u64 {
    ends.count(CellEnd::Failed) + ends.count(CellEnd::Absent)
}

/// The shards that have a failures object.
async fn shards_with_failures(objects: &Objects, layout: &RunLayout) -> Result<BTreeSet<u64>> {
    let mut shards = BTreeSet::new();
    let mut each = |listed: Listed| shards.extend(failures_shard(&listed.key));
    objects.list_each(&layout.all_failures(), &mut each).await?;
    Ok(shards)
}

fn failures_shard(key: &str) -> Option<u64> {
    let file = key.rsplit('/').next()?;
    file.strip_prefix("shard-")?
        .strip_suffix(".ndjson")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shards_own_failures_count() {
        assert_eq!(
            failures_shard("p/fares/x/failures/shard-12.ndjson"),
            Some(12)
        );
        assert_eq!(
            failures_shard("p/fares/x/failures/documents-12.ndjson"),
            None
        );
    }
}
