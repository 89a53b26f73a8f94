//! Which runs are open: read from Redis, rebuilt from S3 when Redis lost it, kept while Redis is away.

use std::time::Duration;

use paceline_protocol::stores::objects::{ObjectError, Objects};
use paceline_protocol::stores::state::{OpenRun, State, StateError};
use tokio::sync::{Notify, watch};

use crate::shutdown::Shutdown;

/// How often the registry is read without being told to. `control` tells of every change, and a link to the broker
/// that was made again counts as one; this is for what nobody tells: a registry that was lost with Redis.
const EVERY: Duration = Duration::from_secs(2);

/// How soon it is tried again while it cannot be read.
const AWAY: Duration = Duration::from_secs(1);

/// The registry as this worker last saw it.
pub struct OpenRuns {
    state: State,
    objects: Objects,
    prefix: String,
    seen: watch::Sender<Vec<OpenRun>>,
    /// Something changed: look again.
    pub changed: Notify,
}

/// Why the registry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Redis is away.
    #[error(transparent)]
    State(#[from] StateError),
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
}

impl OpenRuns {
    /// Nothing seen yet. `prefix` is where open runs are listed in S3.
    pub fn new(state: State, objects: Objects, prefix: String) -> Self {
        OpenRuns {
            state,
            objects,
            prefix,
            seen: watch::channel(Vec::new()).0,
            changed: Notify::new(),
        }
    }

    /// The runs that are open, as last seen.
    pub fn seen(&self) -> Vec<OpenRun> {
        self.seen.borrow().clone()
    }

    /// Hears of changes.
    pub fn subscribe(&self) -> watch::Receiver<Vec<OpenRun>> {
        self.seen.subscribe()
    }

    /// Reads the registry, now and then and when it changed, until the drain.
    pub async fn keep_up(&self, shutdown: &Shutdown) {
        let mut away = false;
        while !shutdown.is_draining() {
            match self.read().await {
                Ok(runs) => {
                    away = false;
                    self.seen.send_if_modified(|seen| {
                        let differs = *seen != runs;
                        *seen = runs;
                        differs
                    });
                }
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(error = %error, "the open runs cannot be read; what was seen last still counts");
                }
                Err(_) => {}
            }
            let pause = if away { AWAY } else { EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * rand::random::<f64>())) => {}
                () = self.changed.notified() => {}
                () = shutdown.draining() => {}
            }
        }
    }

    async fn read(&self) -> Result<Vec<OpenRun>, RegistryError> {
        if let Some(runs) = self.state.open_runs().await? {
            return Ok(runs);
        }
        let runs = self.rebuilt().await?;
        tracing::warn!(
            runs = runs.len(),
            "Redis has no registry of open runs; it is rebuilt from S3"
        );
        self.state.restore_open_runs(&runs).await?;
        Ok(runs)
    }

    async fn rebuilt(&self) -> Result<Vec<OpenRun>, ObjectError> {
        let mut runs = Vec::new();
        for listed in self.objects.list(&self.prefix).await? {
            let Some(object) = self.objects.get(&listed.key).await? else {
                continue;
            };
            match serde_json::from_slice(&object.body) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    tracing::error!(key = listed.key, error = %error, "not an open run; it is left out")
                }
            }
        }
        Ok(runs)
    }
}
