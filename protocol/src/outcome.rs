//! What a provider's answer means.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The eight meanings of an answer. A label of metrics and a column of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Records may be in it.
    Ok,
    /// Rightly nothing.
    Empty,
    /// Too fast: the scope waits, no attempt is burnt.
    Throttled,
    /// The quota of this credential is used up until its reset.
    QuotaExhausted,
    /// The credential is not, or no longer, accepted.
    AuthExpired,
    /// The provider is closed for a while.
    Maintenance,
    /// Worth another attempt.
    Retryable,
    /// Asking again gives the same.
    Permanent,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 8] = [
        Self::Ok,
        Self::Empty,
        Self::Throttled,
        Self::QuotaExhausted,
        Self::AuthExpired,
        Self::Maintenance,
        Self::Retryable,
        Self::Permanent,
    ];

    /// The word in files, ledger and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Empty => "empty",
            Self::Throttled => "throttled",
            Self::QuotaExhausted => "quota_exhausted",
            Self::AuthExpired => "auth_expired",
            Self::Maintenance => "maintenance",
            Self::Retryable => "retryable",
            Self::Permanent => "permanent",
        }
    }
}

/// An answer's outcome, how long its scope is told to wait, and which rule decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What it means.
    pub outcome: Outcome,
    /// How long the scope waits, when the answer or the rule says so.
    pub wait: Option<Duration>,
    /// A short reason for a failure (`status 404`, `not JSON`, `timeout`).
    pub reason: String,
}
