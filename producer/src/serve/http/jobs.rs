//! `/api/v1/jobs` and `/api/v1/schedules`: what there is to run, and when it starts.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Shared;
use super::problem::{Answer, Problem};
use crate::commands::load;
use crate::plan::estimate::estimate;
use crate::serve::Server;
use crate::serve::calendar::run_id;
use crate::serve::schedules::{calendar, missed};

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}/plan", get(plan))
        .route("/api/v1/schedules", get(schedules))
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
    // Not known while Redis is away.
    let missed = missed(&server).await.ok();
    let all: Vec<Value> = jobs.values().filter_map(|loaded| {
        let schedule = loaded.job.schedule.as_ref()?;
        let calendar = calendar(loaded).ok()?;
        let next = calendar.next(now);
        Some(json!({
            "job": loaded.job.name, "cron": schedule.cron, "timezone": schedule.timezone,
            "overlap": schedule.overlap, "next": next, "starts": next.map(|p| calendar.start(p)),
            "run": next.map(run_id), "date": next.map(|p| calendar.date(p)),
            "missed": missed.as_ref().map(|all| all.get(&loaded.job.name).cloned().unwrap_or_default()),
        }))
    }).collect();
    Json(json!({ "schedules": all }))
}
