//! `producer pause` and `producer resume`

use std::collections::BTreeSet;

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::message::Control;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::kept_limits::KeptLimits;
use paceline_protocol::stores::state::OpenRun;

use super::enqueue::make_whole;
use super::lost_queue::lacks_a_queue;
use super::status::and_status;
use crate::cli::RunArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::limits::change::tell_the_fleet;
use crate::limits::limiter_name;
use crate::run::{RunFiles, find, is_left, put_entry};
use crate::stores::Stores;

/// Lets workers take no more shards of a run.
///
/// # Errors
/// When the run is unknown or has ended, or a server is away.
pub async fn pause(context: &Context, args: &RunArgs) -> Result<Exit> {
    let stores = Stores::connect(&context.env).await?;
    let run = find(&stores.archive, &args.run).await?;
    let done = pause_run(context, &stores, &run).await;
    let done = and_status(context, &stores, &run, done).await;
    stores.close().await;
    done
}

/// The same with servers at hand.
///
/// # Errors
/// As [`pause`].
pub async fn pause_run(context: &Context, stores: &Stores, run: &RunRef) -> Result<Exit> {
    let (files, entry) = open_run(stores, run).await?;
    if entry.paused {
        context.say(format!("{run} is paused already"));
        return Ok(Exit::Done);
    }
    let reason = Some("producer pause".to_owned());
    change(
        stores,
        OpenRun {
            paused: true,
            reason,
            ..entry
        },
    )
    .await?;
    stores
        .publisher
        .control(&Control::Pause { run: run.clone() })
        .await?;
    context.say(format!(
        "{run} is paused with {} shards; calls in flight still end. `producer resume {run}` goes on",
        files.plan.shards()
    ));
    Ok(Exit::Done)
}

/// Goes on with a paused run, and opens again what answers had closed, paused or not.
///
/// # Errors
/// When the run is unknown or has ended, or a server is away.
pub async fn resume(context: &Context, args: &RunArgs) -> Result<Exit> {
    let stores = Stores::connect(&context.env).await?;
    let run = find(&stores.archive, &args.run).await?;
    let done = resume_run(context, &stores, &run).await;
    let done = and_status(context, &stores, &run, done).await;
    stores.close().await;
    done
}

/// The same with servers at hand.
///
/// # Errors
/// As [`resume`].
pub async fn resume_run(context: &Context, stores: &Stores, run: &RunRef) -> Result<Exit> {
    let (files, entry) = open_run(stores, run).await?;
    let lost_queue = lacks_a_queue(stores, &entry).await?;
    reopen(stores, &files.plan).await?;
    change(
        stores,
        OpenRun {
            paused: false,
            reason: None,
            ..entry
        },
    )
    .await?;
    stores.publisher.control(&Control::RunsChanged).await?;
    if is_left(&stores.state, run).await? {
        Box::pin(make_whole(context, stores, &files)).await?;
        stores.state.forget_start(&run.to_string()).await?;
        context.say(format!(
            "{run} had not been published as a whole; it is now"
        ));
    } else if lost_queue {
        Box::pin(make_whole(context, stores, &files)).await?;
        context.say(format!(
            "a queue of {run} was gone; its shards are published again"
        ));
    }
    context.say(format!("{run} goes on; `producer watch {run}` shows it"));
    Ok(Exit::Done)
}

/// Opens again what answers had closed for the plan's providers. Our own counts stay.
///
/// # Errors
/// When Redis does not answer.
pub async fn reopen(stores: &Stores, plan: &Plan) -> Result<()> {
    let names: BTreeSet<String> = plan.providers.values().map(limiter_name).collect();
    for name in names {
        let kept = KeptLimits {
            objects: stores.objects(),
            prefix: stores.prefix(),
            provider: &name,
        };
        kept.forget_bans().await?;
        stores.limiter.reopen(&name).await?;
        tell_the_fleet(stores, &name).await?;
    }
    Ok(())
}

async fn open_run(stores: &Stores, run: &RunRef) -> Result<(RunFiles, OpenRun)> {
    let files = RunFiles::expect(&stores.archive, run).await?;
    match files.open.clone() {
        Some(entry) => Ok((files, entry)),
        None if files.manifest.is_some() => Err(Refusal::usage(format!("{run} has ended"))),
        None => Err(Refusal::usage(format!(
            "{run} is planned but not enqueued: `producer enqueue` with its run id goes on with it"
        ))),
    }
}

/// S3 first: the registry is made from it when Redis is lost.
async fn change(stores: &Stores, entry: OpenRun) -> Result<()> {
    put_entry(stores, &entry).await?;
    Ok(stores.state.set_open_run(&entry).await?)
}
