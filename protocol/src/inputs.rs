//! What a run reads beside calling providers, fixed in its plan: records of other jobs' runs, and objects.
//! A worker reads what is named here and looks for nothing itself, so that going on later sees the same.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::RunId;
use crate::plan::PlannedDimension;

/// What a plan reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// `parent` in templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ReadRun>,
    /// The runs whose records are read, the newest one of a job first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<ReadRun>,
    /// The parts that a job without calls reads, one for each cell, in the order of cells.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ReadPart>,
    /// The objects that a cell of a provider in S3 reads; of several the first good one counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<u64, Vec<ReadObject>>,
    /// The rows of dimensions that were looked up (`documents`, `object`), by dimension, before `add` and `where`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<String, PlannedDimension>,
    /// How many cells there would be without `where` and `distinct` over another job's records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_cells: Option<u64>,
}

impl Inputs {
    /// How many calls reading only some records saves a run of `cells`.
    pub fn calls_saved(&self, cells: u64) -> Option<u64> {
        Some(self.all_cells?.saturating_sub(cells))
    }
}

/// A run of another job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRun {
    /// The job.
    pub job: String,
    /// The run's id.
    pub id: RunId,
    /// Its date.
    pub date: Date,
    /// When it was planned, which decides which run is newer.
    pub planned_at: Timestamp,
    /// Its newest round when it was read; older builds do not say.
    #[serde(default, skip_serializing_if = "is_first")]
    pub round: u32,
    /// Only what came after this round is read: the rest was read before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_round: Option<u32>,
}

fn is_first(round: &u32) -> bool {
    *round == 0
}

impl ReadRun {
    /// The parts of `parent` in templates.
    pub fn names(&self) -> [(&'static str, String); 3] {
        [
            ("id", self.id.to_string()),
            ("date", self.date.to_string()),
            ("started_at", self.planned_at.to_string()),
        ]
    }
}

/// A part of a run that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPart {
    /// The run, one of [`Inputs::runs`].
    pub run: RunId,
    /// Its key.
    pub key: String,
    /// Records in it.
    pub records: u64,
}

/// An object that is read, as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadObject {
    /// The bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// When it was written.
    pub time: Timestamp,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, where the listing has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// The id of the run that `parent` starts of the job `child`: the same whoever starts it, however often.
pub fn chained_run_id(child: &str, parent: &RunId) -> RunId {
    let whole = format!("{parent}-{child}");
    let id = if whole.len() <= RunId::MAX_LEN {
        whole
    } else {
        let hash = hex::encode(Sha256::digest(&whole));
        // A run id is ASCII, so it can be cut anywhere.
        format!(
            "{}-{}",
            parent.as_str().get(..44).unwrap_or("run"),
            &hash[..16]
        )
    };
    id.parse()
        .unwrap_or_else(|_| RunId::at(Timestamp::UNIX_EPOCH, 0))
}

/// The id of the run that reads `objects`: the time of the newest one and their digest, so that replicas and
/// doubled events start one run. `None` without any object.
pub fn triggered_run_id<'a>(objects: impl IntoIterator<Item = &'a ReadObject>) -> Option<RunId> {
    let mut named: Vec<&ReadObject> = objects.into_iter().collect();
    named.sort_by(|a, b| (&a.bucket, &a.key).cmp(&(&b.bucket, &b.key)));
    named.dedup();
    let newest = named.iter().map(|object| object.time).max()?;
    let mut digest = Sha256::new();
    for object in named {
        let etag = object.etag.as_deref().unwrap_or_default();
        // Lengths tell the fields apart, whatever is in them.
        for field in [&object.bucket, &object.key, etag] {
            digest.update((field.len() as u64).to_be_bytes());
            digest.update(field);
        }
        digest.update(object.time.as_millisecond().to_be_bytes());
        digest.update(object.size.to_be_bytes());
    }
    let time = newest
        .to_zoned(jiff::tz::TimeZone::UTC)
        .strftime("%Y%m%d-%H%M%S");
    let hash = hex::encode(digest.finalize());
    format!("{time}-{}", &hash[..16]).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, size: u64) -> ReadObject {
        ReadObject {
            bucket: "votes".into(),
            key: key.into(),
            time: "2026-11-27T06:00:00Z".parse().expect("an instant"),
            size,
            etag: Some("e".into()),
        }
    }

    #[test]
    fn a_childs_run_is_named_by_its_parents() {
        let parent: RunId = "2026-11-21".parse().expect("a run id");
        assert_eq!(
            chained_run_id("nearby", &parent).as_str(),
            "2026-11-21-nearby"
        );
        let long: RunId = "x".repeat(64).parse().expect("a run id");
        let (a, b) = (chained_run_id("a", &long), chained_run_id("b", &long));
        assert!(a != b && a.as_str().len() <= RunId::MAX_LEN);
        assert_eq!(a, chained_run_id("a", &long));
    }

    #[test]
    fn a_triggered_run_is_named_by_what_it_reads() {
        let id = |objects: &[ReadObject]| triggered_run_id(objects).expect("objects");
        let (a, b) = (object("a", 1), object("b", 1));
        let both = id(&[a.clone(), b.clone()]);
        assert_eq!(both, id(&[b.clone(), a.clone(), a.clone()]));
        assert!(both.as_str().starts_with("20261127-060000-"), "{both}");
        assert_ne!(both, id(&[a.clone(), object("b", 2)]));
        assert_ne!(both, id(&[a]));
        assert_eq!(triggered_run_id([]), None);
    }
}
