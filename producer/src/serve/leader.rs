//! Who of the replicas starts things: a lease in Redis with a fence.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Server;

/// How long a dead leader keeps the others waiting.
const LEASE: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);

/// Takes and renews the lease; `lead` shows the fence while it is ours.
pub(super) async fn lead(server: Arc<Server>, lead: watch::Sender<Option<u64>>) {
    let holder = uuid::Uuid::now_v7().simple().to_string();
    loop {
        server.clock.look(&server.stores.limiter).await;
        let taken = server.stores.state.take_serving(&holder, LEASE).await;
        let fence = taken.unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing is started while Redis is away");
            None
        });
        let changed = lead.send_if_modified(|held| {
            let changed = *held != fence;
            *held = fence;
            changed
        });
        if changed {
            tracing::info!(
                fence,
                "{}",
                if fence.is_some() {
                    "this process starts runs"
                } else {
                    "another one starts runs"
                }
            );
        }
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            () = server.stop.cancelled() => break,
        }
    }
    lead.send_replace(None);
    if let Err(error) = server.stores.state.release_serving(&holder).await {
        tracing::debug!(%error, "the lease ends by itself");
    }
}
