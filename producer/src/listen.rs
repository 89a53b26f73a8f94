//! `/metrics`, `/healthz` and `/readyz` of a producer that watches a run, only where `--listen` asks for them.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use paceline_protocol::listen;
use paceline_protocol::metrics::{Registrar, gauge};
use prometheus::{Encoder as _, GaugeVec, IntGaugeVec, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::watch::{QuotaLeft, Snapshot};

/// Gauges of one run, and the server that shows them; it stops when dropped.
pub struct Listening {
    shown: Arc<Shown>,
    _server: AbortOnDropHandle<()>,
}

/// What the server's routes share.
struct Shown {
    registry: Registry,
    /// Whether the servers answered when they were asked last.
    ready: AtomicBool,
    /// Shards by job and state (`open`, `loaded`).
    shards: IntGaugeVec,
    /// Share of cells that have ended.
    progress: GaugeVec,
    /// Seconds to the run's end.
    eta: IntGaugeVec,
    /// Calls left in a quota's window, over all keys.
    quota: IntGaugeVec,
}

impl Listening {
    /// Listens where `--listen` says; `None` without it.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(address: Option<SocketAddr>) -> Result<Option<Self>> {
        let Some(address) = address else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; --listen takes HOST:PORT"))?;
        crate::terminal::tell(format_args!(
            "listening on http://{} (/metrics, /healthz, /readyz)",
            listener.local_addr()?
        ));
        let shown = Arc::new(Shown::new()?);
        let served = listen::serve(listener, routes(shown.clone()), pending(), Duration::ZERO);
        let server = tokio::spawn(served);
        Ok(Some(Listening {
            shown,
            _server: AbortOnDropHandle::new(server),
        }))
    }

    /// Shows a snapshot and what is left of the quotas.
    pub fn show(&self, shot: &Snapshot, quotas: &[QuotaLeft]) {
        self.shown.show(shot, quotas);
        self.shown.ready.store(true, Ordering::Relaxed);
    }

    /// A server is away: what is shown is old.
    pub fn away(&self) {
        self.shown.ready.store(false, Ordering::Relaxed);
    }
}

impl Shown {
    fn new() -> prometheus::Result<Self> {
        let mut r = Registrar::new(env!("PACELINE_VERSION"))?;
        Ok(Shown {
            shards: r.gauges(
                "shards",
                "Shards of the run by state: open, loaded.",
                &["job", "state"],
            )?,
            progress: r.fractions(
                "run_progress_ratio",
                "Share of the run's cells that have ended.",
                &["job"],
            )?,
            eta: r.gauges("run_eta_seconds", "Seconds to the run's end.", &["job"])?,
            quota: r.gauges(
                "quota_remaining",
                "Calls left in the window, over all keys that this process can see.",
                &["provider", "limit"],
            )?,
            ready: AtomicBool::new(false),
            registry: r.registry,
        })
    }

    fn show(&self, shot: &Snapshot, quotas: &[QuotaLeft]) {
        let job = shot.job.as_str();
        let open = shot.shards.saturating_sub(shot.shards_loaded);
        for (state, count) in [("open", open), ("loaded", shot.shards_loaded)] {
            self.shards
                .with_label_values(&[job, state])
                .set(gauge(count));
        }
        let share = shot.done() as f64 / shot.cells.max(1) as f64;
        self.progress.with_label_values(&[job]).set(share);
        if let Some(eta) = shot.eta_s {
            self.eta.with_label_values(&[job]).set(gauge(eta));
        }
        for left in quotas {
            let labels = [left.provider.as_str(), left.limit.as_str()];
            self.quota
                .with_label_values(&labels)
                .set(gauge(left.remaining));
        }
    }
}

fn routes(shown: Arc<Shown>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/readyz", get(ready))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(shown)
}

async fn metrics(State(shown): State<Arc<Shown>>) -> Response {
    let encoder = TextEncoder::new();
    let mut body = Vec::new();
    match encoder.encode(&shown.registry.gather(), &mut body) {
        Ok(()) => {
            let kind = [(header::CONTENT_TYPE, encoder.format_type().to_owned())];
            (kind, body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(shown): State<Arc<Shown>>) -> (StatusCode, &'static str) {
    if shown.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "waiting for the servers\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_shown() {
        let shown = Shown::new().expect("names are unique");
        let quota = QuotaLeft {
            provider: "fare-search".into(),
            limit: "day".into(),
            remaining: 24_949,
        };
        shown.show(&Snapshot::example(), &[quota]);
        let text = TextEncoder::new()
            .encode_to_string(&shown.registry.gather())
            .expect("text");
        for line in [
            r#"paceline_shards{job="fares",state="loaded"} 1"#,
            r#"paceline_shards{job="fares",state="open"} 3"#,
            r#"paceline_run_progress_ratio{job="fares"} 0.25"#,
            r#"paceline_run_eta_seconds{job="fares"} 12"#,
            r#"paceline_quota_remaining{limit="day",provider="fare-search"} 24949"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("paceline_build_info{version="));
    }
}
