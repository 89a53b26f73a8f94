//! JSON Schema (2020-12) of job and provider files, for editors.

/// The schema of `jobs/*.yaml`.
pub const JOB_SCHEMA: &str = include_str!("job.schema.json");
/// The schema of `providers/*.yaml`.
pub const PROVIDER_SCHEMA: &str = include_str!("provider.schema.json");
