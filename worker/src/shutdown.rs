//! Stopping: the first SIGTERM or Ctrl-C drains, the second stops at once; nothing is lost either way.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::metrics::Metrics;

/// What every part of a process watches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    draining: CancellationToken,
    at_once: CancellationToken,
    grace: Duration,
}

/// How a role ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It drained (or had nothing more to do).
    Drained,
    /// The grace was over; what was still in hand comes again elsewhere.
    CutOff,
    /// A second signal.
    Interrupted,
}

impl Ended {
    /// The process' exit code.
    pub fn code(self) -> u8 {
        match self {
            Ended::Drained | Ended::CutOff => 0,
            Ended::Interrupted => 130,
        }
    }
}

impl Shutdown {
    /// A shutdown that nobody's signal starts: for tests, and for a caller with reasons of its own.
    pub fn by_hand(grace: Duration) -> Self {
        Shutdown {
            draining: CancellationToken::new(),
            at_once: CancellationToken::new(),
            grace,
        }
    }

    /// Listens for SIGTERM and SIGINT from now on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn on_signals(
        grace: Duration,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> std::io::Result<Self> {
        let shutdown = Shutdown::by_hand(grace);
        let mut signals = Signals::new()?;
        let told = shutdown.clone();
        tokio::spawn(async move {
            signals.next().await;
            tracing::info!(
                grace.s = grace.as_secs(),
                "draining; a second signal stops at once"
            );
            metrics.worker_draining.set(1);
            readiness.draining();
            told.drain();
            signals.next().await;
            told.at_once.cancel();
        });
        Ok(shutdown)
    }

    /// How long the drain may take.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Starts the drain.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the drain begins.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Runs a role to its end, at most until the grace after the drain began is over, or a second signal.
    ///
    /// # Errors
    /// The role's own.
    pub async fn watch<E>(&self, role: impl Future<Output = Result<(), E>>) -> Result<Ended, E> {
        let grace_over = async {
            self.draining().await;
            tokio::time::sleep(self.grace).await;
        };
        tokio::select! {
            ended = role => ended.map(|()| Ended::Drained),
            () = grace_over => {
                tracing::warn!("the grace is over: what is still in hand will be done again elsewhere");
                Ok(Ended::CutOff)
            }
            () = self.at_once.cancelled() => Ok(Ended::Interrupted),
        }
    }
}

struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_that_drains_ends_well_and_one_that_hangs_is_cut_off() {
        let shutdown = Shutdown::by_hand(Duration::from_secs(25));
        shutdown.drain();
        let drained = shutdown.watch(async { Ok::<(), ()>(()) }).await;
        assert_eq!(drained, Ok(Ended::Drained));
        let impatient = Shutdown::by_hand(Duration::from_millis(1));
        impatient.drain();
        let cut_off = impatient
            .watch(std::future::pending::<Result<(), ()>>())
            .await;
        assert_eq!(cut_off, Ok(Ended::CutOff));
    }
}
