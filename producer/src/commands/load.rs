//! From a job's name on the command line to a plan, with the exit codes of wrong names and wrong files.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use jiff::civil::Date;
use paceline_protocol::ids::RunId;
use paceline_protocol::plan::Plan;

use crate::cli::Narrowing;
use crate::context::Context;
use crate::exit::Refusal;
use crate::plan::{PlanRequest, plan_run};
use crate::spec_files::{JobError, LoadedJob, SpecFolder};

/// Loads a job by name or path; its warnings go to stderr.
///
/// # Errors
/// With the exit code for an unknown job or wrong files.
pub fn job(context: &Context, name: &str) -> Result<LoadedJob> {
    let loaded = folder(context)?.job(name).map_err(refused)?;
    for warning in &loaded.warnings {
        context.say(format!("warning: {warning}"));
    }
    Ok(loaded)
}

/// Opens the spec folder.
///
/// # Errors
/// When it cannot be read.
pub fn folder(context: &Context) -> Result<SpecFolder> {
    SpecFolder::open(&context.spec).with_context(|| {
        let folder = context.spec.display();
        format!("the spec folder {folder} cannot be read (--spec DIR or PACELINE_SPEC names it)")
    })
}

/// The refusal for a job that cannot be loaded.
pub fn refused(error: JobError) -> anyhow::Error {
    match error {
        JobError::Unknown {
            name,
            nearest,
            known,
        } => Refusal::usage(unknown(&name, nearest, &known)),
        JobError::Wrong(found) => {
            let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
            Refusal::wrong_file(format!(
                "nothing was sent, since files are wrong:\n{}",
                lines.join("\n")
            ))
        }
    }
}

fn unknown(name: &str, nearest: Option<String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("there is no `{name}`; did you mean `{nearest}`?"),
        None if known.is_empty() => {
            format!("there is no `{name}`, nor anything else in the spec folder")
        }
        None => format!("there is no `{name}`; there are {}", known.join(", ")),
    }
}

/// What a plan is asked for beyond its job.
pub struct Asked<'a> {
    /// What narrows or dates it.
    pub narrowing: &'a Narrowing,
    /// The date when `--date` does not say one.
    pub known_date: Option<Date>,
    /// See [`Plan::allow_shrink`].
    pub allow_shrink: bool,
    /// See [`Plan::force`].
    pub force: bool,
}

/// Plans a run of a loaded job.
///
/// # Errors
/// When it cannot be planned: a name that the environment lacks, an unknown dimension or value.
pub fn plan(context: &Context, job: &LoadedJob, run: RunId, asked: &Asked<'_>) -> Result<Plan> {
    let request = PlanRequest {
        run,
        date: asked.narrowing.date.or(asked.known_date),
        now: Timestamp::now(),
        params: asked.narrowing.params.clone(),
        only: asked.narrowing.only.clone(),
        allow_shrink: asked.allow_shrink,
        force: asked.force,
    };
    Ok(plan_run(job, &request, &context.env)?)
}

/// A run id for now, that sorts by time.
pub fn new_run_id() -> RunId {
    RunId::at(Timestamp::now(), rand::random())
}
