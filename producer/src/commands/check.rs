//! `producer check`

use anyhow::Result;

use crate::check::check;
use crate::cli::CheckArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::spec_files::{Diagnostic, Severity};

/// Says everything that is wrong with the files; only warnings are fine.
///
/// # Errors
/// When a file or folder cannot be read.
pub fn run(context: &Context, args: &CheckArgs) -> Result<Exit> {
    let found = check(&context.spec, &args.paths, &context.env)?;
    if context.json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        found.iter().for_each(print);
    }
    let wrong = found
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    match (wrong, found.len() - wrong) {
        (0, 0) => context.say("everything is right"),
        (0, warnings) => context.say(format!("nothing is wrong, {warnings} to look at")),
        (wrong, _) => context.say(format!("{wrong} wrong")),
    }
    Ok(if wrong == 0 {
        Exit::Done
    } else {
        Exit::WrongFile
    })
}

fn print(diagnostic: &Diagnostic) {
    let warning = match diagnostic.severity {
        Severity::Error => "",
        Severity::Warning => " (warning)",
    };
    println!("{diagnostic}{warning}");
    if let Some(hint) = &diagnostic.hint {
        println!("    {hint}");
    }
}
