//! What S3 says of a run: its plan, whether it is open, and what it came to.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::layout::{self, RunLayout};
use paceline_protocol::manifest::{Manifest, RunEnd};
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::stores::state::{OpenRun, Progress};
use paceline_protocol::version::Unread;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::find::jobs;
use crate::stores::Archive;

/// A run as S3 knows it.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// Its plan.
    pub plan: Plan,
    /// Present while it is open.
    pub open: Option<OpenRun>,
    /// What it came to when it last ended; a retry opens a run that has one.
    pub manifest: Option<Manifest>,
}

/// The state of a run in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// Its plan is written, its shards are not (enqueueing was cut off: do it again).
    Planned,
    /// Open, nothing done yet.
    Queued,
    /// Open.
    Running,
    /// Open, by order of somebody without work.
    Paused,
    /// Every cell has ended; results are being loaded and checked.
    Finishing,
    /// Ended inside its gate.
    Completed,
    /// Ended outside its gate.
    Failed,
    /// Ended by `cancel`.
    Cancelled,
}

impl StateWord {
    /// The word itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finishing => "finishing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl RunFiles {
    /// Reads a run; `None` when it has no plan.
    ///
    /// # Errors
    /// When S3 does not answer, or what is there cannot be read.
    pub async fn read(archive: &Archive, run: &RunRef) -> Result<Option<Self>> {
        let layout = RunLayout::new(&archive.fleet.prefix, run);
        let Some(object) = archive.objects.get(&layout.plan()).await? else {
            return Ok(None);
        };
        let plan = Plan::read(&object.body).map_err(|unread| match unread {
            Unread::Newer { .. } => anyhow::anyhow!(
                "the plan of {run} is a newer producer's ({unread}): use that one, or upgrade this"
            ),
            Unread::Broken(why) => anyhow::anyhow!("{}: {why}", layout.plan()),
        })?;
        Ok(Some(RunFiles {
            plan,
            open: open_entry(archive, run).await?,
            manifest: json(&archive.objects, &layout.manifest()).await?,
        }))
    }

    /// Reads a run that [`find()`](super::find()) has found.
    ///
    /// # Errors
    /// As [`RunFiles::read`]; also when it is gone.
    pub async fn expect(archive: &Archive, run: &RunRef) -> Result<Self> {
        Self::read(archive, run)
            .await?
            .with_context(|| format!("the plan of {run} is gone"))
    }

    /// What it came to, when it is not open (any more).
    pub fn ended(&self) -> Option<&Manifest> {
        self.manifest.as_ref().filter(|_| self.open.is_none())
    }

    /// Whether it was planned and never opened: its enqueueing was cut off, or goes on right now.
    pub fn is_cut_off(&self) -> bool {
        self.open.is_none() && self.manifest.is_none()
    }

    /// Its state, with the counters of an open run.
    pub fn state(&self, progress: &Progress) -> StateWord {
        match (&self.open, &self.manifest) {
            (None, None) => StateWord::Planned,
            (None, Some(manifest)) => match manifest.state {
                RunEnd::Completed => StateWord::Completed,
                RunEnd::Failed => StateWord::Failed,
                RunEnd::Cancelled => StateWord::Cancelled,
            },
            (Some(open), _) => self.open_state(open, progress),
        }
    }

    fn open_state(&self, open: &OpenRun, progress: &Progress) -> StateWord {
        let done = progress.succeeded + progress.empty + progress.failed;
        if open.paused {
            StateWord::Paused
        } else if done == 0 && self.plan.cells() > 0 {
            StateWord::Queued
        } else if open.round == 0 && done >= self.plan.cells() {
            StateWord::Finishing
        } else {
            StateWord::Running
        }
    }
}

/// The object that says a run is open.
///
/// # Errors
/// When S3 does not answer.
pub async fn open_entry(archive: &Archive, run: &RunRef) -> Result<Option<OpenRun>> {
    json(
        &archive.objects,
        &layout::open_run(&archive.fleet.prefix, run),
    )
    .await
}

/// Every run that has a folder, newest id first within a job.
///
/// # Errors
/// When S3 does not answer.
pub async fn all_runs(archive: &Archive, only_job: Option<&str>) -> Result<Vec<RunRef>> {
    let jobs = match only_job {
        Some(job) => vec![job.to_owned()],
        None => jobs(archive).await?,
    };
    let mut runs = Vec::new();
    for job in jobs {
        let folder = format!("{}/{job}/", archive.fleet.prefix.trim_matches('/'));
        let mut ids: Vec<RunId> = archive
            .objects
            .folders(&folder)
            .await?
            .iter()
            .filter_map(|name| name.trim_matches('/').parse().ok())
            .collect();
        ids.sort_by(|a, b| b.cmp(a));
        runs.extend(ids.into_iter().map(|run| RunRef {
            job: job.clone(),
            run,
        }));
    }
    Ok(runs)
}

/// A JSON object; `None` when it is not there.
///
/// # Errors
/// When S3 does not answer, or holds something else.
pub(crate) async fn json<T: DeserializeOwned>(objects: &Objects, key: &str) -> Result<Option<T>> {
    let Some(object) = objects.get(key).await? else {
        return Ok(None);
    };
    serde_json::from_slice(&object.body)
        .map(Some)
        .with_context(|| format!("{key} is not what it should be"))
}

/// The entries of all open runs, as S3 has them.
///
/// # Errors
/// When S3 does not answer.
pub async fn open_entries(archive: &Archive) -> Result<Vec<OpenRun>> {
    let mut entries = Vec::new();
    for run in open_runs(archive).await? {
        entries.extend(open_entry(archive, &run).await?);
    }
    Ok(entries)
}

/// The runs that are open, as S3 has them.
///
/// # Errors
/// When S3 does not answer.
pub async fn open_runs(archive: &Archive) -> Result<Vec<RunRef>> {
    let open = open_runs_since(archive).await?;
    Ok(open.into_iter().map(|(run, _)| run).collect())
}

/// The same with when each was opened, or how it is open was last changed (paused, resumed).
///
/// # Errors
/// When S3 does not answer.
pub async fn open_runs_since(archive: &Archive) -> Result<Vec<(RunRef, Option<Timestamp>)>> {
    let root = layout::open_runs(&archive.fleet.prefix);
    let listed = archive.objects.list(&root).await?;
    let run = |key: &str| -> Option<RunRef> {
        key.strip_prefix(&root)?.strip_suffix(".json")?.parse().ok()
    };
    Ok(listed
        .iter()
        .filter_map(|object| Some((run(&object.key)?, object.modified)))
        .collect())
}
