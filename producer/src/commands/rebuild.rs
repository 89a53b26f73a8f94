//! `producer rebuild`
//!
//! Loading knows how to go on from S3 alone, so a rebuild is made by loaders: what Redis remembers of the run is
//! forgotten, its entry is put to S3, and one receipt makes a loader publish all the others. The same command again
//! goes on with a rebuild that is under way.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, RunLayout};
use paceline_protocol::manifest::{Live, Manifest, RunEnd};
use paceline_protocol::message::Receipt;
use paceline_protocol::plan::Plan;
use paceline_protocol::rebuild::{Rebuild, Rebuilt};
use paceline_protocol::spec::IndexMode;
use paceline_protocol::stores::objects::PutNew;
use paceline_protocol::version;
use uuid::Uuid;

use crate::cli::RebuildArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::run::{OwnLoader, PartsFound, RunFiles, find, json, newest_round};
use crate::show;
use crate::stores::{Stores, index};

/// How often the end is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Makes again what a run published, and waits until it is there.
///
/// # Errors
/// When the run is unknown, still going, was never published or is not to be again, or a server is away.
pub async fn run(context: &Context, args: &RebuildArgs) -> Result<Exit> {
    let stores = Stores::connect(&context.env).await?;
    let exit = rebuild(context, &stores, args).await;
    stores.close().await;
    exit
}

async fn rebuild(context: &Context, stores: &Stores, args: &RebuildArgs) -> Result<Exit> {
    let run = find(&stores.archive, &args.run).await?;
    let files = RunFiles::expect(&stores.archive, &run).await?;
    let outputs = &files.plan.job.outputs;
    if outputs.index.is_some() {
        index(&context.env).await?;
    }
    let key = layout::live(stores.prefix(), &run.job);
    let live: Option<Live> = json(stores.objects(), &key).await?;
    let manifest = judge(&files, live.as_ref(), args.force)?;
    if files.plan.shards() == 0 || (outputs.index.is_none() && outputs.rankings.is_empty()) {
        context.say(format!("{run} has published nothing that could be lost"));
        return Ok(Exit::Done);
    }
    let layout = RunLayout::new(stores.prefix(), &run).collecting(&files.plan);
    expect_parts(stores, &layout, manifest).await?;
    let entry = begin(context, stores, &files.plan, &layout, args.force).await?;
    let rebuilt = until_done(context, stores, &run, &layout, &entry).await?;
    tell(context, &run, &rebuilt)
}

/// Whether the run may be made again; its manifest, when it may.
fn judge<'a>(files: &'a RunFiles, live: Option<&Live>, force: bool) -> Result<&'a Manifest> {
    let run = files.plan.run_ref();
    let Some(manifest) = files.ended() else {
        return Err(Refusal::usage(format!(
            "{run} has not ended: what it has collected is loaded as it comes"
        )));
    };
    if manifest.state != RunEnd::Completed {
        return Err(Refusal::outside_gate(format!(
            "{run} did not pass its gate, so nothing of it was ever published: `producer retry {run}` sends what failed"
        )));
    }
    let newer = live.filter(|live| live.planned_at > files.plan.planned_at);
    match newer {
        Some(newer) if !force && takes_a_place(&files.plan) => Err(Refusal::usage(format!(
            "{run} was planned before the live run {}: `producer rebuild {}/{}` makes again what is live; --force puts {run} into its place",
            newer.run, run.job, newer.run
        ))),
        _ => Ok(manifest),
    }
}

/// Whether a run of this plan publishes what only one run can have: an alias, or sets.
fn takes_a_place(plan: &Plan) -> bool {
    let outputs = &plan.job.outputs;
    let index = outputs.index.as_ref();
    plan.only.is_empty()
        && (!outputs.rankings.is_empty() || index.is_some_and(|i| i.mode == IndexMode::Snapshot))
}

/// Every part that the manifest names must lie in S3: half a run is not made again.
async fn expect_parts(stores: &Stores, layout: &RunLayout, manifest: &Manifest) -> Result<()> {
    let listed = stores
        .objects()
        .list(&layout.clone().giving().data())
        .await?;
    let there: BTreeSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    let gone: Vec<&str> = manifest
        .parts
        .iter()
        .map(|part| part.key.as_str())
        .filter(|key| !there.contains(key))
        .collect();
    anyhow::ensure!(
        gone.is_empty(),
        "{} of its {} parts are gone from S3 ({} is one of them): it cannot be made again",
        gone.len(),
        manifest.parts.len(),
        gone[0]
    );
    Ok(())
}

/// Puts the entry, or finds the one of a rebuild that is under way, and publishes the first receipt.
async fn begin(
    context: &Context,
    stores: &Stores,
    plan: &Plan,
    layout: &RunLayout,
    force: bool,
) -> Result<Rebuild> {
    let run = plan.run_ref();
    let key = layout::rebuild(stores.prefix(), &run);
    let entry = match json::<Rebuild>(stores.objects(), &key).await? {
        Some(there) => there,
        None => {
            let found = PartsFound::list(stores.objects(), layout).await?;
            let entry = Rebuild {
                run: run.clone(),
                id: Uuid::now_v7(),
                round: newest_round(&found),
                force,
            };
            stores.state.forget_run(&run).await?;
            let body = serde_json::to_vec(&entry)?.into();
            match stores.objects().put_new(&key, body, &[]).await? {
                PutNew::Exists => json(stores.objects(), &key)
                    .await?
                    .with_context(|| format!("{key} was put and went away in this moment"))?,
                PutNew::Created => entry,
            }
        }
    };
    context.farewell.set(format!(
        "loaders go on with it; `producer rebuild {run}` waits for them again"
    ));
    let receipt = Receipt {
        v: version::message(),
        job: run.job,
        run: run.run,
        shard: Some(0),
        round: entry.round,
        parts: Vec::new(),
        rebuild: Some(entry.id),
        trace: None,
    };
    stores.publisher.receipt(&receipt).await?;
    Ok(entry)
}

/// Waits until a loader says what came of it.
async fn until_done(
    context: &Context,
    stores: &Stores,
    run: &RunRef,
    layout: &RunLayout,
    entry: &Rebuild,
) -> Result<Rebuilt> {
    let mut own = match stores.publisher.loaders().await? {
        0 => OwnLoader::start(context)?,
        _ => None,
    };
    let key = layout::rebuild(stores.prefix(), run);
    loop {
        let rebuilt: Option<Rebuilt> = json(stores.objects(), &layout.rebuilt()).await?;
        let ours = rebuilt.filter(|rebuilt| rebuilt.id == entry.id);
        let gone = stores.objects().head(&key).await?.is_none();
        match ours {
            Some(rebuilt) if gone => {
                if let Some(own) = own {
                    own.stop().await;
                }
                return Ok(rebuilt);
            }
            None if gone => anyhow::bail!(
                "another rebuild of {run} ended in this moment: do it again to be sure"
            ),
            _ => {
                own.as_mut().map_or(Ok(()), OwnLoader::expect_alive)?;
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

fn tell(context: &Context, run: &RunRef, rebuilt: &Rebuilt) -> Result<Exit> {
    if context.json {
        crate::terminal::data(serde_json::json!({
            "run": run.run, "job": run.job, "passed": rebuilt.passed, "documents": rebuilt.documents,
            "index": rebuilt.index, "sets": rebuilt.sets, "notes": rebuilt.notes,
        }));
    }
    let members: u64 = rebuilt.sets.values().sum();
    let index = rebuilt.index.as_ref().map_or_else(String::new, |index| {
        format!("{} documents in {index}, ", show::count(rebuilt.documents))
    });
    let verdict = if rebuilt.passed {
        "was made again"
    } else {
        "could not be made again"
    };
    context.say(format!(
        "{run} {verdict}: {index}{} members in {} sorted sets",
        show::count(members),
        show::count(rebuilt.sets.len() as u64)
    ));
    for note in &rebuilt.notes {
        context.say(format!("  {note}"));
    }
    Ok(if rebuilt.passed {
        Exit::Done
    } else {
        Exit::OutsideGate
    })
}
