//! Publishes the shards of open runs again whose queue is gone ([`LostQueues`]), except of those past their deadline:
//! their queues were deleted for good.

use std::sync::Arc;

use anyhow::Result;

use super::{Server, deadline};
use crate::commands::lost_queue::{LOOK, LostQueues};

/// Looks after them until the process stops.
pub(super) async fn look_after(server: Arc<Server>) {
    let mut queues = LostQueues::default();
    while server.leads_after(LOOK).await {
        if let Err(error) = look(&server, &mut queues).await {
            tracing::debug!("lost queues wait: {error:#}");
        }
    }
}

async fn look(server: &Server, queues: &mut LostQueues) -> Result<()> {
    let stores = &server.stores;
    for open in stores.state.open_runs().await?.unwrap_or_default() {
        let now = server.clock.now();
        queues
            .look(&server.context, stores, &open.run, |files| {
                deadline::is_past(files, now)
            })
            .await?;
    }
    Ok(())
}
