//! `producer watch`, and what `--wait` does.

use anyhow::Result;
use paceline_protocol::ids::RunRef;

use crate::cli::RunArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::run::find;
use crate::stores::{Archive, Stores};
use crate::watch::Watcher;

/// Shows a run's progress and ends with it.
///
/// # Errors
/// When the run is unknown or a server stays away.
pub async fn run(context: &Context, args: &RunArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let run = find(&archive, &args.run).await?;
    let state = archive.state(&context.env).await?;
    let limiter = archive.limiter(&context.env).await?;
    let watcher = Watcher {
        context,
        archive: &archive,
        state: &state,
        limiter: &limiter,
    };
    watcher.to_the_end(&run).await
}

/// The same with servers at hand.
///
/// # Errors
/// When a server stays away.
pub async fn until_the_end(context: &Context, stores: &Stores, run: &RunRef) -> Result<Exit> {
    let watcher = Watcher {
        context,
        archive: &stores.archive,
        state: &stores.state,
        limiter: &stores.limiter,
    };
    watcher.to_the_end(run).await
}
