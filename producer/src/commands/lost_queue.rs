//! A run whose queue is gone (somebody deleted it, or RabbitMQ came back empty) has lost its shards: whoever tends
//! the run publishes them again, by what lies in S3.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::stores::state::{OpenRun, QUEUE_GONE};

use super::enqueue::make_whole;
use crate::context::Context;
use crate::run::{RunFiles, forget_if_ended};
use crate::stores::Stores;

/// How often it is looked for.
pub const LOOK: Duration = Duration::from_secs(4);
/// What a collector told has to stand for so long: the queues of a run that just ends are gone too.
const STANDS: Duration = Duration::from_secs(3);

/// Looks after the queues of runs.
#[derive(Default)]
pub struct LostQueues {
    /// Since when a collector misses the queue of a run.
    missed: HashMap<RunRef, Instant>,
}

impl LostQueues {
    /// Publishes the shards of `run` again where a collector misses its queue; `ends` says which runs are being ended.
    ///
    /// # Errors
    /// When a server is away; the next look tries again.
    pub async fn look(
        &mut self,
        context: &Context,
        stores: &Stores,
        run: &RunRef,
        ends: impl Fn(&RunFiles) -> bool,
    ) -> Result<()> {
        if !is_missed(stores, run).await? {
            self.missed.remove(run);
            return Ok(());
        }
        let since = *self.missed.entry(run.clone()).or_insert_with(Instant::now);
        if since.elapsed() < STANDS {
            return Ok(());
        }
        let files = RunFiles::expect(&stores.archive, run).await?;
        if files.open.is_none() || files.ended().is_some() {
            return forget_if_ended(stores, run).await;
        }
        if ends(&files) {
            return Ok(());
        }
        Box::pin(make_whole(context, stores, &files)).await?;
        stores.state.serves_again(run).await?;
        self.missed.remove(run);
        tracing::warn!(run.id = %run, "its queue was gone; its shards are published again");
        context.say(format!(
            "the queue of {run} was gone; its shards are published again"
        ));
        Ok(())
    }

    /// Looks after one run for as long as it is polled.
    pub async fn watch(mut self, context: &Context, stores: &Stores, run: &RunRef) -> ! {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.look(context, stores, run, |_| false).await {
                tracing::debug!(run.id = %run, "its queues are looked after later: {error:#}");
            }
        }
    }
}

/// Whether one of the run's queues is gone, as a `cancel` leaves it that was cut off.
///
/// # Errors
/// When RabbitMQ is away.
pub async fn lacks_a_queue(stores: &Stores, entry: &OpenRun) -> Result<bool> {
    for lane in &entry.lanes {
        if stores.publisher.depth(lane, &entry.run).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the run is open and a collector found no queue of it.
async fn is_missed(stores: &Stores, run: &RunRef) -> Result<bool> {
    let told = stores.state.unserved(run).await?;
    if !told.is_some_and(|why| why.starts_with(QUEUE_GONE)) {
        return Ok(false);
    }
    let open = stores.state.open_runs().await?.unwrap_or_default();
    Ok(open.iter().any(|open| open.run == *run && !open.paused))
}
