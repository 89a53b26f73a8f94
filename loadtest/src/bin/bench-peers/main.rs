//! Side by side: what others make of the same allowance, each configured as its manual says.

mod peer;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use paceline_loadtest::bench::{
    BenchJob, Fleet, Programs, Servers, servers_to_collect, warn_on_stderr,
};
use paceline_loadtest::simulator::{
    Call, Limits, Rate, Simulator, SimulatorConfig, SimulatorHandle, Verdict,
};
use paceline_stack::Stack;

use peer::{Crew, Peer};

/// Runs each of them at each rate, undisturbed, with a process killed (-9) and replaced, and after FLUSHALL.
///
/// Installs them from their registries into a folder of its own (`target/peers`) and leaves out, with a word, what
/// cannot be installed. Servers are private ones; programs come from PACELINE_BIN_DIR or the folder of this one.
#[derive(Debug, Parser)]
struct Arguments {
    /// Calls a second.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 500])]
    rates: Vec<u32>,
    /// Processes of each.
    #[arg(long, default_value_t = 8)]
    processes: usize,
    /// Length of each part.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// These only.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where they are installed.
    #[arg(long, default_value = "target/peers")]
    folder: std::path::PathBuf,
}

/// Calls start within this, or never.
const START: Duration = Duration::from_secs(45);

/// What a part of a run came to.
struct Part {
    used: f64,
    refused: f64,
    worst: usize,
}

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = servers_to_collect()?;
    println!(
        "| who | rate/s | used | refused | worst second | used, refused, worst after kill -9 | after FLUSHALL | CPU ms/call |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|o| o == name);
    let mut peers = Vec::new();
    for peer in Peer::ALL.into_iter().filter(|peer| wanted(peer.name())) {
        match peer.install(&arguments.folder) {
            Ok(()) => peers.push(peer),
            Err(why) => eprintln!("{} is left out: {why:#}", peer.name()),
        }
    }
    for &rate in &arguments.rates {
        for peer in &peers {
            match measure(&arguments, &stack, rate, Some(*peer)) {
                Ok(row) => println!("{row}"),
                Err(why) => eprintln!("{} at {rate}/s is left out: {why:#}", peer.name()),
            }
        }
        if wanted("paceline") {
            println!("{}", measure(&arguments, &stack, rate, None)?);
        }
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    stack: &Stack,
    rate: u32,
    peer: Option<Peer>,
) -> anyhow::Result<String> {
    flush(stack)?;
    let simulator = Simulator::start(SimulatorConfig {
        limits: Limits {
            rates: vec![Rate::strict(rate, Duration::from_secs(1))],
            ..Limits::default()
        },
        latency: "5ms..20ms".parse().unwrap_or_default(),
        prefer: true,
        ..SimulatorConfig::default()
    })?;
    let url = simulator.url();
    let calls = u64::from(rate) * (4 * arguments.seconds + 60);
    let mut crew = match peer {
        Some(peer) => Crew::of(
            peer,
            &arguments.folder,
            stack,
            &url,
            rate,
            calls,
            arguments.processes,
        )?,
        None => ours(stack, &url, rate, calls, arguments.processes)?,
    };
    until_begun(&simulator)?;
    std::thread::sleep(Duration::from_secs(4));
    let length = Duration::from_secs(arguments.seconds);
    let (cpu, seen) = (crew.cpu(), simulator.report().calls);
    let undisturbed = part(&simulator, rate, length);
    let used = crew.cpu().saturating_sub(cpu).as_secs_f64() * 1e3;
    let cpu = used / (simulator.report().calls - seen).max(1) as f64;
    crew.replace_one()?;
    let killed = part(&simulator, rate, length);
    flush(stack)?;
    crew.feed()?;
    let flushed = part(&simulator, rate, length);
    let three = |part: &Part| format!("{:.1} %, {:.1} %, {}", part.used, part.refused, part.worst);
    Ok(format!(
        "| {} | {rate} | {:.1} % | {:.1} % | {} | {} | {} | {cpu:.2} |",
        peer.map_or("paceline", Peer::name),
        undisturbed.used,
        undisturbed.refused,
        undisturbed.worst,
        three(&killed),
        three(&flushed),
    ))
}

fn ours(stack: &Stack, url: &str, rate: u32, calls: u64, processes: usize) -> anyhow::Result<Crew> {
    let limit = format!("  - {{name: second, rate: {rate}/s}}");
    let job = BenchJob {
        wanted: calls,
        rate,
        concurrency: 256,
        limits: Some(Box::leak(limit.into_boxed_str())),
    };
    let servers = Servers::of(stack.env());
    let fleet = Fleet::start(&Programs::find()?, &servers, &job, url, processes)?;
    fleet.enqueue()?;
    Ok(Crew::Ours(Box::new(fleet)))
}

fn flush(stack: &Stack) -> anyhow::Result<()> {
    let url = stack.value("REDIS_URL").unwrap_or_default();
    let mut flush = std::process::Command::new("redis-cli");
    flush
        .args(["-u", url, "FLUSHALL"])
        .stdout(std::process::Stdio::null());
    anyhow::ensure!(flush.status()?.success(), "FLUSHALL failed");
    Ok(())
}

fn until_begun(simulator: &SimulatorHandle) -> anyhow::Result<()> {
    let until = Instant::now() + START;
    while simulator.report().calls < 20 {
        anyhow::ensure!(Instant::now() < until, "no calls within {START:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// What arrives from now on for `length`.
fn part(simulator: &SimulatorHandle, rate: u32, length: Duration) -> Part {
    let wall_us = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_micros() as i64
    };
    let from = wall_us();
    std::thread::sleep(length);
    let to = wall_us();
    let log = simulator.log();
    let inside =
        |call: &&Call| (from..to).contains(&call.wall_us) && call.verdict != Verdict::Health;
    let calls: Vec<&Call> = log.iter().filter(inside).collect();
    let refused = calls
        .iter()
        .filter(|c| c.verdict == Verdict::Refused)
        .count() as f64;
    let mut at: Vec<i64> = calls.iter().map(|call| call.wall_us).collect();
    at.sort_unstable();
    let (mut first, mut worst) = (0, 0);
    for (last, now) in at.iter().enumerate() {
        while now - at[first] >= 1_000_000 {
            first += 1;
        }
        worst = worst.max(last + 1 - first);
    }
    let all = calls.len() as f64;
    let allowed = (to - from) as f64 / 1e6 * f64::from(rate);
    Part {
        used: (all - refused) / allowed * 100.0,
        refused: refused / all.max(1.0) * 100.0,
        worst,
    }
}
