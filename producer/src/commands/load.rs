//! From a job's name on the command line to a plan, with the exit codes of wrong names and wrong files.

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::RunId;
use paceline_protocol::plan::Plan;

use crate::cli::Narrowing;
use crate::context::Context;
use crate::exit::Refusal;
use crate::inputs;
use crate::plan::{PlanError, PlanRequest};
use crate::stores::{Archive, Stores};
use paceline_protocol::spec::{Diagnostic, LoadError, LoadedJob, SpecFolder, Unreadable};

/// Loads a job by name or path; its warnings go to stderr.
///
/// # Errors
/// With the exit code for an unknown job or wrong files.
pub fn job(context: &Context, name: &str) -> Result<LoadedJob> {
    let loaded = folder(context)?
        .job(name)
        .map_err(|error| refused(context, &error))?;
    for warning in &loaded.diagnostics {
        context.say(warning.to_string());
    }
    Ok(loaded)
}

/// Opens the spec folder.
///
/// # Errors
/// When it cannot be read.
pub fn folder(context: &Context) -> Result<SpecFolder> {
    SpecFolder::open(&context.spec).map_err(|error| no_folder(&error))
}

/// The error of a spec folder that cannot be read, with its remedy.
pub fn no_folder(error: &Unreadable) -> anyhow::Error {
    anyhow::anyhow!("the spec folder {error}; --spec DIR or PACELINE_SPEC names it")
}

/// The refusal for a job or provider that cannot be loaded: exit 2 for a name that there is not, 3 for wrong
/// files, each with its place: on stderr, or as `check` has them on stdout where a program reads.
pub fn refused(context: &Context, error: &LoadError) -> anyhow::Error {
    match error {
        LoadError::Unknown { .. } => Refusal::usage(error.to_string()),
        LoadError::Wrong(found) => {
            tell_faults(context.json, found);
            Refusal::wrong_file("nothing was sent, since files are wrong (see above)")
        }
    }
}

/// What is wrong is no progress: `--quiet` does not hide it.
fn tell_faults(json: bool, found: &[Diagnostic]) {
    if json {
        crate::terminal::data(format_args!("{:#}", serde_json::json!(found)));
    } else {
        found.iter().for_each(crate::terminal::tell);
    }
}

/// What a plan is asked for beyond its job.
pub struct Asked<'a> {
    /// What narrows or dates it.
    pub narrowing: &'a Narrowing,
    /// The plan of the run that this goes on with: it lends its date, its clock and what it reads.
    pub known: Option<&'a Plan>,
    /// The run of the job behind `after` that this one follows; else the newest good one.
    pub parent: Option<RunId>,
    /// S3, where it is connected already.
    pub archive: Option<&'a Archive>,
    /// See [`Plan::allow_shrink`].
    pub allow_shrink: bool,
    /// See [`Plan::force`].
    pub force: bool,
}

/// Plans a run of a loaded job.
///
/// # Errors
/// When it cannot be planned: a name that the environment lacks, an unknown dimension or value.
pub async fn plan(
    context: &Context,
    job: &LoadedJob,
    run: RunId,
    asked: &Asked<'_>,
) -> Result<Plan> {
    let request = PlanRequest {
        run,
        date: asked.narrowing.date.or(asked.known.map(|plan| plan.date)),
        parent: asked.parent.clone(),
        now: asked
            .known
            .map_or_else(Timestamp::now, |plan| plan.planned_at),
        params: asked.narrowing.params.clone(),
        only: asked.narrowing.only.clone(),
        allow_shrink: asked.allow_shrink,
        force: asked.force,
    };
    let known = asked.known.map(|plan| &plan.inputs);
    let planned = inputs::plan(asked.archive, &context.env, job, &request, known).await;
    planned.map_err(
        |error| match error.downcast_ref().map(PlanError::exit_code) {
            Some(2) => Refusal::usage(error.to_string()),
            Some(3) => Refusal::wrong_file(error.to_string()),
            _ => error,
        },
    )
}

/// Plans a run that is not made, with servers at hand.
///
/// # Errors
/// When it cannot be planned.
pub async fn for_look(
    context: &Context,
    stores: &Stores,
    job: &LoadedJob,
    narrowing: &Narrowing,
) -> Result<Plan> {
    let asked = Asked {
        narrowing,
        known: None,
        parent: None,
        archive: Some(&stores.archive),
        allow_shrink: false,
        force: false,
    };
    plan(context, job, new_run_id(), &asked).await
}

/// A run id for now, that sorts by time.
pub fn new_run_id() -> RunId {
    RunId::at(Timestamp::now(), rand::random())
}
