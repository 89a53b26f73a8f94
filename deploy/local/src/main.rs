//! `stack`: the four private servers by hand, for `make stack` and for working on a job.

mod detached;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use paceline_stack::{ServerKind, Stack, StackOptions};
use tokio::signal::unix::{SignalKind, signal};

use detached::Desk;

/// Private RabbitMQ, Redis, S3 and Elasticsearch servers on free ports.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start them, print the environment that leads to them, stay until Ctrl-C
    Up {
        /// Keep the servers' data here; without it the data goes when the servers go
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Only these: rabbitmq, redis, s3, elasticsearch
        #[arg(long, value_delimiter = ',', value_name = "SERVER")]
        only: Vec<ServerKind>,
        /// Return when they are up; `stack down` ends them
        #[arg(long)]
        detach: bool,
    },
    /// End the servers that `stack up` started, here or elsewhere
    Down,
    /// Print the environment of the servers that are up
    Env,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let desk = Desk::of_this_user();
    match command {
        Command::Up {
            detach: true,
            dir,
            only,
        } => desk.detach(dir.as_deref(), &only),
        Command::Up {
            detach: false,
            dir,
            only,
        } => up(&desk, dir, &only).await,
        Command::Down => desk.end_other(),
        Command::Env => {
            print!("{}", desk.environment()?);
            Ok(())
        }
    }
}

/// Starts the servers and stays until told to stop.
async fn up(desk: &Desk, dir: Option<PathBuf>, only: &[ServerKind]) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let claim = desk.claim()?;
    let mut options = StackOptions {
        dir,
        ..StackOptions::from_environment()
    };
    if !only.is_empty() {
        options.servers = only.iter().copied().collect();
    }
    let names: Vec<&str> = options.servers.iter().map(|kind| kind.name()).collect();
    eprintln!("Starting {} ...", names.join(", "));
    let starting = tokio::task::spawn_blocking(move || Stack::start(&options));
    // Interrupted while they start: we end, and the guardian ends them.
    let stack = tokio::select! {
        stack = starting => stack.context("starting the servers")??,
        _ = interrupt.recv() => std::process::exit(130),
        _ = terminate.recv() => std::process::exit(143),
    };
    let environment = exports(&stack);
    print!("{environment}");
    claim.announce(&environment)?;
    eprintln!("They are up; logs are in {}.", stack.folder().display());
    eprintln!("Ctrl-C or `stack down` ends them.");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    eprintln!("Stopping ...");
    drop(stack);
    Ok(())
}

/// The environment as a shell reads it.
fn exports(stack: &Stack) -> String {
    let line = |(name, value): (String, String)| {
        let quoted = value.replace('\'', r"'\''");
        format!("export {name}='{quoted}'\n")
    };
    stack.env().into_iter().map(line).collect()
}
