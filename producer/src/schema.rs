//! `producer schema job|provider`: JSON Schema (2020-12) for editors.

use paceline_protocol::spec::{JOB_SCHEMA, PROVIDER_SCHEMA};

/// The schema of `kind`, which is `job` or `provider`; `None` for anything else.
pub fn schema(kind: &str) -> Option<&'static str> {
    match kind {
        "job" => Some(JOB_SCHEMA),
        "provider" => Some(PROVIDER_SCHEMA),
        _ => None,
    }
}
