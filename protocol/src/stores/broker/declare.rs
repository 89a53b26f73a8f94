//! The declarations, the same in every process: the broker refuses one that differs.
//!
//! Delays dead-letter into an exchange of their own (`<ns>.back`), at least once, so that a broker that
//! dies in the middle loses no shard. What finds no queue there (its run has ended) goes over that
//! exchange's alternate into a queue that keeps nothing. The work exchange has no alternate, else a
//! mandatory publish to a missing queue would look taken.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};

use super::BrokerError;
use super::link::in_time;
use crate::topology::{DELIVERY_LIMIT, DelayLevel, Topology};

/// For queues whose messages nothing may drop: 4.x would do so after 20 deliveries when unset.
const NEVER: i64 = 2_000_000_000;

/// How long a notification that nobody takes is kept.
const WEEK_MS: i64 = 7 * 24 * 3_600_000;

fn back(topology: &Topology) -> String {
    format!("{}.back", topology.namespace())
}

fn ended(topology: &Topology) -> String {
    format!("{}.ended", topology.namespace())
}

/// Everything that is not a run's own.
pub(super) async fn shared(channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    let (dead, receipts) = (topology.dead(), topology.receipts());
    exchange(
        channel,
        &topology.work_exchange(),
        ExchangeKind::Direct,
        FieldTable::default(),
    )
    .await?;
    exchange(
        channel,
        &receipts,
        ExchangeKind::Direct,
        FieldTable::default(),
    )
    .await?;
    exchange(channel, &dead, ExchangeKind::Fanout, FieldTable::default()).await?;
    exchange(
        channel,
        &topology.control(),
        ExchangeKind::Fanout,
        FieldTable::default(),
    )
    .await?;
    exchange(
        channel,
        &topology.events(),
        ExchangeKind::Topic,
        FieldTable::default(),
    )
    .await?;
    queue(channel, &receipts, quorum(NEVER)).await?;
    bind(channel, &receipts, &receipts).await?;
    bind(channel, &receipts, &dead).await?;
    queue(channel, &dead, quorum(NEVER)).await?;
    bind(channel, &dead, &dead).await?;
    delays(channel, topology).await?;
    bind(channel, &receipts, &back(topology)).await?;
    serve(channel, topology).await
}

/// What `producer serve` takes from. Everybody declares it, so that nothing is lost before the first
/// `serve` runs; where none ever does, notifications end after a week.
async fn serve(channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    queue(channel, &topology.requests(), quorum(NEVER)).await?;
    let deliveries = topology.deliveries();
    queue(channel, &deliveries, quorum(NEVER)).await?;
    bind(channel, &deliveries, &back(topology)).await?;
    let mut kept = quorum(NEVER);
    kept.insert("x-overflow".into(), text("drop-head"));
    kept.insert("x-max-length".into(), AMQPValue::LongLongInt(10_000));
    kept.insert("x-message-ttl".into(), AMQPValue::LongLongInt(WEEK_MS));
    let notifications = topology.notifications();
    queue(channel, &notifications, kept).await?;
    for topic in [
        "run.started",
        "run.completed",
        "run.failed",
        "run.cancelled",
    ] {
        bind_by(channel, &notifications, &topology.events(), topic).await?;
    }
    Ok(())
}

async fn delays(channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    let (back, ended) = (back(topology), ended(topology));
    exchange(channel, &ended, ExchangeKind::Fanout, FieldTable::default()).await?;
    let mut nothing_kept = FieldTable::default();
    nothing_kept.insert("x-message-ttl".into(), AMQPValue::LongLongInt(0));
    queue(channel, &ended, nothing_kept).await?;
    bind(channel, &ended, &ended).await?;
    let mut otherwise = FieldTable::default();
    otherwise.insert("alternate-exchange".into(), text(&ended));
    exchange(channel, &back, ExchangeKind::Direct, otherwise).await?;
    for level in DelayLevel::ALL {
        let name = topology.delay(level);
        let mut arguments = dead_lettering(quorum(NEVER), &back);
        let ttl = level.duration().as_millis() as i64;
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(ttl));
        exchange(channel, &name, ExchangeKind::Fanout, FieldTable::default()).await?;
        queue(channel, &name, arguments).await?;
        bind(channel, &name, &name).await?;
    }
    Ok(())
}

/// A run's work queue on one lane.
pub(super) async fn work(
    channel: &Channel,
    topology: &Topology,
    name: &str,
) -> Result<(), BrokerError> {
    let arguments = dead_lettering(quorum(DELIVERY_LIMIT), &topology.dead());
    queue(channel, name, arguments).await?;
    bind(channel, name, &topology.work_exchange()).await?;
    bind(channel, name, &back(topology)).await
}

fn quorum(delivery_limit: i64) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(delivery_limit),
    );
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

fn dead_lettering(mut arguments: FieldTable, exchange: &str) -> FieldTable {
    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

async fn exchange(
    channel: &Channel,
    name: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<(), BrokerError> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    in_time(
        &format!("declare exchange {name}"),
        channel.exchange_declare(name.into(), kind, options, arguments),
    )
    .await
}

async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), BrokerError> {
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let declared = channel.queue_declare(name.into(), options, arguments);
    in_time(&format!("declare queue {name}"), declared)
        .await
        .map(drop)
}

/// Binds by the queue's own name, which is the routing key everywhere.
async fn bind(channel: &Channel, queue: &str, exchange: &str) -> Result<(), BrokerError> {
    bind_by(channel, queue, exchange, queue).await
}

async fn bind_by(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<(), BrokerError> {
    let bound = channel.queue_bind(
        queue.into(),
        exchange.into(),
        key.into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    in_time(&format!("bind queue {queue}"), bound).await
}
