//! `producer check`

use anyhow::Result;

use super::load::no_folder;
use crate::check::check;
use crate::cli::CheckArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};

/// Says everything that is wrong with the files; only warnings are fine.
///
/// # Errors
/// When a file or folder cannot be read.
pub fn run(context: &Context, args: &CheckArgs) -> Result<Exit> {
    let report = check(&args.paths, &context.spec, &context.env);
    let report = report.map_err(|error| match error.path == context.spec {
        true => no_folder(&error),
        false => Refusal::usage(error.to_string()),
    })?;
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&report.to_json())?);
    } else {
        crate::terminal::text(report.to_text());
    }
    Ok(if report.exit_code() == 0 {
        Exit::Done
    } else {
        Exit::WrongFile
    })
}
