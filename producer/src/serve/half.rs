//! Starts that were left half made: RabbitMQ was away, or the replica that made them died. Such a run is open, but not
//! all of its shards are published, and nobody else would: it looks started to schedules, chains and triggers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use paceline_protocol::ids::RunRef;

use super::Server;
use super::starting::hopeless;
use crate::commands::enqueue;
use crate::run::{LEFT_AFTER, RunFiles};

/// How often they are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// Goes on with them until the process stops.
pub(super) async fn go_on(server: Arc<Server>) {
    while server.leads_after(LOOK).await {
        if let Err(error) = look(&server).await {
            tracing::debug!("starts that were left wait: {error:#}");
        }
    }
}

async fn look(server: &Server) -> Result<()> {
    let state = &server.stores.state;
    let now = server.clock.now().as_second();
    let ours = server.starting();
    for name in state
        .starts_before(now - LEFT_AFTER.as_secs() as i64)
        .await?
    {
        if ours.contains(&name) {
            continue;
        }
        let Ok(run) = name.parse() else {
            state.forget_start(&name).await?;
            continue;
        };
        match whole(server, &run).await {
            Ok(()) => state.forget_start(&name).await?,
            Err(error) if hopeless(&error) => {
                tracing::error!(run.id = %run, "not all of it is published: {error:#}");
                state.forget_start(&name).await?;
            }
            Err(error) => tracing::warn!(run.id = %run, "its start is made whole later: {error:#}"),
        }
    }
    Ok(())
}

/// Publishes what is missing. What was never planned is started by whoever asked for it.
async fn whole(server: &Server, run: &RunRef) -> Result<()> {
    let stores = &server.stores;
    let Some(files) = RunFiles::read(&stores.archive, run).await? else {
        return Ok(());
    };
    if files.ended().is_some() {
        return Ok(());
    }
    enqueue::make_whole(&server.context, stores, &files).await?;
    tracing::warn!(run.id = %run, "its start had been left half made; it is whole now");
    Ok(())
}
