//! `/metrics`, `/healthz` and `/readyz`, only where `--listen` asks for them.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use paceline_protocol::listen;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::Metrics;

/// Whether this process does its work, and if not, why. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Phase>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Waiting(String),
    Ready,
    Draining,
}

impl Default for Readiness {
    fn default() -> Self {
        let starting = Phase::Waiting("starting".to_owned());
        Readiness(Arc::new(Mutex::new(starting)))
    }
}

impl Readiness {
    /// Not ready: `what` is waited for (no secrets).
    pub fn waiting_for(&self, what: impl Into<String>) {
        self.set(Phase::Waiting(what.into()));
    }

    /// Everything needed is there.
    pub fn ready(&self) {
        self.set(Phase::Ready);
    }

    /// No more work is taken. This is final.
    pub fn draining(&self) {
        self.set(Phase::Draining);
    }

    fn set(&self, phase: Phase) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != Phase::Draining {
            *now = phase;
        }
    }

    fn answer(&self) -> (StatusCode, String) {
        let phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*phase {
            Phase::Ready => (StatusCode::OK, "ready\n".to_owned()),
            Phase::Waiting(what) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for {what}\n"),
            ),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
        }
    }
}

/// The listening server; stops when dropped.
#[derive(Debug)]
pub struct Admin {
    _server: AbortOnDropHandle<()>,
    /// The address that it listens on.
    pub address: SocketAddr,
}

impl Admin {
    /// Listens on `address` and logs the one it got as `listen.addr`.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn listen(
        address: SocketAddr,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = listener.local_addr()?;
        tracing::info!(listen.addr = %address, "serving /metrics, /healthz and /readyz");
        let routes = routes(metrics, readiness);
        let served = listen::serve(listener, routes, pending(), Duration::ZERO);
        let server = tokio::spawn(served);
        Ok(Admin {
            _server: AbortOnDropHandle::new(server),
            address,
        })
    }
}

fn routes(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .with_state(metrics)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || readiness.answer()))
}

async fn show_metrics(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_what_is_waited_for_and_never_leaves_the_drain() {
        let readiness = Readiness::default();
        readiness.waiting_for("RabbitMQ at amqp://host");
        assert_eq!(
            readiness.answer(),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "waiting for RabbitMQ at amqp://host\n".to_owned()
            )
        );
        readiness.ready();
        assert_eq!(readiness.answer().0, StatusCode::OK);
        readiness.draining();
        readiness.ready();
        assert_eq!(readiness.answer().0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_free_port_serves_all_three() {
        let metrics = Arc::new(Metrics::new().expect("registers"));
        let readiness = Readiness::default();
        readiness.ready();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin::listen(free, metrics, readiness)
            .await
            .expect("listens");
        for (path, part) in [
            ("metrics", "paceline_build_info"),
            ("healthz", "ok"),
            ("readyz", "ready"),
        ] {
            let url = format!("http://{}/{path}", admin.address);
            let answer = reqwest::get(url).await.expect("answers");
            assert!(answer.status().is_success());
            assert!(answer.text().await.expect("text").contains(part), "{path}");
        }
    }
}
