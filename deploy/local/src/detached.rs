//! Where a running `stack up` leaves its process id and environment, so that `stack down` and
//! `stack env` find it from anywhere.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use paceline_stack::ServerKind;

/// Servers that do not come up, or do not go, in this time have a problem of their own.
const PATIENCE: Duration = Duration::from_secs(150);

/// The folder of one user's running stack.
pub struct Desk {
    folder: PathBuf,
}

impl Desk {
    /// `PACELINE_STACK_STATE`, else one folder for each user in the temporary folder.
    pub fn of_this_user() -> Self {
        let name = format!("paceline-stack-{}", Uid::effective());
        let folder = std::env::var_os("PACELINE_STACK_STATE")
            .map_or_else(|| std::env::temp_dir().join(name), PathBuf::from);
        Desk { folder }
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn env_file(&self) -> PathBuf {
        self.folder.join("env")
    }

    /// Takes the desk for this process.
    ///
    /// # Errors
    /// When another stack is up.
    pub fn claim(&self) -> anyhow::Result<Claim<'_>> {
        if let Some(pid) = self.running() {
            bail!(
                "servers are up already (process {pid}): `stack env` shows them, `stack down` ends them"
            );
        }
        let made = fs::DirBuilder::new().mode(0o700).create(&self.folder);
        if let Err(error) = made
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error).context(format!("the folder {}", self.folder.display()));
        }
        self.forget();
        write_private(&self.pid_file(), &std::process::id().to_string())?;
        Ok(Claim { desk: self })
    }

    /// The environment of the stack that is up.
    ///
    /// # Errors
    /// When none is.
    pub fn environment(&self) -> anyhow::Result<String> {
        self.running().context("no servers are up: `stack up`")?;
        fs::read_to_string(self.env_file()).context("the servers are still starting")
    }

    /// Starts a `stack up` that stays when we go, and returns when its servers are up.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn detach(&self, dir: Option<&Path>, only: &[ServerKind]) -> anyhow::Result<()> {
        if let Some(pid) = self.running() {
            bail!("servers are up already (process {pid}): `stack env` shows them");
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("up").stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(dir) = dir {
            command.arg("--dir").arg(dir);
        }
        for kind in only {
            command.args(["--only", kind.name()]);
        }
        // Out of the terminal's group, so that its Ctrl-C is not theirs.
        self.wait_until_up(command.process_group(0).spawn()?)
    }

    fn wait_until_up(&self, mut child: Child) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Ok(environment) = self.environment() {
                print!("{environment}");
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("the servers did not come up ({status})");
            }
            if Instant::now() > until {
                child.kill()?;
                bail!("the servers did not come up in {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the stack that is up, if there is one, and waits until it has gone.
    ///
    /// # Errors
    /// When it does not go.
    pub fn end_other(&self) -> anyhow::Result<()> {
        let Some(pid) = self.running() else {
            eprintln!("No servers are up.");
            return Ok(());
        };
        kill(pid, Signal::SIGTERM).with_context(|| format!("process {pid}"))?;
        let until = Instant::now() + PATIENCE;
        while self.running().is_some() {
            if Instant::now() > until {
                bail!("process {pid} does not end");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The process that holds the desk, when it still runs. A number that went to another program since
    /// is not mistaken for it.
    fn running(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.pid_file()).ok()?.parse().ok()?;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let is_stack = program.file_name()?.to_string_lossy().starts_with("stack");
        is_stack.then(|| Pid::from_raw(pid))
    }

    fn forget(&self) {
        for file in [self.env_file(), self.pid_file()] {
            // Absent is what is wanted.
            let _ = fs::remove_file(file);
        }
    }
}

/// The desk while this process has it.
pub struct Claim<'a> {
    desk: &'a Desk,
}

impl Claim<'_> {
    /// The servers are up, and this leads to them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn announce(&self, environment: &str) -> anyhow::Result<()> {
        // Renamed into place: whoever waits for the file must not see half of it.
        let unfinished = self.desk.folder.join("env.new");
        write_private(&unfinished, environment)?;
        fs::rename(&unfinished, self.desk.env_file()).context("announcing the servers")
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.desk.forget();
    }
}

/// Passwords are in it: for this user's eyes only.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}
