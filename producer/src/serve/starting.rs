//! Starting a run as `producer enqueue` does, for whatever cause.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::FutureExt;
use jiff::civil::Date;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::settings::SettingError;

use super::Server;
use crate::cli::{EnqueueArgs, Narrowing};
use crate::commands::enqueue::{self, Started};
use crate::exit::Refusal;
use crate::plan::PlanError;
use crate::run::noted;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    /// A job of the spec folder.
    pub(super) job: String,
    /// The run's id; one is made without.
    pub(super) run: Option<RunId>,
    /// `today`.
    pub(super) date: Option<Date>,
    /// The run of the job behind `after` that it follows; the newest good one without.
    pub(super) parent: Option<RunId>,
    /// Params instead of those of the file.
    pub(super) params: Vec<(String, String)>,
    /// Only these cells.
    pub(super) only: Vec<(String, String)>,
    /// See [`EnqueueArgs`].
    pub(super) allow_shrink: bool,
    /// See [`EnqueueArgs`].
    pub(super) force: bool,
}

impl Server {
    /// The starts that this process is making.
    pub(super) fn starting(&self) -> BTreeSet<String> {
        self.starts
            .lock()
            .map(|starts| starts.clone())
            .unwrap_or_default()
    }

    /// Starts the run, or goes on with it. The same id again is the same run.
    pub(super) async fn start_run(&self, ask: Ask) -> Result<Started> {
        let Some(job) = self.spec.job(&ask.job) else {
            let names: Vec<String> = self.spec.jobs().into_keys().collect();
            return Err(Refusal::usage(format!(
                "there is no job `{}`; there are {}",
                ask.job,
                names.join(", ")
            )));
        };
        let id = ask.run.unwrap_or_else(crate::commands::load::new_run_id);
        let args = EnqueueArgs {
            job: ask.job,
            run_id: None,
            narrowing: Narrowing {
                params: ask.params,
                only: ask.only,
                date: ask.date,
            },
            allow_shrink: ask.allow_shrink,
            force: ask.force,
            wait: false,
            listen: None,
            dry_run: false,
        };
        let name = format!("{}/{id}", job.job.name);
        let _ours = Starting::new(self, &name);
        let run = RunRef {
            job: job.job.name.clone(),
            run: id.clone(),
        };
        let parent = ask.parent.as_ref();
        let start = enqueue::start(&self.context, &self.stores, &job, &args, id, parent).boxed();
        // What is left half made is made whole soon (`half`). Without Redis there is no note, and no start: a run that is
        // told to have failed must not begin when it is back.
        let is_left = |started: &Result<_>| started.as_ref().err().is_some_and(|e| !hopeless(e));
        let started = noted(&self.stores, &run, start, is_left).await?;
        tracing::info!(run.id = %started.run, again = started.again, "started");
        Ok(started)
    }
}

/// A start of this process, as long as it lasts.
struct Starting<'s> {
    server: &'s Server,
    name: &'s str,
}

impl<'s> Starting<'s> {
    fn new(server: &'s Server, name: &'s str) -> Self {
        if let Ok(mut starts) = server.starts.lock() {
            starts.insert(name.to_owned());
        }
        Starting { server, name }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Ok(mut starts) = self.server.starts.lock() {
            starts.remove(self.name);
        }
    }
}

/// Whether doing it again cannot help: the ask or the files are wrong, not a server away.
pub(super) fn hopeless(error: &anyhow::Error) -> bool {
    error.is::<Refusal>()
        || error.is::<PlanError>()
        || error.is::<SettingError>()
        || is_other_plan(error)
}

/// The refusal of [`enqueue::start`] for a run id that stands for another plan.
pub(super) fn is_other_plan(error: &anyhow::Error) -> bool {
    error.is::<enqueue::OtherPlan>()
}
