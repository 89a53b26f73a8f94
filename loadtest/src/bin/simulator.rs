//! The provider simulator as a program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use paceline_loadtest::fares::World;
use paceline_loadtest::referee::Report;
use paceline_loadtest::simulator::{
    Faults, Latency, Limits, Quota, Rate, Simulator, SimulatorConfig, read_log,
};
use tokio::signal::unix::{SignalKind, signal};

/// A fare search provider that enforces its limits strictly and logs every call.
///
/// Prints its URL as the first line, then serves until Ctrl-C or SIGTERM and ends with the referee's report
/// on stderr. Serves `GET /v1/fares?origin&destination&depart&return` (header x-api-key) and `GET /health`.
///
/// While it runs: `GET /_sim/report`, `GET /_sim/log`, `POST /_sim/faults`, `POST /_sim/limits`,
/// `POST /_sim/reset`.
#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Arguments {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: SocketAddr,
    /// A limit of calls in a period, a strict trailing window: 50/s, 600/1m. With `,burst=5` a token bucket,
    /// with `,per=key` for each key. May be given several times.
    #[arg(long, value_name = "RATE")]
    rate: Vec<Rate>,
    /// Least time between two calls.
    #[arg(long, value_name = "TIME", value_parser = time)]
    spacing: Option<Duration>,
    /// Calls in flight.
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Calls of each key in a day.
    #[arg(long, value_name = "N")]
    quota: Option<u64>,
    /// Length of the quota's day, for those in a hurry.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "24h", requires = "quota")]
    quota_every: Duration,
    /// Where the quota's day begins, as an offset from UTC in hours.
    #[arg(
        long,
        value_name = "HOURS",
        default_value_t = 9,
        allow_negative_numbers = true
    )]
    quota_offset: i64,
    /// The keys that it knows.
    #[arg(long, value_delimiter = ',', default_value = "a,b")]
    keys: Vec<String>,
    /// How long answers take: 5ms or 5ms..20ms.
    #[arg(long, default_value = "5ms..20ms", value_name = "TIME")]
    latency: Latency,
    /// What goes wrong: a JSON list such as '[{"fault": {"status": 503}, "share": 0.02}]'.
    #[arg(long, value_name = "JSON", value_parser = faults)]
    faults: Option<Faults>,
    /// Another seed, other prices, gaps, faults and latencies.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of searches with an empty list.
    #[arg(long, default_value_t = 0.03)]
    empty: f64,
    /// Share of searches with status 404.
    #[arg(long, default_value_t = 0.01)]
    missing: f64,
    /// Take any text as a destination.
    #[arg(long)]
    lenient: bool,
    /// Write every call here, as NDJSON.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Ask the system to prefer this program over others.
    #[arg(long)]
    prefer: bool,
    /// Do not serve: count this log against the limits given here, and print the report.
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    judge: Option<PathBuf>,
}

impl Arguments {
    fn config(self) -> SimulatorConfig {
        let world = World {
            seed: self.seed,
            empty_share: self.empty,
            missing_share: self.missing,
        };
        SimulatorConfig {
            listen: self.listen,
            limits: self.limits(),
            keys: self.keys,
            latency: self.latency,
            faults: self.faults.unwrap_or_default(),
            world,
            lenient: self.lenient,
            log_file: self.log,
            prefer: self.prefer,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            rates: self.rate.clone(),
            spacing: self.spacing,
            concurrency: self.concurrency,
            quota: self.quota.map(|calls| Quota {
                calls,
                every: self.quota_every,
                utc_offset_s: self.quota_offset * 3_600,
            }),
            ..Limits::default()
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.judge {
        let text = std::fs::File::open(file).with_context(|| file.display().to_string())?;
        let calls = read_log(std::io::BufReader::new(text))?;
        let report = Report::of(&calls, &arguments.limits());
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let mut simulator = Simulator::start(arguments.config()).context("cannot serve")?;
    println!("{}", simulator.url());
    until_told_to_stop().await?;
    simulator.stop()?;
    eprintln!("{}", serde_json::to_string_pretty(&simulator.report())?);
    Ok(())
}

async fn until_told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let latency: Latency = text
        .parse()
        .map_err(|_| format!("{text:?} is no time; write 100ms, 1s or 2h"))?;
    Ok(latency.from)
}

fn faults(json: &str) -> Result<Faults, serde_json::Error> {
    serde_json::from_str(json)
}
