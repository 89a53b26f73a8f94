//! What the page shows of all runs, kept in memory: open runs are looked at every two seconds, whoever looks at
//! the page; ended ones are read once. So a page costs no server more, and stays when one is away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::lanes::{LaneChoice, is_taken};
use paceline_protocol::stores::state::OpenRun;

use super::cause::cause;
use super::timeline::Timeline;
use super::verdict::{By, Facts, verdict};
use crate::limits::limiter_name;
use crate::run::{RunFiles, StateWord, all_runs, open_entries, open_runs};
use crate::serve::Server;
use crate::watch::{RateMeter, Snapshot, snapshot};

/// How often open runs are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often the list of all runs is asked for without an event.
const LIST: Duration = Duration::from_secs(15);
/// How long S3 may take to say which runs are open.
const PATIENCE: Duration = Duration::from_secs(10);
/// Runs read at a time.
const AT_A_TIME: usize = 8;
/// Ended runs remembered, the newest of each job first.
const REMEMBERED: usize = 2_000;

/// A run that goes, as it was seen last.
#[derive(Clone)]
pub(super) struct Going {
    pub(super) files: Arc<RunFiles>,
    pub(super) shot: Snapshot,
    /// Calls a second.
    pub(super) speed: Option<f64>,
    /// Cells that end in a second.
    pub(super) cells_per_s: Option<f64>,
    /// Who holds it back, and how that is said.
    pub(super) by: By,
    pub(super) because: String,
    /// A lane with work that no running worker takes.
    untaken: Option<String>,
    pub(super) timeline: Timeline,
}

/// A run that has ended, or was planned alone.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) run: RunRef,
    pub(super) state: StateWord,
    pub(super) planned_at: Timestamp,
    pub(super) finished_at: Option<Timestamp>,
    pub(super) cells: u64,
    pub(super) succeeded: u64,
    pub(super) empty: u64,
    pub(super) failed: u64,
    pub(super) records: u64,
    pub(super) cause: String,
    pub(super) note: Option<String>,
}

/// What was seen.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) at: Option<Timestamp>,
    /// Why it is not seen now.
    away: Option<String>,
    /// Why the ended ones are not read now.
    unread: Option<String>,
    /// Why the fleet is not measured now.
    unmeasured: Option<String>,
    pub(super) going: Vec<Arc<Going>>,
    pub(super) ended: Arc<BTreeMap<RunRef, Arc<Ended>>>,
    /// Whether the ended ones were all read once.
    pub(super) listed: bool,
}

impl Seen {
    /// Why what is shown may be old.
    pub(super) fn away(&self) -> Option<&str> {
        let reasons = [&self.away, &self.unread, &self.unmeasured];
        reasons.into_iter().find_map(|why| why.as_deref())
    }
}

/// What was seen last.
#[derive(Default)]
pub(super) struct Board(RwLock<Seen>);

impl Board {
    /// A copy of it.
    pub(super) fn seen(&self) -> Seen {
        self.0.read().map(|seen| seen.clone()).unwrap_or_default()
    }

    fn change(&self, with: impl FnOnce(&mut Seen)) {
        if let Ok(mut seen) = self.0.write() {
            with(&mut seen);
        }
    }
}

/// An open run under watch.
struct Watched {
    files: Arc<RunFiles>,
    calls: RateMeter,
    cells: RateMeter,
    began: Instant,
    timeline: Timeline,
}

/// Looks at the open runs until the process stops.
pub(super) async fn keep_looking(server: Arc<Server>, board: Arc<Board>) {
    let mut watched = BTreeMap::new();
    loop {
        match look(&server, &mut watched).await {
            Ok(going) => board.change(|seen| {
                (seen.at, seen.away) = (Some(Timestamp::now()), None);
                seen.going = going;
            }),
            Err(error) => board.change(|seen| seen.away = Some(format!("{error:#}"))),
        }
        board.change(|seen| seen.unmeasured = server.away());
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = server.stop.cancelled() => return,
        }
    }
}

async fn look(server: &Server, watched: &mut BTreeMap<RunRef, Watched>) -> Result<Vec<Arc<Going>>> {
    let entries = entries(server).await?;
    let takers = server.stores.state.takers().await?;
    watched.retain(|run, _| entries.iter().any(|entry| entry.run == *run));
    let mut seen = Vec::new();
    for entry in entries {
        if let Some(one) = look_at(server, watched, &takers, entry).await? {
            seen.push(one);
        }
    }
    let facts: Vec<(BTreeSet<String>, Option<f64>)> = seen
        .iter()
        .map(|one| (providers(&one.files), one.speed))
        .collect();
    let mut going: Vec<Arc<Going>> = seen
        .into_iter()
        .enumerate()
        .map(|(place, one)| Arc::new(judged(one, place, &facts)))
        .collect();
    going.sort_by_key(|one| std::cmp::Reverse(one.files.plan.planned_at));
    Ok(going)
}

/// The open runs by the registry, or by S3 where that was lost.
async fn entries(server: &Server) -> Result<Vec<OpenRun>> {
    if let Some(entries) = server.stores.state.open_runs().await? {
        return Ok(entries);
    }
    open_entries(&server.stores.archive).await
}

async fn look_at(
    server: &Server,
    watched: &mut BTreeMap<RunRef, Watched>,
    takers: &[LaneChoice],
    entry: OpenRun,
) -> Result<Option<Going>> {
    let stores = &server.stores;
    let run = entry.run.clone();
    if !watched.contains_key(&run) {
        let Some(files) = RunFiles::read(&stores.archive, &run).await? else {
            return Ok(None);
        };
        let new = Watched {
            files: Arc::new(files),
            calls: RateMeter::default(),
            cells: RateMeter::default(),
            began: Instant::now(),
            timeline: Timeline::default(),
        };
        watched.insert(run.clone(), new);
    }
    let Some(one) = watched.get_mut(&run) else {
        return Ok(None);
    };
    if one.files.open.as_ref() != Some(&entry) {
        let mut files = (*one.files).clone();
        files.open = Some(entry);
        one.files = Arc::new(files);
    }
    let mut shot = snapshot(
        &stores.state,
        &stores.limiter,
        &one.files,
        &server.context.env,
    )
    .await?;
    let untaken = untaken(server, takers, &one.files, &shot).await;
    let now = one.began.elapsed();
    one.calls.note(now, shot.calls);
    one.cells.note(now, shot.cells.saturating_sub(shot.left));
    if let Some(cells) = one.cells.per_second().filter(|cells| *cells > 0.0) {
        shot.expect(Some(cells));
    }
    let speed = one.calls.per_second();
    if let Some(speed) = speed {
        one.timeline.note(Timestamp::now(), speed);
    }
    Ok(Some(Going {
        files: one.files.clone(),
        shot,
        speed,
        cells_per_s: one.cells.per_second(),
        by: By::Waiting,
        because: String::new(),
        untaken,
        timeline: one.timeline.clone(),
    }))
}

/// A lane of the run that has shards waiting and no worker. Without the broker nothing is said.
async fn untaken(
    server: &Server,
    takers: &[LaneChoice],
    files: &RunFiles,
    shot: &Snapshot,
) -> Option<String> {
    let open = files.open.as_ref()?;
    let collects = matches!(shot.state, StateWord::Queued | StateWord::Running);
    let untaken = |lane: &&String| collects && !is_taken(lane, takers);
    for lane in open.lanes.iter().filter(untaken) {
        let waiting = server.stores.publisher.depth(lane, &open.run).await;
        if waiting.is_ok_and(|waiting| waiting.unwrap_or(0) > 0) {
            return Some(lane.clone());
        }
    }
    None
}

/// Says what holds the run at `place` back, beside all the others.
fn judged(mut one: Going, place: usize, all: &[(BTreeSet<String>, Option<f64>)]) -> Going {
    let (ours, _) = &all[place];
    let beside = |(other, (theirs, _)): &(usize, &(BTreeSet<String>, Option<f64>))| {
        *other != place && !theirs.is_disjoint(ours)
    };
    let others: Vec<_> = all.iter().enumerate().filter(beside).collect();
    let theirs: f64 = others.iter().filter_map(|(_, (_, speed))| *speed).sum();
    let facts = Facts {
        state: one.shot.state,
        reason: one
            .files
            .open
            .as_ref()
            .and_then(|open| open.reason.as_deref()),
        binds: one.shot.binds.as_deref(),
        speed: one.speed,
        together: one.speed.map(|speed| speed + theirs),
        allowed: one.shot.allowed_per_s,
        others: others.len(),
        granted: one.shot.calls,
        untaken: one.untaken.as_deref(),
    };
    let (by, because) = verdict(&facts);
    (one.by, one.because) = (by, because);
    one
}

fn providers(files: &RunFiles) -> BTreeSet<String> {
    let providers = files.plan.providers.values();
    providers.map(limiter_name).collect()
}

/// Keeps the list of ended runs until the process stops.
pub(super) async fn keep_listing(server: Arc<Server>, board: Arc<Board>) {
    let mut events = server.events.subscribe();
    let mut known: BTreeMap<RunRef, Arc<Ended>> = BTreeMap::new();
    loop {
        if let Err(error) = list(&server, &board, &mut known).await {
            board.change(|seen| seen.unread = Some(format!("{error:#}")));
        }
        tokio::select! {
            () = tokio::time::sleep(LIST) => {}
            _ = events.recv() => {
                // One event seldom comes alone.
                tokio::time::sleep(Duration::from_millis(300)).await;
                events = server.events.subscribe();
            }
            () = server.stop.cancelled() => return,
        }
    }
}

async fn list(
    server: &Server,
    board: &Board,
    known: &mut BTreeMap<RunRef, Arc<Ended>>,
) -> Result<()> {
    let archive = &server.stores.archive;
    // S3 is asked again for a minute; whoever looks at the page learns sooner that it is away.
    let open = tokio::time::timeout(PATIENCE, open_runs(archive)).await;
    let open = open.context("S3 does not answer")??;
    let open: BTreeSet<RunRef> = open.into_iter().collect();
    let mut all = all_runs(archive, None).await?;
    all.sort_by(|a, b| b.run.cmp(&a.run));
    all.truncate(REMEMBERED);
    let there: BTreeSet<&RunRef> = all.iter().collect();
    // A retry's run is read again when it ends; a planned one may have been enqueued.
    known.retain(|run, ended| {
        there.contains(run) && !open.contains(run) && ended.finished_at.is_some()
    });
    let unknown: Vec<RunRef> = all
        .into_iter()
        .filter(|run| !open.contains(run) && !known.contains_key(run))
        .collect();
    let mut reading = stream::iter(unknown)
        .map(|run| async move {
            RunFiles::read(archive, &run)
                .await
                .map(|files| (run, files))
        })
        .buffer_unordered(AT_A_TIME);
    let mut shown = Instant::now();
    while let Some(read) = reading.next().await {
        // A run that cannot be read must not hide the others.
        let Ok((run, Some(files))) = read else {
            continue;
        };
        if let Some(ended) = ended(&run, &files) {
            known.insert(run, Arc::new(ended));
        }
        if shown.elapsed() > LOOK {
            board.change(|seen| seen.ended = Arc::new(known.clone()));
            shown = Instant::now();
        }
    }
    board.change(|seen| {
        seen.ended = Arc::new(known.clone());
        (seen.listed, seen.unread) = (true, None);
    });
    Ok(())
}

/// `None` for one that is open by now.
fn ended(run: &RunRef, files: &RunFiles) -> Option<Ended> {
    if files.open.is_some() {
        return None;
    }
    let plan = &files.plan;
    let manifest = files.manifest.as_ref();
    Some(Ended {
        run: run.clone(),
        state: files.state(&Default::default()),
        planned_at: plan.planned_at,
        finished_at: manifest.map(|manifest| manifest.finished_at),
        cells: plan.cells(),
        succeeded: manifest.map_or(0, |manifest| manifest.succeeded),
        empty: manifest.map_or(0, |manifest| manifest.empty),
        failed: manifest.map_or(0, |manifest| manifest.failed),
        records: manifest.map_or(0, |manifest| manifest.records),
        cause: cause(plan),
        note: manifest.and_then(|manifest| manifest.notes.first().cloned()),
    })
}
