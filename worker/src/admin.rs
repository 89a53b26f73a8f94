//! `/metrics`, `/healthz` and `/readyz`, only where `--listen` asks for them.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use paceline_protocol::listen;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::Metrics;

/// Looks at the servers that are needed; the first that is away, as it may be shown.
pub type Look = Box<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// Whether this process does its work, and if not, why. Cheap to clone.
#[derive(Clone)]
pub struct Readiness(Arc<Inner>);

struct Inner {
    phase: Mutex<Phase>,
    /// Once everything needed was there: whether it still is.
    look: OnceLock<Look>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Waiting(String),
    Ready,
    Draining,
}

impl Default for Readiness {
    fn default() -> Self {
        let starting = Phase::Waiting("starting".to_owned());
        Readiness(Arc::new(Inner {
            phase: Mutex::new(starting),
            look: OnceLock::new(),
        }))
    }
}

impl Readiness {
    /// Not ready: `what` is waited for (no secrets).
    pub fn waiting_for(&self, what: impl Into<String>) {
        self.set(Phase::Waiting(what.into()));
    }

    /// Everything needed is there, as long as `look` finds nothing away. It is asked when somebody wants to know.
    pub fn ready(&self, look: Look) {
        drop(self.0.look.set(look));
        self.set(Phase::Ready);
    }

    /// No more work is taken. This is final.
    pub fn draining(&self) {
        self.set(Phase::Draining);
    }

    fn set(&self, phase: Phase) {
        let mut now = self.phase();
        if *now != Phase::Draining {
            *now = phase;
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        let phase = self.0.phase.lock();
        phase.unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self) -> (StatusCode, String) {
        let phase = self.phase().clone();
        let waits_for = match (phase, self.0.look.get()) {
            (Phase::Draining, _) => {
                return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
            }
            (Phase::Waiting(what), _) => Some(what),
            (Phase::Ready, Some(look)) => look().await,
            (Phase::Ready, None) => None,
        };
        match waits_for {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(what) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("waiting for {what}\n"),
            ),
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
        .route("/readyz", get(async move || readiness.answer().await))
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

    /// A look that finds this away.
    fn finds(away: Option<&'static str>) -> Look {
        Box::new(move || Box::pin(async move { away.map(str::to_owned) }))
    }

    #[tokio::test]
    async fn readiness_says_what_is_waited_for_and_never_leaves_the_drain() {
        let readiness = Readiness::default();
        readiness.waiting_for("RabbitMQ at amqp://host");
        assert_eq!(
            readiness.answer().await,
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "waiting for RabbitMQ at amqp://host\n".to_owned()
            )
        );
        readiness.ready(finds(None));
        assert_eq!(readiness.answer().await.0, StatusCode::OK);
        readiness.draining();
        readiness.ready(finds(None));
        let (status, _) = readiness.answer().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_server_that_went_away_makes_unready() {
        let readiness = Readiness::default();
        readiness.ready(finds(Some("Redis at redis://host")));
        let (status, said) = readiness.answer().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said, "waiting for Redis at redis://host\n");
    }

    #[tokio::test]
    async fn a_free_port_serves_all_three() {
        let metrics = Arc::new(Metrics::new().expect("registers"));
        let readiness = Readiness::default();
        readiness.ready(finds(None));
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
