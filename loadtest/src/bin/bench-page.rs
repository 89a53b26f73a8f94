//! The page of `producer serve` beside many runs and a very large one: bytes of the first view, and how long the server
//! takes for it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use paceline_loadtest::bench::{
    BenchJob, Programs, Served, Times, environment, servers_to_collect, warn_on_stderr,
    write_ended_runs,
};
use paceline_protocol::stores::objects::Objects;

/// Writes ended runs, enqueues a large one, and asks for pages.
///
/// Servers are private ones; `producer` comes from PACELINE_BIN_DIR or the folder of this program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs that have ended.
    #[arg(long, default_value_t = 1_000)]
    runs: u32,
    /// Shards of the run that goes, of 100 cells each.
    #[arg(long, default_value_t = 100_000)]
    shards: u64,
    /// How often each page is asked for.
    #[arg(long, default_value_t = 200)]
    asks: usize,
}

/// The files that every page needs.
const ASSETS: [&str; 3] = ["page.css", "page.js", "icon.svg"];
/// How long the server may take to have seen all runs.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = servers_to_collect()?;
    let spec = tempfile::tempdir()?;
    let job = BenchJob {
        wanted: arguments.shards * 100,
        rate: 50,
        concurrency: 64,
        limits: None,
    };
    job.write(spec.path())?;
    let env = environment(stack.env(), "page", "http://127.0.0.1:9", spec.path());
    let named: BTreeMap<String, String> = env.iter().cloned().collect();
    let value = |name: &str| {
        named
            .get(name)
            .with_context(|| format!("{name} is not set"))
    };
    let objects = Objects::of(value("PACELINE_BUCKET")?, &named).await;
    write_ended_runs(
        &objects,
        value("PACELINE_PREFIX")?,
        spec.path(),
        arguments.runs,
    )
    .await?;
    let programs = Programs::find()?;
    let enqueued = programs
        .command("producer")
        .args(["enqueue", BenchJob::NAME, "--run-id", "large"])
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(enqueued.success(), "producer enqueue: {enqueued}");
    let served = Served::start(&programs, &env)?;
    let newest = format!("ended-{:05}", arguments.runs.saturating_sub(1));
    let all_seen = |text: &str| text.contains("large") && text.contains(&newest);
    served.until("/", PATIENCE, all_seen).await?;
    let large = |text: &str| text.contains("large");
    served.until("/runs/bench/large", PATIENCE, large).await?;
    let mut assets = 0;
    for name in ASSETS {
        let answer = reqwest::get(format!("{}/assets/{name}", served.url())).await?;
        assets += answer.error_for_status()?.bytes().await?.len();
    }
    println!("| page | HTML bytes | first view, bytes | median ms | 99th percentile ms |");
    println!("|---|---|---|---|---|");
    for path in ["/", "/runs/bench/large", "/limits", "/jobs", "/views"] {
        let (times, bytes) = Times::of(&format!("{}{path}", served.url()), arguments.asks).await?;
        println!(
            "| `{path}` | {bytes} | {} | {:.2} | {:.2} |",
            bytes + assets,
            times.ms(50.0),
            times.ms(99.0)
        );
    }
    println!(
        "\n{} runs have ended, one of {} shards goes; the server holds {} MiB.",
        arguments.runs,
        job.cells() / 100,
        served.resident_mib()
    );
    Ok(())
}
