//! `/api/v1/runs`: start, list, one, its failures, and what is done to it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use paceline_protocol::ids::{RunId, RunRef, is_name};
use paceline_protocol::layout::RunLayout;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::{PAGE, Shared};
use crate::commands::{cancel, pause, retry};
use crate::run::{RunFiles, all_runs};
use crate::serve::Server;
use crate::serve::requests::Request as Asked;
use crate::watch::{Snapshot, snapshot};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/v1/runs", get(runs).post(start))
        .route("/api/v1/runs/{job}/{run}", get(one))
        .route("/api/v1/runs/{job}/{run}/failures", get(failures))
        .route("/api/v1/runs/{job}/{run}/{action}", post(act))
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
