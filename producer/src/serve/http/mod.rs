//! What `--listen` serves: metrics and probes for everybody, the API for whoever has a token (or, without
//! tokens, for this machine alone).

pub(super) mod auth;
pub(super) mod door;
mod events;
mod hooks;
mod jobs;
mod limits;
mod openapi;
pub(super) mod problem;
mod runs;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use paceline_protocol::listen;
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;

use self::auth::Tokens;
use self::problem::Problem;
use super::Server;

/// The most entries of one answer.
const PAGE: usize = 200;

/// What every handler gets.
type Shared = State<Arc<Server>>;

/// How long requests that are under way may take when the process stops.
const LAST: Duration = Duration::from_secs(10);

/// Takes the address; nothing listens without one.
pub(super) async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; --listen takes HOST:PORT"))?;
    crate::terminal::tell(format_args!(
        "listening on http://{} (the page, /api/v1, /metrics, /healthz, /readyz)",
        listener.local_addr()?
    ));
    Ok(Some(listener))
}

/// Serves until the process stops.
pub(super) async fn serve(server: Arc<Server>, tokens: Tokens, listener: TcpListener) {
    let stop = server.stop.clone();
    let tokens = Arc::new(tokens);
    let page = match super::page::routes(server.clone(), tokens.clone()) {
        Ok(page) => page,
        Err(error) => return tracing::error!("the HTTP server cannot begin: {error:#}"),
    };
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(server.clone())
        .merge(page)
        .merge(api(tokens).with_state(server));
    listen::serve(listener, app, stop.cancelled_owned(), LAST).await;
}

/// The API. A route is one of the modules' `routes`; what a caller must be is decided in [`door`].
fn api(tokens: Arc<Tokens>) -> Router<Arc<Server>> {
    Router::new()
        .merge(runs::routes())
        .merge(jobs::routes())
        .merge(limits::routes())
        .merge(views::routes())
        .merge(openapi::routes())
        .merge(hooks::routes())
        .merge(events::routes())
        .fallback(|| async { Problem::missing("nothing is here") })
        .layer(DefaultBodyLimit::max(door::LARGEST))
        .layer(from_fn_with_state(tokens, door::admit))
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let encoder = TextEncoder::new();
    let mut body = Vec::new();
    match encoder.encode(&server.gauges.gather(), &mut body) {
        Ok(()) => {
            let kind = [(header::CONTENT_TYPE, encoder.format_type().to_owned())];
            (kind, body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(server): State<Arc<Server>>) -> (StatusCode, &'static str) {
    if server.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if server.gauges.ready.get() == 1 {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the servers\n")
    }
}
