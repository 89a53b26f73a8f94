//! A fleet of real processes on real servers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::spec::BenchJob;

/// Where the built programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// `PACELINE_BIN_DIR`, else the folder of the running program.
    ///
    /// # Errors
    /// When `worker` or `producer` is not there.
    pub fn find() -> anyhow::Result<Self> {
        let folder = match std::env::var_os("PACELINE_BIN_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => {
                let own = std::env::current_exe()?;
                own.parent()
                    .context("a program lies in a folder")?
                    .to_owned()
            }
        };
        for name in ["worker", "producer"] {
            if !folder.join(name).is_file() {
                let folder = folder.display();
                bail!(
                    "no {name} in {folder}: cargo build --release --bins, or set PACELINE_BIN_DIR"
                );
            }
        }
        Ok(Self { folder })
    }

    /// A command of one of them.
    pub fn command(&self, name: &str) -> Command {
        Command::new(self.folder.join(name))
    }
}

/// The servers, by their environment.
#[derive(Clone, Debug)]
pub struct Servers {
    environment: Vec<(String, String)>,
}

impl Servers {
    /// What a fleet without a loader needs.
    const NEEDED: [&str; 6] = [
        "AMQP_URL",
        "REDIS_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "PACELINE_BUCKET",
    ];

    /// The servers that the environment names.
    ///
    /// # Errors
    /// When it lacks a name.
    pub fn from_environment() -> anyhow::Result<Self> {
        let missing: Vec<_> = Self::NEEDED
            .into_iter()
            .filter(|name| std::env::var_os(name).is_none())
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            bail!("{missing} not set: `make stack` starts private servers and prints all of them");
        }
        Ok(Self {
            environment: Vec::new(),
        })
    }

    /// Servers by the names and values that a private stack gives.
    pub fn of(environment: Vec<(String, String)>) -> Self {
        Self { environment }
    }

    /// The names and values that lead to them, beside this process' own environment.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.environment.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Worker processes and the run that they collect. Dropping it kills what still runs.
#[derive(Debug)]
pub struct Fleet {
    programs: Programs,
    environment: Vec<(String, String)>,
    job: String,
    run: String,
    /// Arguments of `worker collect`.
    arguments: Vec<String>,
    workers: Vec<Child>,
    /// Told to end.
    leaving: Vec<Child>,
    _spec: Option<tempfile::TempDir>,
}

impl Fleet {
    /// Starts `workers` processes for a run of `job` against the provider at `url`. The fleet has a namespace
    /// and a prefix of its own.
    ///
    /// # Errors
    /// When files cannot be written or a process not started.
    pub fn start(
        programs: &Programs,
        servers: &Servers,
        job: &BenchJob,
        url: &str,
        workers: usize,
    ) -> anyhow::Result<Self> {
        let spec = tempfile::tempdir()?;
        job.write(spec.path())?;
        let mut fleet = Self::of_spec(programs, servers, BenchJob::NAME, spec.path(), &[]);
        fleet._spec = Some(spec);
        fleet.set("FARE_SEARCH_KEYS", "a");
        fleet.set("FARE_SEARCH_URL", url);
        for _ in 0..workers {
            fleet.add_worker()?;
        }
        Ok(fleet)
    }

    /// A fleet without workers for a run of `job` in the folder `spec`; `arguments` are those of each `worker collect`.
    pub fn of_spec(
        programs: &Programs,
        servers: &Servers,
        job: &str,
        spec: &Path,
        arguments: &[&str],
    ) -> Self {
        let run = format!(
            "{}-{}",
            std::process::id(),
            jiff::Timestamp::now().as_millisecond()
        );
        let environment = [servers.environment.clone(), own_environment(&run, spec)];
        Self {
            programs: programs.clone(),
            environment: environment.concat(),
            job: job.to_owned(),
            run,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            workers: Vec::new(),
            leaving: Vec::new(),
            _spec: None,
        }
    }

    /// Sets a variable for what is started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// One worker more.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_worker(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("worker");
        let worker = command.arg("collect").args(&self.arguments).spawn()?;
        self.workers.push(worker);
        Ok(())
    }

    /// A loader, which drains and dies with the workers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn add_loader(&mut self) -> anyhow::Result<()> {
        let loader = self.command("worker").arg("load").spawn()?;
        self.workers.push(loader);
        Ok(())
    }

    /// Sends `signal` to the oldest worker, and forgets it if that ends it.
    ///
    /// # Errors
    /// When there is none.
    pub fn signal_oldest(&mut self, signal: Signal) -> anyhow::Result<()> {
        let oldest = self.workers.first().context("no worker")?;
        kill(Pid::from_raw(oldest.id() as i32), signal)?;
        if matches!(signal, Signal::SIGTERM | Signal::SIGKILL) {
            let gone = self.workers.remove(0);
            self.leaving.push(gone);
        }
        Ok(())
    }

    /// Which processes the workers are.
    pub fn ids(&self) -> Vec<u32> {
        self.workers.iter().map(Child::id).collect()
    }

    /// Kills everything.
    pub fn kill(&mut self) {
        for worker in self.workers.iter_mut().chain(&mut self.leaving) {
            // Either may find the process gone, which is what is wanted.
            worker.kill().ok();
            worker.wait().ok();
        }
        self.workers.clear();
        self.leaving.clear();
    }

    /// Enqueues the run and waits until all of its shards are published.
    ///
    /// # Errors
    /// When the producer cannot be started or fails.
    pub fn enqueue(&self) -> anyhow::Result<()> {
        self.produce(&["enqueue", &self.job, "--run-id", &self.run])
    }

    /// Enqueues the run and waits until it has ended, inside its gate.
    ///
    /// # Errors
    /// When the producer cannot be started or fails, or the run ends otherwise.
    pub fn run_to_its_end(&self) -> anyhow::Result<()> {
        self.produce(&["enqueue", &self.job, "--run-id", &self.run, "--wait"])
    }

    /// What `producer status --json` says of the run.
    ///
    /// # Errors
    /// When it cannot be started, or says nothing.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.tell("status")
    }

    /// What `producer audit --json` says of the run.
    ///
    /// # Errors
    /// When it cannot be started, or says nothing.
    pub fn audit(&self) -> anyhow::Result<serde_json::Value> {
        self.tell("audit")
    }

    fn tell(&self, what: &str) -> anyhow::Result<serde_json::Value> {
        let run = format!("{}/{}", self.job, self.run);
        let output = self
            .command("producer")
            .args([what, &run, "--json"])
            .stderr(Stdio::inherit())
            .output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("producer {what} says no JSON"))
    }

    /// Drops what is left of the run, queues among it.
    ///
    /// # Errors
    /// When the producer cannot be started or fails.
    pub fn cancel(&self) -> anyhow::Result<()> {
        self.produce(&["cancel", &format!("{}/{}", self.job, self.run)])
    }

    /// Fails when a worker has ended before it was told to.
    ///
    /// # Errors
    /// Names the exit status.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if let Some(status) = worker.try_wait()? {
                bail!("a worker ended by itself: {status}");
            }
        }
        Ok(())
    }

    /// Tells the workers to drain and waits until they have.
    ///
    /// # Errors
    /// When one takes longer than `patience` or ends badly.
    pub fn drain(&mut self, patience: Duration) -> anyhow::Result<()> {
        for worker in &self.workers {
            kill(Pid::from_raw(worker.id() as i32), Signal::SIGTERM)?;
        }
        let deadline = Instant::now() + patience;
        for worker in &mut self.workers {
            let status = wait_until(worker, deadline)?;
            if !status.success() {
                bail!("a worker did not drain in order: {status}");
            }
        }
        self.workers.clear();
        Ok(())
    }

    fn produce(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let status = self
            .command("producer")
            .args(arguments)
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("producer {} failed: {status}", arguments.join(" "));
        }
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.programs.command(name);
        command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) fn own_environment(run: &str, spec: &Path) -> Vec<(String, String)> {
    let region = std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned());
    let level = std::env::var("PACELINE_LOG").unwrap_or_else(|_| "warn".to_owned());
    [
        ("AWS_REGION", region),
        ("PACELINE_LOG", level),
        ("PACELINE_NAMESPACE", format!("bench-{run}")),
        ("PACELINE_PREFIX", format!("bench-{run}")),
        ("PACELINE_SPEC", spec.display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn wait_until(child: &mut Child, deadline: Instant) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!("process {} does not end", child.id());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
