//! One child with its process group, its log and its signals.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::guardian;

/// How often a child that should end is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A child process that leads a group of its own. Signals go to the whole group. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; what it says on both outputs is appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = open_log(log)?;
        let err = out.try_clone().context("a second handle to the log")?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Self::spawn_as_is(name, command, log)
    }

    /// Starts `command` with its own idea of standard output; only errors go to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn spawn_piped(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(open_log(log)?);
        Self::spawn_as_is(name, command, log)
    }

    fn spawn_as_is(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name}: `{program}` does not start"))?;
        let process = Process {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        };
        guardian::join(process.group().as_raw()).context("the guardian of our children")?;
        Ok(process)
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the process, and of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output is kept.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its standard output, once, when it was started with [`Process::spawn_piped`].
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Everything it has said so far.
    pub fn said(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last `lines` of what it has said.
    pub fn last_words(&self, lines: usize) -> String {
        let said = self.said();
        let all: Vec<&str> = said.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Sends a signal to the group. One that has ended already is left in peace.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        killpg(self.group(), signal).map_err(io::Error::from)
    }

    /// Kill -9, and waits for the end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait().map(drop)
    }

    /// SIGTERM, and waits for the end; kill -9 after `grace`. The status of its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn terminate(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = self.wait_at_most(grace)? {
            return Ok(status);
        }
        self.signal(Signal::SIGKILL)?;
        self.wait()
    }

    /// Freezes it where it is (SIGSTOP).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resume(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            self.record_end(status);
        }
        Ok(self.ended)
    }

    /// Waits for the end, at most `limit`; `None` when it still runs then.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn wait_at_most(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + limit;
        loop {
            let status = self.try_wait()?;
            if status.is_some() || Instant::now() >= until {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = self.child.wait()?;
        self.record_end(status);
        Ok(status)
    }

    /// The leader is gone: take what is left of its group (a virtual machine under a start script)
    /// with it, before the group's number can be somebody else's.
    fn record_end(&mut self, status: ExitStatus) {
        self.ended = Some(status);
        // ESRCH is the usual answer: nobody is left.
        let _ = killpg(self.group(), Signal::SIGKILL);
        guardian::leave(self.group().as_raw());
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit into i32"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(process = %self.name, %error, "could not be killed");
        }
    }
}

fn open_log(log: &Path) -> anyhow::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("the log {}", log.display()))
}
