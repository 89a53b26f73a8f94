//! RabbitMQ: what is confirmed is there, what is delayed comes back, what is dead reaches the loaders.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, BasicRejectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use paceline_protocol::ids::RunRef;
use paceline_protocol::message::{Control, MESSAGE_VERSION, Receipt, ShardMessage};
use paceline_protocol::stores::broker::{Arrival, BrokerError, Publisher, Receipts, Taker};
use paceline_protocol::topology::{DELIVERY_LIMIT, DelayLevel, Topology};
use paceline_protocol::version::Unread;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{PATIENCE, a_run, own_name, until, value};

const LANE: &str = "fare-search";

/// Both sides of the broker in a namespace of its own, and a plain channel to look behind them.
struct Broker {
    topology: Topology,
    publisher: Publisher,
    taker: Taker,
    plain: Connection,
}

impl Broker {
    async fn new(test: &str) -> Self {
        let (url, topology) = (value("AMQP_URL"), Topology::new(own_name(test)));
        let publisher = Publisher::connect(url, topology.clone()).await;
        let taker = Taker::connect(url, topology.clone()).await;
        let plain = Connection::connect(url, ConnectionProperties::default()).await;
        Broker {
            topology,
            publisher: publisher.expect("a publisher"),
            taker: taker.expect("a taker"),
            plain: plain.expect("a connection"),
        }
    }

    /// With the run's queue open.
    async fn open(test: &str) -> Self {
        let broker = Self::new(test).await;
        let opened = broker.publisher.open_queue(LANE, &a_run()).await;
        opened.expect("the queue opens");
        broker
    }

    async fn channel(&self) -> Channel {
        self.plain.create_channel().await.expect("a channel")
    }

    async fn depth(&self) -> Option<u32> {
        let asked = self.publisher.depth(LANE, &a_run()).await;
        asked.expect("the broker answers")
    }

    /// Messages that are ready in any queue.
    async fn ready(&self, queue: &str) -> u32 {
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let channel = self.channel().await;
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
        declared.await.expect("the queue is there").message_count()
    }

    async fn receipts(&self) -> Receipts {
        let receipts = Receipts::connect(value("AMQP_URL"), self.topology.clone(), 16).await;
        receipts.expect("the receipts are consumed")
    }

    async fn next_arrival(&self) -> Arrival {
        let mut receipts = self.receipts().await;
        let taken = tokio::time::timeout(PATIENCE, receipts.next()).await;
        let taken = taken.expect("something arrives");
        let arrival = match &taken.arrival {
            Arrival::Receipt(receipt) => Arrival::Receipt(receipt.clone()),
            Arrival::DeadShard(shard, why) => Arrival::DeadShard(shard.clone(), why.clone()),
            Arrival::Newer(version) => Arrival::Newer(*version),
            Arrival::Unreadable(why) => Arrival::Unreadable(why.clone()),
        };
        taken.ack().await;
        arrival
    }

    /// Takes what is in the run's queue and throws it back until the broker has had enough.
    async fn throw_back_beyond_the_limit(&self) {
        let queue = self.topology.work_queue(LANE, &a_run());
        let channel = self.channel().await;
        for _ in 0..=DELIVERY_LIMIT {
            let message = until("another delivery", async || {
                let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
                got.await.expect("the queue answers")
            })
            .await;
            let again = BasicRejectOptions { requeue: true };
            message.delivery.reject(again).await.expect("thrown back");
        }
    }
}

fn shard(number: u64) -> ShardMessage {
    shard_of(&a_run(), LANE, number)
}

fn shard_of(run: &RunRef, lane: &str, number: u64) -> ShardMessage {
    ShardMessage {
        v: MESSAGE_VERSION,
        publication: Uuid::from_u128(number.into()),
        job: run.job.clone(),
        run: run.run.clone(),
        lane: lane.to_owned(),
        shard: number,
        round: 0,
        trace: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_shard_comes_back_to_its_queue_as_it_was() {
    let broker = Broker::open("delay").await;
    let delayed = broker
        .publisher
        .delayed_shard(&shard(7), DelayLevel::S1)
        .await;
    delayed.expect("taken");
    let back = until("the way back", async || {
        let taken = broker.taker.take(LANE, &a_run()).await;
        taken.expect("the queue is there")
    })
    .await;
    assert_eq!(back.message.as_ref(), Ok(&shard(7)));
    assert_eq!(back.delivery_count, 0, "waiting is no failed delivery");
    back.ack().await;
    assert_eq!(broker.depth().await, Some(0));
}

/// Ten minutes are longer than this test's patience.
#[tokio::test(flavor = "multi_thread")]
async fn shards_come_out_of_a_long_delay_early_and_what_is_no_shard_stays() {
    let broker = Broker::open("early").await;
    for number in 0..3 {
        let shard = shard(number);
        let delayed = broker.publisher.delayed_shard(&shard, DelayLevel::M10);
        delayed.await.expect("taken");
    }
    let webhook = serde_json::json!({});
    let delivery = broker.publisher.delivery(&webhook, Some(DelayLevel::M10));
    delivery.await.expect("taken");
    let ended = RunRef {
        run: "r-gone".parse().expect("an id"),
        ..a_run()
    };
    let of_ended = shard_of(&ended, LANE, 9);
    let delayed = broker.publisher.delayed_shard(&of_ended, DelayLevel::M10);
    delayed.await.expect("taken");

    assert_eq!(broker.publisher.end_waits().await.expect("done"), 3);
    for number in 0..3 {
        let taken = broker.taker.take(LANE, &a_run()).await;
        let taken = taken.expect("the queue is there").expect("it is back");
        assert_eq!(taken.message.as_ref(), Ok(&shard(number)));
        assert_eq!(taken.delivery_count, 0, "waiting is no failed delivery");
        taken.ack().await;
    }
    let delay = broker.topology.delay(DelayLevel::M10);
    until("the others' way back", async || {
        (broker.ready(&delay).await == 2).then_some(())
    })
    .await;
    assert_eq!(broker.publisher.end_waits().await.expect("done"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_shard_of_a_run_that_ended_vanishes() {
    let broker = Broker::open("ended").await;
    let delayed = broker
        .publisher
        .delayed_shard(&shard(1), DelayLevel::S1)
        .await;
    delayed.expect("taken");
    let deleted = broker.publisher.delete_queue(LANE, &a_run()).await;
    deleted.expect("the run ends");
    let delay = broker.topology.delay(DelayLevel::S1);
    until("the end of the delay", async || {
        (broker.ready(&delay).await == 0).then_some(())
    })
    .await;
    let ended = format!("{}.ended", broker.topology.namespace());
    for queue in [ended, broker.topology.dead(), broker.topology.receipts()] {
        let empty = async || (broker.ready(&queue).await == 0).then_some(());
        until("an empty queue", empty).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_not_there_can_be_deleted_and_asked_for() {
    let broker = Broker::new("missing").await;
    for _ in 0..2 {
        let deleted = broker.publisher.delete_queue(LANE, &a_run()).await;
        deleted.expect("nothing to do is fine");
    }
    assert_eq!(broker.depth().await, None);
    let opened = broker.publisher.open_queue(LANE, &a_run()).await;
    opened.expect("and the publisher is as good as before");
    assert_eq!(broker.depth().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_from_a_run_that_ended_leaves_what_is_in_hand_alone() {
    let broker = Broker::open("taken").await;
    broker.publisher.shard(&shard(1)).await.expect("taken");
    let in_hand = until("the shard", async || {
        let taken = broker.taker.take(LANE, &a_run()).await;
        taken.expect("the queue is there")
    })
    .await;
    let missing = broker.taker.take("another-lane", &a_run()).await;
    assert!(matches!(missing, Err(BrokerError::NoQueue(_))));
    let again = broker.taker.take(LANE, &a_run()).await;
    assert!(again.expect("still there").is_none(), "it is still in hand");
    in_hand.ack().await;
    assert_eq!(broker.depth().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_past_its_delivery_limit_reaches_the_loaders_with_the_reason() {
    let broker = Broker::open("poison").await;
    // It waited in a delay before: the reason is that of its last death, not of its first.
    let delayed = broker
        .publisher
        .delayed_shard(&shard(3), DelayLevel::S1)
        .await;
    delayed.expect("taken");
    broker.throw_back_beyond_the_limit().await;
    match broker.next_arrival().await {
        Arrival::DeadShard(dead, reason) => {
            assert_eq!((dead, reason.as_str()), (shard(3), "delivery_limit"));
        }
        _ => panic!("a dead shard was due"),
    }
    assert_eq!(
        broker.ready(&broker.topology.dead()).await,
        1,
        "kept for people"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_a_worker_declares_dead_keeps_the_workers_reason() {
    let broker = Broker::open("declared").await;
    let dead = broker
        .publisher
        .dead_shard(&shard(4), "no such endpoint")
        .await;
    dead.expect("taken");
    match broker.next_arrival().await {
        Arrival::DeadShard(dead, reason) => {
            assert_eq!((dead, reason.as_str()), (shard(4), "no such endpoint"));
        }
        _ => panic!("a dead shard was due"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_buried_and_named() {
    let broker = Broker::open("junk").await;
    let (work, queue) = (
        broker.topology.work_exchange(),
        broker.topology.work_queue(LANE, &a_run()),
    );
    let channel = broker.channel().await;
    let options = BasicPublishOptions::default();
    let published = channel.basic_publish(
        work.into(),
        queue.into(),
        options,
        b"{\"v\": 1}",
        BasicProperties::default(),
    );
    published.await.expect("published").await.expect("sent");
    let taken = until("the junk", async || {
        let taken = broker.taker.take(LANE, &a_run()).await;
        taken.expect("the queue is there")
    })
    .await;
    let why = taken.message.clone().expect_err("it cannot be read");
    let why = why.to_string();
    assert!(why.contains("missing field"), "{why}");
    let buried = taken.bury(&broker.publisher, &why).await;
    buried.expect("the dead letters take it");
    assert_eq!(broker.depth().await, Some(0));
    assert!(matches!(
        broker.next_arrival().await,
        Arrival::Unreadable(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_build_has_published_comes_back_as_it_was() {
    const BODY: &[u8] = br#"{"v": 99, "shard": {"a": "newer form"}}"#;
    let broker = Broker::open("newer").await;
    let queue = broker.topology.work_queue(LANE, &a_run());
    let channel = broker.channel().await;
    let published = channel.basic_publish(
        broker.topology.work_exchange().into(),
        queue.as_str().into(),
        BasicPublishOptions::default(),
        BODY,
        BasicProperties::default().with_message_id("an-id".into()),
    );
    published.await.expect("published").await.expect("sent");
    for _ in 0..2 {
        let taken = until("the newer shard", async || {
            let taken = broker.taker.take(LANE, &a_run()).await;
            taken.expect("the queue is there")
        })
        .await;
        let why = taken.message.clone().expect_err("it is left alone");
        assert!(matches!(why, Unread::Newer { found: 99, .. }), "{why}");
        assert_eq!(taken.delivery_count, 0);
        let back = taken.give_back(&broker.publisher, DelayLevel::S1).await;
        back.expect("it goes through the delay");
    }
    let delivered = until("the same again", async || {
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
        got.await.expect("there")
    })
    .await;
    assert_eq!(delivered.delivery.data, BODY);
    let id = delivered.delivery.properties.message_id().as_ref();
    assert_eq!(id.map(|id| id.as_str()), Some("an-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_shards_are_published_in_windows() {
    const SHARDS: u64 = 2_000;
    let broker = Broker::open("many").await;
    let mut heard = Vec::new();
    let safe = broker
        .publisher
        .shards(&mut (0..SHARDS).map(shard), &mut |safe| heard.push(safe))
        .await;
    assert_eq!(safe.ok(), Some(SHARDS));
    assert!(heard.is_sorted() && heard.last() == Some(&SHARDS));
    assert_eq!(broker.depth().await, Some(SHARDS as u32));
    let mut found = BTreeSet::new();
    while let Some(taken) = broker.taker.take(LANE, &a_run()).await.expect("there") {
        let message = taken.message.clone().expect("readable");
        found.insert(message.shard);
        taken.ack().await;
    }
    assert!(found.into_iter().eq(0..SHARDS), "each of them once");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_of_many_tasks_do_not_mix_their_answers() {
    let broker = Broker::open("tasks").await;
    let publish = |number: u64| {
        let publisher = broker.publisher.clone();
        let lane = if number.is_multiple_of(3) {
            "no-lane"
        } else {
            LANE
        };
        let shard = shard_of(&a_run(), lane, number);
        async move { (number, publisher.shard(&shard).await) }
    };
    let answers = futures::future::join_all((0..60).map(publish)).await;
    for (number, answer) in answers {
        let refused = matches!(answer, Err(BrokerError::NotTaken(_)));
        assert_eq!(refused, number.is_multiple_of(3), "{number}: {answer:?}");
        assert!(refused || answer.is_ok(), "{number}: {answer:?}");
    }
    assert_eq!(broker.depth().await, Some(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_shard_without_a_queue_spoils_its_window() {
    let broker = Broker::open("spoilt").await;
    let mut shards = (0..50).map(|number| match number {
        20 => shard_of(&a_run(), "no-lane", number),
        _ => shard(number),
    });
    let published = broker.publisher.shards(&mut shards, &mut |_| {}).await;
    assert!(matches!(published, Err(BrokerError::NotTaken(_))));
    let after = broker.publisher.shard(&shard(99)).await;
    after.expect("the publisher is as good as before");
}

fn receipt(shard: u64) -> Receipt {
    Receipt {
        v: MESSAGE_VERSION,
        job: "fares".into(),
        run: a_run().run,
        shard: Some(shard),
        round: 1,
        parts: Vec::new(),
        rebuild: None,
        trace: None,
    }
}

/// Who hears receipts, in a task of its own: their shards.
fn hear(mut receipts: Receipts, anew: bool) -> mpsc::Receiver<Option<u64>> {
    let (heard, arrivals) = mpsc::channel(64);
    tokio::spawn(async move {
        while !heard.is_closed() {
            let taken = receipts.next().await;
            if let Arrival::Receipt(receipt) = &taken.arrival {
                let _ = heard.send(receipt.shard).await;
            }
            taken.ack().await;
            if anew {
                receipts.begin_anew();
            }
        }
    });
    arrivals
}

/// Somebody deletes the queue while it is consumed.
#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_heard_again_however_often_their_queue_is_deleted() {
    let broker = Broker::new("deleted").await;
    let mut arrivals = hear(broker.receipts().await, false);
    for round in 0..10 {
        let channel = broker.channel().await;
        let queue = broker.topology.receipts();
        let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        deleted.await.expect("deleted");
        let heard = until("a receipt", async || {
            // It may be published into the queue that ends.
            drop(broker.publisher.receipt(&receipt(round)).await);
            let arrived = tokio::time::timeout(Duration::from_millis(500), arrivals.recv()).await;
            arrived.ok().flatten().filter(|shard| *shard == Some(round))
        });
        heard.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_anew_hears_every_receipt_and_leaves_no_consumer_behind() {
    let broker = Broker::new("anew").await;
    let mut arrivals = hear(broker.receipts().await, true);
    for round in 0..10 {
        broker
            .publisher
            .receipt(&receipt(round))
            .await
            .expect("it is taken");
        let heard = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
        assert_eq!(heard.expect("it arrives"), Some(Some(round)));
    }
    until("one consumer", async || {
        let loaders = broker.publisher.loaders().await.expect("an answer");
        (loaders == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_comes_again_until_it_is_acked() {
    let broker = Broker::new("receipt").await;
    let receipt = receipt(5);
    broker.publisher.receipt(&receipt).await.expect("taken");
    let mut first = broker.receipts().await;
    let dropped = tokio::time::timeout(PATIENCE, first.next()).await;
    drop((dropped.expect("it arrives"), first));
    match broker.next_arrival().await {
        Arrival::Receipt(again) => assert_eq!(again, receipt),
        _ => panic!("the receipt was due"),
    }
    assert_eq!(broker.ready(&broker.topology.receipts()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_control() {
    let broker = Broker::new("control").await;
    let other = Taker::connect(value("AMQP_URL"), broker.topology.clone()).await;
    let takers = [broker.taker.clone(), other.expect("another taker")];
    for taker in &takers {
        assert_eq!(
            taker.control().await,
            Control::RunsChanged,
            "at first: look"
        );
    }
    let cancel = Control::Cancel { run: a_run() };
    broker.publisher.control(&cancel).await.expect("said");
    for taker in &takers {
        let heard = tokio::time::timeout(PATIENCE, taker.control()).await;
        assert_eq!(heard.ok().as_ref(), Some(&cancel));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_named_without_its_password() {
    let url = "amqp://me:hidden@127.0.0.1:1/%2f";
    let refused = Publisher::connect(url, Topology::new("nowhere")).await;
    let Err(error) = refused else {
        panic!("nobody listens there")
    };
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && !text.contains("hidden"),
        "{text}"
    );
    assert!(matches!(error, BrokerError::Unreachable { .. }));
}
