//! `/api/v1/runs`: start, list, one, its failures, and what is done to it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{StreamExt, TryStreamExt, stream};
use paceline_protocol::ids::{RunId, RunRef, is_name};
use paceline_protocol::layout::RunLayout;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::{Answer, Problem};
use super::{PAGE, Shared};
use crate::commands::{cancel, pause, retry};
use crate::run::{RunFiles, all_runs, find};
use crate::serve::Server;
use crate::serve::requests::Request as Asked;
use crate::watch::{Snapshot, snapshot};

/// How many runs are read at a time.
const AT_A_TIME: usize = 8;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/v1/runs", get(runs).post(start))
        .route("/api/v1/runs/{run}", get(named))
        .route("/api/v1/runs/{job}/{run}", get(one).post(act_on_named))
        .route("/api/v1/runs/{job}/{run}/failures", get(failures))
        .route("/api/v1/runs/{job}/{run}/{action}", post(act))
}

#[derive(Deserialize)]
struct Listing {
    job: Option<String>,
    limit: Option<usize>,
    /// `<job>/<run>`: the last one of the page before.
    after: Option<String>,
}

/// The runs by id, the highest first, and where the next page begins.
async fn runs(State(server): Shared, Query(listing): Query<Listing>) -> Answer<Json<Value>> {
    if listing.job.as_deref().is_some_and(|job| !is_name(job)) {
        return Err(Problem::bad("`job` is no job's name"));
    }
    let archive = &server.stores.archive;
    let limit = page_size(listing.limit)?;
    let mut found = all_runs(archive, listing.job.as_deref()).await?;
    found.sort_by(|a, b| (&b.run, &a.job).cmp(&(&a.run, &b.job)));
    if let Some(after) = &listing.after {
        let after: RunRef = after
            .parse()
            .map_err(|error| Problem::bad(format!("`after`: {error}")))?;
        found.retain(|run| (&after.run, &run.job) > (&run.run, &after.job));
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(ToString::to_string);
    let lines: Vec<Option<Value>> = stream::iter(found)
        .map(|run| shown(server.clone(), run))
        .buffered(AT_A_TIME)
        .try_collect()
        .await?;
    let lines: Vec<Value> = lines.into_iter().flatten().collect();
    Ok(Json(json!({ "runs": lines, "next": next })))
}

/// A run as it is now; none when it went away since it was listed.
async fn shown(server: Arc<Server>, run: RunRef) -> Answer<Option<Value>> {
    let Some(files) = RunFiles::read(&server.stores.archive, &run).await? else {
        return Ok(None);
    };
    Ok(Some(line(&files, &shot(&server, &files).await?)))
}

/// How many entries are wanted.
fn page_size(limit: Option<usize>) -> Answer<usize> {
    match limit {
        None => Ok(50),
        Some(limit) if (1..=PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::bad(format!("`limit` is 1 to {PAGE}"))),
    }
}

async fn start(State(server): Shared, body: Bytes) -> Answer<Response> {
    let ask = Asked::read(&body).map_err(Problem::bad)?;
    let started = {
        let server = server.clone();
        // A client that goes away does not leave a run half published.
        let starting = tokio::spawn(async move { server.start_run(ask).await });
        starting
            .await
            .map_err(|error| Problem::from(anyhow::Error::from(error)))?
            .map_err(Problem::of_start)?
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

/// A run by its id alone, as the command line takes it.
async fn named(State(server): Shared, Path(run): Path<String>) -> Answer<Json<Value>> {
    let run = found(&server, &run).await?;
    let files = RunFiles::expect(&server.stores.archive, &run).await?;
    let shot = shot(&server, &files).await?;
    Ok(Json(line(&files, &shot)))
}

#[derive(Deserialize)]
struct Page {
    after: Option<String>,
    limit: Option<usize>,
    reason: Option<String>,
}

/// Failed cells in the order of shards, page by page.
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
    let mut shards: Vec<u64> = listed.iter().filter_map(|o| shard_of(&o.key)).collect();
    shards.sort_unstable();
    let after = page.after.as_deref().map(place).transpose()?;
    let limit = page_size(page.limit)?;
    let mut rows: Vec<Value> = Vec::new();
    for shard in shards {
        if after.is_some_and(|(first, _)| shard < first) {
            continue;
        }
        let object = objects
            .get(&layout.failures(shard))
            .await
            .map_err(anyhow::Error::from)?;
        let body = object.map(|object| object.body).unwrap_or_default();
        let lines = body.split(|b| *b == b'\n').enumerate();
        for (number, text) in lines.filter(|(_, text)| !text.is_empty()) {
            if after.is_some_and(|after| (shard, number) <= after) {
                continue;
            }
            let Ok(row) = serde_json::from_slice::<Value>(text) else {
                continue;
            };
            if page
                .reason
                .as_ref()
                .is_some_and(|wanted| row["reason"] != **wanted)
            {
                continue;
            }
            rows.push(row);
            if rows.len() == limit {
                let next = format!("{shard}:{number}");
                return Ok(Json(json!({ "failures": rows, "next": next })));
            }
        }
    }
    Ok(Json(json!({ "failures": rows, "next": null })))
}

fn shard_of(key: &str) -> Option<u64> {
    let name = key.rsplit('/').next()?.strip_prefix("shard-")?;
    name.strip_suffix(".ndjson")?.parse().ok()
}

/// Where a page begins: after this line of this shard.
fn place(text: &str) -> Answer<(u64, usize)> {
    let place = text
        .split_once(':')
        .and_then(|(shard, line)| Some((shard.parse().ok()?, line.parse().ok()?)));
    place.ok_or_else(|| Problem::bad("`after` is not the `next` of a page before"))
}

/// The same by the run's id alone.
async fn act_on_named(
    server: Shared,
    Path((run, action)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let run = found(&server.0, &run).await?;
    let path = (run.job, run.run.to_string(), action);
    act(server, Path(path)).await
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

/// The run of an id alone.
async fn found(server: &Server, id: &str) -> Answer<RunRef> {
    Ok(find(&server.stores.archive, &run_id(id)?.to_string()).await?)
}

fn run_id(text: &str) -> Answer<RunId> {
    let id = text.parse();
    id.map_err(|error| Problem::bad(format!("{error}")))
}

async fn files(server: &Server, job: &str, run: &str) -> Answer<RunFiles> {
    let id = run_id(run)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_where_the_one_before_ended() {
        assert_eq!(place("3:17").ok(), Some((3, 17)));
        assert!(place("3").is_err() && place("a:1").is_err());
        assert_eq!(shard_of("p/j/r/failures/shard-12.ndjson"), Some(12));
        assert_eq!(shard_of("p/j/r/failures/documents-1.ndjson"), None);
    }
}
