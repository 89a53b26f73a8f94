//! `producer cancel`

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::stores::traces;

use super::status::and_status;
use crate::cli::RunArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::run::{RunFiles, cancelled, find, forget_entry, forget_if_ended, stop};
use crate::show;
use crate::stores::Stores;

/// How long the lease of finishing is held, and how long a finisher at work is waited for.
const LEASE: Duration = Duration::from_secs(60);

/// Ends a run now; its parts stay.
///
/// # Errors
/// When the run is unknown, a server is away, or a loader is finishing the run in this moment.
pub async fn run(context: &Context, args: &RunArgs) -> Result<Exit> {
    let stores = Stores::connect(&context.env).await?;
    let run = find(&stores.archive, &args.run).await?;
    let done = cancel(context, &stores, &run).await;
    let done = and_status(context, &stores, &run, done).await;
    stores.close().await;
    done
}

/// The same with servers at hand.
///
/// # Errors
/// When a server is away, or a loader is finishing the run in this moment.
pub async fn cancel(context: &Context, stores: &Stores, run: &RunRef) -> Result<Exit> {
    let files = RunFiles::expect(&stores.archive, run).await?;
    if files.ended().is_some() {
        forget_if_ended(stores, run).await?;
        context.say(format!("{run} has ended; nothing was cancelled"));
        return Ok(Exit::Done);
    }
    let holder = format!("cancel-{}", uuid::Uuid::now_v7().simple());
    take_finisher(context, stores, run, &holder).await?;
    let done = end(context, stores, run, &files).await;
    stores.state.release_finisher(&run.job, &holder).await?;
    done
}

/// Nobody may finish the run while it is cancelled: one of the two manifests would be a lie.
async fn take_finisher(
    context: &Context,
    stores: &Stores,
    run: &RunRef,
    holder: &str,
) -> Result<()> {
    let tries = LEASE.as_secs();
    for attempt in 0..tries {
        if stores.state.take_finisher(&run.job, holder, LEASE).await? {
            return Ok(());
        }
        if attempt == 0 {
            context.say(format!(
                "a run of {} is being finished; waiting up to {tries} s",
                run.job
            ));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!(
        "a run of {} is still being finished; `producer status {run}` says whether it is this one",
        run.job
    )
}

async fn end(context: &Context, stores: &Stores, run: &RunRef, files: &RunFiles) -> Result<Exit> {
    // It may have ended while we waited for the lease.
    if RunFiles::expect(&stores.archive, run)
        .await?
        .ended()
        .is_some()
    {
        context.say(format!("{run} has ended; nothing was cancelled"));
        return Ok(Exit::Done);
    }
    stop(stores, run, &files.plan.lanes()).await?;
    let layout = RunLayout::new(stores.prefix(), run).collecting(&files.plan);
    let manifest = cancelled(stores.objects(), &layout, &files.plan, Timestamp::now()).await?;
    let body = serde_json::to_vec_pretty(&manifest)?;
    stores
        .objects()
        .put(&layout.manifest(), body.into(), &[])
        .await?;
    traces::run_ended(&files.plan, "cancelled", manifest.cells, manifest.failed);
    forget_entry(stores, run).await?;
    let topic = serde_json::json!({ "job": run.job, "run": run.run, "state": "cancelled",
        "round": files.open.as_ref().map_or(0, |open| open.round) });
    stores.publisher.event("run.cancelled", &topic).await?;
    context.say(format!(
        "{run} is cancelled with {} of {} cells collected; they stay in S3. `producer retry {run}` sends the rest",
        show::count(manifest.succeeded + manifest.empty),
        show::count(manifest.cells),
    ));
    Ok(Exit::Done)
}
