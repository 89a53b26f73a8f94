//! Telling the world how runs ended (`notify:`). An event waits in a durable queue that is bound before the
//! first run ends; it becomes one delivery for each webhook of its job, and a delivery that fails comes back
//! through the delay queues. No run ever waits for a webhook.

pub(super) mod address;
mod body;
mod delivery;
pub(super) mod sign;
mod told;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::stores::broker::{Hear, Letter};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::task::TaskTracker;

use self::delivery::Delivery;
use self::sign::Signer;
pub(super) use self::told::{Delivered, delivered};
use super::Server;
use crate::run::RunFiles;

/// Events in hand at a time.
const AT_A_TIME: u16 = 4;

/// What an event of a run says at least.
#[derive(Debug, Deserialize)]
struct Ended {
    job: String,
    run: RunId,
    #[serde(default)]
    round: u32,
}

/// Starts both halves.
pub(super) fn spawn(tasks: &TaskTracker, server: Arc<Server>, signer: Signer) {
    tasks.spawn(tell(server.clone()));
    tasks.spawn(delivery::deliver(server, Arc::new(signer)));
}

/// Makes deliveries of events.
async fn tell(server: Arc<Server>) {
    let Ok(mut inbox) = server.inbox(Hear::Notifications, AT_A_TIME) else {
        return;
    };
    loop {
        let letter = tokio::select! {
            letter = inbox.next() => letter,
            () = server.stop.cancelled() => return,
        };
        let Some(letter) = letter else { continue };
        if !handled(&server, letter).await {
            return;
        }
    }
}

/// Tries until it is done; false when the process stops before.
async fn handled(server: &Server, letter: Letter) -> bool {
    let mut told = false;
    loop {
        match publish(server, &letter).await {
            Ok(()) => {
                letter.ack().await;
                return true;
            }
            Err(error) => {
                if !told {
                    tracing::warn!("a notification waits: {error:#}");
                    told = true;
                }
                tokio::select! {
                    () = tokio::time::sleep(std::time::Duration::from_secs(2)) => {}
                    () = server.stop.cancelled() => return false,
                }
            }
        }
    }
}

/// One delivery for each webhook that wants this event. Done again, it makes deliveries of the same ids,
/// which are told once.
async fn publish(server: &Server, letter: &Letter) -> Result<()> {
    let read = serde_json::from_slice::<Ended>(&letter.body);
    let data = serde_json::from_slice::<Value>(&letter.body);
    let (Ok(event), Ok(data)) = (read, data) else {
        tracing::error!(
            topic = letter.topic,
            "an event cannot be read; nobody is told"
        );
        return Ok(());
    };
    let Some(word) = letter.topic.strip_prefix("run.") else {
        return Ok(());
    };
    let run = RunRef {
        job: event.job,
        run: event.run,
    };
    let Some(files) = RunFiles::read(&server.stores.archive, &run).await? else {
        tracing::warn!(run.id = %run, "the run of an event is gone; nobody is told");
        return Ok(());
    };
    for (place, hook) in files.plan.job.notify.iter().enumerate() {
        if !hook.on.iter().any(|on| on == word) {
            continue;
        }
        let name = format!("{run}/{word}/{}/{place}", event.round);
        let delivery = Delivery {
            id: format!("evt_{}", &hex::encode(Sha256::digest(&name))[..32]),
            topic: letter.topic.clone(),
            run: run.clone(),
            hook: place,
            attempt: 0,
            at: jiff::Timestamp::now(),
            data: data.clone(),
        };
        let body = serde_json::to_value(&delivery).context("a delivery is plain JSON")?;
        server.stores.publisher.delivery(&body, None).await?;
    }
    Ok(())
}
