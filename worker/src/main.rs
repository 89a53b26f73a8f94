//! The binary: settings, one role, drain with a deadline, exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use paceline_protocol::probe;
use paceline_protocol::settings::ProcessEnvironment;
use paceline_protocol::stores::traces;
use paceline_worker::admin::{Admin, Readiness};
use paceline_worker::cli::{Cli, CommonArgs, HealthArgs, Role};
use paceline_worker::config::{CollectSettings, LoadSettings};
use paceline_worker::metrics::Metrics;
use paceline_worker::shutdown::{Ended, Shutdown};
use paceline_worker::{collect, load, telemetry};
use tokio::runtime::Runtime;

/// A call allocates some hundred times; this allocator makes that cheaper than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last spans may take.
const TRACES_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Role::Health(args) = &cli.role {
        return health(args);
    }
    let ended = match start(cli) {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("worker: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(ended.code())
}

fn health(args: &HealthArgs) -> ExitCode {
    match probe::ask(args.address, args.ready) {
        Ok(health) if health.well => ExitCode::SUCCESS,
        Ok(health) => {
            eprintln!("{}", health.word);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("worker: {}: {error}", args.address);
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<Ended> {
    telemetry::start(&ProcessEnvironment)?;
    let version = env!("PACELINE_VERSION");
    let service = match &cli.role {
        Role::Load(_) => "paceline-load",
        _ => "paceline-collect",
    };
    traces::start(&ProcessEnvironment, service, version)?;
    let runtime = runtime_for(&cli.role)?;
    let ended = runtime.block_on(run(cli));
    // What is still running after the grace has no say in when the process ends.
    runtime.shutdown_background();
    traces::flush(TRACES_LIMIT);
    ended
}

/// Of a thread. Without optimisation each step of a long future copies what it awaits; finishing a run took more than the
/// usual 2 MiB.
const STACK: usize = 8 << 20;

/// A collector's calls pass between many small tasks; on one thread none of them has to wake another
/// thread. More cores are used by more processes, as everywhere in the fleet. A loader has few, large tasks.
fn runtime_for(role: &Role) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if matches!(role, Role::Collect(_)) {
        builder.worker_threads(1);
    }
    builder.enable_all().thread_stack_size(STACK).build()
}

async fn run(cli: Cli) -> anyhow::Result<Ended> {
    let metrics = Arc::new(Metrics::new()?);
    let readiness = Readiness::default();
    let common = match &cli.role {
        Role::Collect(args) => &args.common,
        Role::Load(args) => &args.common,
        // Answered before anything is started.
        Role::Health(_) => return Ok(Ended::Drained),
    };
    let CommonArgs { listen, grace } = common.clone();
    let shutdown = Shutdown::on_signals(grace, metrics.clone(), readiness.clone())?;
    let _admin = match listen {
        Some(address) => Some(Admin::listen(address, metrics.clone(), readiness.clone()).await?),
        None => None,
    };
    match cli.role {
        Role::Health(_) => Ok(Ended::Drained),
        Role::Load(_) => {
            let settings = LoadSettings::read(&ProcessEnvironment)?;
            let role = load::run(settings, shutdown.clone(), metrics, readiness);
            shutdown.watch(role).await
        }
        Role::Collect(args) => {
            let settings = CollectSettings::read(&ProcessEnvironment, &args)?;
            let role = collect::run(settings, shutdown.clone(), metrics, readiness);
            shutdown.watch(role).await
        }
    }
}
