//! Making what a finished run published again: sorted sets and documents out of its parts.
//!
//! A rebuild is no open run: nobody collects, counts or ends it. Its entry lies beside the open runs, where
//! loaders alone look, and goes when they are done.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::RunRef;

/// The object that says: this run is to be made again in Redis and Elasticsearch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Which run.
    pub run: RunRef,
    /// This rebuild. Receipts carry it, so that a loader that knows the run from an earlier life looks again.
    pub id: Uuid,
    /// The round that the run ended with.
    pub round: u32,
    /// Take alias and sets also from a run that was planned later.
    pub force: bool,
}

/// What it came to, beside the run's manifest, which stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// Which rebuild.
    pub id: Uuid,
    /// When it was done.
    pub at: Timestamp,
    /// Whether everything is there again, as the parts have it.
    pub passed: bool,
    /// Documents as loaded; 0 without an index.
    pub documents: u64,
    /// The concrete index, where there is one.
    pub index: Option<String>,
    /// The sorted sets that were published, by name, with their number of members.
    pub sets: BTreeMap<String, u64>,
    /// What a person should know.
    pub notes: Vec<String>,
}
