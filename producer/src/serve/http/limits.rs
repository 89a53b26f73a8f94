//! `/api/v1/limits`: the budgets now, and changing them while runs go on, as `producer limits` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use paceline_protocol::spec::{Provider, span};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::problem::{Answer, Problem};
use crate::commands::limits::providers;
use crate::exit::Refusal;
use crate::limits::{budgets, change};
use crate::serve::Server;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/api/v1/limits", get(all))
        .route("/api/v1/limits/{provider}", get(one))
        .route("/api/v1/limits/{provider}/hold", post(hold))
        .route("/api/v1/limits/{provider}/{limit}", put(set).delete(reset))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewValue {
    value: String,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHold {
    #[serde(rename = "for")]
    for_: String,
    #[serde(default)]
    reason: Option<String>,
}

async fn all(State(server): Shared) -> Answer<Json<Value>> {
    let mut shown = Vec::new();
    for provider in known(&server).await?.values() {
        shown.push(budgets(&server.stores.limiter, provider, &server.context.env).await?);
    }
    Ok(Json(json!({ "providers": shown })))
}

async fn one(State(server): Shared, Path(provider): Path<String>) -> Answer<Json<Value>> {
    let provider = named(&server, &provider).await?;
    let shown = budgets(&server.stores.limiter, &provider, &server.context.env).await?;
    Ok(Json(json!(shown)))
}

async fn set(
    State(server): Shared,
    Path((provider, limit)): Path<(String, String)>,
    body: Bytes,
) -> Answer<Json<Value>> {
    let new: NewValue = read(&body)?;
    let provider = with_limit(&server, &provider, &limit).await?;
    let changed = change::set(&server.stores, &provider, &limit, &new.value, new.reason).await;
    changed.map(|changed| Json(json!(changed))).map_err(refused)
}

async fn reset(
    State(server): Shared,
    Path((provider, limit)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let provider = with_limit(&server, &provider, &limit).await?;
    let changed = change::reset(&server.stores, &provider, Some(&limit), None).await;
    changed.map(|changed| Json(json!(changed))).map_err(refused)
}

async fn hold(
    State(server): Shared,
    Path(provider): Path<String>,
    body: Bytes,
) -> Answer<Json<Value>> {
    let new: NewHold = read(&body)?;
    let for_ = span(&new.for_).map_err(|why| Problem::bad(format!("`for`: {why}")))?;
    let provider = named(&server, &provider).await?;
    let changed = change::hold(&server.stores, &provider, for_.0, new.reason).await;
    changed.map(|changed| Json(json!(changed))).map_err(refused)
}

/// The providers of the spec folder's jobs and, as their plans have them, those of the open runs.
async fn known(server: &Server) -> Answer<BTreeMap<String, Provider>> {
    let mut known = BTreeMap::new();
    for job in server.spec.jobs().values() {
        known.extend(job.providers.clone());
    }
    let open = providers(&server.context, &server.stores.archive, None).await?;
    known.extend(open.into_iter().map(|p| (p.name.clone(), p)));
    Ok(known)
}

async fn named(server: &Server, name: &str) -> Answer<Provider> {
    let found = known(server).await?.remove(name);
    found.ok_or_else(|| Problem::missing(format!("there is no provider `{name}`")))
}

async fn with_limit(server: &Server, name: &str, limit: &str) -> Answer<Provider> {
    let provider = named(server, name).await?;
    if provider.limits.iter().any(|known| known.name == limit) {
        return Ok(provider);
    }
    let why = format!("provider `{name}` has no limit `{limit}`");
    Err(Problem::missing(why))
}

fn read<T: for<'d> Deserialize<'d>>(body: &[u8]) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| Problem::bad(format!("the body: {error}")))
}

/// What the command line would refuse is a value that does not fit.
fn refused(error: anyhow::Error) -> Problem {
    if error.is::<Refusal>() {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}"))
    } else {
        error.into()
    }
}
