//! What comparing a run with the last good one costs: seconds and memory of a real `worker load`, from the
//! receipts of a collected run to its manifest. The first night has no base, the second one has.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use paceline_loadtest::bench::{ComparedRun, Programs, RunStores, warn_on_stderr};
use paceline_protocol::keys::Keys;
use paceline_protocol::manifest::Manifest;
use paceline_protocol::stores::broker::Publisher;
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::stores::state::State;
use paceline_protocol::topology::Topology;
use paceline_stack::{Stack, StackOptions};

/// Compares two nights of each size, and prints a row for each night.
///
/// Servers are private ones unless the environment names them; `worker` comes from PACELINE_BIN_DIR or the
/// folder of this program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Records of a night.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000])]
    rows: Vec<u64>,
}

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a night may take.
const PATIENCE: Duration = Duration::from_secs(3600);

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = Stack::start(&StackOptions::from_environment())?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        println!("| rows | night | seconds | rows/s | peak memory |");
        println!("|---|---|---|---|---|");
        for rows in arguments.rows {
            let bench = Bench::connect(&stack, rows).await?;
            bench.night("n1", None, rows).await?;
            bench.night("n2", Some("n1"), rows).await?;
        }
        Ok(())
    })
}

/// The stores, and what a loader process needs to find them.
struct Bench {
    stores: RunStores,
    env: BTreeMap<String, String>,
}

/// A loader; dropping it ends it.
struct Loader(Child);

impl Bench {
    async fn connect(stack: &Stack, rows: u64) -> anyhow::Result<Self> {
        let mut env: BTreeMap<String, String> = stack.env().into_iter().collect();
        let name = format!("bench-changes-{rows}-{}", std::process::id());
        for key in ["PACELINE_NAMESPACE", "PACELINE_PREFIX"] {
            env.insert(key.to_owned(), name.clone());
        }
        let value = |name: &str| env.get(name).with_context(|| format!("{name} is not set"));
        let stores = RunStores {
            objects: Objects::of(value("PACELINE_BUCKET")?, &env).await,
            state: State::connect(value("REDIS_URL")?, Keys::new(name.clone())).await?,
            publisher: Publisher::connect(value("AMQP_URL")?, Topology::new(name.clone())).await?,
            prefix: name,
        };
        Ok(Bench { stores, env })
    }

    async fn night(&self, run: &str, base: Option<&str>, rows: u64) -> anyhow::Result<()> {
        let run = ComparedRun::new(run, base, rows, &self.stores.prefix)?;
        run.write(&self.stores).await?;
        let mut loader = self.loader()?;
        let begun = Instant::now();
        run.publish(&self.stores).await?;
        let manifest = self.manifest(&run, &mut loader, begun).await?;
        let (took, peak) = (begun.elapsed(), loader.peak()?);
        ensure!(
            (manifest.records, manifest.gone, manifest.failed) == (run.rows(), run.gone(), 0),
            "{} records, {} gone, {} failed: {:?}",
            manifest.records,
            manifest.gone,
            manifest.failed,
            manifest.notes
        );
        let night = if base.is_some() { "second" } else { "first" };
        let (seconds, mib) = (took.as_secs_f64(), peak as f64 / 1024.0);
        println!(
            "| {rows} | {night} | {seconds:.1} | {:.0} | {mib:.0} MiB |",
            rows as f64 / seconds
        );
        Ok(())
    }

    fn loader(&self) -> anyhow::Result<Loader> {
        let mut command = Programs::find()?.command("worker");
        command
            .arg("load")
            .envs(&self.env)
            .env("PACELINE_LOG", "warn")
            .stdin(Stdio::null());
        Ok(Loader(command.spawn()?))
    }

    async fn manifest(
        &self,
        run: &ComparedRun,
        loader: &mut Loader,
        begun: Instant,
    ) -> anyhow::Result<Manifest> {
        loop {
            if let Some(object) = self.stores.objects.get(&run.manifest()).await? {
                return Ok(serde_json::from_slice(&object.body)?);
            }
            if let Some(status) = loader.0.try_wait()? {
                bail!("the loader ended by itself: {status}");
            }
            ensure!(begun.elapsed() < PATIENCE, "the loader does not get done");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Loader {
    /// The most memory that it ever had, in KiB.
    fn peak(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let text = line.context("the system does not say how much memory a process had")?;
        Ok(text.trim().trim_end_matches("kB").trim().parse()?)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Either may find the process gone, which is what is wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
