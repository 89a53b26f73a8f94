//! Triggers (`trigger: {new_objects: ...}`): the objects that a run would read are listed now and then; when
//! there is one that the newest plan does not name, a run is started whose id is made from what it reads. So
//! replicas, hints that come twice and starts that were cut off all mean the same run, and nothing need be
//! remembered beside S3. A run's own results are never listed (`inputs::listed_now`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::inputs::{ReadObject, triggered_run_id};
use paceline_protocol::plan::Plan;
use paceline_protocol::spec::LoadedJob;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::starting::{Ask, hopeless};
use super::{Event, Server};
use crate::cli::Narrowing;
use crate::commands::load;
use crate::run::{RunFiles, all_runs, open_runs};

/// The topic of an event that says: there may be new objects.
pub(super) const HINT: &str = "objects.hinted";
/// The shortest time between two looks of one job.
const SHORTEST: Duration = Duration::from_secs(1);
/// While a run of the job is open, or a look failed.
const SOON: Duration = Duration::from_secs(5);
/// How many runs are read when nothing is known yet.
const READ_BACK: usize = 50;

/// An object as a plan names it.
type Named = (String, String, Timestamp, u64, Option<String>);

/// What is known of one job.
#[derive(Default)]
struct Watched {
    /// When it is looked at next; at once without.
    next: Option<Instant>,
    /// The runs whose plans were read.
    known: BTreeSet<RunId>,
    /// When the newest plan was made, and what it reads.
    newest: Option<(Timestamp, BTreeSet<Named>)>,
    /// A start that cannot be made with the job as it was then; told once.
    given_up: Option<(RunId, Arc<LoadedJob>)>,
    /// What was said of looks that fail.
    told: Option<String>,
}

/// Starts runs until the process stops.
pub(super) async fn follow(server: Arc<Server>) {
    let mut jobs: BTreeMap<String, Watched> = BTreeMap::new();
    let mut heard = server.events.subscribe();
    let mut leading = server.leading.clone();
    loop {
        if leading.borrow_and_update().is_some() {
            look_at_all(&server, &mut jobs).await;
        } else {
            jobs.clear(); // Somebody else starts runs meanwhile.
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(SHORTEST) => {}
            changed = leading.changed() => if changed.is_err() { return },
            () = hinted(&mut heard, &mut jobs) => {
                // Many hints make one look.
                tokio::time::sleep(SHORTEST).await;
            }
        }
    }
}

/// Returns when a job is to be looked at sooner: there may be new objects, or its open run has ended.
async fn hinted(heard: &mut Receiver<Arc<Event>>, jobs: &mut BTreeMap<String, Watched>) {
    loop {
        let event = match heard.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(_)) => None,
            Err(RecvError::Closed) => return std::future::pending().await,
        };
        let concerns = |name: &str| match &event {
            Some(event) if event.topic == HINT => true,
            Some(event) => event.run().is_some_and(|run| run.job == name),
            None => true,
        };
        let mut any = false;
        for (_, watched) in jobs.iter_mut().filter(|(name, _)| concerns(name)) {
            watched.next = None;
            any = true;
        }
        if any {
            return;
        }
    }
}

async fn look_at_all(server: &Server, jobs: &mut BTreeMap<String, Watched>) {
    let loaded = server.spec.jobs();
    jobs.retain(|name, _| loaded.contains_key(name));
    for (name, job) in &loaded {
        let Some(trigger) = &job.job.trigger else {
            continue;
        };
        let watched = jobs.entry(name.clone()).or_default();
        let now = Instant::now();
        if watched.next.is_some_and(|next| now < next) {
            continue;
        }
        let wait = match watched.look(server, job).await {
            Ok(true) => trigger.every.0.max(SHORTEST),
            Ok(false) => SOON,
            Err(error) => {
                let why = format!("{error:#}");
                if watched.told.as_ref() != Some(&why) {
                    tracing::warn!(job = name, "new objects are not looked for: {why}");
                    watched.told = Some(why);
                }
                SOON
            }
        };
        watched.next = Some(now + wait);
    }
}

impl Watched {
    /// One look; false when there is something that waits.
    async fn look(&mut self, server: &Server, job: &Arc<LoadedJob>) -> Result<bool> {
        let (context, stores) = (&server.context, &server.stores);
        let plan = load::for_look(context, stores, job, &Narrowing::default()).await?;
        self.told = None;
        let Some(id) = triggered_run_id(plan.inputs.objects.values().flatten()) else {
            return Ok(true); // Nothing is there.
        };
        let run = RunRef {
            job: job.job.name.clone(),
            run: id,
        };
        let started = all_runs(&stores.archive, Some(&run.job)).await?;
        let gave_up =
            |(id, with): &(RunId, Arc<LoadedJob>)| *id == run.run && Arc::ptr_eq(with, job);
        if self.given_up.as_ref().is_some_and(gave_up) {
            return Ok(true);
        }
        if started.contains(&run) {
            if !was_cut_off(server, &run).await? {
                return Ok(true);
            }
        } else {
            self.read_plans(server, &started, &plan).await?;
            if !self.is_news(&plan) {
                return Ok(true);
            }
            let open = open_runs(&stores.archive).await?;
            if open.iter().any(|open| open.job == run.job) {
                return Ok(false); // Whatever comes meanwhile is read by the next one too.
            }
        }
        self.start(server, job, &plan, run).await
    }

    async fn start(
        &mut self,
        server: &Server,
        job: &Arc<LoadedJob>,
        plan: &Plan,
        run: RunRef,
    ) -> Result<bool> {
        let ask = Ask {
            job: run.job.clone(),
            run: Some(run.run.clone()),
            date: Some(plan.date),
            ..Ask::default()
        };
        match server.start_run(ask).await {
            Ok(_) => {
                server.gauges.start(&run.job, "started");
                Ok(true)
            }
            Err(error) if hopeless(&error) => {
                tracing::error!(run.id = %run, "not started for its new objects: {error:#}");
                server.gauges.start(&run.job, "failed");
                self.given_up = Some((run.run, job.clone()));
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the plans of runs that came since the last look.
    async fn read_plans(&mut self, server: &Server, started: &[RunRef], now: &Plan) -> Result<()> {
        let limit = if self.known.is_empty() {
            READ_BACK
        } else {
            usize::MAX
        };
        let new = started.iter().filter(|run| !self.known.contains(&run.run));
        let new: Vec<RunRef> = new.take(limit).cloned().collect();
        for run in new {
            if let Some(files) = RunFiles::read(&server.stores.archive, &run).await? {
                self.take_in(&files.plan, now);
            }
        }
        self.known = started.iter().map(|run| run.run.clone()).collect();
        Ok(())
    }

    /// A narrowed run has not read everything, one with other params something else.
    fn take_in(&mut self, plan: &Plan, now: &Plan) {
        let counts = plan.only.is_empty() && plan.job.params == now.job.params;
        let newer = self
            .newest
            .as_ref()
            .is_none_or(|(at, _)| plan.planned_at > *at);
        if counts && newer {
            self.newest = Some((plan.planned_at, named(plan)));
        }
    }

    /// Whether a run planned now reads an object that the newest one does not name.
    fn is_news(&self, plan: &Plan) -> bool {
        let known = self.newest.as_ref().map(|(_, named)| named);
        named(plan)
            .iter()
            .any(|object| known.is_none_or(|known| !known.contains(object)))
    }
}

/// Whether the run has a plan, but was never opened.
async fn was_cut_off(server: &Server, run: &RunRef) -> Result<bool> {
    let files = RunFiles::read(&server.stores.archive, run).await?;
    Ok(files.is_some_and(|files| files.is_cut_off()))
}

fn named(plan: &Plan) -> BTreeSet<Named> {
    let objects = plan.inputs.objects.values().flatten();
    objects.map(named_object).collect()
}

fn named_object(object: &ReadObject) -> Named {
    let ReadObject {
        bucket,
        key,
        time,
        size,
        etag,
    } = object.clone();
    (bucket, key, time, size, etag)
}
