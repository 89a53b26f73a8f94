//! The JSON Schemas for editors, kept by hand so that every key has a sentence, and held equal to the
//! reader's keys by a test.

/// JSON Schema (2020-12) of a job's file.
pub const JOB_SCHEMA: &str = include_str!("job.schema.json");
/// JSON Schema (2020-12) of a provider's file.
pub const PROVIDER_SCHEMA: &str = include_str!("provider.schema.json");
