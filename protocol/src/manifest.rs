//! `manifest.json`: what a run came to; and the pointer to the run that is live.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::RunId;
use crate::layout::RunLayout;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// Inside its gate, published (unless narrowed or superseded, see `notes`).
    Completed,
    /// Outside its gate: nothing was published.
    Failed,
    /// By `producer cancel`.
    Cancelled,
}

impl RunEnd {
    /// As files and traces say it.
    pub fn as_str(self) -> &'static str {
        match self {
            RunEnd::Completed => "completed",
            RunEnd::Failed => "failed",
            RunEnd::Cancelled => "cancelled",
        }
    }
}

/// `manifest.json`. `cells = succeeded + empty + failed` unless the run was cancelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job.
    pub job: String,
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub state: RunEnd,
    /// When it was planned.
    pub planned_at: Timestamp,
    /// When it was finished.
    pub finished_at: Timestamp,
    /// All cells.
    pub cells: u64,
    /// With records.
    pub succeeded: u64,
    /// Without, rightly.
    pub empty: u64,
    /// With a reason.
    pub failed: u64,
    /// Failed cells by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Records over all parts.
    pub records: u64,
    /// All parts, by shard and block.
    pub parts: Vec<ManifestPart>,
    /// Documents as loaded; 0 without an index.
    pub documents: u64,
    /// Documents that Elasticsearch rejected.
    pub rejected: u64,
    /// The sorted sets that were published, by name, with their number of members.
    pub sets: BTreeMap<String, u64>,
    /// The limits that the run was held to, as planned.
    pub limits: serde_json::Value,
    /// Cells cut off at an engine's documented end.
    pub truncated: u64,
    /// Ids that got no detail, where `detail: {missing: report}` counts them instead of failing their cells.
    #[serde(default)]
    pub missing: u64,
    /// Rows of the base that are gone; only with `changes`.
    pub gone: u64,
    /// Calls that reading only some of another job's records saved, against a call for each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_saved: Option<u64>,
    /// What a person should know: why nothing was published, what was done again.
    pub notes: Vec<String>,
    /// The best members of sorted sets whose head this run changed; of the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standings: Vec<Standing>,
}

/// A member at the head of a sorted set that was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The set.
    pub set: String,
    /// The member.
    pub member: String,
    /// Its score.
    pub score: f64,
    /// Its place, from 1; the lowest score is first where the set keeps the lowest.
    pub place: u64,
    /// The place that it had before; none when it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<u64>,
}

/// One part in the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// The object's key.
    pub key: String,
    /// Cells that it covers.
    pub cells: u64,
    /// Records in it.
    pub records: u64,
}

/// `live.json`: what the newest run that passed its gate has published. Written before `_SUCCESS`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// The run.
    pub run: RunId,
    /// When it was planned: an older run never replaces it.
    pub planned_at: Timestamp,
    /// When the run was planned whose records it read: what was made of older ones never replaces it either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_planned_at: Option<Timestamp>,
    /// Its records, for the gate of the next one.
    pub records: u64,
    /// The names of its sorted sets; those that end by `expire` alone are not among them.
    pub sets: Vec<String>,
    /// Records of the good run before it, so that finishing twice judges by the same base.
    pub previous_records: Option<u64>,
    /// The good run before it.
    #[serde(default)]
    pub previous_run: Option<RunId>,
    /// The names of the sorted sets of the good run before it, so that finishing twice removes the same.
    pub previous_sets: Vec<String>,
}

/// What `merged.json` says of a run's state, which the next run is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The round after which it was written.
    pub round: u32,
    /// How many objects it has; none where the job has no `changes`.
    #[serde(default)]
    pub state: u32,
}

impl SavedState {
    /// Its objects, in the order of the ids in them.
    pub fn keys(&self, layout: &RunLayout) -> Vec<String> {
        let keys = (0..self.state).map(|k| layout.state_part(self.round, k));
        keys.collect()
    }

    /// Its objects when every one is among those that are `there`.
    pub fn whole(&self, layout: &RunLayout, there: &BTreeSet<String>) -> Option<Vec<String>> {
        let keys = self.keys(layout);
        let whole = !keys.is_empty() && keys.iter().all(|key| there.contains(key));
        whole.then_some(keys)
    }
}
