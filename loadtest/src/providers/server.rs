//! What every small provider has: an address, a thread of its own, a log.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context;
use axum::Router;

/// One call as the provider saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// What identifies the call: the path and what it asked for.
    pub call: String,
    /// The status of the answer.
    pub status: u16,
}

/// The calls of one provider.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    /// Notes a call and hands its status back.
    pub fn note(&self, call: String, status: u16) {
        let mut calls = self.0.lock().expect("no panic while the log is locked");
        calls.push(Seen {
            at: Instant::now(),
            call,
            status,
        });
    }
}

/// A provider that listens on a free port until it is dropped.
pub struct Server {
    address: SocketAddr,
    log: Log,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Serves what `routes` makes of the log.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(routes: impl FnOnce(Log) -> Router) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let log = Log::default();
        let router = routes(log.clone());
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").context("no port for a provider")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener);
            if let Ok(listener) = listener {
                drop(axum::serve(listener, router).await);
            }
        });
        Ok(Server {
            address,
            log,
            runtime: Some(runtime),
        })
    }

    /// For `base_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All calls so far.
    pub fn seen(&self) -> Vec<Seen> {
        let calls = self.log.0.lock().expect("no panic while the log is locked");
        calls.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Never waits, so that it may be dropped inside of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
