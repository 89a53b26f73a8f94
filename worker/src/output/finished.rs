//! Cells that have ended before their block is a part, and how `open/` keeps them.

use std::collections::BTreeMap;

use bytes::Bytes;
use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::connector::{Gathered, Progress};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::stores::objects::{ObjectError, Objects};
use serde::{Deserialize, Serialize};

use super::failures::Failure;

/// A finished cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellResult {
    /// Its records as they will lie in the part; empty without records.
    pub lines: String,
    /// How many.
    pub records: u64,
    /// Why it failed, when it did.
    pub failure: Option<Failure>,
    /// The fleet's clock at its last answer, microseconds since 1970.
    pub answered_us: i64,
    /// An engine's documented end cut something off.
    #[serde(default)]
    pub truncated: bool,
    /// Ids that got no detail and are only counted.
    #[serde(default)]
    pub missing: u64,
    /// What was wrong with the newest object of its source, when an older one counts in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stand_in: Option<String>,
}

impl CellResult {
    /// Of a cell that failed with what was heard at `answered_us`; 0: nothing was.
    pub fn failed(failure: Failure, answered_us: i64) -> Self {
        CellResult {
            lines: String::new(),
            records: 0,
            failure: Some(failure),
            answered_us,
            truncated: false,
            missing: 0,
            stand_in: None,
        }
    }

    /// Of a cell whose last call was answered at `answered_us`.
    pub fn of(gathered: Gathered, answered_us: i64) -> Self {
        CellResult {
            lines: gathered.lines,
            records: gathered.records,
            failure: None,
            answered_us,
            truncated: gathered.truncated,
            missing: gathered.missing,
            stand_in: None,
        }
    }

    /// How it ended.
    pub fn end(&self) -> CellEnd {
        match (&self.failure, self.records) {
            (Some(_), _) => CellEnd::Failed,
            (None, 0) => CellEnd::Empty,
            (None, _) => CellEnd::Succeeded,
        }
    }
}

/// What `open/` keeps of a shard that was handed back in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenCells {
    /// Finished cells of blocks without a part.
    pub finished: BTreeMap<u64, CellResult>,
    /// Unfinished cells that were called already.
    pub unfinished: BTreeMap<u64, Unfinished>,
}

impl OpenCells {
    /// A full block that is not made a part.
    pub fn keep(&mut self, block: FullBlock) {
        let cells = block.first_cell..;
        let results = cells.zip(block.results);
        self.finished
            .extend(results.filter_map(|(cell, result)| Some((cell, result?))));
    }

    /// What an earlier round had finished well and left behind: its run was ended before it was a part.
    pub fn adopt(&mut self, earlier: OpenCells) {
        for (cell, result) in earlier.finished {
            if result.failure.is_none() {
                self.finished.entry(cell).or_insert(result);
            }
        }
    }
}

/// An unfinished cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Calls made so far of its next page.
    pub attempts: u32,
    /// Not called again before this instant of the fleet's clock, microseconds since 1970.
    pub not_before_us: i64,
    /// Its pages so far and its next call, when it needs more than one.
    #[serde(default)]
    pub progress: Option<Progress>,
}

/// A block whose cells have all ended, to be made a part.
#[derive(Clone, Debug, PartialEq)]
pub struct FullBlock {
    /// Its number within the shard.
    pub number: u32,
    /// First cell.
    pub first_cell: u64,
    /// A result for each cell in order; `None` where this round does not cover the cell.
    pub results: Vec<Option<CellResult>>,
}

impl FullBlock {
    /// How its cells ended.
    pub fn ends(&self) -> CellEnds {
        CellEnds(
            self.results
                .iter()
                .map(|r| r.as_ref().map_or(CellEnd::Absent, CellResult::end))
                .collect(),
        )
    }

    /// Records over all cells.
    pub fn records(&self) -> u64 {
        self.results.iter().flatten().map(|r| r.records).sum()
    }

    /// The fleet's clock at its last answer.
    pub fn answered_us(&self) -> i64 {
        self.results
            .iter()
            .flatten()
            .map(|r| r.answered_us)
            .max()
            .unwrap_or(0)
    }

    /// Cells that an engine's documented end cut off.
    pub fn truncated(&self) -> u64 {
        self.results
            .iter()
            .flatten()
            .filter(|r| r.truncated)
            .count() as u64
    }

    /// Ids that got no detail and are only counted.
    pub fn missing(&self) -> u64 {
        self.results.iter().flatten().map(|r| r.missing).sum()
    }

    /// What was wrong with objects that older ones stand in for.
    fn stand_ins(&self) -> Vec<&str> {
        let results = self.results.iter().flatten();
        results.filter_map(|r| r.stand_in.as_deref()).collect()
    }

    /// What `stand-ins/` says of it, when there is something to say.
    pub fn stand_ins_object(&self) -> Option<Bytes> {
        let stand_ins = self.stand_ins();
        let body = || serde_json::to_vec(&stand_ins).expect("texts always serialise");
        (!stand_ins.is_empty()).then(|| body().into())
    }

    /// The cells that have ended in it.
    pub fn cells(&self) -> impl Iterator<Item = u64> {
        let cells = (self.first_cell..).zip(&self.results);
        cells.filter_map(|(cell, result)| result.is_some().then_some(cell))
    }

    /// Its records as they lie in the part.
    pub fn lines(&self) -> String {
        let results = self.results.iter().flatten();
        results.map(|r| r.lines.as_str()).collect()
    }

    /// Its failures.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.results
            .iter()
            .flatten()
            .filter_map(|r| r.failure.as_ref())
    }
}

/// Why what a shard's last holder left cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// An object that is none of ours.
    #[error("{key}: {why}")]
    NotThat {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What the last holder handed back in this round, and what earlier rounds left that were ended by a cancel or a deadline.
///
/// # Errors
/// When S3 does not answer, or holds something else there.
pub async fn read_open_rounds(
    objects: &Objects,
    layout: &RunLayout,
    shard: u64,
    round: u32,
) -> Result<OpenCells, OpenError> {
    let mut open = read_open(objects, layout, shard, round).await?;
    for earlier in (0..round).rev() {
        open.adopt(read_open(objects, layout, shard, earlier).await?);
    }
    Ok(open)
}

async fn read_open(
    objects: &Objects,
    layout: &RunLayout,
    shard: u64,
    round: u32,
) -> Result<OpenCells, OpenError> {
    let key = layout.open(shard, round);
    let Some(object) = objects.get(&key).await? else {
        return Ok(OpenCells::default());
    };
    decode_open(&object.body).map_err(|why| OpenError::NotThat { key, why })
}

/// The bytes of an `open/` object.
///
/// # Errors
/// Never in practice: it is compressed in memory.
pub fn encode_open(open: &OpenCells) -> std::io::Result<Bytes> {
    let json = serde_json::to_vec(open).map_err(std::io::Error::other)?;
    zstd::encode_all(json.as_slice(), 1).map(Bytes::from)
}

fn decode_open(bytes: &[u8]) -> Result<OpenCells, String> {
    let json = zstd::decode_all(bytes).map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}
