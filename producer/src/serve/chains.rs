//! Chains (`after:`): a run of the parent that ended starts a run of the child. Events are a hint; what is to
//! be started is read from S3 (runs of the parent without a run of the child), so that a lost event loses
//! nothing. A child's run is named after its parent's, and waits while another one of the child is open: it
//! queues and never skips.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::inputs::chained_run_id;
use paceline_protocol::layout;
use paceline_protocol::manifest::{Manifest, RunEnd};
use paceline_protocol::spec::{After, LoadedJob};
use paceline_protocol::stores::objects::PutNew;
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::starting::{Ask, hopeless};
use super::{Event, Server};
use crate::run::{RunFiles, all_runs, open_runs};

/// How often S3 is asked without an event.
const RECONCILE: Duration = Duration::from_secs(15);
/// How many runs are read at a time.
const AT_A_TIME: usize = 16;
/// How many runs of a child are looked at for starts that another replica could not end.
const LOOK_BACK: usize = 20;
/// After so many looks, ends that were bad are read again: a retry may have mended one unheard.
const FORGET: u32 = 40;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Good,
    Bad,
    /// Cancelled, or narrowed by `--only`: nobody follows it.
    Nothing,
}

/// What is remembered between two looks.
#[derive(Default)]
struct Chains {
    /// When a chain was seen first: what had ended before is not its concern.
    since: BTreeMap<String, Timestamp>,
    /// When and how runs ended.
    ended: BTreeMap<RunRef, (Timestamp, End)>,
    /// Starts that cannot be made with the job as it was then; told once.
    given_up: BTreeMap<RunRef, Arc<LoadedJob>>,
    /// Children's runs whose start another replica could not end; looked for once while this process leads.
    cut_off: BTreeMap<String, BTreeSet<RunId>>,
    looks: u32,
}

/// Starts children until the process stops.
pub(super) async fn follow(server: Arc<Server>) {
    let mut chains = Chains::default();
    let mut heard = server.events.subscribe();
    let mut leading = server.leading.clone();
    loop {
        let leads = leading.borrow_and_update().is_some();
        if !leads {
            chains.cut_off.clear();
        }
        if leads && let Err(error) = chains.look(&server).await {
            tracing::warn!("chains wait: {error:#}");
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = tokio::time::sleep(RECONCILE) => {}
            changed = leading.changed() => if changed.is_err() { return },
            () = chains.hear(&mut heard) => {}
        }
    }
}

impl Chains {
    /// Returns when something may have ended.
    async fn hear(&mut self, heard: &mut Receiver<Arc<Event>>) {
        loop {
            match heard.recv().await {
                Ok(event) if matches!(event.topic.as_str(), "run.started" | "run.progressed") => {}
                Ok(event) => {
                    // Also the end of a retry, which is another one than that which is known.
                    if let Some(run) = event.run() {
                        self.ended.remove(&run);
                    }
                    return;
                }
                Err(RecvError::Lagged(_)) => return self.forget_bad(),
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    fn forget_bad(&mut self) {
        self.ended.retain(|_, (_, end)| *end == End::Good);
    }

    async fn look(&mut self, server: &Server) -> Result<()> {
        self.looks += 1;
        if self.looks.is_multiple_of(FORGET) {
            self.forget_bad();
        }
        let mut open: Option<Vec<RunRef>> = None;
        for child in server.spec.jobs().values() {
            let Some(after) = &child.job.after else {
                continue;
            };
            let due = self.due(server, child, after).await?;
            if due.is_empty() {
                continue;
            }
            let open = match &mut open {
                Some(open) => open,
                None => open.insert(open_runs(&server.stores.archive).await?),
            };
            // The first one only: the others wait for its end.
            let busy = open.iter().any(|run| run.job == child.job.name);
            if let (Some((_, parent)), false) = (due.first(), busy) {
                self.start(server, child, parent).await;
            }
        }
        Ok(())
    }

    /// The parent's runs that the child has not followed yet, in the order of their ends.
    async fn due(
        &mut self,
        server: &Server,
        child: &Arc<LoadedJob>,
        after: &After,
    ) -> Result<Vec<(Timestamp, RunId)>> {
        let archive = &server.stores.archive;
        let name = &child.job.name;
        let since = self.since(server, name).await?;
        let started = all_runs(archive, Some(name)).await?;
        if !self.cut_off.contains_key(name) {
            let found = cut_off(server, &started).await?;
            self.cut_off.insert(name.clone(), found);
        }
        let cut_off = self.cut_off.get(name);
        let mut started: BTreeSet<RunId> = started.into_iter().map(|run| run.run).collect();
        started.retain(|run| cut_off.is_none_or(|cut_off| !cut_off.contains(run)));
        let mut parents = all_runs(archive, Some(&after.job)).await?;
        parents.retain(|parent| {
            let run = of_child(name, &parent.run);
            let hopeless = self.given_up.get(&run);
            !started.contains(&run.run) && hopeless.is_none_or(|job| !Arc::ptr_eq(job, child))
        });
        self.read_ends(server, &parents).await?;
        let follows = |run: &RunRef| match self.ended.get(run)? {
            (at, End::Good) if *at >= since => Some(*at),
            (at, End::Bad) if *at >= since && after.on_failure => Some(*at),
            _ => None,
        };
        let mut due: Vec<(Timestamp, RunId)> = parents
            .into_iter()
            .filter_map(|run| Some((follows(&run)?, run.run)))
            .collect();
        due.sort();
        Ok(due)
    }

    /// Reads how those ended of which it is not known.
    async fn read_ends(&mut self, server: &Server, runs: &[RunRef]) -> Result<()> {
        let unknown = runs.iter().filter(|run| !self.ended.contains_key(run));
        let unknown: Vec<RunRef> = unknown.cloned().collect();
        let found: Vec<_> = stream::iter(unknown)
            .map(|run| end_of(server, run))
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        self.ended.extend(found.into_iter().flatten());
        Ok(())
    }

    /// When the chain was seen first, by whichever replica; kept in S3.
    async fn since(&mut self, server: &Server, child: &str) -> Result<Timestamp> {
        if let Some(since) = self.since.get(child) {
            return Ok(*since);
        }
        let objects = server.stores.objects();
        let key = layout::chain(server.stores.prefix(), child);
        let body = json!({ "since": server.began }).to_string();
        let since = match objects.put_new(&key, body.into(), &[]).await? {
            PutNew::Created => server.began,
            PutNew::Exists => {
                let object = objects.get(&key).await?;
                let noted = object.and_then(|object| since_in(&object.body));
                noted.unwrap_or(server.began)
            }
        };
        self.since.insert(child.to_owned(), since);
        Ok(since)
    }

    async fn start(&mut self, server: &Server, child: &Arc<LoadedJob>, parent: &RunId) {
        let run = of_child(&child.job.name, parent);
        let ask = Ask {
            job: run.job.clone(),
            run: Some(run.run.clone()),
            parent: Some(parent.clone()),
            ..Ask::default()
        };
        match server.start_run(ask).await {
            Ok(_) => {
                server.gauges.start(&run.job, "started");
                if let Some(cut_off) = self.cut_off.get_mut(&run.job) {
                    cut_off.remove(&run.run);
                }
            }
            Err(error) => {
                tracing::error!(run.id = %run, %parent, "not started after its parent: {error:#}");
                server.gauges.start(&run.job, "failed");
                if hopeless(&error) {
                    self.given_up.insert(run, child.clone());
                }
            }
        }
    }
}

/// The newest runs of a child that were planned and never opened.
async fn cut_off(server: &Server, started: &[RunRef]) -> Result<BTreeSet<RunId>> {
    let mut found = BTreeSet::new();
    for run in started.iter().take(LOOK_BACK) {
        let files = RunFiles::read(&server.stores.archive, run).await?;
        if files.is_some_and(|files| files.is_cut_off()) {
            found.insert(run.run.clone());
        }
    }
    Ok(found)
}

/// The run of `child` that follows `parent`.
fn of_child(child: &str, parent: &RunId) -> RunRef {
    RunRef {
        job: child.to_owned(),
        run: chained_run_id(child, parent),
    }
}

/// When and how a run ended that is not open.
async fn end_of(server: &Server, run: RunRef) -> Result<Option<(RunRef, (Timestamp, End))>> {
    let files = RunFiles::read(&server.stores.archive, &run).await?;
    Ok(files.and_then(|files| {
        let end = end(files.ended()?, files.plan.only.is_empty());
        Some((run, end))
    }))
}

fn end(manifest: &Manifest, whole: bool) -> (Timestamp, End) {
    let end = match manifest.state {
        RunEnd::Completed if whole => End::Good,
        RunEnd::Failed if whole => End::Bad,
        _ => End::Nothing,
    };
    (manifest.finished_at, end)
}

fn since_in(body: &[u8]) -> Option<Timestamp> {
    let noted: serde_json::Value = serde_json::from_slice(body).ok()?;
    noted["since"].as_str()?.parse().ok()
}
