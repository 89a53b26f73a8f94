//! Plans a run: fixes its parameters, dates and dimensions, and says which cells belong to which lane.
//! Nothing is sent and nothing is written here; the clock and the environment are passed in.

mod dimensions;
pub mod estimate;
mod lanes;
mod only;

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use paceline_protocol::ids::RunId;
use paceline_protocol::plan::{Matrix, PLAN_VERSION, Plan};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{
    Diagnostic, Job, ListError, LoadedJob, MissingNames, Provider, choose, expand_env, not_built,
    plain_scalar,
};
use serde_json::Value;

/// What a run is asked to be.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// The run's id.
    pub run: RunId,
    /// `--date`; else today in the schedule's zone.
    pub date: Option<Date>,
    /// The producer's clock.
    pub now: Timestamp,
    /// `--param K=V`, in order.
    pub params: Vec<(String, String)>,
    /// `--only DIM=VALUE`, in order.
    pub only: Vec<(String, String)>,
    /// `--allow-shrink`
    pub allow_shrink: bool,
    /// `--force`
    pub force: bool,
}

/// Why a run cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The files say what this version cannot run (exit 1).
    #[error("this version cannot run the job yet:\n{}", .0.iter().map(|d| format!("  {d}")).collect::<Vec<_>>().join("\n"))]
    NotBuilt(Vec<Diagnostic>),
    /// The environment lacks names (exit 1).
    #[error("{0}: set them, or <name>_FILE to a file that holds the value")]
    Environment(MissingNames),
    /// `--param` or `--only` names what the job does not have (exit 2).
    #[error("{message}; {hint}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: String,
    },
    /// A list cannot be read (exit 3).
    #[error(transparent)]
    List(#[from] ListError),
    /// A value of the job makes no plan (exit 3).
    #[error("{0}")]
    Job(String),
}

/// Not by `#[from]`: as a source, what the message holds already would be said twice.
impl From<MissingNames> for PlanError {
    fn from(missing: MissingNames) -> Self {
        PlanError::Environment(missing)
    }
}

impl PlanError {
    /// The exit code of the surface: 1 error, 2 usage, 3 a file is wrong.
    pub fn exit_code(&self) -> u8 {
        match self {
            PlanError::NotBuilt(_) | PlanError::Environment(_) => 1,
            PlanError::Usage { .. } => 2,
            PlanError::List(_) | PlanError::Job(_) => 3,
        }
    }
}

/// What templates of the plan see beside a row.
pub(crate) struct RunNames {
    params: Value,
    run: Value,
    today: String,
}

/// Plans a run of a loaded job. Costs memory for lists alone: ranges and dates stay as they are written.
///
/// # Errors
/// See [`PlanError`]; what this version cannot run is refused before anything else.
pub fn plan_run(
    loaded: &LoadedJob,
    request: &PlanRequest,
    env: &(impl Environment + ?Sized),
) -> Result<Plan, PlanError> {
    let missing = not_built(loaded);
    if !missing.is_empty() {
        return Err(PlanError::NotBuilt(missing));
    }
    let job = fixed_job(&loaded.job, &request.params, env)?;
    let date = run_date(&job, request)?;
    let names = run_names(&job, request, date);
    let folder = loaded.source.folder();
    let mut matrix = dimensions::expand(&job, folder, date, &names)?;
    let only = only::narrow(&mut matrix, &request.only)?;
    if matrix.cells().is_none() {
        return Err(PlanError::Job(
            "the matrix has more cells than can be counted (2^64): make a dimension smaller".into(),
        ));
    }
    let segments = lanes::segments(&job, &matrix, &loaded.providers)?;
    let used =
        |name: &String| segments.iter().any(|s| s.provider == *name) || loaded.providers.len() == 1;
    let providers = loaded.providers.iter().filter(|(name, _)| used(name));
    let providers = providers
        .map(|(name, p)| Ok((name.clone(), fixed_provider(p, env)?)))
        .collect::<Result<_, PlanError>>()?;
    Ok(Plan {
        version: PLAN_VERSION,
        run: request.run.clone(),
        planned_at: request.now,
        date,
        only,
        allow_shrink: request.allow_shrink,
        force: request.force,
        job,
        providers,
        matrix,
        segments,
    })
}

/// The job with `--param` in place and the environment's values where they are fixed when planned.
fn fixed_job(
    job: &Job,
    given: &[(String, String)],
    env: &(impl Environment + ?Sized),
) -> Result<Job, PlanError> {
    let mut job = job.clone();
    for value in job.params.values_mut() {
        expand_value(value, env)?;
    }
    for (name, text) in given {
        let known: Vec<&str> = job.params.keys().map(String::as_str).collect();
        let hint = choose(name, &known, "its params");
        let place = job.params.get_mut(name).ok_or_else(|| PlanError::Usage {
            message: format!("job `{}` has no param `{name}`", job.name),
            hint,
        })?;
        *place = plain_scalar(text);
    }
    for dimension in job.split.values_mut() {
        dimensions::expand_environment(&mut dimension.values, env)?;
    }
    for text in job
        .outputs
        .s3
        .bucket
        .iter_mut()
        .chain(&mut job.outputs.s3.key)
    {
        *text = expand_env(text, env)?;
    }
    Ok(job)
}

pub(crate) fn expand_value(
    value: &mut Value,
    env: &(impl Environment + ?Sized),
) -> Result<(), MissingNames> {
    match value {
        Value::String(text) => *text = expand_env(text, env)?,
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| expand_value(item, env))?,
        Value::Object(fields) => fields
            .values_mut()
            .try_for_each(|item| expand_value(item, env))?,
        _ => {}
    }
    Ok(())
}

fn fixed_provider(
    provider: &Provider,
    env: &(impl Environment + ?Sized),
) -> Result<Provider, PlanError> {
    let mut provider = provider.clone();
    if let Some(url) = &mut provider.base_url {
        let expanded = expand_env(url, env)?;
        if !(expanded.starts_with("http://") || expanded.starts_with("https://")) {
            return Err(PlanError::Job(format!(
                "base_url of `{}` is no http(s) URL once {url} is put in",
                provider.name
            )));
        }
        *url = expanded;
    }
    Ok(provider)
}

/// `--date`, else the day that it is in the schedule's zone.
fn run_date(job: &Job, request: &PlanRequest) -> Result<Date, PlanError> {
    if let Some(date) = request.date {
        return Ok(date);
    }
    let zone = job.schedule.as_ref().map_or("UTC", |s| s.timezone.as_str());
    let zone =
        TimeZone::get(zone).map_err(|e| PlanError::Job(format!("schedule.timezone: {e}")))?;
    Ok(Zoned::new(request.now, zone).date())
}

fn run_names(job: &Job, request: &PlanRequest, date: Date) -> RunNames {
    let params = job
        .params
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let run = BTreeMap::from([
        ("id", request.run.to_string()),
        ("date", date.to_string()),
        ("started_at", request.now.to_string()),
    ]);
    let run = run
        .into_iter()
        .map(|(k, v)| (k.to_owned(), Value::String(v)))
        .collect();
    RunNames {
        params: Value::Object(params),
        run: Value::Object(run),
        today: date.to_string(),
    }
}

/// The names that `matrix` gives, with the dimension of each.
fn dimension_of(matrix: &Matrix, name: &str) -> Option<(usize, usize)> {
    matrix
        .dimensions
        .iter()
        .enumerate()
        .find_map(|(d, dimension)| {
            let place = dimension.names.iter().position(|n| &**n == name)?;
            Some((d, place))
        })
}

#[cfg(test)]
mod tests;
