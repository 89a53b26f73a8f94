//! The ledger: one row for every attempt, in NDJSON objects below `ledger/`.

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// One attempt. Times are microseconds on the fleet's clock (Redis').
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// When it was sent, microseconds since 1970 on the fleet's clock.
    pub sent_us: i64,
    /// The lane.
    pub lane: String,
    /// The provider.
    pub provider: String,
    /// The endpoint; `token`, `login` and `ready` for what is not a job's call.
    pub endpoint: String,
    /// Place in the pool and six hex digits of a keyed hash (`0-3fa91c`); absent without credentials.
    pub credential: Option<String>,
    /// The scope of each limit that has one, `limit=scope`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Of each limit that was decided by other numbers than the file's (learned, or set by an operator): `limit=numbers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// What it cost of each bucket of points, as the answer told it, else as it was charged: `limit=points`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<String>,
    /// The cell.
    pub cell: u64,
    /// Which page of the cell, from 0.
    pub page: u32,
    /// Which attempt, from 1; throttled ones do not count up.
    pub attempt: u32,
    /// What the answer meant.
    pub outcome: Outcome,
    /// HTTP status, 0 without an answer.
    pub status: u16,
    /// Microseconds between the grant's start and the sending.
    pub late_us: i64,
    /// Microseconds from sending to the answer's last byte.
    pub duration_us: u64,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Why, for anything but ok and empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The provider's own id of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}
