//! A fleet of one test: its own names on the shared servers, its spec folder, its processes and logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_stack::{Process, ServerKind, Stack, StackOptions};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::{Binaries, SpecFolder, shared};

/// Counts fleets: what keeps two tests of one process apart.
static FLEETS: AtomicU32 = AtomicU32::new(0);
/// The private Redis has 1,000 databases; number 0 is left to whoever looks around by hand.
const DATABASES: u32 = 999;

/// The processes of one test and what they have in common.
pub struct Fleet {
    /// `PACELINE_NAMESPACE`, also in bucket and index names.
    pub name: String,
    /// The jobs and providers.
    pub spec: SpecFolder,
    binaries: Binaries,
    env: BTreeMap<String, String>,
    management: Option<String>,
    logs: TempDir,
    processes: AtomicU32,
}

impl Fleet {
    /// A fleet on the shared servers. `test` (of `a-z 0-9 -`, short) becomes part of its names.
    ///
    /// # Errors
    /// When the binaries are missing or stale, or the bucket cannot be made.
    pub fn new(test: &str) -> anyhow::Result<Self> {
        Self::on(shared::stack(), test)
    }

    /// A fleet on the shared servers but for one of its own, to be broken.
    ///
    /// # Errors
    /// When that server does not start, the binaries are missing or stale, or the bucket cannot be made.
    pub fn beside(kind: ServerKind, test: &str) -> anyhow::Result<(Stack, Self)> {
        let stack = Stack::start(&StackOptions::only([kind]))?;
        let mut fleet = Self::new(test)?;
        fleet.env.extend(stack.env());
        if let Some(s3) = stack.s3() {
            s3.create_bucket(&fleet.name)?;
            let bucket = fleet.name.clone();
            fleet.set("PACELINE_BUCKET", bucket);
        }
        if let Some(management) = stack.rabbitmq_management() {
            fleet.management = Some(management.to_owned());
        }
        Ok((stack, fleet))
    }

    /// A fleet on servers of the test's own, to be broken.
    ///
    /// # Errors
    /// When the binaries are missing or stale, or the bucket cannot be made.
    pub fn on(stack: &Stack, test: &str) -> anyhow::Result<Self> {
        let number = FLEETS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{test}-{}-{number}", std::process::id());
        let mut env: BTreeMap<String, String> = stack.env().into_iter().collect();
        if let Some(s3) = stack.s3() {
            s3.create_bucket(&name)?;
            env.insert("PACELINE_BUCKET".into(), name.clone());
        }
        if stack.redis().is_some() {
            // Published sets bear the job's names, without a prefix: a database for each test.
            let base = env.get("REDIS_URL").context("no REDIS_URL")?;
            let url = format!("{}/{}", base.trim_end_matches('/'), number % DATABASES + 1);
            env.insert("REDIS_URL".into(), url);
        }
        env.insert("PACELINE_NAMESPACE".into(), name.clone());
        env.insert("PACELINE_PREFIX".into(), name.clone());
        env.insert("PACELINE_LOG".into(), "info,paceline=debug".into());
        env.insert("PACELINE_LOG_FORMAT".into(), "json".into());
        let spec = SpecFolder::example()?;
        let folder = spec.path().to_string_lossy().into_owned();
        env.insert("PACELINE_SPEC".into(), folder);
        Ok(Fleet {
            name,
            spec,
            binaries: Binaries::find()?,
            env,
            management: stack.rabbitmq_management().map(str::to_owned),
            logs: tempfile::tempdir()?,
            processes: AtomicU32::new(0),
        })
    }

    /// Sets one name of the environment of all processes started from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// The webhook of the example jobs leads nowhere.
    pub fn tells_nobody(&mut self) {
        self.set("RUN_WEBHOOK_URL", "http://127.0.0.1:9/nobody");
    }

    /// The environment of its processes.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// One name of the environment.
    pub fn value(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// The URL of the broker's management plugin, with user and password; only of a private one.
    pub fn management(&self) -> Option<&str> {
        self.management.as_deref()
    }

    /// Where a run of `job` lies in S3.
    ///
    /// # Panics
    /// When `run` is no run id.
    pub fn layout(&self, job: &str, run: &str) -> RunLayout {
        let run = RunRef {
            job: job.to_owned(),
            run: run.parse().expect("a run id"),
        };
        RunLayout::new(self.value("PACELINE_PREFIX"), &run)
    }

    /// A plain connection to the fleet's own database of Redis.
    ///
    /// # Panics
    /// When Redis does not answer.
    pub async fn redis(&self) -> MultiplexedConnection {
        redis_at(self.value("REDIS_URL")).await
    }

    /// Where the processes' logs are.
    pub fn logs(&self) -> &Path {
        self.logs.path()
    }

    /// Starts `worker collect`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn collect(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        self.start(
            "worker",
            &[&["collect", "--listen", "127.0.0.1:0"], arguments].concat(),
        )
    }

    /// Starts `worker load`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn load(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        self.start(
            "worker",
            &[&["load", "--listen", "127.0.0.1:0"], arguments].concat(),
        )
    }

    /// Starts one of the binaries; its log has its name and number.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, binary: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        self.start_with(&[], binary, arguments)
    }

    /// Starts one of the binaries with a few names of its environment set for it alone.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_with(
        &self,
        env: &[(&str, &str)],
        binary: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Process> {
        let log = self.next_log(binary, arguments);
        let mut command = self.command(binary, arguments);
        command.envs(env.iter().copied());
        let name = format!("{binary} {}", arguments.join(" "));
        Process::spawn(&name, &mut command, &log)
    }

    /// Runs `producer` to its end, at most `limit`.
    ///
    /// # Errors
    /// When it does not start or does not end in time.
    pub fn producer(&self, arguments: &[&str], limit: Duration) -> anyhow::Result<Ended> {
        let log = self.next_log("producer", arguments);
        let mut command = self.command("producer", arguments);
        let mut process = Process::spawn_piped("producer", &mut command, &log)?;
        let mut pipe = process.take_stdout().context("its output is piped")?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut pipe, &mut text).map(|_| text)
        });
        let Some(status) = process.wait_at_most(limit)? else {
            bail!(
                "producer {} did not end in {limit:?}; it said:\n{}\n{}",
                arguments.join(" "),
                process.last_words(20),
                self.said_by_workers(30)
            );
        };
        let stdout = reader.join().expect("reading does not panic")?;
        Ok(Ended {
            status,
            stdout,
            stderr: process.said(),
        })
    }

    /// The last lines that each worker has logged: what a command waits for is there.
    fn said_by_workers(&self, lines: usize) -> String {
        let listed = std::fs::read_dir(self.logs.path())
            .into_iter()
            .flatten()
            .flatten();
        let mut logs: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
        logs.retain(|log| log.to_string_lossy().contains("-worker-"));
        logs.sort();
        let tail = |log: &PathBuf| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            let all: Vec<&str> = said.lines().collect();
            let last = all[all.len().saturating_sub(lines)..].join("\n");
            format!("{}:\n{last}", log.display())
        };
        logs.iter().map(tail).collect::<Vec<_>>().join("\n")
    }

    fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.binaries.path(binary));
        command
            .args(arguments)
            // Nothing of the developer's own environment.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.env)
            .current_dir(self.logs.path());
        command
    }

    fn next_log(&self, binary: &str, arguments: &[&str]) -> PathBuf {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let role = arguments.first().unwrap_or(&"");
        self.logs
            .path()
            .join(format!("{number}-{binary}-{role}.log"))
    }
}

/// A plain connection to a Redis.
///
/// # Panics
/// When it does not answer.
pub async fn redis_at(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("Redis answers")
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl Ended {
    /// The exit code, which must be `expected`.
    ///
    /// # Panics
    /// When it is another one; the message holds what the process said.
    #[track_caller]
    pub fn expect_code(self, expected: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(expected),
            "exit code; stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// The address on which a process with `--listen 127.0.0.1:0` listens, read from its log.
///
/// # Errors
/// When it has not said so within `limit`.
pub fn metrics_address(process: &Process, limit: Duration) -> anyhow::Result<String> {
    let until = Instant::now() + limit;
    loop {
        if let Some(address) = process.said().lines().find_map(listening_on) {
            return Ok(address);
        }
        if Instant::now() > until {
            bail!("{} did not say where it listens", process.name());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `127.0.0.1:<port>` out of a line that speaks of listening.
fn listening_on(line: &str) -> Option<String> {
    if !line.to_ascii_lowercase().contains("listen") {
        return None;
    }
    line.match_indices("127.0.0.1:").find_map(|(at, host)| {
        let digits: String = line[at + host.len()..]
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let port: u16 = digits.parse().ok()?;
        (port != 0).then(|| format!("{host}{port}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_a_log_line() {
        let address =
            listening_on(r#"{"level":"INFO","message":"listening","addr":"127.0.0.1:4711"}"#);
        assert_eq!(address.as_deref(), Some("127.0.0.1:4711"));
        assert_eq!(listening_on("asked to listen on 127.0.0.1:0"), None);
        assert_eq!(listening_on("connected to 127.0.0.1:6379"), None);
    }
}
