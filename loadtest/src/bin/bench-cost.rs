//! What a call costs the worker in CPU time, beside bare loops of the same calls in the same run: one that calls as fast
//! as it can, and one that starts each call at its instant, as a limit demands. Who calls as fast as it can finds many
//! answers at each look; who is paced wakes up for nearly every one, which costs most of a bare call.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use futures::StreamExt as _;
use paceline_loadtest::bench::{
    BenchJob, Fleet, Programs, Scene, Servers, children_cpu, searches, servers_to_collect,
};
use paceline_loadtest::simulator::{
    Latency, Limits, Rate, Simulator, SimulatorConfig, SimulatorHandle,
};

/// Measures CPU microseconds of one call: a worker with everything it does, a bare reqwest loop, and one paced as the worker is.
///
/// Servers come from the environment (AMQP_URL, REDIS_URL, AWS_ENDPOINT_URL_S3 and so on), programs from
/// PACELINE_BIN_DIR or the folder of this one. All are processes of their own, measured the same way.
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
    /// How often worker and bare loops take turns.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Another job instead of the fare calendar, without bare loops and on private servers: one of eleven-street, coupang, naver-commerce (markets of orders),
    /// events, search, votes (objects that are read, no calls), reviews.
    #[arg(long)]
    job: Option<String>,
    /// Sellers, countries, keywords or regions of that job.
    #[arg(long, default_value_t = 300)]
    size: usize,
    /// How long the provider takes to answer.
    #[arg(long, default_value = "5ms")]
    latency: Latency,
    /// Only the bare loop, against this URL. The program starts itself so, to be measured from outside.
    #[arg(long, value_name = "URL", hide = true)]
    bare: Option<String>,
    /// The bare loop starts its calls at the rate, one after the other.
    #[arg(long, requires = "bare", hide = true)]
    paced: bool,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    match (&arguments.bare, &arguments.job) {
        (Some(url), _) => call_barely(url, &arguments),
        (None, Some(job)) => cost_of(job, &arguments),
        (None, None) => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<()> {
    let (programs, servers) = (Programs::find()?, Servers::from_environment()?);
    println!("turn   worker us/call   bare us/call   bare, paced   worker - paced");
    for turn in 1..=arguments.turns {
        let worker = worker_cost(arguments, &programs, &servers)?;
        let bare = bare_cost(arguments, false)?;
        let paced = bare_cost(arguments, true)?;
        println!(
            "{turn:>4} {worker:>16.1} {bare:>14.1} {paced:>13.1} {:>16.1}",
            worker - paced
        );
    }
    Ok(())
}

/// One worker, a run of another job; its start and its drain are in.
fn cost_of(job: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let (programs, stack) = (Programs::find()?, servers_to_collect()?);
    let (servers, environment) = (Servers::of(stack.env()), stack.env().into_iter().collect());
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{job}: turn   cells   calls   worker us/call   us/cell   seconds");
    for turn in 1..=arguments.turns {
        let scene = runtime.block_on(Scene::set(job, arguments.size, &environment))?;
        let mut fleet = Fleet::of_spec(
            &programs,
            &servers,
            scene.job,
            scene.folder.path(),
            scene.arguments,
        );
        for (name, value) in &scene.environment {
            fleet.set(name, value);
        }
        fleet.add_worker()?;
        let started = Instant::now();
        fleet.enqueue()?;
        let cells = until_collected(&mut fleet)?;
        let took = started.elapsed().as_secs_f64();
        let before = children_cpu()?;
        fleet.drain(Duration::from_secs(40))?;
        let cpu = children_cpu()?.saturating_sub(before);
        let calls = fleet.audit()?["calls"].as_u64().unwrap_or(0);
        fleet.cancel()?;
        let each = match calls {
            0 => "-".to_owned(),
            calls => format!("{:.1}", per_call(cpu, calls)),
        };
        println!(
            "{:>width$} {cells:>7} {calls:>7} {each:>16} {:>9.1} {took:>9.1}",
            turn,
            per_call(cpu, cells),
            width = job.len() + 6,
        );
    }
    Ok(())
}

/// Waits until every cell of the run has ended, and says how many there are.
fn until_collected(fleet: &mut Fleet) -> anyhow::Result<u64> {
    const PATIENCE: Duration = Duration::from_secs(900);
    let started = Instant::now();
    loop {
        fleet.check()?;
        let status = fleet.status()?;
        let number = |name: &str| status[name].as_u64().unwrap_or(0);
        let ended = number("succeeded") + number("empty") + number("failed");
        let cells = number("cells");
        if cells > 0 && ended >= cells {
            ensure!(number("failed") == 0, "{} cells failed", number("failed"));
            return Ok(cells);
        }
        if started.elapsed() > PATIENCE {
            bail!("{ended} of {cells} cells ended when time was up");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
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
        limits: None,
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

/// Microseconds a call of a bare loop, in a process of its own.
fn bare_cost(arguments: &Arguments, paced: bool) -> anyhow::Result<f64> {
    let simulator = provider(arguments, Limits::none())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--bare", &simulator.url()]);
    for (name, number) in [
        ("--calls", arguments.calls),
        ("--concurrency", arguments.concurrency as u64),
        ("--rate", arguments.rate.into()),
    ] {
        command.args([name, &number.to_string()]);
    }
    if paced {
        command.arg("--paced");
    }
    let before = children_cpu()?;
    let status = command.stdin(Stdio::null()).status()?;
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

/// The bare loops: the same searches, each body read to its end and thrown away.
fn call_barely(url: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = reqwest::Client::new();
        let tomorrow = jiff::Zoned::now().date().tomorrow()?;
        let targets = searches(tomorrow, arguments.calls as usize);
        let calls = targets.map(|target| call(&client, format!("{url}{target}")));
        if arguments.paced {
            return pace(calls, arguments.rate).await;
        }
        let mut calls = futures::stream::iter(calls).buffer_unordered(arguments.concurrency);
        while let Some(read) = calls.next().await {
            read.context("the bare loop's call failed")?;
        }
        Ok(())
    })
}

/// Starts each call at its instant, whatever became of the others.
async fn pace<F>(calls: impl Iterator<Item = F>, rate: u32) -> anyhow::Result<()>
where
    F: Future<Output = reqwest::Result<usize>>,
{
    let begun = tokio::time::Instant::now();
    let mut in_flight = futures::stream::FuturesUnordered::<F>::new();
    for (number, call) in calls.enumerate() {
        let start = begun + Duration::from_secs_f64(number as f64 / f64::from(rate));
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(start) => break,
                Some(read) = in_flight.next() => {
                    let _: usize = read.context("the paced loop's call failed")?;
                }
            }
        }
        in_flight.push(call);
    }
    while let Some(read) = in_flight.next().await {
        read.context("the paced loop's call failed")?;
    }
    Ok(())
}

async fn call(client: &reqwest::Client, url: String) -> reqwest::Result<usize> {
    let answer = client.get(url).header("x-api-key", "a").send().await?;
    Ok(answer.bytes().await?.len())
}
