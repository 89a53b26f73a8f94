//! How much of an allowance a fleet uses, and whether it ever passes it: real workers against the strict
//! simulator, judged by the simulator's log.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Parser;
use paceline_loadtest::bench::{BenchJob, Fleet, Programs, Servers, children_cpu};
use paceline_loadtest::referee::Report;
use paceline_loadtest::simulator::{
    Latency, Limits, Rate, Simulator, SimulatorConfig, SimulatorHandle,
};

/// Runs fleets of several sizes at several rates and prints a row for each.
///
/// Servers come from the environment (AMQP_URL, REDIS_URL, AWS_ENDPOINT_URL_S3 and so on), programs from
/// PACELINE_BIN_DIR or the folder of this one. Ends with 6 when a call was refused.
#[derive(Debug, Parser)]
struct Arguments {
    /// Worker processes.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    processes: Vec<usize>,
    /// Calls a second.
    #[arg(long, value_delimiter = ',', default_value = "100,500,2000")]
    rates: Vec<u32>,
    /// Length of each run at the full rate.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long the provider takes to answer.
    #[arg(long, default_value = "5ms..20ms")]
    latency: Latency,
    /// Calls in flight that are allowed.
    #[arg(long, default_value_t = 256)]
    concurrency: u32,
}

/// Exit code of a limit that was passed, as in `producer audit`.
const LIMIT_PASSED: i32 = 6;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let (programs, servers) = (Programs::find()?, Servers::from_environment()?);
    println!(
        "processes   rate/s   used steady   used all   refused   worst   repeated   CPU us/call"
    );
    let mut refused = 0;
    for &rate in &arguments.rates {
        for &processes in &arguments.processes {
            let (report, cpu) = measure(&arguments, &programs, &servers, rate, processes)?;
            print_row(processes, rate, &report, cpu);
            refused += report.refused;
        }
    }
    if refused > 0 {
        eprintln!("{refused} calls were refused: a limit was passed");
        std::process::exit(LIMIT_PASSED);
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    programs: &Programs,
    servers: &Servers,
    rate: u32,
    processes: usize,
) -> anyhow::Result<(Report, Duration)> {
    let simulator = Simulator::start(SimulatorConfig {
        limits: Limits {
            rates: vec![Rate::strict(rate, Duration::from_secs(1))],
            concurrency: Some(arguments.concurrency),
            ..Limits::default()
        },
        latency: arguments.latency,
        prefer: true,
        ..SimulatorConfig::default()
    })?;
    let job = BenchJob {
        wanted: u64::from(rate) * arguments.seconds,
        rate,
        concurrency: arguments.concurrency,
        limits: None,
    };
    let mut fleet = Fleet::start(programs, servers, &job, &simulator.url(), processes)?;
    fleet.enqueue()?;
    until_answered(&mut fleet, &simulator, &job, arguments.seconds)?;
    let before = children_cpu()?;
    fleet.drain(Duration::from_secs(40))?;
    let cpu = children_cpu()?.saturating_sub(before);
    let report = simulator.report();
    fleet.cancel()?;
    Ok((report, cpu))
}

/// Waits until every cell has its answer; three times the planned length is too long.
fn until_answered(
    fleet: &mut Fleet,
    simulator: &SimulatorHandle,
    job: &BenchJob,
    seconds: u64,
) -> anyhow::Result<()> {
    let planned = job.cells() / u64::from(job.rate);
    let deadline = Instant::now() + Duration::from_secs(30 + 3 * planned.max(seconds));
    loop {
        fleet.check()?;
        let answered = simulator.report().answered_cells;
        if answered >= job.cells() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{answered} of {} cells answered when time was up",
                job.cells()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn print_row(processes: usize, rate: u32, report: &Report, cpu: Duration) {
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |s| format!("{:.2} %", s * 100.0));
    let seen = report.rates.first();
    println!(
        "{processes:>9} {rate:>8} {:>13} {:>10} {:>9} {:>7} {:>10} {:>13.1}",
        percent(seen.and_then(|r| r.steady)),
        percent(seen.and_then(|r| r.used)),
        report.refused,
        seen.map_or(0, |r| r.worst),
        report.repeated,
        cpu.as_micros() as f64 / report.calls.max(1) as f64,
    );
}
