//! A `worker load` of our own, for a command that needs one where none is at work.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::context::Context;

/// How long it may take to end by itself; what it had in hand then comes again to the next loader.
const GRACE: Duration = Duration::from_secs(5);

/// The process; it ends with us, in whatever way.
pub struct OwnLoader(Child);

impl OwnLoader {
    /// Starts the `worker` that lies beside this program, with our environment; `None`, said, when there is none.
    ///
    /// # Errors
    /// When it is there and does not start.
    pub fn start(context: &Context) -> Result<Option<Self>> {
        let beside = std::env::current_exe().map(|own| own.with_file_name("worker"));
        let Some(worker) = beside.ok().filter(|path| path.is_file()) else {
            context.say("nobody takes receipts: waiting for a `worker load` to be started");
            return Ok(None);
        };
        context.say("nobody takes receipts: a `worker load` is started for as long as this takes");
        let mut command = Command::new(&worker);
        command
            .args(["load", "--grace", "2s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        if std::env::var_os("PACELINE_LOG").is_none() {
            command.env("PACELINE_LOG", "warn");
        }
        let started = command.spawn();
        let child = started.with_context(|| format!("starting {}", worker.display()))?;
        Ok(Some(OwnLoader(child)))
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// When it has ended: then nobody does the work.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!(
                "the `worker load` that was started has ended ({status}); the same command goes on"
            ),
        }
    }

    /// Lets it finish what it has in hand, and ends it.
    pub async fn stop(mut self) {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if id.is_some_and(|id| kill(Pid::from_raw(id), Signal::SIGTERM).is_ok()) {
            drop(tokio::time::timeout(GRACE, self.0.wait()).await);
        }
        drop(self.0.kill().await);
    }
}
