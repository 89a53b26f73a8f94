//! The others: how each is installed, fed and started.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use paceline_loadtest::bench::Fleet;
use paceline_loadtest::bench::{cpu_of, cpu_of_group};
use paceline_stack::Stack;

/// Somebody else's way to share a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Python.
    Celery,
    /// Node.
    BullMq,
    /// Node.
    Bottleneck,
    /// Go.
    Asynq,
    /// Go; a program of its own.
    Bento,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 5] = [
        Peer::Celery,
        Peer::BullMq,
        Peer::Bottleneck,
        Peer::Asynq,
        Peer::Bento,
    ];

    /// As its makers call it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Celery => "celery",
            Peer::BullMq => "bullmq",
            Peer::Bottleneck => "bottleneck",
            Peer::Asynq => "asynq",
            Peer::Bento => "bento",
        }
    }

    /// Installs it below `folder`, where it is not there yet.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn install(self, folder: &Path) -> anyhow::Result<()> {
        let folder = made(folder)?;
        match self {
            Peer::Celery => {
                if !folder.join("venv/bin/celery").exists() {
                    let venv = folder.join("venv");
                    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
                    let pip = venv.join("bin/pip");
                    run(Command::new(pip).args([
                        "install",
                        "-q",
                        "celery==5.5.3",
                        "redis==5.2.1",
                    ]))?;
                }
            }
            Peer::BullMq | Peer::Bottleneck => {
                for name in ["package.json", "call.js", "bullmq.js", "bottleneck.js"] {
                    std::fs::copy(scripts().join(name), folder.join(name))?;
                }
                if !folder.join("node_modules/bullmq").exists() {
                    let mut npm = Command::new("npm");
                    npm.args(["install", "--silent", "--no-audit", "--no-fund"]);
                    run(npm.current_dir(&folder))?;
                }
            }
            Peer::Asynq => {
                let program = folder.join("asynq-calls");
                if !program.exists() {
                    let source = made(&folder.join("asynq"))?;
                    for name in ["go.mod", "main.go"] {
                        std::fs::copy(scripts().join("asynq").join(name), source.join(name))?;
                    }
                    run(Command::new("go")
                        .args(["mod", "tidy"])
                        .current_dir(&source))?;
                    let mut build = Command::new("go");
                    build.args(["build", "-o"]).arg(&program).arg(".");
                    run(build.current_dir(&source))?;
                }
            }
            Peer::Bento => {
                if bento(&folder).is_none() {
                    eprintln!(
                        "bento is built with Go, which takes a quarter of an hour; a `bento` in PATH spares that"
                    );
                    let mut go = Command::new("go");
                    go.args([
                        "install",
                        "github.com/warpstreamlabs/bento/cmd/bento@latest",
                    ]);
                    run(go.env("GOBIN", &folder).env("GOFLAGS", "-mod=mod"))?;
                }
            }
        }
        Ok(())
    }

    fn worker(self, folder: &Path) -> Command {
        match self {
            Peer::Celery => {
                let mut celery = Command::new(folder.join("venv/bin/celery"));
                celery.args(["-A", "celery_calls", "worker", "-P", "prefork", "-c", "4"]);
                celery.args([
                    "--without-gossip",
                    "--without-mingle",
                    "--loglevel",
                    "CRITICAL",
                ]);
                celery.current_dir(scripts());
                celery
            }
            Peer::BullMq | Peer::Bottleneck => {
                let mut node = Command::new("node");
                node.arg(format!("{}.js", self.name())).current_dir(folder);
                node
            }
            Peer::Asynq => Command::new(folder.join("asynq-calls")),
            Peer::Bento => {
                let program = bento(folder).unwrap_or_else(|| PathBuf::from("bento"));
                let mut command = Command::new(program);
                command.arg("-c").arg(scripts().join("bento.yaml"));
                command
            }
        }
    }

    fn feeder(self, folder: &Path) -> Option<Command> {
        let mut command = match self {
            Peer::Celery => {
                let mut python = Command::new(folder.join("venv/bin/python"));
                python.arg("celery_calls.py").current_dir(scripts());
                python
            }
            Peer::Bottleneck | Peer::Bento => return None,
            Peer::BullMq | Peer::Asynq => self.worker(folder),
        };
        command.arg("feed");
        Some(command)
    }
}

/// The scripts beside this crate.
fn scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn bento(folder: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    let mut programs = folders.map(|folder| folder.join("bento"));
    programs.find(|program| program.is_file())
}

fn made(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    Ok(folder.canonicalize()?)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{shown} does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    ensure!(output.status.success(), "{shown}: {last}");
    Ok(())
}

/// Kills a process with those that it started.
fn kill(process: &mut Child) {
    let group = Pid::from_raw(-process.id().cast_signed());
    // Either may find them gone, which is what is wanted.
    nix::sys::signal::kill(group, Signal::SIGKILL).ok();
    process.wait().ok();
}

/// Processes at work.
pub enum Crew {
    /// Those of a peer.
    Theirs {
        /// Whose.
        peer: Peer,
        /// Where it is installed.
        folder: PathBuf,
        /// Variables of each.
        environment: Vec<(String, String)>,
        /// The processes.
        processes: Vec<Child>,
    },
    /// Our own fleet.
    Ours(Box<Fleet>),
}

impl Crew {
    /// Feeds and starts a peer.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of(
        peer: Peer,
        folder: &Path,
        stack: &Stack,
        url: &str,
        rate: u32,
        calls: u64,
        processes: usize,
    ) -> anyhow::Result<Self> {
        let redis = stack.value("REDIS_URL").context("a Redis")?;
        let environment = [
            ("URL", url.to_owned()),
            ("REDIS_URL", format!("{redis}0")),
            ("RATE", rate.to_string()),
            ("CALLS", calls.to_string()),
            ("PROCESSES", processes.to_string()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        let mut crew = Crew::Theirs {
            peer,
            folder: folder.canonicalize()?,
            environment: environment.to_vec(),
            processes: Vec::new(),
        };
        crew.feed()?;
        for _ in 0..processes {
            crew.add()?;
        }
        Ok(crew)
    }

    /// Gives a queue in Redis its calls, at first and after it was emptied. Ours lies in RabbitMQ.
    ///
    /// # Errors
    /// When they are not taken.
    pub fn feed(&mut self) -> anyhow::Result<()> {
        let Crew::Theirs {
            peer,
            folder,
            environment,
            ..
        } = self
        else {
            return Ok(());
        };
        match peer.feeder(folder) {
            Some(mut feeder) => run(feeder.envs(environment.iter().cloned())),
            None => Ok(()),
        }
    }

    fn add(&mut self) -> anyhow::Result<()> {
        match self {
            Crew::Ours(fleet) => fleet.add_worker(),
            Crew::Theirs {
                peer,
                folder,
                environment,
                processes,
            } => {
                let mut worker = peer.worker(folder);
                worker
                    .process_group(0)
                    .envs(environment.iter().cloned())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null());
                processes.push(worker.spawn()?);
                Ok(())
            }
        }
    }

    /// Kills the oldest process (-9) and starts another one.
    ///
    /// # Errors
    /// When there is none.
    pub fn replace_one(&mut self) -> anyhow::Result<()> {
        match self {
            Crew::Ours(fleet) => fleet.signal_oldest(Signal::SIGKILL)?,
            Crew::Theirs { processes, .. } => {
                ensure!(!processes.is_empty(), "no process");
                kill(&mut processes.remove(0));
            }
        }
        self.add()
    }

    /// CPU time of those that run.
    pub fn cpu(&self) -> Duration {
        match self {
            Crew::Ours(fleet) => fleet.ids().into_iter().map(cpu_of).sum(),
            Crew::Theirs { processes, .. } => {
                processes.iter().map(Child::id).map(cpu_of_group).sum()
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Crew::Theirs { processes, .. } = self {
            processes.iter_mut().for_each(kill);
        }
    }
}
