//! The subcommands, one file each.

mod audit;
pub(crate) mod cancel;
mod check;
mod clean;
mod doctor;
pub(crate) mod enqueue;
mod health;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod lost_queue;
mod new;
pub(crate) mod pause;
mod plan;
mod rebuild;
pub(crate) mod retry;
mod rights;
pub(crate) mod runs;
mod schedule;
mod schema;
mod status;
mod test_cases;
mod try_cell;
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
        Command::New(args) => new::run(context, &args),
        Command::Plan(args) => plan::run(context, &args).await,
        Command::Enqueue(args) => enqueue::run(context, &args).await,
        Command::Try(args) => try_cell::run(context, &args).await,
        Command::Test(args) => test_cases::run(context, &args),
        Command::Runs(args) => runs::run(context, &args).await,
        Command::Status(args) => status::run(context, &args).await,
        Command::Watch(args) => watch::run(context, &args).await,
        Command::Retry(args) => retry::run(context, &args).await,
        Command::Rebuild(args) => rebuild::run(context, &args).await,
        Command::Clean(args) => clean::run(context, &args).await,
        Command::Cancel(args) => cancel::run(context, &args).await,
        Command::Pause(args) => pause::pause(context, &args).await,
        Command::Resume(args) => pause::resume(context, &args).await,
        Command::Limits(args) => limits::run(context, &args).await,
        Command::Audit(args) => audit::run(context, &args).await,
        // Taken before a command is dispatched, since it listens to signals by itself.
        Command::Serve(_) => Ok(Exit::Done),
        Command::Schedule(args) => schedule::run(context, &args).await,
        Command::Doctor => doctor::run(context).await,
        Command::Rights(args) => rights::run(context, &args),
        Command::Health(args) => Ok(health::run(&args)),
        Command::Schema(args) => schema::run(&args),
    }
}
