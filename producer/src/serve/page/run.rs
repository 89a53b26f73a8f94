//! One run: how far it is, its speed over time, its shards, its failures, what may be done with it; when it has
//! ended what it came to and what the ledger proves.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use paceline_protocol::ids::{RunId, RunRef, is_name};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::{Manifest, RunEnd};
use paceline_protocol::plan::Plan;
use serde::Deserialize;

use super::audits::Audit;
use super::board::Going;
use super::ended::Closed;
use super::failures::{Failures, Reason};
use super::grid::{self, Grid};
use super::html::{Head, Trouble, moment, page};
use super::runs::{Card, head, percent, sign};
use super::timeline::Drawing;
use super::{Page, Shared, Who};
use crate::audit::Audited;
use crate::commands::{cancel, pause, retry};
use crate::limits::pace;
use crate::run::{RunFiles, StateWord};
use crate::show;
use crate::watch::{Snapshot, snapshot};

/// Values of `progress_by` that are shown.
const VALUES: usize = 200;

/// One line of the progress by a dimension.
struct Value {
    name: String,
    cells: String,
    done: String,
    percent: String,
    failed: u64,
}

/// What an ended run came to.
struct Came {
    finished: String,
    took: String,
    good: String,
    cells: String,
    succeeded: String,
    empty: String,
    failed: String,
    records: String,
    documents: String,
    sets: Vec<(String, String)>,
    truncated: u64,
    missing: u64,
    gone: u64,
    rejected: u64,
    notes: Vec<String>,
}

/// One limit of the audit.
struct Proof {
    limit: String,
    scope: String,
    window: String,
    allowed: String,
    worst: String,
    used: String,
    passed: bool,
}

/// The audit as it is shown.
struct Proved {
    calls: String,
    refused: u64,
    repeated: u64,
    passed: bool,
    limits: Vec<Proof>,
    /// What stands there instead.
    instead: Option<String>,
}

#[derive(Template)]
#[template(path = "run.html")]
struct One {
    head: Head,
    job: String,
    run: String,
    state: &'static str,
    sign: &'static str,
    card: Option<Card>,
    came: Option<Came>,
    proved: Option<Proved>,
    drawing: Option<Drawing>,
    allowed: Option<String>,
    grid: Option<Grid>,
    shards: String,
    reasons: Vec<Reason>,
    /// The counts are of some of the failures.
    some: bool,
    progress_by: String,
    values: Vec<Value>,
    more_values: usize,
    cause: String,
    planned: String,
    date: String,
    only: Vec<(String, String)>,
    params: Vec<(String, String)>,
    may_run: bool,
    can_pause: bool,
    can_resume: bool,
    can_cancel: bool,
    can_retry: bool,
}

#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    did: String,
}

/// One run.
pub(super) async fn one(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path((job, run)): Path<(String, String)>,
    Query(told): Query<Told>,
) -> Result<Response, Trouble> {
    let run = named(&job, &run)?;
    let seen = shared.board.seen();
    let going = seen
        .going
        .iter()
        .find(|going| going.files.plan.run_ref() == run);
    let failures = shared.failures.of(&shared.server, &run).await;
    let failures = failures.unwrap_or_default();
    let mut head = head("runs", &who, &seen);
    head.told = done_word(&told.did).map(str::to_owned);
    let template = match going {
        Some(going) => of_open(&shared, head, &who, going, &failures).await,
        None => {
            let closed = shared.lately.of(&shared.server, &seen, &run).await?;
            let closed =
                closed.ok_or_else(|| Trouble::missing(format!("there is no run {run}")))?;
            of_ended(&shared, head, &who, &closed, &failures).await
        }
    };
    Ok(page(StatusCode::OK, &template))
}

fn done_word(did: &str) -> Option<&'static str> {
    match did {
        "start" => Some("The run is started."),
        "cancel" => Some("The run is cancelled; what was collected stays."),
        "pause" => Some("The run is paused; calls in flight still end."),
        "resume" => Some("The run goes on."),
        "retry" => Some("What failed or never came is sent again."),
        "nothing" => Some("Nothing failed and nothing is missing: there was nothing to send."),
        _ => None,
    }
}

async fn of_open(page: &Page, head: Head, who: &Who, going: &Going, failures: &Failures) -> One {
    let (shot, plan) = (&going.shot, &going.files.plan);
    // Without Redis the rest of the page is still true.
    let bits = page.server.stores.state.bits(&plan.run_ref()).await.ok();
    let grid =
        bits.map(|(settled, loaded)| grid::of_open(plan, &settled, &loaded, &failures.shards));
    let mut one = blank(head, who, plan, shot.state, grid);
    one.card = Some(Card::new(going));
    // Paused, or with something closed that a person may open.
    one.can_resume &= shot.state == StateWord::Paused || shot.closed_s + shot.part_closed_s > 0;
    one.allowed = shot.allowed_per_s.map(show::rate);
    one.drawing = going.timeline.drawn(shot.allowed_per_s);
    one.reasons = failures.reasons.clone();
    one.some = failures.some;
    one.take_progress(plan, shot);
    one
}

async fn of_ended(page: &Page, head: Head, who: &Who, closed: &Closed, failures: &Failures) -> One {
    let files = &closed.files;
    let plan = &files.plan;
    let manifest = files.manifest.as_ref();
    let grid = manifest.map(|_| grid::of_ended(plan, &closed.covered, &failures.shards));
    let mut one = blank(head, who, plan, files.state(&Default::default()), grid);
    one.came = manifest.map(|manifest| came(plan, manifest));
    one.reasons = counted(failures, manifest);
    let audit = page.audits.of(&page.server, files);
    if let Some(Audit::Done(report)) = &audit {
        let allowed = pace(plan).map(|pace| pace.calls_per_second);
        one.allowed = allowed.map(show::rate);
        one.drawing = Drawing::of_run(report.timeline.speeds(), allowed);
    }
    one.proved = audit.map(proved);
    one.can_retry &= manifest.is_none_or(something_is_left);
    // Redis may have forgotten it, or be away.
    let (stores, env) = (&page.server.stores, &page.server.context.env);
    if let Ok(shot) = snapshot(&stores.state, &stores.limiter, files, env).await {
        one.take_progress(plan, &shot);
    }
    one
}

/// Whether a retry would send anything, or end the run otherwise than it ended.
fn something_is_left(manifest: &Manifest) -> bool {
    manifest.failed > 0 || manifest.state != RunEnd::Completed
}

fn blank(head: Head, who: &Who, plan: &Plan, state: StateWord, grid: Option<Grid>) -> One {
    let pairs = plan
        .job
        .params
        .iter()
        .map(|(name, value)| (name.clone(), plain(value)));
    let only = plan
        .only
        .iter()
        .map(|(name, values)| (name.clone(), values.join(", ")));
    One {
        head,
        job: plan.job.name.clone(),
        run: plan.run.to_string(),
        state: state.as_str(),
        sign: sign(state),
        card: None,
        came: None,
        proved: None,
        drawing: None,
        allowed: None,
        grid,
        shards: show::count(plan.shards()),
        reasons: Vec::new(),
        some: false,
        progress_by: String::new(),
        values: Vec::new(),
        more_values: 0,
        cause: super::cause::cause(plan),
        planned: moment(plan.planned_at),
        date: plan.date.to_string(),
        only: only.collect(),
        params: pairs.collect(),
        may_run: who.may_run(),
        can_pause: matches!(
            state,
            StateWord::Queued | StateWord::Running | StateWord::Finishing
        ),
        can_resume: matches!(
            state,
            StateWord::Paused | StateWord::Queued | StateWord::Running
        ),
        can_cancel: !matches!(
            state,
            StateWord::Completed | StateWord::Failed | StateWord::Cancelled
        ),
        can_retry: matches!(
            state,
            StateWord::Completed | StateWord::Failed | StateWord::Cancelled
        ),
    }
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

impl One {
    fn take_progress(&mut self, plan: &Plan, shot: &Snapshot) {
        let rows = shot.progress.iter().map(|(name, counts)| {
            let done = counts.succeeded + counts.empty + counts.failed;
            (name.clone(), counts.cells, done, counts.failed)
        });
        let rows: Vec<_> = rows.collect();
        // Of a run that Redis has forgotten there are no counts by value.
        if rows.iter().any(|(_, _, done, _)| *done > 0) || shot.done() == 0 {
            self.take_values(plan, rows);
        }
    }

    /// The values that are furthest behind first.
    fn take_values(&mut self, plan: &Plan, mut rows: Vec<(String, u64, u64, u64)>) {
        self.progress_by = plan.job.progress_by.clone().unwrap_or_default();
        rows.sort_by(|a, b| {
            let share = |row: &(String, u64, u64, u64)| row.2 as f64 / row.1.max(1) as f64;
            share(a).total_cmp(&share(b)).then_with(|| a.0.cmp(&b.0))
        });
        self.more_values = rows.len().saturating_sub(VALUES);
        let values = rows
            .into_iter()
            .take(VALUES)
            .map(|(name, cells, done, failed)| Value {
                name,
                percent: percent(done, cells),
                cells: show::count(cells),
                done: show::count(done),
                failed,
            });
        self.values = values.collect();
    }
}

/// The manifest knows all numbers, the objects have the examples.
fn counted(failures: &Failures, manifest: Option<&Manifest>) -> Vec<Reason> {
    let Some(manifest) = manifest.filter(|manifest| !manifest.reasons.is_empty()) else {
        return failures.reasons.clone();
    };
    let example = |reason: &str| {
        let found = failures.reasons.iter().find(|found| found.reason == reason);
        found.map(|found| found.example.clone()).unwrap_or_default()
    };
    let mut reasons: Vec<Reason> = manifest
        .reasons
        .iter()
        .map(|(reason, cells)| Reason {
            reason: reason.clone(),
            cells: *cells,
            example: example(reason),
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.cells));
    reasons
}

fn came(plan: &Plan, manifest: &Manifest) -> Came {
    let took = manifest.finished_at.duration_since(plan.planned_at);
    let good = manifest.succeeded + manifest.empty;
    Came {
        finished: moment(manifest.finished_at),
        took: show::span(took.try_into().unwrap_or_default()),
        good: show::share(good as f64 / manifest.cells.max(1) as f64),
        cells: show::count(manifest.cells),
        succeeded: show::count(manifest.succeeded),
        empty: show::count(manifest.empty),
        failed: show::count(manifest.failed),
        records: show::count(manifest.records),
        documents: show::count(manifest.documents),
        sets: manifest
            .sets
            .iter()
            .take(50)
            .map(|(name, n)| (name.clone(), show::count(*n)))
            .collect(),
        truncated: manifest.truncated,
        missing: manifest.missing,
        gone: manifest.gone,
        rejected: manifest.rejected,
        notes: manifest.notes.clone(),
    }
}

fn proved(audit: Audit) -> Proved {
    let report = match audit {
        Audit::Done(report) => report,
        Audit::Pending => return instead("the ledger is being read"),
        Audit::None(why) => return instead(&why),
    };
    Proved {
        calls: show::count(report.calls),
        refused: report.refused,
        repeated: report.repeated,
        passed: report.passed(),
        limits: report.limits.iter().map(proof).collect(),
        instead: None,
    }
}

fn instead(why: &str) -> Proved {
    Proved {
        calls: String::new(),
        refused: 0,
        repeated: 0,
        passed: false,
        limits: Vec::new(),
        instead: Some(why.to_owned()),
    }
}

fn proof(limit: &Audited) -> Proof {
    let window = match limit.window_s {
        0.0 => "in flight".into(),
        seconds => show::span(std::time::Duration::from_secs_f64(seconds)),
    };
    Proof {
        limit: format!("{}/{}", limit.provider, limit.limit),
        scope: limit.scope.clone(),
        window,
        allowed: show::count(limit.allowed),
        worst: show::count(limit.worst),
        used: show::share(limit.used_share),
        passed: limit.passed(),
    }
}

/// Does what a button asks for, then shows the run.
pub(super) async fn act(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path((job, run, action)): Path<(String, String, String)>,
) -> Result<Response, Trouble> {
    let run = named(&job, &run)?;
    let files = found(&shared, &run).await?;
    let (context, stores) = (&shared.server.context, &shared.server.stores);
    let mut did = action.as_str();
    match did {
        "cancel" => drop(cancel::cancel(context, stores, &run).await?),
        "pause" => drop(pause::pause_run(context, stores, &run).await?),
        "resume" => drop(pause::resume_run(context, stores, &run).await?),
        "retry" => {
            if !retry::retry_run(context, stores, &files).await? {
                did = "nothing";
            }
        }
        _ => {
            return Err(Trouble::missing(
                "there are cancel, pause, resume and retry",
            ));
        }
    }
    tracing::info!(run.id = %run, action, who = who.name, "by the page");
    Ok(Redirect::to(&format!("/runs/{}/{}?did={did}", run.job, run.run)).into_response())
}

/// `plan.json` or `manifest.json` as it lies in S3.
pub(super) async fn file(
    State(shared): Shared,
    Path((job, run, name)): Path<(String, String, String)>,
) -> Result<Response, Trouble> {
    let run = named(&job, &run)?;
    let layout = RunLayout::new(shared.server.stores.prefix(), &run);
    let key = match name.as_str() {
        "plan.json" => layout.plan(),
        "manifest.json" => layout.manifest(),
        _ => return Err(Trouble::missing("there are plan.json and manifest.json")),
    };
    let object = shared.server.stores.objects().get(&key).await;
    let object = object.map_err(anyhow::Error::from)?;
    let object = object.ok_or_else(|| Trouble::missing(format!("{run} has no {name}")))?;
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, object.body).into_response())
}

fn named(job: &str, run: &str) -> Result<RunRef, Trouble> {
    let id: RunId = run
        .parse()
        .map_err(|error| Trouble::bad(format!("{error}")))?;
    if !is_name(job) {
        return Err(Trouble::bad(format!("`{job}` is no job's name")));
    }
    Ok(RunRef {
        job: job.to_owned(),
        run: id,
    })
}

async fn found(page: &Page, run: &RunRef) -> Result<RunFiles, Trouble> {
    let files = RunFiles::read(&page.server.stores.archive, run).await?;
    files.ok_or_else(|| Trouble::missing(format!("there is no run {run}")))
}
