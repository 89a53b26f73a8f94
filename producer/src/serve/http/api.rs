//! `/api/v1`: runs, jobs and schedules, and the fleet's events as they come by.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event as Said, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{Stream, stream};
use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef, is_name};
use paceline_protocol::layout::RunLayout;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::auth::{Role, Tokens};
use super::problem::Problem;
use crate::commands::{cancel, load, pause, retry};
use crate::plan::estimate::estimate;
use crate::run::{RunFiles, all_runs};
use crate::serve::requests::Request as Asked;
use crate::serve::schedules::calendar;
use crate::serve::{Server, calendar::run_id};
use crate::watch::{Snapshot, snapshot};

/// The largest body.
const LARGEST: usize = 64 << 10;
/// How long a request may take, but for the stream of events.
const LONGEST: Duration = Duration::from_secs(60);
/// The most entries of one page.
const PAGE: usize = 200;

type Answer<T> = Result<T, Problem>;
type Shared = State<Arc<Server>>;

/// Who may ask, beside the server.
#[derive(Clone)]
struct Door(Arc<Tokens>);

/// The API's routes.
pub(super) fn routes(server: Arc<Server>, tokens: Tokens) -> Router {
    Router::new()
        .route("/api/v1/runs", get(runs).post(start))
        .route("/api/v1/runs/{job}/{run}", get(one))
        .route("/api/v1/runs/{job}/{run}/failures", get(failures))
        .route("/api/v1/runs/{job}/{run}/{action}", post(act))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}/plan", get(plan))
        .route("/api/v1/schedules", get(schedules))
        .route("/api/v1/events", get(events))
        .fallback(|| async { Problem::missing("nothing is here") })
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(Door(Arc::new(tokens)), admit))
        .with_state(server)
}

/// Lets in who may; nobody is kept waiting for ever.
async fn admit(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let role = match *request.method() {
        Method::GET | Method::HEAD => Role::Read,
        _ => Role::Run,
    };
    if let Err(problem) = door.0.admit(request.headers(), peer.ip(), role) {
        return problem.into_response();
    }
    match tokio::time::timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "it took too long; what was started goes on",
        )
        .into_response(),
    }
}

#[derive(Deserialize)]
struct Listing {
    job: Option<String>,
    limit: Option<usize>,
}

async fn runs(State(server): Shared, Query(listing): Query<Listing>) -> Answer<Json<Value>> {
    if listing.job.as_deref().is_some_and(|job| !is_name(job)) {
        return Err(Problem::bad("`job` is no job's name"));
    }
    let archive = &server.stores.archive;
    let limit = listing.limit.unwrap_or(50).clamp(1, PAGE);
    let mut found = all_runs(archive, listing.job.as_deref()).await?;
    found.sort_by(|a, b| b.run.cmp(&a.run));
    let more = found.len() > limit;
    let mut lines = Vec::new();
    for run in found.into_iter().take(limit) {
        if let Some(files) = RunFiles::read(archive, &run).await? {
            lines.push(line(&files, &shot(&server, &files).await?));
        }
    }
    Ok(Json(json!({ "runs": lines, "more": more })))
}

async fn start(State(server): Shared, body: Bytes) -> Answer<Response> {
    let ask = Asked::read(&body).map_err(Problem::bad)?;
    let started = {
        let server = server.clone();
        // A client that goes away does not leave a run half published.
        let starting = tokio::spawn(async move { server.start_run(ask).await });
        starting
            .await
            .map_err(|error| Problem::from(anyhow::Error::from(error)))??
    };
    let status = if started.again {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let files = RunFiles::expect(&server.stores.archive, &started.run).await?;
    let shown = line(&files, &shot(&server, &files).await?);
    Ok((status, Json(shown)).into_response())
}

async fn one(
    State(server): Shared,
    Path((job, run)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let files = files(&server, &job, &run).await?;
    let shot = shot(&server, &files).await?;
    Ok(Json(line(&files, &shot)))
}

#[derive(Deserialize)]
struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

/// Failed cells, shard by shard; `next` is the shard after which the next page begins.
async fn failures(
    State(server): Shared,
    Path((job, run)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Answer<Json<Value>> {
    let files = files(&server, &job, &run).await?;
    let layout = RunLayout::new(server.stores.prefix(), &files.plan.run_ref());
    let objects = server.stores.objects();
    let listed = objects
        .list(&layout.all_failures())
        .await
        .map_err(anyhow::Error::from)?;
    let mut shards: Vec<u64> = listed
        .iter()
        .filter_map(|object| {
            let name = object.key.rsplit('/').next()?;
            name.strip_prefix("shard-")?
                .strip_suffix(".ndjson")?
                .parse()
                .ok()
        })
        .collect();
    shards.sort_unstable();
    let limit = page.limit.unwrap_or(50).clamp(1, PAGE);
    let mut rows: Vec<Value> = Vec::new();
    let mut next = None;
    for shard in shards
        .into_iter()
        .filter(|shard| page.after.is_none_or(|after| *shard > after))
    {
        let object = objects
            .get(&layout.failures(shard))
            .await
            .map_err(anyhow::Error::from)?;
        let body = object.map(|object| object.body).unwrap_or_default();
        rows.extend(
            body.split(|b| *b == b'\n')
                .filter_map(|row| serde_json::from_slice(row).ok()),
        );
        if rows.len() >= limit {
            next = Some(shard);
            break;
        }
    }
    Ok(Json(json!({ "failures": rows, "next": next })))
}

async fn act(
    State(server): Shared,
    Path((job, run, action)): Path<(String, String, String)>,
) -> Answer<Json<Value>> {
    let found = files(&server, &job, &run).await?;
    let run = found.plan.run_ref();
    let (context, stores) = (&server.context, &server.stores);
    match action.as_str() {
        "cancel" => drop(cancel::cancel(context, stores, &run).await?),
        "pause" => drop(pause::pause_run(context, stores, &run).await?),
        "resume" => drop(pause::resume_run(context, stores, &run).await?),
        "retry" => drop(retry::retry_run(context, stores, &found).await?),
        _ => {
            return Err(Problem::missing(
                "there are cancel, pause, resume and retry",
            ));
        }
    }
    tracing::info!(run.id = %run, action, "by the API");
    let files = RunFiles::expect(&stores.archive, &run).await?;
    Ok(Json(line(&files, &shot(&server, &files).await?)))
}

async fn jobs(State(server): Shared) -> Json<Value> {
    let jobs = server.spec.jobs();
    let jobs: Vec<Value> = jobs.values().map(|loaded| {
        let job = &loaded.job;
        json!({
            "job": job.name, "provider": job.provider, "endpoint": job.endpoint, "params": job.params,
            "schedule": job.schedule.as_ref().map(|s| json!({"cron": s.cron, "timezone": s.timezone})),
            "after": job.after.as_ref().map(|after| &after.job), "view": job.view,
        })
    }).collect();
    Json(json!({ "jobs": jobs }))
}

async fn plan(State(server): Shared, Path(job): Path<String>) -> Answer<Json<Value>> {
    let Some(loaded) = server.spec.job(&job) else {
        return Err(Problem::missing(format!("there is no job `{job}`")));
    };
    let narrowing = crate::cli::Narrowing::default();
    let planned = load::for_look(&server.context, &server.stores, &loaded, &narrowing).await?;
    let shown = serde_json::to_value(estimate(&planned, &server.context.env));
    Ok(Json(shown.map_err(anyhow::Error::from)?))
}

async fn schedules(State(server): Shared) -> Json<Value> {
    let now = Timestamp::now();
    let jobs = server.spec.jobs();
    let all: Vec<Value> = jobs.values().filter_map(|loaded| {
        let schedule = loaded.job.schedule.as_ref()?;
        let calendar = calendar(loaded).ok()?;
        let next = calendar.next(now);
        Some(json!({
            "job": loaded.job.name, "cron": schedule.cron, "timezone": schedule.timezone,
            "overlap": schedule.overlap, "next": next, "starts": next.map(|p| calendar.start(p)),
            "run": next.map(run_id), "date": next.map(|p| calendar.date(p)),
        }))
    }).collect();
    Json(json!({ "schedules": all }))
}

async fn events(State(server): Shared) -> Sse<impl Stream<Item = Result<Said, Infallible>>> {
    let heard = server.events.subscribe();
    let stop = server.stop.clone();
    let said = stream::unfold((heard, stop), |(mut heard, stop)| async move {
        loop {
            let event = tokio::select! {
                event = heard.recv() => event,
                () = stop.cancelled() => return None,
            };
            match event {
                Ok(event) => {
                    let said = Said::default()
                        .event(&event.topic)
                        .data(event.body.replace(['\r', '\n'], " "));
                    return Some((Ok(said), (heard, stop)));
                }
                // What was missed is seen by asking for the runs.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(said).keep_alive(KeepAlive::default())
}

async fn files(server: &Server, job: &str, run: &str) -> Answer<RunFiles> {
    let id: RunId = run
        .parse()
        .map_err(|error| Problem::bad(format!("{error}")))?;
    if !is_name(job) {
        return Err(Problem::bad(format!("`{job}` is no job's name")));
    }
    let run = RunRef {
        job: job.to_owned(),
        run: id,
    };
    let files = RunFiles::read(&server.stores.archive, &run).await?;
    files.ok_or_else(|| Problem::missing(format!("there is no run {run}")))
}

async fn shot(server: &Server, files: &RunFiles) -> Answer<Snapshot> {
    let stores = &server.stores;
    Ok(snapshot(&stores.state, &stores.limiter, files, &server.context.env).await?)
}

/// A run as `producer status --json` shows it, with its end.
fn line(files: &RunFiles, shot: &Snapshot) -> Value {
    let mut shown = serde_json::to_value(shot).unwrap_or_default();
    shown["planned_at"] = json!(files.plan.planned_at);
    shown["date"] = json!(files.plan.date);
    if let Some(manifest) = files.ended() {
        shown["finished_at"] = json!(manifest.finished_at);
        shown["records"] = json!(manifest.records);
        shown["reasons"] = json!(manifest.reasons);
        shown["notes"] = json!(manifest.notes);
    }
    shown
}
