//! A run's entry among the open runs: first the object in S3, then Redis' registry, which is made from it.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::state::OpenRun;

use crate::stores::Stores;

/// The entry of a plan's run in `round`.
pub fn new_entry(plan: &Plan, round: u32) -> OpenRun {
    OpenRun {
        run: plan.run_ref(),
        lanes: plan.lanes().into_iter().map(str::to_owned).collect(),
        priority: plan.job.priority,
        paused: false,
        reason: None,
        round,
        opened_at: Some(Timestamp::now()),
    }
}

/// Puts the entry to S3.
///
/// # Errors
/// When S3 does not take it.
pub async fn put_entry(stores: &Stores, entry: &OpenRun) -> Result<()> {
    let key = layout::open_run(stores.prefix(), &entry.run);
    let body = serde_json::to_vec(entry).context("an open run is plain JSON")?;
    Ok(stores.objects().put(&key, body.into(), &[]).await?)
}

/// Puts the entry to the registry and declares its queues, so that workers find both. Of a retry, what
/// Redis remembers of the run is kept from expiring in its middle.
///
/// # Errors
/// When Redis or RabbitMQ is away.
pub async fn register(stores: &Stores, entry: &OpenRun) -> Result<()> {
    // The queues come first: a worker that hears of a run without queues takes it for ended.
    for lane in &entry.lanes {
        stores.publisher.open_queue(lane, &entry.run).await?;
    }
    // What was told of its queues when an earlier round ended.
    stores.state.serves_again(&entry.run).await?;
    stores.state.set_open_run(entry).await?;
    // Whoever was stopped for a while comes late: others have made the run whole, and it has ended.
    forget_if_ended(stores, &entry.run).await
}

/// Takes a run out of the registry that has no entry in S3: it has ended, and was registered late.
///
/// # Errors
/// When Redis or S3 is away.
pub async fn forget_if_ended(stores: &Stores, run: &RunRef) -> Result<()> {
    let key = layout::open_run(stores.prefix(), run);
    if stores.objects().head(&key).await?.is_none() {
        stores.state.remove_open_run(run).await?;
    }
    Ok(())
}

/// Takes a run out of the registry and deletes its queues: no worker starts anything more.
///
/// # Errors
/// When a server is away.
pub async fn stop(stores: &Stores, run: &RunRef, lanes: &[&str]) -> Result<()> {
    stores.state.remove_open_run(run).await?;
    Ok(stores.publisher.end_queues(lanes, run).await?)
}

/// Deletes a run's entry in S3: from now on it has ended. The last step of an end, so that one that
/// was cut off is seen and can be done again.
///
/// # Errors
/// When S3 is away.
pub async fn forget_entry(stores: &Stores, run: &RunRef) -> Result<()> {
    let key = layout::open_run(stores.prefix(), run);
    Ok(stores.objects().delete(&key).await?)
}
