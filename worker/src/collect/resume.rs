//! What S3 says is still to do of a shard: every wanted cell without a part of this round.

use std::collections::BTreeMap;

use paceline_protocol::block::CellEnd;
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::message::PartSummary;
use paceline_protocol::plan::{Plan, Shard};
use paceline_protocol::stores::objects::{ObjectError, Objects};

use super::work::WantedBlock;
use crate::output::failures;
use crate::output::finished::{OpenCells, OpenError, read_open_rounds};
use crate::output::part::PartMeta;
use paceline_protocol::message::merged_ends;

/// What is known of a shard before work on it goes on.
#[derive(Debug)]
pub struct Resumed {
    /// The blocks to work on.
    pub blocks: Vec<WantedBlock>,
    /// What the last holder handed back.
    pub open: OpenCells,
    /// Parts of this round that are there already.
    pub parts: Vec<PartSummary>,
    /// Parts of earlier rounds.
    pub earlier: Vec<PartSummary>,
    /// Failure rows of cells that are not called again, as they stand.
    pub failures: BTreeMap<u64, String>,
    /// Whether the failures object holds more rows than those.
    pub failures_differ: bool,
}

/// Why a shard cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// What was left in `open/`.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A part that is not one.
    #[error("{key}: {why}")]
    Part {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads what S3 holds of `shard` and decides what round `round` still has to do.
///
/// # Errors
/// When S3 does not answer, or holds something that is not a part.
pub async fn resume(
    objects: &Objects,
    layout: &RunLayout,
    plan: &Plan,
    shard: &Shard<'_>,
    round: u32,
) -> Result<Resumed, ResumeError> {
    let all = read_parts(objects, layout, shard.number).await?;
    let blocks = wanted_blocks(plan, shard, round, &all);
    let failures = read_failures(objects, layout, shard.number).await?;
    let open = match blocks.is_empty() {
        true => OpenCells::default(),
        false => read_open_rounds(objects, layout, shard.number, round).await?,
    };
    let rows = failures.len();
    let failures = standing_failures(failures, plan, shard, &all, &blocks);
    let (parts, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|part| part.round == round);
    let earlier = others
        .into_iter()
        .filter(|part| part.round < round)
        .collect();
    Ok(Resumed {
        blocks,
        open,
        parts,
        earlier,
        failures_differ: failures.len() != rows,
        failures,
    })
}

async fn read_parts(
    objects: &Objects,
    layout: &RunLayout,
    shard: u64,
) -> Result<Vec<PartSummary>, ResumeError> {
    let mut parts = Vec::new();
    for listed in objects.list(&layout.shard_data(shard)).await? {
        let Some((_, name)) = PartName::from_key(&listed.key) else {
            continue;
        };
        let Some(metadata) = objects.head(&listed.key).await? else {
            continue;
        };
        let meta = PartMeta::from_metadata(&metadata).map_err(|e| ResumeError::Part {
            key: listed.key.clone(),
            why: e.to_string(),
        })?;
        parts.push(meta.summary(name.block));
    }
    Ok(parts)
}

fn of_block(parts: &[PartSummary], block: u32) -> impl Iterator<Item = &PartSummary> {
    parts.iter().filter(move |part| part.block == block)
}

fn wanted_blocks(
    plan: &Plan,
    shard: &Shard<'_>,
    round: u32,
    parts: &[PartSummary],
) -> Vec<WantedBlock> {
    let size = plan.job.shard;
    let mut blocks = Vec::new();
    for number in 0..shard.blocks(size) {
        if of_block(parts, number).any(|part| part.round == round) {
            continue;
        }
        let (first_cell, cells) = shard.block(size, number);
        let unfinished = |end: &CellEnd| matches!(end, CellEnd::Failed | CellEnd::Absent);
        let wanted: Vec<bool> = merged_ends(cells, of_block(parts, number))
            .0
            .iter()
            .map(unfinished)
            .collect();
        if wanted.contains(&true) {
            blocks.push(WantedBlock {
                number,
                first_cell,
                wanted,
            });
        }
    }
    blocks
}

async fn read_failures(
    objects: &Objects,
    layout: &RunLayout,
    shard: u64,
) -> Result<BTreeMap<u64, String>, ResumeError> {
    let Some(object) = objects.get(&layout.failures(shard)).await? else {
        return Ok(BTreeMap::new());
    };
    let rows = failures::rows(&object.body);
    Ok(rows
        .map(|(failed, line)| (failed.cell, String::from_utf8_lossy(line).into_owned()))
        .collect())
}

/// A failure row stands only when the newest part says that its cell failed, and the cell is not called
/// again in this round.
fn standing_failures(
    rows: BTreeMap<u64, String>,
    plan: &Plan,
    shard: &Shard<'_>,
    parts: &[PartSummary],
    blocks: &[WantedBlock],
) -> BTreeMap<u64, String> {
    let size = plan.job.shard;
    let stands = |cell: u64| {
        let place = cell
            .checked_sub(shard.first_cell)
            .and_then(|p| u32::try_from(p).ok());
        let Some(place) = place.filter(|p| *p < shard.cells) else {
            return false;
        };
        let number = place / size.checkpoint;
        let (first_cell, cells) = shard.block(size, number);
        let within = (cell - first_cell) as usize;
        let again = blocks
            .iter()
            .any(|b| b.number == number && b.wanted[within]);
        !again && merged_ends(cells, of_block(parts, number)).0[within] == CellEnd::Failed
    };
    rows.into_iter().filter(|(cell, _)| stands(*cell)).collect()
}
