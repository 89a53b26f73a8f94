//! The subcommands, one file each.

mod audit;
mod cancel;
mod check;
mod doctor;
mod enqueue;
mod limits;
mod load;
mod pause;
mod plan;
mod retry;
mod runs;
mod schema;
mod status;
mod watch;

use anyhow::Result;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Does what the command line says.
///
/// # Errors
/// Whatever kept the command from being done; [`crate::exit::report`] knows its exit code.
pub async fn dispatch(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Check(args) => check::run(context, &args),
        Command::Plan(args) => plan::run(context, &args).await,
        Command::Enqueue(args) => enqueue::run(context, &args).await,
        Command::Runs(args) => runs::run(context, &args).await,
        Command::Status(args) => status::run(context, &args).await,
        Command::Watch(args) => watch::run(context, &args).await,
        Command::Retry(args) => retry::run(context, &args).await,
        Command::Cancel(args) => cancel::run(context, &args).await,
        Command::Pause(args) => pause::pause(context, &args).await,
        Command::Resume(args) => pause::resume(context, &args).await,
        Command::Limits(args) => limits::run(context, &args).await,
        Command::Audit(args) => audit::run(context, &args).await,
        Command::Doctor => doctor::run(context).await,
        Command::Schema(args) => schema::run(&args),
    }
}
