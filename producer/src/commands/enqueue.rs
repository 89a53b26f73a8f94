//! `producer enqueue`
//!
//! The order of the steps makes each of them safe to cut off: plan, open-runs object, queues, registry,
//! shards. The same command again goes on where it stopped, by what lies in S3.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;
use futures::FutureExt;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::RunEnd;
use paceline_protocol::message::Control;
use paceline_protocol::plan::{Plan, Shard};
use paceline_protocol::stores::objects::PutNew;
use paceline_protocol::stores::traces::{self, Kind, Span};
use tracing::Instrument;

use super::load::{self, Asked};
use super::plan::print_estimate;
use super::watch::until_the_end;
use crate::calling::Fleet;
use crate::cli::EnqueueArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::run::{
    BETWEEN_ROUNDS, PartsFound, Readiness, Round, RunFiles, Wait, base_of, left_to_do, new_entry,
    noted, publish_receipts, publish_shards, publishing_order, put_entry, register, zero_shards,
};
use crate::stores::{Archive, Stores};
use paceline_protocol::spec::LoadedJob;

/// Plans a run and publishes it, or goes on with one.
///
/// # Errors
/// When a server is away, the job is wrong, or the run id stands for another plan.
pub async fn run(context: &Context, args: &EnqueueArgs) -> Result<Exit> {
    let job = load::job(context, &args.job)?;
    let id = args.run_id.clone().unwrap_or_else(load::new_run_id);
    if args.dry_run {
        print_estimate(
            context,
            &planned(context, args, &job, id, &Known::default()).await?,
        )?;
        return Ok(Exit::Done);
    }
    let stores = Stores::connect(&context.env).await?;
    stores
        .objects()
        .probe_conditional_put(stores.prefix())
        .await?;
    let run = RunRef {
        job: job.job.name.clone(),
        run: id.clone(),
    };
    let starting = start(context, &stores, &job, args, id, None).boxed();
    let is_left = |started: &Result<Started>| {
        let error = started.as_ref().err();
        error.is_some_and(|error| error.is::<Opened>())
    };
    let exit = match noted(&stores, &run, starting, is_left).await {
        Ok(started) => ended_with(context, &stores, args, &started).await,
        Err(error) if error.is::<OtherPlan>() => Err(Refusal::usage(error.to_string())),
        Err(error) => {
            // It is there, though not whole: whoever goes on with it needs its name.
            if let Some(Opened(run)) = error.downcast_ref::<Opened>() {
                print_id(context, run);
            }
            Err(error)
        }
    };
    stores.close().await;
    exit
}

/// A run that was opened, but of which not all could be published.
#[derive(Debug, thiserror::Error)]
#[error("{0} is open, not all of it is published; `producer enqueue` with its --run-id goes on")]
pub struct Opened(RunRef);

/// A run id that stands for another plan.
#[derive(Debug, thiserror::Error)]
#[error(
    "run {0} stands for another plan ({1} differ): choose another --run-id, or undo the change"
)]
pub struct OtherPlan(RunRef, String);

/// What came of starting a run.
#[derive(Clone, Debug)]
pub struct Started {
    /// The run.
    pub run: RunRef,
    /// How it had ended before: then nothing was sent.
    pub ended: Option<RunEnd>,
    /// Whether its plan was there before.
    pub again: bool,
}

/// Plans the run `id` and publishes it, or goes on with it, as `args` say; `parent` is the run that it
/// follows, where that is known. Prints nothing.
///
/// # Errors
/// As [`run`].
pub async fn start(
    context: &Context,
    stores: &Stores,
    job: &LoadedJob,
    args: &EnqueueArgs,
    id: RunId,
    parent: Option<&RunId>,
) -> Result<Started> {
    let enqueueing = Enqueueing {
        context,
        args,
        stores,
        job,
        parent,
    };
    enqueueing.run(id).await
}

/// Prints the run's id and, with `--wait`, ends with the run.
async fn ended_with(
    context: &Context,
    stores: &Stores,
    args: &EnqueueArgs,
    started: &Started,
) -> Result<Exit> {
    let run = &started.run;
    print_id(context, run);
    if let Some(end) = started.ended {
        let word = match end {
            RunEnd::Completed => "has completed",
            RunEnd::Failed => "has finished outside its gate (`producer retry` sends what failed)",
            RunEnd::Cancelled => "was cancelled (`producer retry` sends what is missing)",
        };
        context.say(format!("{run} {word}; nothing was sent"));
        return Ok(end.into());
    }
    if args.wait {
        until_the_end(context, stores, run, args.listen).await
    } else {
        Ok(Exit::Done)
    }
}

fn print_id(context: &Context, run: &RunRef) {
    if context.json {
        crate::terminal::data(serde_json::json!({ "run": run.run }));
    } else {
        crate::terminal::data(&run.run);
    }
}

/// What is known before planning.
#[derive(Default)]
struct Known<'a> {
    /// The plan that is there.
    plan: Option<&'a Plan>,
    /// The run that this one follows.
    parent: Option<&'a RunId>,
    archive: Option<&'a Archive>,
}

/// Plans the run; an existing plan lends its date and what it reads, so that going on sees the same.
async fn planned(
    context: &Context,
    args: &EnqueueArgs,
    job: &LoadedJob,
    id: RunId,
    known: &Known<'_>,
) -> Result<Plan> {
    let asked = Asked {
        narrowing: &args.narrowing,
        known: known.plan,
        parent: known.parent.cloned(),
        archive: known.archive,
        allow_shrink: args.allow_shrink,
        force: args.force,
    };
    load::plan(context, job, id, &asked).await
}

struct Enqueueing<'a> {
    context: &'a Context,
    args: &'a EnqueueArgs,
    stores: &'a Stores,
    job: &'a LoadedJob,
    parent: Option<&'a RunId>,
}

impl Enqueueing<'_> {
    async fn planned(&self, id: RunId, plan: Option<&Plan>) -> Result<Plan> {
        let known = Known {
            plan,
            parent: self.parent,
            archive: Some(&self.stores.archive),
        };
        planned(self.context, self.args, self.job, id, &known).await
    }

    async fn run(&self, id: RunId) -> Result<Started> {
        let began = Instant::now();
        let run = RunRef {
            job: self.job.job.name.clone(),
            run: id.clone(),
        };
        if let Some(files) = RunFiles::read(&self.stores.archive, &run).await? {
            return self.again(id, files).await;
        }
        let mut plan = self.planned(id.clone(), None).await?;
        plan.base = base_of(self.stores, &plan).await?;
        let mut readiness = Readiness::new(&plan, Fleet::of(self.stores), &self.context.env)?;
        self.somebody_ready(&mut readiness).await?;
        let layout = RunLayout::new(self.stores.prefix(), &run);
        let body = serde_json::to_vec_pretty(&plan)?.into();
        if self
            .stores
            .objects()
            .put_new(&layout.plan(), body, &[])
            .await?
            == PutNew::Exists
        {
            // Somebody enqueued the same run in this moment: go on with theirs.
            let files = RunFiles::expect(&self.stores.archive, &run).await?;
            return self.again(id, files).await;
        }
        let root = traces::of_plan(&plan);
        let span = Span::child(root.as_ref(), "enqueue", Kind::Internal)
            .ago(began.elapsed())
            .with("paceline.job", run.job.as_str())
            .with("paceline.run", run.run.to_string())
            .with("paceline.cells", plan.cells())
            .with("paceline.shards", plan.shards());
        let published = self
            .publish_new(&plan, &mut readiness)
            .instrument(span.lines())
            .await;
        if let Err(error) = &published {
            span.failed(error.to_string());
        }
        drop(span);
        put_ledger(self.stores, &layout, &readiness).await?;
        self.tell_start(&plan).await;
        published.map_err(|error| error.context(Opened(run.clone())))?;
        Ok(Started {
            run,
            ended: None,
            again: false,
        })
    }

    /// Tells whoever listens; a start that nobody hears of is a start all the same.
    async fn tell_start(&self, plan: &Plan) {
        let body = serde_json::json!({ "job": plan.job.name, "run": plan.run, "state": "started",
            "cells": plan.cells(), "shards": plan.shards(), "round": 0 });
        if let Err(error) = self.stores.publisher.event("run.started", &body).await {
            tracing::warn!(run.id = %plan.run_ref(), %error, "the start of the run could not be announced");
        }
    }

    /// Waits until at least one provider is ready, so that a run is not opened for nobody.
    async fn somebody_ready(&self, readiness: &mut Readiness<'_>) -> Result<()> {
        loop {
            readiness.ask().await?;
            if !readiness.ready().is_empty() || readiness.wait() == Wait::Over {
                return Ok(());
            }
            wait_for_providers(self.context, readiness, "nothing was enqueued").await?;
        }
    }

    /// Opens the run and publishes each lane as soon as its provider is ready.
    async fn publish_new(&self, plan: &Plan, readiness: &mut Readiness<'_>) -> Result<()> {
        let entry = new_entry(plan, 0);
        put_entry(self.stores, &entry).await?;
        register(self.stores, &entry).await?;
        if plan.shards() == 0 {
            zero_shards(self.stores, plan, 0).await?;
        }
        let mut published: Vec<&str> = Vec::new();
        loop {
            let new = not_yet(&published, readiness);
            self.publish_lanes(plan, &new).await?;
            published.extend(new);
            if readiness.wait() == Wait::Over {
                return Ok(());
            }
            wait_for_providers(self.context, readiness, &so_far(&published)).await?;
            readiness.ask().await?;
        }
    }

    async fn publish_lanes(&self, plan: &Plan, providers: &[&str]) -> Result<()> {
        let total = plan.shards();
        let shards = move || -> Box<dyn Iterator<Item = Shard<'_>> + Send> {
            let all = publishing_order(plan, total).filter_map(|n| plan.shard(n));
            Box::new(all.filter(|shard| providers.contains(&shard.provider)))
        };
        let round = Round {
            plan,
            round: 0,
            total,
            shards: &shards,
        };
        publish_shards(self.context, self.stores, &round).await?;
        Ok(self.stores.publisher.control(&Control::RunsChanged).await?)
    }

    /// The run id is known already: its plan must be the same work.
    async fn again(&self, id: RunId, files: RunFiles) -> Result<Started> {
        let plan = self.planned(id, Some(&files.plan)).await?;
        if !files.plan.same_work(&plan) {
            let differ = differing(&files.plan, &plan).join(", ");
            return Err(OtherPlan(files.plan.run_ref(), differ).into());
        }
        let run = files.plan.run_ref();
        let ended = files.ended().map(|manifest| manifest.state);
        if ended.is_none() {
            make_whole(self.context, self.stores, &files).await?;
        }
        Ok(Started {
            run,
            ended,
            again: true,
        })
    }
}

/// One pause between two rounds of asking.
async fn wait_for_providers(
    context: &Context,
    readiness: &Readiness<'_>,
    so_far: &str,
) -> Result<()> {
    match readiness.wait() {
        Wait::Over => Ok(()),
        Wait::Longer(who) => {
            context.say(format!("waiting: {who}"));
            tokio::time::sleep(BETWEEN_ROUNDS).await;
            Ok(())
        }
        Wait::InVain(who) => Err(Refusal::stopped(format!("{who}; {so_far}"))),
    }
}

/// Asking whether a provider is ready is a call: it belongs to the ledger.
async fn put_ledger(stores: &Stores, layout: &RunLayout, readiness: &Readiness<'_>) -> Result<()> {
    if readiness.calls.is_empty() {
        return Ok(());
    }
    let mut body = zstd::Encoder::new(Vec::new(), 3)?;
    for call in &readiness.calls {
        serde_json::to_writer(&mut body, call)?;
        body.write_all(b"\n")?;
    }
    let key = layout.ledger_object(readiness.holder(), 0);
    let objects = stores.objects();
    Ok(objects.put(&key, body.finish()?.into(), &[]).await?)
}

/// Goes on with a run that has not ended, lane by lane, each as soon as its provider is ready.
///
/// # Errors
/// When a server is away, or a provider is not ready in time.
pub async fn make_whole(context: &Context, stores: &Stores, files: &RunFiles) -> Result<()> {
    let run = files.plan.run_ref();
    let mut readiness = Readiness::new(&files.plan, Fleet::of(stores), &context.env)?;
    let gone_on = go_on_ready(context, stores, files, &mut readiness).await;
    let layout = RunLayout::new(stores.prefix(), &run);
    put_ledger(stores, &layout, &readiness).await?;
    gone_on.map_err(|error| error.context(Opened(run)))
}

async fn go_on_ready(
    context: &Context,
    stores: &Stores,
    files: &RunFiles,
    readiness: &mut Readiness<'_>,
) -> Result<()> {
    readiness.ask().await?;
    let mut published: Vec<&str> = Vec::new();
    loop {
        let new = not_yet(&published, readiness);
        let over = readiness.wait() == Wait::Over;
        if over && published.is_empty() {
            return go_on(context, stores, files).await;
        }
        if !new.is_empty() {
            go_on_at(context, stores, files, Some(&new)).await?;
        }
        if over {
            return Ok(());
        }
        published.extend(new);
        wait_for_providers(context, readiness, &so_far(&published)).await?;
        readiness.ask().await?;
    }
}

/// The providers that have become ready.
fn not_yet<'p>(published: &[&str], readiness: &Readiness<'p>) -> Vec<&'p str> {
    let mut ready = readiness.ready();
    ready.retain(|provider| !published.contains(provider));
    ready
}

fn so_far(published: &[&str]) -> String {
    match published {
        [] => "none of its lanes is published".to_owned(),
        some => format!(
            "the lanes of {} are published; the same command goes on with the rest",
            some.join(", ")
        ),
    }
}

/// Goes on with a run that has not ended: publishes the shards that lack parts, and a receipt for
/// each that lacks none, in case the broker lost it.
///
/// # Errors
/// When a server is away.
pub async fn go_on(context: &Context, stores: &Stores, files: &RunFiles) -> Result<()> {
    go_on_at(context, stores, files, None).await
}

/// As [`go_on`], with the lanes of `providers` alone where they are named.
async fn go_on_at(
    context: &Context,
    stores: &Stores,
    files: &RunFiles,
    providers: Option<&[&str]>,
) -> Result<()> {
    let plan = &files.plan;
    let layout = RunLayout::new(stores.prefix(), &plan.run_ref()).collecting(plan);
    let entry = files.open.clone().unwrap_or_else(|| new_entry(plan, 0));
    if files.open.is_none() {
        put_entry(stores, &entry).await?;
    }
    register(stores, &entry).await?;
    let found = PartsFound::list(stores.objects(), &layout).await?;
    let left = left_to_do(stores.objects(), &layout, plan, &found, entry.round).await?;
    publish_receipts(stores, &layout, plan, &found, &left.whole).await?;
    if plan.shards() == 0 {
        zero_shards(stores, plan, entry.round).await?;
    }
    let total = left.open.len() as u64;
    let left = &left;
    let shards = move || -> Box<dyn Iterator<Item = Shard<'_>> + Send> {
        let all = publishing_order(plan, total).filter_map(|n| left.shard(plan, n));
        Box::new(
            all.filter(move |shard| providers.is_none_or(|named| named.contains(&shard.provider))),
        )
    };
    let round = Round {
        plan,
        round: entry.round,
        total,
        shards: &shards,
    };
    publish_shards(context, stores, &round).await?;
    stores.publisher.control(&Control::RunsChanged).await?;
    context.say(format!(
        "going on with {}: {total} of {} shards have work left",
        plan.run_ref(),
        plan.shards()
    ));
    if entry.paused {
        context.say(format!(
            "it is paused: `producer resume {}` starts it",
            plan.run_ref()
        ));
    }
    Ok(())
}

/// The names of what differs between two plans of one run.
fn differing(old: &Plan, new: &Plan) -> Vec<&'static str> {
    let same = [
        ("params", old.job.params == new.job.params),
        ("the date", old.date == new.date),
        ("--only", old.only == new.only),
        ("the dimensions' values", old.matrix == new.matrix),
        ("the lanes", old.segments == new.segments),
        ("the shards' size", old.job.shard == new.job.shard),
        ("outputs", old.job.outputs == new.job.outputs),
        ("the gate", old.job.gate == new.job.gate),
        ("the providers", old.providers == new.providers),
    ];
    let mut names: Vec<&'static str> = same
        .iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| *name)
        .collect();
    if names.is_empty() {
        names.push("other parts of the job's file");
    }
    names
}
