//! `producer schema`

use anyhow::Result;

use crate::cli::{SchemaArgs, SchemaOf};
use crate::exit::Exit;
use crate::schema;

/// Prints the JSON Schema of job or provider files.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn run(args: &SchemaArgs) -> Result<Exit> {
    let schema = match args.of {
        SchemaOf::Job => schema::job(),
        SchemaOf::Provider => schema::provider(),
    };
    println!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(Exit::Done)
}
