//! A run's plan: its dimensions, the lanes of its cells, and the arithmetic that turns a shard number
//! into cells and a cell's index into values. Cells are computed, never stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{RunId, RunRef};
use crate::inputs::Inputs;
use crate::spec::{IndexMode, IndexOutput, Job, Provider, ShardSize};
use crate::version::{self, Unread};

/// The version of the first plans' form; see [`version::plan`] for what this build writes and reads.
pub const PLAN_VERSION: u32 = 1;

/// `plan.json`: everything that workers need, and nothing secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// The run's id.
    pub run: RunId,
    /// When the run was first planned (the producer's clock); decides which run is newer.
    pub planned_at: Timestamp,
    /// `run.date` and `today`, in the schedule's zone.
    pub date: Date,
    /// Which cells only (`--only DIM=VALUE`); such a run publishes nothing.
    pub only: BTreeMap<String, Vec<String>>,
    /// `--allow-shrink`: publish also with far fewer records than the last good run.
    pub allow_shrink: bool,
    /// `--force`: publish also when a newer run is live.
    pub force: bool,
    /// The run that `changes` compares with: the last good one when this one was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<RunId>,
    /// The job, its params overridden by `--param`.
    pub job: Job,
    /// The providers of its lanes, by name.
    pub providers: BTreeMap<String, Provider>,
    /// The matrix.
    pub matrix: Matrix,
    /// Which cells belong to which lane, in the order of cells.
    pub segments: Vec<Segment>,
    /// What it reads beside calling providers.
    #[serde(default)]
    pub inputs: Inputs,
}

/// Cells next to each other on one lane. A shard never spans two segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The lane: the provider's name, and its egress label behind an `@`.
    pub lane: String,
    /// The provider.
    pub provider: String,
    /// First cell.
    pub first_cell: u64,
    /// How many.
    pub cells: u64,
}

/// One shard of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard<'a> {
    /// Its number, from 0.
    pub number: u64,
    /// Its lane.
    pub lane: &'a str,
    /// Its provider.
    pub provider: &'a str,
    /// Its first cell.
    pub first_cell: u64,
    /// How many cells.
    pub cells: u32,
}

impl Shard<'_> {
    /// How many blocks (parts of round 0) it has.
    pub fn blocks(&self, size: ShardSize) -> u32 {
        self.cells.div_ceil(size.checkpoint)
    }

    /// First cell and number of cells of block `k`.
    pub fn block(&self, size: ShardSize, k: u32) -> (u64, u32) {
        let start = k * size.checkpoint;
        (
            self.first_cell + u64::from(start),
            size.checkpoint.min(self.cells - start),
        )
    }
}

impl Plan {
    /// Reads `plan.json` of this build or an older one.
    ///
    /// # Errors
    /// When a newer build wrote it, or it is no plan.
    pub fn read(body: &[u8]) -> Result<Self, Unread> {
        version::check(body, version::plan())?;
        serde_json::from_slice(body).map_err(|error| Unread::Broken(error.to_string()))
    }

    /// The run with its job.
    pub fn run_ref(&self) -> RunRef {
        RunRef {
            job: self.job.name.clone(),
            run: self.run.clone(),
        }
    }

    /// The concrete index that the run is loaded into. What an index name cannot hold becomes `-`.
    pub fn index_name(&self, output: &IndexOutput) -> String {
        match output.mode {
            IndexMode::Upsert => output.name.clone(),
            IndexMode::Snapshot => {
                let legal = |c: char| !c.is_whitespace() && !r#"\/*?"<>|,#:"#.contains(c);
                format!("{}-{}", output.name, self.run)
                    .chars()
                    .map(|c| {
                        if legal(c) {
                            c.to_ascii_lowercase()
                        } else {
                            '-'
                        }
                    })
                    .collect()
            }
        }
    }

    /// Whether the records are looked at together after the last receipt (`changes`, `dedupe`), before
    /// anything comes of them.
    pub fn merges(&self) -> bool {
        self.job.changes.is_some() || self.job.dedupe.is_some()
    }

    /// How many cells in all.
    pub fn cells(&self) -> u64 {
        self.segments.iter().map(|s| s.cells).sum()
    }

    /// How many shards in all.
    pub fn shards(&self) -> u64 {
        self.segments
            .iter()
            .map(|s| s.cells.div_ceil(u64::from(self.job.shard.cells)))
            .sum()
    }

    /// How many blocks in all; a block's global number is `shard * blocks_per_shard + k`.
    pub fn blocks_per_shard(&self) -> u64 {
        u64::from(self.job.shard.cells.div_ceil(self.job.shard.checkpoint))
    }

    /// A block's place in the run's bitmaps.
    pub fn block_bit(&self, shard: u64, block: u32) -> u64 {
        shard * self.blocks_per_shard() + u64::from(block)
    }

    /// Shard `number`; `None` beyond the last one.
    pub fn shard(&self, number: u64) -> Option<Shard<'_>> {
        let size = u64::from(self.job.shard.cells);
        let mut before = 0;
        for segment in &self.segments {
            let shards = segment.cells.div_ceil(size);
            if number < before + shards {
                let start = (number - before) * size;
                return Some(Shard {
                    number,
                    lane: &segment.lane,
                    provider: &segment.provider,
                    first_cell: segment.first_cell + start,
                    cells: u32::try_from(size.min(segment.cells - start)).unwrap_or(u32::MAX),
                });
            }
            before += shards;
        }
        None
    }

    /// All shards, in order.
    pub fn all_shards(&self) -> impl Iterator<Item = Shard<'_>> {
        (0..self.shards()).filter_map(|n| self.shard(n))
    }

    /// The lanes, each once, in the order of their first cell.
    pub fn lanes(&self) -> Vec<&str> {
        let mut lanes: Vec<&str> = Vec::new();
        for segment in &self.segments {
            if !lanes.contains(&segment.lane.as_str()) {
                lanes.push(&segment.lane);
            }
        }
        lanes
    }

    /// What two plans under one run id must share: everything but when they were made and how the
    /// run may be published.
    pub fn same_work(&self, other: &Plan) -> bool {
        let bare = |plan: &Plan| {
            let mut bare = plan.clone();
            bare.version = 0;
            bare.planned_at = Timestamp::UNIX_EPOCH;
            bare.allow_shrink = false;
            bare.force = false;
            bare.base = None;
            bare.job.retention = None;
            bare.date = self.date;
            bare
        };
        bare(self) == bare(other) && self.date == other.date
    }
}

/// The dimensions of a run, the first one outermost: the last one varies fastest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// In the order of the file.
    pub dimensions: Vec<PlannedDimension>,
}

/// One dimension with its values fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedDimension {
    /// The names that it gives a cell (one, or the columns of rows).
    pub names: Vec<Arc<str>>,
    /// Its values.
    pub values: PlannedValues,
}

/// A dimension's values, as short as they can be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedValues {
    /// A row of values for each place, as many as the dimension has names.
    Rows(Vec<Vec<Value>>),
    /// Integers.
    Range {
        /// First value.
        first: i64,
        /// How many.
        count: u64,
    },
    /// Days.
    Dates {
        /// First day.
        first: Date,
        /// How many.
        count: u64,
    },
}

impl PlannedValues {
    /// How many places.
    pub fn len(&self) -> u64 {
        match self {
            PlannedValues::Rows(rows) => rows.len() as u64,
            PlannedValues::Range { count, .. } | PlannedValues::Dates { count, .. } => *count,
        }
    }

    /// No place at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push_at(&self, place: u64, into: &mut Vec<Value>) {
        match self {
            PlannedValues::Rows(rows) => into.extend(rows[place as usize].iter().cloned()),
            PlannedValues::Range { first, .. } => into.push(Value::from(first + place as i64)),
            PlannedValues::Dates { first, .. } => {
                let day = first.saturating_add(jiff::Span::new().days(place as i64));
                into.push(Value::String(day.to_string()));
            }
        }
    }
}

impl Matrix {
    /// How many cells: the product, 1 for no dimension. `None` when it passes `u64`.
    pub fn cells(&self) -> Option<u64> {
        self.dimensions
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(d.values.len()))
    }

    /// The names of all dimensions in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.dimensions.iter().flat_map(|d| &d.names)
    }

    /// The values of cell `index` in the order of [`Matrix::names`], by its mixed-radix digits.
    ///
    /// # Panics
    /// When `index` is not below [`Matrix::cells`].
    pub fn cell(&self, index: u64) -> Vec<Value> {
        let mut rest = index;
        let mut places = vec![0; self.dimensions.len()];
        for (place, dimension) in places.iter_mut().zip(&self.dimensions).rev() {
            let radix = dimension.values.len();
            *place = rest % radix;
            rest /= radix;
        }
        assert_eq!(rest, 0, "cell {index} is beyond the matrix");
        let mut values = Vec::new();
        for (place, dimension) in places.into_iter().zip(&self.dimensions) {
            dimension.values.push_at(place, &mut values);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(radices: &[u64]) -> Matrix {
        let dimensions = radices
            .iter()
            .enumerate()
            .map(|(i, n)| PlannedDimension {
                names: vec![format!("d{i}").into()],
                values: PlannedValues::Range {
                    first: 0,
                    count: *n,
                },
            })
            .collect();
        Matrix { dimensions }
    }

    proptest! {
        #[test]
        fn every_cell_has_values_of_its_own(radices in proptest::collection::vec(1u64..7, 0..5)) {
            let matrix = matrix(&radices);
            let cells = matrix.cells().expect("small");
            let all: std::collections::BTreeSet<String> =
                (0..cells).map(|c| format!("{:?}", matrix.cell(c))).collect();
            prop_assert_eq!(all.len() as u64, cells);
        }
    }

    #[test]
    fn the_last_dimension_varies_fastest() {
        let matrix = matrix(&[2, 3]);
        assert_eq!(matrix.cell(1), vec![Value::from(0), Value::from(1)]);
        assert_eq!(matrix.cell(3), vec![Value::from(1), Value::from(0)]);
    }
}
