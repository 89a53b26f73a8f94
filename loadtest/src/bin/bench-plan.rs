//! What planning and enqueueing cost: shards a second on a real broker with confirms, and the memory of the
//! real producer, which must not grow with the number of cells.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use paceline_loadtest::bench::{Programs, Servers};
use paceline_stack::{ServerKind, Stack, StackOptions};

/// Plans and enqueues runs with the real producer and prints a row for each.
///
/// Servers come from the environment where it names them (AMQP_URL, REDIS_URL, AWS_ENDPOINT_URL_S3), else
/// private ones are started. Programs come from PACELINE_BIN_DIR or the folder of this one.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cells of each run; the memory of the first and the last one should be the same.
    #[arg(long, value_delimiter = ',', default_value = "10000,10000000")]
    cells: Vec<u64>,
    /// Cells of a shard, which is one message.
    #[arg(long, default_value_t = 1000)]
    shard: u64,
}

/// The servers that enqueueing needs.
const NEEDED: [ServerKind; 3] = [ServerKind::RabbitMq, ServerKind::Redis, ServerKind::S3];

/// How often the memory of the producer is read. Its peak is kept by the kernel, so only what happens after
/// the last reading is missed.
const BETWEEN_READINGS: Duration = Duration::from_millis(2);

/// Cells of the inner dimension.
const INNER: u64 = 1000;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let programs = Programs::find()?;
    let (_private, servers) = servers()?;
    println!("what              cells    shards   seconds   shards/s   peak memory");
    for &cells in &arguments.cells {
        let job = PlanJob::new(cells, arguments.shard)?;
        let bench = Bench::new(&programs, &servers, &job)?;
        print_row("dry run", &job, &bench.produce(&["--dry-run"])?);
        print_row("enqueue", &job, &bench.produce(&["--run-id", RUN])?);
        bench.cancel()?;
    }
    Ok(())
}

/// The environment's servers; private ones where it names none.
fn servers() -> anyhow::Result<(Stack, Servers)> {
    let options = StackOptions {
        servers: NEEDED.into(),
        ..StackOptions::from_environment()
    };
    let stack = Stack::start(&options)?;
    let servers = Servers::of(stack.env());
    Ok((stack, servers))
}

/// A job of two ranges.
#[derive(Clone, Copy, Debug)]
struct PlanJob {
    cells: u64,
    shard: u64,
}

impl PlanJob {
    const NAME: &str = "plan";

    fn new(cells: u64, shard: u64) -> anyhow::Result<Self> {
        if cells == 0 || !cells.is_multiple_of(INNER) || shard == 0 {
            bail!("--cells takes multiples of {INNER}, --shard a number above zero");
        }
        Ok(PlanJob { cells, shard })
    }

    fn shards(&self) -> u64 {
        self.cells.div_ceil(self.shard)
    }

    fn write(&self, folder: &Path) -> std::io::Result<()> {
        let (jobs, providers) = (folder.join("jobs"), folder.join("providers"));
        std::fs::create_dir_all(&jobs)?;
        std::fs::create_dir_all(&providers)?;
        std::fs::write(jobs.join("plan.yaml"), self.job())?;
        std::fs::write(providers.join("nobody.yaml"), PROVIDER)
    }

    fn job(&self) -> String {
        let mut text = String::from("job: plan\nprovider: nobody\nendpoint: cells\n");
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "split:\n  outer: {{range: [1, {}]}}\n  inner: {{range: [1, {INNER}]}}\n\
             shard: {{cells: {}, checkpoint: {}}}\noutputs:\n  s3: {{format: ndjson}}\n",
            self.cells / INNER,
            self.shard,
            self.shard.min(20),
        );
        text
    }
}

/// Nobody ever calls it.
const PROVIDER: &str = r#"provider: nobody
version: 1
base_url: http://127.0.0.1:9
limits:
  - {name: second, rate: 1000/s}
endpoints:
  cells:
    get: /cells
    query: {outer: "{{ outer }}", inner: "{{ inner }}"}
    records: $[*]
    fields: {value: $.value}
"#;

/// The run's id; namespace and prefix are each bench's own.
const RUN: &str = "bench";

/// One run of the producer.
struct Measured {
    took: Duration,
    peak_kib: u64,
}

/// A job's spec folder, and the producer's environment.
struct Bench<'a> {
    programs: &'a Programs,
    servers: &'a Servers,
    name: String,
    spec: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    fn new(programs: &'a Programs, servers: &'a Servers, job: &PlanJob) -> anyhow::Result<Self> {
        let spec = tempfile::tempdir()?;
        job.write(spec.path())?;
        let now = jiff::Timestamp::now().as_millisecond();
        Ok(Bench {
            programs,
            servers,
            name: format!("bench-plan-{}-{now}", std::process::id()),
            spec,
        })
    }

    fn produce(&self, arguments: &[&str]) -> anyhow::Result<Measured> {
        let begun = Instant::now();
        let mut child = self.command(&["enqueue", PlanJob::NAME], arguments)?;
        let mut peak_kib = 0;
        let status = loop {
            peak_kib = peak_memory(&child).unwrap_or(peak_kib);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            std::thread::sleep(BETWEEN_READINGS);
        };
        if !status.success() {
            bail!("producer enqueue {} failed: {status}", arguments.join(" "));
        }
        Ok(Measured {
            took: begun.elapsed(),
            peak_kib,
        })
    }

    /// Drops the run's queue with what is in it.
    fn cancel(&self) -> anyhow::Result<()> {
        let status = self.command(&["cancel"], &[RUN])?.wait()?;
        if !status.success() {
            bail!("producer cancel failed: {status}");
        }
        Ok(())
    }

    fn command(&self, command: &[&str], arguments: &[&str]) -> anyhow::Result<Child> {
        self.programs
            .command("producer")
            .args(command)
            .args(arguments)
            .arg("--quiet")
            .envs(self.servers.environment())
            .env("PACELINE_NAMESPACE", &self.name)
            .env("PACELINE_PREFIX", &self.name)
            .env("PACELINE_SPEC", self.spec.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("the producer cannot be started")
    }
}

/// `VmHWM` of a process; `None` when it has just ended.
fn peak_memory(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn print_row(what: &str, job: &PlanJob, measured: &Measured) {
    let seconds = measured.took.as_secs_f64();
    println!(
        "{what:<12} {:>10} {:>9} {seconds:>9.2} {:>10.0} {:>9.1} MiB",
        job.cells,
        job.shards(),
        job.shards() as f64 / seconds,
        measured.peak_kib as f64 / 1024.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_the_cells_that_were_asked_for() {
        let job = PlanJob::new(10_000_000, 1000).unwrap();
        assert_eq!(job.shards(), 10_000);
        assert!(job.job().contains("outer: {range: [1, 10000]}"));
        assert!(PlanJob::new(1_500, 10).is_err());
    }
}
