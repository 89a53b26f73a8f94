//! Publishing a run's shards and the receipts that a lost broker took with it.

use std::collections::BTreeSet;

use anyhow::Result;
use futures::{TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::message::{Receipt, ShardMessage};
use paceline_protocol::plan::{Plan, Shard};
use paceline_protocol::stores::broker::BrokerError;
use paceline_protocol::stores::traces::{self, Kind, Span};
use paceline_protocol::version;
use uuid::Uuid;

use super::parts::{self, PartsFound};
use crate::context::Context;
use crate::stores::Stores;

/// Shards in the order in which they are published, from the first one each time it is called. They are all that are left
/// of their lanes.
pub type Shards<'p> = dyn Fn() -> Box<dyn Iterator<Item = Shard<'p>> + Send + 'p> + Sync + 'p;

/// What is to be published of a run's round.
pub struct Round<'p> {
    /// The run's plan.
    pub plan: &'p Plan,
    /// Which round.
    pub round: u32,
    /// How many shards there are, for the bar.
    pub total: u64,
    /// The shards.
    pub shards: &'p Shards<'p>,
}

/// Publishes shards with confirms, in order. Returns how many are safe.
///
/// A queue that takes nothing (the broker died while it made it) is made anew, and all is published again: whatever
/// it held is among the shards.
///
/// # Errors
/// When the broker did not take some of them after several tries; enqueueing again goes on.
pub async fn publish_shards(context: &Context, stores: &Stores, round: &Round<'_>) -> Result<u64> {
    match publish_once(context, stores, round).await {
        Err(BrokerError::Unconfirmed { .. } | BrokerError::NotTaken(_)) => {
            context.say("its queue takes nothing and is made anew");
            let run = round.plan.run_ref();
            let lanes: BTreeSet<&str> = (round.shards)().map(|shard| shard.lane).collect();
            for lane in lanes {
                stores.publisher.delete_queue(lane, &run).await?;
                stores.publisher.open_queue(lane, &run).await?;
            }
            Ok(publish_once(context, stores, round).await?)
        }
        published => Ok(published?),
    }
}

async fn publish_once(
    context: &Context,
    stores: &Stores,
    round: &Round<'_>,
) -> Result<u64, BrokerError> {
    let &Round {
        plan,
        round,
        total,
        shards,
    } = round;
    let bar = bar(context, total);
    let exchange = stores.publisher.work_exchange();
    let span = Span::child(
        traces::of_plan(plan).as_ref(),
        format!("send {exchange}"),
        Kind::Producer,
    )
    .with("messaging.system", "rabbitmq")
    .with("messaging.destination.name", exchange)
    .with("messaging.operation.type", "send")
    .with("paceline.job", plan.job.name.as_str())
    .with("paceline.run", plan.run.to_string())
    .with("paceline.round", round);
    let mut messages = shards().map(|shard| message(plan, &shard, round));
    let done = stores
        .publisher
        .shards(&mut messages, &mut |safe| bar.set_position(safe))
        .await;
    bar.finish_and_clear();
    match &done {
        Ok(shards) => span.set("messaging.batch.message_count", *shards),
        Err(error) => span.failed(error.to_string()),
    }
    done
}

fn message(plan: &Plan, shard: &Shard<'_>, round: u32) -> ShardMessage {
    ShardMessage {
        v: version::message(),
        publication: Uuid::now_v7(),
        job: plan.job.name.clone(),
        run: plan.run.clone(),
        lane: shard.lane.to_owned(),
        shard: shard.number,
        round,
        trace: traces::of_plan(plan),
    }
}

fn bar(context: &Context, total: u64) -> ProgressBar {
    if !context.lively {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("publishing shards {wide_bar} {human_pos}/{human_len}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Publishes a receipt for each of the `whole` shards, whose blocks all have parts: a run whose broker
/// lost everything still ends. A receipt that was counted before changes nothing.
///
/// # Errors
/// When S3 or RabbitMQ is away.
pub async fn publish_receipts(
    stores: &Stores,
    layout: &RunLayout,
    plan: &Plan,
    found: &PartsFound,
    whole: &[u64],
) -> Result<()> {
    stream::iter(whole.iter().copied().map(Ok))
        .try_for_each_concurrent(8, |shard| async move {
            let names = found.of(shard);
            let parts = parts::heads(stores.objects(), layout, plan, shard, &names).await?;
            let round = parts.iter().map(|part| part.round).max().unwrap_or(0);
            let receipt = receipt(plan, Some(shard), round, parts);
            Ok(stores.publisher.receipt(&receipt).await?)
        })
        .await
}

/// Publishes the receipt by which a run of zero shards is finished.
///
/// # Errors
/// When RabbitMQ is away.
pub async fn zero_shards(stores: &Stores, plan: &Plan, round: u32) -> Result<()> {
    let receipt = receipt(plan, None, round, Vec::new());
    Ok(stores.publisher.receipt(&receipt).await?)
}

fn receipt(
    plan: &Plan,
    shard: Option<u64>,
    round: u32,
    parts: Vec<paceline_protocol::message::PartSummary>,
) -> Receipt {
    Receipt {
        v: version::message(),
        job: plan.job.name.clone(),
        run: plan.run.clone(),
        shard,
        round,
        parts,
        rebuild: None,
        trace: None,
    }
}
