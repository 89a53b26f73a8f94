//! What a plan reads beside its own files: records of other jobs' runs, and the objects of a source in S3.
//! Here they are found and read; what comes of them is decided by [`crate::plan`].

mod looked_up;
mod objects;
mod records;
pub mod runs;

use anyhow::{Context as _, Result};
use indexmap::IndexMap;
use paceline_protocol::ids::RunId;
use paceline_protocol::inputs::{Inputs, ReadPart, ReadRun};
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{DimensionValues, Job, LoadedJob, RecordsOf};

pub use self::objects::{listed_now, named_objects};
pub use self::records::RunRecords;
pub use self::runs::good_runs;

use self::looked_up::is_looked_up;
use self::records::{Rows, columns_of};
use crate::plan::{Gathered, PlanRequest, Prepared, prepare};
use crate::stores::Archive;

/// A job that is read has nothing to be read yet.
#[derive(Debug, thiserror::Error)]
#[error(
    "job `{0}` has no good run yet (one with _SUCCESS that was not narrowed by --only): run it first"
)]
pub struct NotYet(String);

/// Plans a run of a loaded job with everything that it reads. `archive` may be absent where nothing has
/// connected to S3 yet; then that is done only for a job that needs it. `known` is what an earlier plan of the
/// same run named: it is read again, whatever else there is by now.
///
/// # Errors
/// When the job cannot be planned ([`crate::plan::PlanError`] as the error itself), S3 does not answer, or a
/// job that is read has no good run.
pub async fn plan(
    archive: Option<&Archive>,
    env: &(impl Environment + Sync),
    loaded: &LoadedJob,
    request: &PlanRequest,
    known: Option<&Inputs>,
) -> Result<Plan> {
    let prepared = prepare(loaded, request, env)?;
    if !reads_anything(loaded) {
        return Ok(prepared.finish(Gathered::default())?);
    }
    let connected = match archive {
        Some(archive) => archive.clone(),
        None => Archive::connect(env).await?,
    };
    let mut gathered = gather(&connected, &prepared, request.parent.as_ref(), known).await?;
    look_up(&connected, env, &prepared, &mut gathered, known).await?;
    let mut plan = prepared.finish(gathered)?;
    match known {
        Some(known) => plan.inputs.objects = known.objects.clone(),
        None => named_objects(&connected, &mut plan).await?,
    }
    Ok(plan)
}

/// Whether a run of the job reads something in S3 before it is planned.
fn reads_anything(loaded: &LoadedJob) -> bool {
    let in_s3 = |p: &paceline_protocol::spec::Provider| {
        p.source.as_ref().is_some_and(|s| s.get("s3").is_some())
    };
    loaded.job.after.is_some()
        || read_jobs(&loaded.job).next().is_some()
        || loaded.job.split.values().any(|d| is_looked_up(&d.values))
        || loaded.providers.values().any(in_s3)
}

/// Reads the dimensions that are looked up, or takes what an earlier plan of the same run found.
async fn look_up(
    archive: &Archive,
    env: &(impl Environment + Sync),
    prepared: &Prepared<'_>,
    gathered: &mut Gathered,
    known: Option<&Inputs>,
) -> Result<()> {
    let names = prepared.names(&gathered.inputs);
    let asked = prepared.job.split.iter();
    for (name, dimension) in asked.filter(|(_, d)| is_looked_up(&d.values)) {
        let found = match known {
            // Not among what that run looked up: its dimension was another one, so this is another plan.
            Some(known) => known
                .rows
                .get(name)
                .cloned()
                .or_else(|| looked_up::none(&dimension.values)),
            None => looked_up::rows(archive, env, name, &dimension.values, &names).await?,
        };
        if let Some(rows) = found {
            gathered.inputs.rows.insert(name.clone(), rows.clone());
            gathered.rows.insert(name.clone(), rows);
        }
    }
    Ok(())
}

/// Everything in a job that reads another one's records; a dimension with its name.
fn read_jobs(job: &Job) -> impl Iterator<Item = (Option<&str>, &RecordsOf)> {
    let dimensions = job.split.iter().filter_map(|(name, d)| match &d.values {
        DimensionValues::RecordsOf(records) => Some((Some(name.as_str()), records)),
        _ => None,
    });
    job.source
        .iter()
        .map(|source| (None, source))
        .chain(dimensions)
}

async fn gather(
    archive: &Archive,
    prepared: &Prepared<'_>,
    parent: Option<&RunId>,
    known: Option<&Inputs>,
) -> Result<Gathered> {
    let job = &prepared.job;
    let mut gathered = Gathered::default();
    let mut read: IndexMap<String, Vec<RunRecords>> = IndexMap::new();
    for (_, records) in read_jobs(job) {
        if !read.contains_key(&records.job) {
            let runs = runs_of(archive, job, &records.job, parent, known).await?;
            gathered.inputs.runs.extend(runs.iter().cloned());
            let mut opened = Vec::new();
            for run in runs {
                opened.push(RunRecords::open(archive, run).await?);
            }
            read.insert(records.job.clone(), opened);
        }
    }
    gathered.inputs.parent = parent_of(archive, job, &gathered.inputs.runs, parent, known).await?;
    let names = prepared.names(&gathered.inputs);
    for (dimension, records) in read_jobs(job) {
        let runs = read.get(&records.job).map_or(&[][..], Vec::as_slice);
        match dimension {
            Some(name) => {
                let rows = Rows::read(archive, records, runs, &names)
                    .await
                    .with_context(|| format!("split.{name}.records_of"))?;
                gathered.all.insert(name.to_owned(), rows.all);
                gathered.rows.insert(name.to_owned(), rows.into_dimension());
            }
            None => {
                gathered.inputs.parts = parts(runs);
                gathered.fields = runs
                    .first()
                    .map(|r| columns_of(&r.plan))
                    .unwrap_or_default();
            }
        }
    }
    Ok(gathered)
}

fn parts(runs: &[RunRecords]) -> Vec<ReadPart> {
    let part = |run: &RunRecords, part: &paceline_protocol::manifest::ManifestPart| ReadPart {
        run: run.run.id.clone(),
        key: part.key.clone(),
        records: part.records,
    };
    // The newest answer comes last, so that of several with one id it counts.
    let oldest_first = runs.iter().rev();
    oldest_first
        .flat_map(|run| run.parts.iter().map(move |found| part(run, found)))
        .collect()
}

/// The runs of `read` that a run of `job` reads, newest first.
async fn runs_of(
    archive: &Archive,
    job: &Job,
    read: &str,
    parent: Option<&RunId>,
    known: Option<&Inputs>,
) -> Result<Vec<ReadRun>> {
    if let Some(known) = known {
        let of_job = known.runs.iter().filter(|run| run.job == read);
        return Ok(of_job.cloned().collect());
    }
    let is_parent = job.after.as_ref().is_none_or(|after| after.job == read);
    let named = parent.filter(|_| is_parent);
    let good = runs::good_runs(archive, read).await?;
    let follows = job.after.as_ref().is_some_and(|after| after.job == read);
    let runs = match (good.first(), named) {
        (_, Some(named)) => runs::up_to(archive, read, good, named).await?,
        (Some(_), None) => good,
        (None, None) => return Err(NotYet(read.to_owned()).into()),
    };
    let Some(newest) = runs.first() else {
        anyhow::bail!("job `{read}` has no such run");
    };
    if !follows || runs::plan_of(archive, newest).await?.job.changes.is_none() {
        return Ok(runs.into_iter().take(1).collect());
    }
    let readings = runs::Readings::of(archive, &job.name, &runs).await?;
    Ok(readings.unread(runs))
}

/// The run that `parent` stands for: that of the job behind `after`, else that of the first job that is read.
async fn parent_of(
    archive: &Archive,
    job: &Job,
    runs: &[ReadRun],
    named: Option<&RunId>,
    known: Option<&Inputs>,
) -> Result<Option<ReadRun>> {
    if let Some(known) = known {
        return Ok(known.parent.clone());
    }
    let Some(after) = &job.after else {
        return Ok(runs.first().cloned());
    };
    if let Some(read) = runs.iter().find(|run| run.job == after.job) {
        return Ok(Some(read.clone()));
    }
    let good = runs::good_runs(archive, &after.job).await?;
    let runs = match named {
        Some(named) => runs::up_to(archive, &after.job, good, named).await?,
        None => good,
    };
    Ok(runs.into_iter().next())
}
