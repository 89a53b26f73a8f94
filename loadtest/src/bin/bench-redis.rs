//! What the limiter costs Redis: round trips and CPU for a call of a real fleet, and how many grants one Redis gives.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use paceline_loadtest::bench::{
    BenchJob, Fleet, Programs, Servers, servers_to_collect, warn_on_stderr,
};
use paceline_loadtest::simulator::{Limits, Rate, Simulator, SimulatorConfig};
use paceline_protocol::keys::Keys;
use paceline_protocol::limit::{Ask, Group, Instance, Rule};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_stack::Stack;

/// Measures a fleet, then the limiter alone.
///
/// The servers are private ones; programs come from PACELINE_BIN_DIR or the folder of this one.
#[derive(Debug, Parser)]
struct Arguments {
    /// Worker processes.
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// Calls a second.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 2_000])]
    rates: Vec<u32>,
    /// Calls in flight that the job allows at a time: at 2,000/s as many for each call of a second as the fare calendar
    /// has.
    #[arg(long, default_value_t = 2_560)]
    concurrency: u32,
    /// How long each is watched.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Grants of one request, of the limiter alone.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 100, 256])]
    batches: Vec<u32>,
}

/// How long every command is listened to.
const LISTEN: Duration = Duration::from_secs(4);
/// Calls start within this, or never.
const START: Duration = Duration::from_secs(60);
/// Who asks for grants at the same time.
const ASKERS: usize = 4;

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = servers_to_collect()?;
    println!(
        "| processes | rate/s | calls/s | round trips a call | requests for grants a call | commands a call | Redis CPU us/call | Redis busy |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &rate in &arguments.rates {
        fleet(&arguments, &stack, rate)?;
    }
    println!("\n| grants a request | grants/s | Redis CPU us/grant | grants a CPU second |");
    println!("|---|---|---|---|");
    let runtime = tokio::runtime::Runtime::new()?;
    for &batch in &arguments.batches {
        runtime.block_on(grants(url(&stack)?, batch))?;
    }
    Ok(())
}

fn url(stack: &Stack) -> anyhow::Result<&str> {
    stack.value("REDIS_URL").context("a Redis")
}

fn fleet(arguments: &Arguments, stack: &Stack, rate: u32) -> anyhow::Result<()> {
    let simulator = Simulator::start(SimulatorConfig {
        limits: Limits {
            rates: vec![Rate::strict(rate, Duration::from_secs(1))],
            concurrency: Some(arguments.concurrency),
            ..Limits::default()
        },
        latency: "5ms..20ms".parse().unwrap_or_default(),
        prefer: true,
        ..SimulatorConfig::default()
    })?;
    let job = BenchJob {
        wanted: u64::from(rate) * (arguments.seconds + 20),
        rate,
        concurrency: arguments.concurrency,
        limits: None,
    };
    let servers = Servers::of(stack.env());
    let programs = Programs::find()?;
    let fleet = Fleet::start(
        &programs,
        &servers,
        &job,
        &simulator.url(),
        arguments.processes,
    )?;
    fleet.enqueue()?;
    let until = Instant::now() + START;
    while simulator.report().calls < u64::from(rate) {
        if Instant::now() > until {
            bail!("no calls within {START:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let redis = url(stack)?;
    let (calls, before, begun) = (simulator.report().calls, Used::of(redis)?, Instant::now());
    std::thread::sleep(Duration::from_secs(arguments.seconds).saturating_sub(LISTEN));
    let seconds = begun.elapsed().as_secs_f64();
    let made = (simulator.report().calls - calls) as f64;
    let after = Used::of(redis)?;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let calls = simulator.report().calls;
    let commands = commands(redis)?;
    let listened = (simulator.report().calls - calls).max(1) as f64;
    println!(
        "| {} | {rate} | {:.0} | {:.3} | {:.3} | {:.3} | {:.1} | {:.1} % |",
        arguments.processes,
        made / seconds,
        (after.reads - before.reads) as f64 / made.max(1.0),
        commands.for_grants as f64 / listened,
        commands.all as f64 / listened,
        cpu * 1e6 / made.max(1.0),
        cpu / seconds * 100.0,
    );
    Ok(())
}

/// Commands that came over the wire in a while.
struct Commands {
    all: usize,
    /// Requests for grants, which renew leases and claims too.
    for_grants: usize,
}

/// What scripts call is marked and left out.
fn commands(url: &str) -> anyhow::Result<Commands> {
    let mut monitor = Command::new("redis-cli")
        .args(["-u", url, "MONITOR"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = monitor.stdout.take().context("a pipe")?;
    let counting = std::thread::spawn(move || {
        let lines = BufReader::new(lines).lines().map_while(Result::ok);
        let sent = lines.filter(|line| line.contains('[') && !line.contains(" lua] "));
        let of_grants = sent.map(|line| line.contains(r#"\"groups\""#));
        of_grants.fold(
            Commands {
                all: 0,
                for_grants: 0,
            },
            |so_far, of_grants| Commands {
                all: so_far.all + 1,
                for_grants: so_far.for_grants + usize::from(of_grants),
            },
        )
    });
    std::thread::sleep(LISTEN);
    monitor.kill()?;
    monitor.wait()?;
    counting
        .join()
        .map_err(|_| anyhow::anyhow!("counting failed"))
}

/// What Redis has used so far.
struct Used {
    cpu: Duration,
    /// How often it read from a connection: what clients send together it reads at once, and answers together.
    reads: u64,
}

impl Used {
    fn of(url: &str) -> anyhow::Result<Used> {
        let output = Command::new("redis-cli")
            .args(["-u", url, "INFO", "everything"])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |name: &str| -> anyhow::Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.with_context(|| format!("INFO has no {name}"))?;
            Ok(number.trim().parse()?)
        };
        Ok(Used {
            cpu: Duration::from_secs_f64(of("used_cpu_sys:")? + of("used_cpu_user:")?),
            reads: of("total_reads_processed:")? as u64,
        })
    }
}

async fn grants(url: &str, batch: u32) -> anyhow::Result<()> {
    const LENGTH: Duration = Duration::from_secs(5);
    let (before, begun) = (Used::of(url)?.cpu, Instant::now());
    let mut askers = tokio::task::JoinSet::new();
    for place in 0..ASKERS {
        let limiter = FleetLimiter::connect(url, Keys::new("bench-grants")).await?;
        askers.spawn(async move {
            let mut given = 0;
            while begun.elapsed() < LENGTH {
                given += limiter.ask(&ask(place, batch)).await?.answer.grants.len();
            }
            anyhow::Ok(given)
        });
    }
    let mut given = 0;
    while let Some(part) = askers.join_next().await {
        given += part??;
    }
    let (seconds, used) = (
        begun.elapsed().as_secs_f64(),
        (Used::of(url)?.cpu - before).as_secs_f64(),
    );
    let given = given as f64;
    println!(
        "| {batch} | {:.0} | {:.2} | {:.0} |",
        given / seconds,
        used * 1e6 / given,
        given / used
    );
    Ok(())
}

/// A limit that no asker ever reaches, and leases, as the fare calendar has them.
fn ask(place: usize, batch: u32) -> Ask {
    let limit = |name: &str, rule| Instance {
        limit: name.into(),
        scope: String::new(),
        rule,
    };
    let rate = Rule::Rate {
        calls: 1_000_000,
        period_us: 1_000_000,
        burst: None,
    };
    let leases = Rule::Concurrency { calls: 1_000_000 };
    Ask {
        limits: vec![limit("second", rate), limit("in-flight", leases)],
        groups: vec![Group {
            run: "bench/1".into(),
            want: batch,
            limits: vec![0, 1],
            choices: Vec::new(),
            spread: false,
            yields: false,
            points: Vec::new(),
        }],
        keeps: false,
        ..Ask::nothing("bench", format!("asker-{place}"))
    }
}
