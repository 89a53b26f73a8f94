//! `producer watch`, and what `--wait` does.

use std::net::SocketAddr;

use anyhow::Result;
use paceline_protocol::ids::RunRef;

use super::lost_queue::LostQueues;
use super::status::say_as_json;
use crate::cli::WatchArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::listen::Listening;
use crate::run::find;
use crate::stores::{Archive, Stores};
use crate::watch::Watcher;

/// Shows a run's progress and ends with it; with `--json` says what `status` says then.
///
/// # Errors
/// When the run is unknown or a server stays away.
pub async fn run(context: &Context, args: &WatchArgs) -> Result<Exit> {
    let listening = Listening::start(args.listen).await?;
    let archive = Archive::connect(&context.env).await?;
    let run = find(&archive, &args.run).await?;
    let state = archive.state(&context.env).await?;
    let limiter = archive.limiter(&context.env).await?;
    let watcher = Watcher {
        context,
        archive: &archive,
        state: &state,
        limiter: &limiter,
        listening: listening.as_ref(),
    };
    let exit = watcher.to_the_end(&run).await?;
    say_as_json(context, &archive, &state, &limiter, &run).await?;
    Ok(exit)
}

/// The same with servers at hand, and others looking on at `listen`: who waits for a run also looks after its queues.
///
/// # Errors
/// When a server stays away, or the address cannot be had.
pub async fn until_the_end(
    context: &Context,
    stores: &Stores,
    run: &RunRef,
    listen: Option<SocketAddr>,
) -> Result<Exit> {
    let listening = Listening::start(listen).await?;
    let watcher = Watcher {
        context,
        archive: &stores.archive,
        state: &stores.state,
        limiter: &stores.limiter,
        listening: listening.as_ref(),
    };
    tokio::select! {
        exit = watcher.to_the_end(run) => exit,
        never = LostQueues::default().watch(context, stores, run) => never,
    }
}
