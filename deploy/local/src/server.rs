//! A server that runs as a process: started, watched until it is ready, stopped, and broken on purpose.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::Process;

/// Between two looks at a server that is starting.
const LOOK: Duration = Duration::from_millis(50);
/// An orderly stop may take so long before it becomes a kill.
const GRACE: Duration = Duration::from_secs(15);

/// How to start one server and to know that it is ready.
pub(crate) struct Launch {
    /// What messages call it.
    pub name: &'static str,
    /// Where it will listen; no password in it.
    pub address: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Makes the command, anew for each start.
    pub command: Box<dyn Fn() -> Command + Send + Sync>,
    /// Whether it answers.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// How long a start may take.
    pub patience: Duration,
}

/// One private server. All methods may be called from any thread.
pub struct Server {
    launch: Launch,
    process: Mutex<Option<Process>>,
}

impl Server {
    /// Starts it and waits until it answers.
    pub(crate) fn start(launch: Launch) -> anyhow::Result<Self> {
        let server = Server {
            launch,
            process: Mutex::new(None),
        };
        server.restart()?;
        Ok(server)
    }

    /// Where its output is kept.
    pub fn log(&self) -> PathBuf {
        self.launch.folder.join("output.log")
    }

    /// Its own folder.
    pub fn folder(&self) -> &Path {
        &self.launch.folder
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        let mut process = self.process();
        let status = process.as_mut().map(Process::try_wait);
        matches!(status, Some(Ok(None)))
    }

    /// An orderly stop (SIGTERM; kill -9 after 15 s). Its data stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.end(|process| process.terminate(GRACE).map(drop))
    }

    /// Kill -9. Its data stays as it is on disk.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.end(Process::kill)
    }

    /// Starts it again on the same port and data (after a kill -9 when it still runs), and waits until
    /// it answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time: the message names the server and its log.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.kill()?;
        self.launch_process()?;
        self.wait_ready()
    }

    /// Starts it again on the same port and data without waiting for an answer.
    ///
    /// # Errors
    /// When its program does not start.
    pub fn launch_process(&self) -> anyhow::Result<()> {
        let mut command = (self.launch.command)();
        let process = Process::spawn(self.launch.name, &mut command, &self.log())?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.running(Process::pause)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.running(Process::resume)
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time: the message names the server and its log.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        let until = Instant::now() + self.launch.patience;
        while !(self.launch.ready)() {
            if !self.is_running() {
                bail!("{}", self.failure("ended while it was starting"));
            }
            if Instant::now() > until {
                let limit = self.launch.patience.as_secs();
                bail!("{}", self.failure(&format!("no answer for {limit} s")));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn failure(&self, what: &str) -> String {
        let words = self.process().as_ref().map(|p| p.last_words(15));
        let name = self.launch.name;
        let address = &self.launch.address;
        let log = self.log();
        format!(
            "{name} at {address}: {what}; its log is {}\n{}",
            log.display(),
            words.unwrap_or_default()
        )
    }

    fn running(&self, act: fn(&mut Process) -> std::io::Result<()>) -> anyhow::Result<()> {
        let name = self.launch.name;
        let mut process = self.process();
        let process = process
            .as_mut()
            .with_context(|| format!("{name} does not run"))?;
        act(process).with_context(|| format!("signalling {name}"))
    }

    fn end(&self, act: impl Fn(&mut Process) -> std::io::Result<()>) -> anyhow::Result<()> {
        let Some(mut process) = self.process().take() else {
            return Ok(());
        };
        act(&mut process).with_context(|| format!("ending {}", self.launch.name))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
