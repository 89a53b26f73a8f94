//! Plans, enqueues, watches and audits runs. `main.rs` is a thin shell around [`start`].
//!
//! One file of [`commands`] for each subcommand; what several of them need lies beside: [`mod@run`] (a
//! run's objects, parts and publication), [`watch`] (progress), [`limits`], [`audit`].

// Whoever prints writes through `terminal`, which knows what to do when the reader is gone.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod audit;
pub mod calling;
pub mod check;
pub mod clean;
pub mod cli;
pub mod commands;
pub mod context;
pub mod exit;
pub mod inputs;
pub mod interrupt;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod plan;
pub mod pool;
pub mod rights;
pub mod run;
pub mod scaffold;
pub mod serve;
pub mod show;
pub mod stores;
pub mod terminal;
pub mod trying;
pub mod watch;

use std::time::Duration;

use clap::Parser;
use paceline_protocol::settings::ProcessEnvironment;
use paceline_protocol::stores::traces;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::exit::Exit;

/// Reads the command line, does what it says, and returns how the process is to end.
pub async fn start() -> Exit {
    let cli = Cli::parse();
    logging::start(context::is_plain(&cli.global));
    let context = Context::new(&cli.global);
    let json = context.json;
    let version = env!("PACELINE_VERSION");
    if let Err(wrong) = traces::start(&ProcessEnvironment, "paceline-producer", version) {
        return exit::report(&wrong.into(), json);
    }
    let exit = run(cli, context).await;
    traces::flush(TRACES_LIMIT);
    exit
}

/// How long the last spans may take.
const TRACES_LIMIT: Duration = Duration::from_secs(1);

async fn run(cli: Cli, context: Context) -> Exit {
    let json = context.json;
    if let Command::Serve(args) = &cli.command {
        // It listens to signals by itself: the first one drains.
        let served = serve::run(context, args).await;
        return served.unwrap_or_else(|error| exit::report(&error, json));
    }
    let done = tokio::select! {
        done = commands::dispatch(cli.command, &context) => done,
        () = interrupt::asked_to_stop() => {
            context.farewell.say();
            return Exit::Interrupted;
        }
    };
    done.unwrap_or_else(|error| exit::report(&error, context.json))
}
