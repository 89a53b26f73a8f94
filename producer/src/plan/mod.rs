//! Plans a run: fixes its parameters, dates and dimensions, and says which cells belong to which lane.
//! Nothing is sent and nothing is written here; the clock and the environment are passed in.

mod allowance;
mod course;
mod dimensions;
pub mod estimate;
pub mod fit;
mod lanes;
mod nearest;
mod only;
pub mod past;
pub mod records;
mod scopes;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use paceline_protocol::connector::planned_template;
use paceline_protocol::ids::RunId;
use paceline_protocol::inputs::Inputs;
use paceline_protocol::plan::{Matrix, Plan, PlannedDimension};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{
    Diagnostic, Field, Job, ListError, LoadedJob, MissingNames, Provider, TOO_MANY_CELLS, choose,
    expand_env, not_built, plain_scalar,
};
use paceline_protocol::template::value_of;
use paceline_protocol::version;
use serde_json::Value;

/// What a run is asked to be.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// The run's id.
    pub run: RunId,
    /// `--date`; else today in the schedule's zone.
    pub date: Option<Date>,
    /// The run of the job named by `after` (or read by `records_of`) that this one follows; else its newest
    /// good one.
    pub parent: Option<RunId>,
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

#[cfg(test)]
impl PlanRequest {
    /// A run of 2026-11-21, planned the evening before (UTC).
    pub(crate) fn example() -> Self {
        PlanRequest {
            run: "2026-11-21".parse().expect("a run id"),
            date: None,
            parent: None,
            now: "2026-11-20T18:00:00Z".parse().expect("an instant"),
            params: vec![],
            only: vec![],
            allow_shrink: false,
            force: false,
        }
    }
}

/// Why a run cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The files say what this version cannot run (exit 1).
    #[error("this version cannot run the job yet:\n{}", .0.iter().map(|d| format!("  {d}")).collect::<Vec<_>>().join("\n"))]
    NotBuilt(Vec<Diagnostic>),
    /// The environment lacks names (exit 1).
    #[error("{0}: set each, or <name>_FILE to a file that holds its value")]
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
#[derive(Clone, Debug)]
pub(crate) struct RunNames {
    params: Value,
    run: Value,
    today: String,
    parent: Option<Value>,
}

impl RunNames {
    /// As pairs of a template's context.
    pub(crate) fn pairs(&self) -> Vec<(String, minijinja::Value)> {
        let mut pairs = vec![
            ("params".to_owned(), value_of(&self.params)),
            ("run".to_owned(), value_of(&self.run)),
            (
                "today".to_owned(),
                minijinja::Value::from(self.today.as_str()),
            ),
        ];
        pairs.extend(
            self.parent
                .iter()
                .map(|p| ("parent".to_owned(), value_of(p))),
        );
        pairs
    }
}

/// What was read for a plan: the rows of dimensions over other jobs' records, and where they come from.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// What the plan will name.
    pub inputs: Inputs,
    /// By dimension: its rows as they were read, `where` and `columns` of `records_of` applied.
    pub rows: BTreeMap<String, PlannedDimension>,
    /// By dimension: how many records there are without that `where`.
    pub all: BTreeMap<String, u64>,
    /// The fields of the records that a job without calls reads.
    pub fields: IndexMap<String, Field>,
}

/// A job whose parameters, environment and date are fixed; its dimensions are not.
pub struct Prepared<'a> {
    loaded: &'a LoadedJob,
    request: &'a PlanRequest,
    /// The job.
    pub job: Job,
    /// The run's date.
    pub date: Date,
    /// Those that no cell uses may lack names of the environment.
    providers: BTreeMap<String, Result<Provider, PlanError>>,
}

/// Plans a run of a loaded job that reads nothing but its own files. Costs memory for lists alone: ranges and
/// dates stay as they are written.
///
/// # Errors
/// See [`PlanError`]; what this version cannot run is refused before anything else.
pub fn plan_run(
    loaded: &LoadedJob,
    request: &PlanRequest,
    env: &(impl Environment + ?Sized),
) -> Result<Plan, PlanError> {
    prepare(loaded, request, env)?.finish(Gathered::default())
}

/// Fixes what depends on the request and the environment alone.
///
/// # Errors
/// See [`PlanError`].
pub fn prepare<'a>(
    loaded: &'a LoadedJob,
    request: &'a PlanRequest,
    env: &(impl Environment + ?Sized),
) -> Result<Prepared<'a>, PlanError> {
    let missing = not_built(loaded);
    if !missing.is_empty() {
        return Err(PlanError::NotBuilt(missing));
    }
    let job = fixed_job(&loaded.job, &request.params, env)?;
    let date = run_date(&job, request)?;
    let providers = loaded.providers.iter();
    let providers = providers
        .map(|(name, p)| (name.clone(), fixed_provider(p, env)))
        .collect();
    Ok(Prepared {
        loaded,
        request,
        job,
        date,
        providers,
    })
}

impl Prepared<'_> {
    /// What templates see, `parent` as far as `inputs` has one.
    pub(crate) fn names(&self, inputs: &Inputs) -> RunNames {
        run_names(&self.job, self.request, self.date, inputs)
    }

    /// The plan, with what was read for it.
    ///
    /// # Errors
    /// See [`PlanError`].
    pub fn finish(mut self, gathered: Gathered) -> Result<Plan, PlanError> {
        let names = self.names(&gathered.inputs);
        let mut inputs = gathered.inputs;
        let mut declared = self.loaded.providers.clone();
        let mut matrix = if self.job.source.is_some() {
            let provider = records::provider(&self.job, &gathered.fields);
            self.providers = BTreeMap::from([(provider.name.clone(), Ok(provider.clone()))]);
            declared = BTreeMap::from([(provider.name.clone(), provider)]);
            self.job.provider = Some(records::RECORDS.into());
            self.job.endpoint = Some(records::RECORDS.into());
            records::matrix(&inputs)
        } else {
            let folder = self.loaded.source.folder();
            dimensions::expand(&self.job, folder, self.date, &names, &gathered.rows)?
        };
        inputs.all_cells = all_cells(&self.job, &matrix, &gathered.all);
        let only = only::narrow(&mut matrix, &self.request.only)?;
        if !only.is_empty() {
            inputs.all_cells = None;
        }
        if matrix.cells().is_none() {
            let fault = self.loaded.source.fault("split", TOO_MANY_CELLS);
            return Err(PlanError::Job(
                fault.hint("make a dimension smaller").to_string(),
            ));
        }
        let segments = lanes::segments(&self.job, &matrix, &declared)?;
        let alone = self.providers.len() == 1;
        let used = |name: &String| alone || segments.iter().any(|s| s.provider == *name);
        let providers = self.providers.into_iter().filter(|(name, _)| used(name));
        let providers = providers
            .map(|(name, provider)| Ok((name, provider?)))
            .collect::<Result<_, PlanError>>()?;
        Ok(Plan {
            version: version::plan(),
            run: self.request.run.clone(),
            planned_at: self.request.now,
            date: self.date,
            only,
            allow_shrink: self.request.allow_shrink,
            force: self.request.force,
            base: None,
            job: self.job,
            providers,
            matrix,
            segments,
            inputs,
        })
    }
}

/// How many cells there would be if every record of the other jobs counted; `None` where none is read.
fn all_cells(job: &Job, matrix: &Matrix, all: &BTreeMap<String, u64>) -> Option<u64> {
    if all.is_empty() {
        return None;
    }
    let dimensions = job.split.keys().zip(&matrix.dimensions);
    let rows = dimensions.map(|(name, d)| all.get(name).copied().unwrap_or(d.values.len()));
    Some(rows.fold(1, u64::saturating_mul))
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
        *place = like(place, text).ok_or_else(|| PlanError::Usage {
            message: format!("--param {name}={text}: param `{name}` is {place} in the file"),
            hint: "give it a value of the same kind; a list is written [2, 3] or 2,3".to_owned(),
        })?;
    }
    for dimension in job.split.values_mut() {
        dimensions::expand_environment(dimension, env)?;
    }
    let s3 = &mut job.outputs.s3;
    if let Some(bucket) = &mut s3.bucket {
        *bucket = expand_env(bucket, env)?;
    }
    let sets = job.outputs.rankings.iter_mut().map(|set| &mut set.key);
    for template in s3.key.iter_mut().chain(sets) {
        *template = planned_template(template, env)?;
    }
    Ok(job)
}

/// The value that `text` is for a param which has `known` in the file: of the same kind.
fn like(known: &Value, text: &str) -> Option<Value> {
    let value = match known {
        // What the file has as text stays text: 007 is no 7, and 1E5 no number.
        Value::String(_) => Value::String(text.to_owned()),
        Value::Array(_) if text.trim_start().starts_with('[') => serde_json::from_str(text).ok()?,
        Value::Array(_) => text
            .split(',')
            .map(|item| plain_scalar(item.trim()))
            .collect(),
        Value::Object(_) => serde_json::from_str(text).ok()?,
        Value::Null | Value::Bool(_) | Value::Number(_) => plain_scalar(text),
    };
    let same = match known {
        Value::Null => true,
        Value::Bool(_) => value.is_boolean(),
        Value::Number(_) => value.is_number(),
        Value::String(_) => value.is_string(),
        Value::Array(_) => value.is_array(),
        Value::Object(_) => value.is_object(),
    };
    same.then_some(value)
}

pub(crate) fn expand_value(
    value: &mut Value,
    env: &(impl Environment + ?Sized),
) -> Result<(), MissingNames> {
    expand_texts(value, &|text| expand_env(text, env))
}

/// Replaces every text of a value by what `expanded` makes of it.
fn expand_texts(
    value: &mut Value,
    expanded: &impl Fn(&str) -> Result<String, MissingNames>,
) -> Result<(), MissingNames> {
    match value {
        Value::String(text) => *text = expanded(text)?,
        Value::Array(items) => items
            .iter_mut()
            .try_for_each(|item| expand_texts(item, expanded))?,
        Value::Object(fields) => fields
            .values_mut()
            .try_for_each(|item| expand_texts(item, expanded))?,
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
    if let Some(s3) = provider.source.as_mut().and_then(|s| s.get_mut("s3")) {
        for name in ["bucket", "key"] {
            if let Some(Value::String(template)) = s3.get_mut(name) {
                *template = planned_template(template, env)?;
            }
        }
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

fn run_names(job: &Job, request: &PlanRequest, date: Date, inputs: &Inputs) -> RunNames {
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
        parent: inputs.parent.as_ref().map(|parent| {
            let names = parent
                .names()
                .map(|(k, v)| (k.to_owned(), Value::String(v)));
            Value::Object(names.into_iter().collect())
        }),
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
