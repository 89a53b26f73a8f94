//! What a call costs the worker in CPU time, beside a bare loop of the same calls in the same run.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use futures::StreamExt as _;
use paceline_loadtest::bench::{BenchJob, Fleet, Programs, Servers, children_cpu, searches};
use paceline_loadtest::simulator::{
    Latency, Limits, Rate, Simulator, SimulatorConfig, SimulatorHandle,
};

/// Measures CPU microseconds of one call: a worker with everything it does, and a bare reqwest loop.
///
/// Servers come from the environment (AMQP_URL, REDIS_URL, AWS_ENDPOINT_URL_S3 and so on), programs from
/// PACELINE_BIN_DIR or the folder of this one. Both are processes of their own, measured the same way.
#[derive(Debug, Parser)]
struct Arguments {
    /// Calls a second that the provider allows.
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// Calls of each of the two.
    #[arg(long, default_value_t = 60_000)]
    calls: u64,
    /// Calls in flight of the bare loop.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// How often worker and bare loop take turns.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// How long the provider takes to answer.
    #[arg(long, default_value = "5ms")]
    latency: Latency,
    /// Only the bare loop, against this URL. The program starts itself so, to be measured from outside.
    #[arg(long, value_name = "URL", hide = true)]
    bare: Option<String>,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    match &arguments.bare {
        Some(url) => call_barely(url, &arguments),
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let (programs, servers) = (Programs::find()?, Servers::from_environment()?);
    println!("turn   worker us/call   bare us/call   difference");
    for turn in 1..=arguments.turns {
        let worker = worker_cost(arguments, &programs, &servers)?;
        let bare = bare_cost(arguments)?;
        println!(
            "{turn:>4} {worker:>16.1} {bare:>14.1} {:>12.1}",
            worker - bare
        );
    }
    Ok(())
}

/// Microseconds a call of one worker, its start and its drain included.
fn worker_cost(
    arguments: &Arguments,
    programs: &Programs,
    servers: &Servers,
) -> anyhow::Result<f64> {
    let simulator = provider(
        arguments,
        Limits {
            rates: vec![Rate::strict(arguments.rate, Duration::from_secs(1))],
            ..Limits::default()
        },
    )?;
    let job = BenchJob {
        wanted: arguments.calls,
        rate: arguments.rate,
        concurrency: 1024,
    };
    let mut fleet = Fleet::start(programs, servers, &job, &simulator.url(), 1)?;
    fleet.enqueue()?;
    until_answered(&mut fleet, &simulator, &job)?;
    let before = children_cpu()?;
    fleet.drain(Duration::from_secs(40))?;
    let cpu = children_cpu()?.saturating_sub(before);
    let calls = simulator.report().calls;
    fleet.cancel()?;
    Ok(per_call(cpu, calls))
}

fn until_answered(
    fleet: &mut Fleet,
    simulator: &SimulatorHandle,
    job: &BenchJob,
) -> anyhow::Result<()> {
    let patience = Duration::from_secs(60 + 5 * job.cells() / u64::from(job.rate));
    let started = Instant::now();
    loop {
        fleet.check()?;
        let answered = simulator.report().answered_cells;
        if answered >= job.cells() {
            return Ok(());
        }
        if started.elapsed() > patience {
            bail!(
                "{answered} of {} cells answered when time was up",
                job.cells()
            );
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Microseconds a call of the bare loop, in a process of its own.
fn bare_cost(arguments: &Arguments) -> anyhow::Result<f64> {
    let simulator = provider(arguments, Limits::none())?;
    let (calls, concurrency) = (
        arguments.calls.to_string(),
        arguments.concurrency.to_string(),
    );
    let before = children_cpu()?;
    let status = Command::new(std::env::current_exe()?)
        .args([
            "--bare",
            &simulator.url(),
            "--calls",
            &calls,
            "--concurrency",
            &concurrency,
        ])
        .stdin(Stdio::null())
        .status()?;
    ensure!(status.success(), "the bare loop failed: {status}");
    let cpu = children_cpu()?.saturating_sub(before);
    Ok(per_call(cpu, simulator.report().calls))
}

fn provider(arguments: &Arguments, limits: Limits) -> std::io::Result<SimulatorHandle> {
    Simulator::start(SimulatorConfig {
        limits,
        latency: arguments.latency,
        prefer: true,
        ..SimulatorConfig::default()
    })
}

fn per_call(cpu: Duration, calls: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / calls.max(1) as f64
}

/// The bare loop: the same searches, each body read to its end and thrown away.
fn call_barely(url: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = reqwest::Client::new();
        let tomorrow = jiff::Zoned::now().date().tomorrow()?;
        let mut calls = futures::stream::iter(searches(tomorrow, arguments.calls as usize))
            .map(|target| call(&client, format!("{url}{target}")))
            .buffer_unordered(arguments.concurrency);
        while let Some(read) = calls.next().await {
            read.context("the bare loop's call failed")?;
        }
        Ok(())
    })
}

async fn call(client: &reqwest::Client, url: String) -> reqwest::Result<usize> {
    let answer = client.get(url).header("x-api-key", "a").send().await?;
    Ok(answer.bytes().await?.len())
}
