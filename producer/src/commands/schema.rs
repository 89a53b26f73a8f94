//! `producer schema`

use anyhow::Result;
use paceline_protocol::spec::{JOB_SCHEMA, PROVIDER_SCHEMA};

use crate::cli::{SchemaArgs, SchemaOf};
use crate::exit::Exit;

/// Prints the JSON Schema (2020-12) of job or provider files.
///
/// # Errors
/// None.
pub fn run(args: &SchemaArgs) -> Result<Exit> {
    crate::terminal::text(match args.of {
        SchemaOf::Job => JOB_SCHEMA,
        SchemaOf::Provider => PROVIDER_SCHEMA,
    });
    Ok(Exit::Done)
}
