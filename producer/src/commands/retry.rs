//! `producer retry`

use anyhow::Result;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::{Manifest, RunEnd};
use paceline_protocol::message::Control;
use paceline_protocol::plan::{Plan, Shard};

use super::enqueue::go_on;
use super::pause::{reopen, resume_run};
use super::status::and_status;
use super::watch::until_the_end;
use crate::cli::RetryArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::run::{
    Coverage, Left, PartsFound, Round, RunFiles, coverage, find, left_to_do, new_entry,
    newest_round, publish_shards, publishing_order, put_entry, register,
};
use crate::show;
use crate::stores::Stores;

/// Opens an ended run again for its failed and missing cells.
///
/// # Errors
/// When the run is unknown or still going, or a server is away.
pub async fn run(context: &Context, args: &RetryArgs) -> Result<Exit> {
    let stores = Stores::connect(&context.env).await?;
    let run = find(&stores.archive, &args.run).await?;
    let files = RunFiles::expect(&stores.archive, &run).await?;
    let started = retry_run(context, &stores, &files).await;
    let exit = match (started, files.ended()) {
        (Err(error), _) => Err(error),
        (Ok(false), Some(manifest)) => Ok(manifest.state.into()),
        (Ok(_), _) if args.wait => until_the_end(context, &stores, &run, None).await,
        (Ok(_), _) => Ok(Exit::Done),
    };
    let exit = and_status(context, &stores, &run, exit).await;
    stores.close().await;
    exit
}

/// Opens an ended run again, or goes on with a retry; false when there is nothing to send.
///
/// # Errors
/// When the run is still going, or a server is away.
pub async fn retry_run(context: &Context, stores: &Stores, files: &RunFiles) -> Result<bool> {
    match (&files.open, files.ended()) {
        (Some(open), _) if open.round > 0 => {
            // A retry that was cut off, or is going: publish again what its round still lacks.
            go_on(context, stores, files).await.map(|()| true)
        }
        (None, Some(manifest)) => start(context, stores, files, manifest).await,
        (Some(_), _) => {
            // It is going: what its provider closed is opened again, its cells are still to come.
            let run = files.plan.run_ref();
            resume_run(context, stores, &run).await?;
            context.say(format!(
                "what has failed is sent by `producer retry {run}` when it has ended"
            ));
            Ok(true)
        }
        (None, None) => {
            let run = files.plan.run_ref();
            Err(Refusal::usage(format!(
                "{run} is planned but not enqueued: `producer enqueue` with its run id goes on with it"
            )))
        }
    }
}

/// Starts the next round; false when there is nothing to send.
async fn start(
    context: &Context,
    stores: &Stores,
    files: &RunFiles,
    manifest: &Manifest,
) -> Result<bool> {
    let plan = &files.plan;
    let layout = RunLayout::new(stores.prefix(), &plan.run_ref()).collecting(plan);
    let found = PartsFound::list(stores.objects(), &layout).await?;
    refuse_if_removed(plan, manifest, &found)?;
    let round = newest_round(&found) + 1;
    let left = left_to_do(stores.objects(), &layout, plan, &found, round).await?;
    if left.open.is_empty() && manifest.state == RunEnd::Cancelled {
        // The last calls ended after the run was cancelled, so only its end is missing.
        return finish(context, stores, files, round - 1)
            .await
            .map(|()| true);
    }
    if left.open.is_empty() {
        context.say(format!(
            "{}: nothing failed, nothing is missing",
            plan.run_ref()
        ));
        return Ok(false);
    }
    publish_round(context, stores, files, round, &left).await?;
    context.say(format!(
        "retry {round} of {}: {} cells in {} shards (it had {} failed)",
        plan.run_ref(),
        show::count(left.cells),
        show::count(left.open.len() as u64),
        show::count(manifest.failed),
    ));
    Ok(true)
}

/// A run that completed has a part for every block. Where they are gone its calls would be made again.
fn refuse_if_removed(plan: &Plan, manifest: &Manifest, found: &PartsFound) -> Result<()> {
    let removed = plan.all_shards().find(|shard| {
        let blocks = shard.blocks(plan.job.shard);
        coverage(blocks, &found.of(shard.number)) == Coverage::Lacking
    });
    match removed {
        Some(_) if manifest.state == RunEnd::Completed => Err(Refusal::usage(format!(
            "{run} completed, and what it collected was removed since (`producer clean`, or a rule of the bucket): there is nothing left of it to retry; `producer enqueue {job}` starts a run that calls everything again",
            run = plan.run_ref(),
            job = plan.job.name,
        ))),
        _ => Ok(()),
    }
}

/// Opens the run again in a round that has all its parts: loaders load it and end it by its gate.
async fn finish(context: &Context, stores: &Stores, files: &RunFiles, round: u32) -> Result<()> {
    put_entry(stores, &new_entry(&files.plan, round)).await?;
    let opened = RunFiles::expect(&stores.archive, &files.plan.run_ref()).await?;
    go_on(context, stores, &opened).await
}

async fn publish_round(
    context: &Context,
    stores: &Stores,
    files: &RunFiles,
    round: u32,
    left: &Left,
) -> Result<()> {
    let plan = &files.plan;
    let entry = new_entry(plan, round);
    put_entry(stores, &entry).await?;
    register(stores, &entry).await?;
    reopen(stores, plan).await?;
    let total = left.open.len() as u64;
    let shards = move || -> Box<dyn Iterator<Item = Shard<'_>> + Send> {
        Box::new(publishing_order(plan, total).filter_map(move |n| left.shard(plan, n)))
    };
    let round = Round {
        plan,
        round,
        total,
        shards: &shards,
    };
    publish_shards(context, stores, &round).await?;
    Ok(stores.publisher.control(&Control::RunsChanged).await?)
}
