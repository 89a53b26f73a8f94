//! The four servers themselves: they answer, keep their conditions, break on request and go with us.

use std::time::Duration;

use futures::future::try_join_all;
use harness::{Bucket, shared};
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use paceline_stack::{S3Fault, ServerKind, Stack, StackOptions};
use redis::AsyncCommands;

fn value(name: &str) -> &'static str {
    shared::stack().value(name).expect("the stack sets it")
}

fn bucket_of(stack: &Stack) -> Bucket {
    Bucket::open(|name| stack.value(name).expect("the stack sets it").to_owned())
}

fn private(kind: ServerKind) -> Stack {
    Stack::start(&StackOptions::only([kind])).expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_confirms_and_delivers_from_a_quorum_queue() {
    let connection = Connection::connect(value("AMQP_URL"), ConnectionProperties::default());
    let connection = connection.await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let durable = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .queue_declare("smoke".into(), durable, arguments)
        .await
        .expect("a quorum queue");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    let confirm = channel
        .basic_publish(
            "".into(),
            "smoke".into(),
            BasicPublishOptions::default(),
            b"hello",
            BasicProperties::default(),
        )
        .await
        .expect("published")
        .await
        .expect("an answer");
    assert!(matches!(confirm, Confirmation::Ack(None)), "{confirm:?}");
    let message = channel
        .basic_get("smoke".into(), BasicGetOptions { no_ack: true })
        .await
        .expect("an answer")
        .expect("a message");
    assert_eq!(message.delivery.data, b"hello");
}

#[tokio::test]
async fn redis_never_evicts_and_keeps_a_log() {
    let mut redis = harness::redis_at(value("REDIS_URL")).await;
    let setting = async |name: &str, redis: &mut redis::aio::MultiplexedConnection| {
        let pair: Vec<String> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(name)
            .query_async(redis)
            .await
            .expect("an answer");
        pair[1].clone()
    };
    assert_eq!(setting("maxmemory-policy", &mut redis).await, "noeviction");
    assert_eq!(setting("appendonly", &mut redis).await, "yes");
}

#[tokio::test]
async fn elasticsearch_indexes_and_counts() {
    let url = value("ELASTICSEARCH_URL");
    let client = reqwest::Client::new();
    client
        .put(format!("{url}/smoke/_doc/1?refresh=true"))
        .json(&serde_json::json!({"price": 1}))
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .expect("indexed");
    let count = reqwest::get(format!("{url}/smoke/_count"));
    let count: serde_json::Value = count.await.expect("an answer").json().await.expect("JSON");
    assert_eq!(count["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_puts_that_race_for_one_key_exactly_one_wins() {
    let bucket = bucket_of(shared::stack());
    for round in 0..20 {
        let key = format!("race/{round}");
        let bodies: Vec<[u8; 1000]> = (0..8).map(|n| [n; 1000]).collect();
        let puts = bodies.iter().map(|body| bucket.put_new(&key, body));
        let created = try_join_all(puts).await.expect("answers");
        let won = created.into_iter().filter(|created| *created).count();
        assert_eq!(won, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_fails_goes_away_and_comes_back_on_request() {
    let stack = private(ServerKind::S3);
    let s3 = stack.s3().expect("a private S3");
    let bucket = bucket_of(&stack);
    assert!(bucket.put_new("a", b"1").await.expect("created"));
    s3.set_fault(S3Fault::Unavailable { share: 1.0 });
    bucket.get("a").await.expect_err("503 only");
    s3.set_fault(S3Fault::None);
    s3.stop();
    bucket.get("a").await.expect_err("nobody listens");
    s3.restart().expect("the port is still ours");
    assert_eq!(bucket.get("a").await.expect("kept").body, b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_on_its_port_with_its_data_after_kill_9() {
    let stack = private(ServerKind::Redis);
    let server = stack.redis().expect("a private Redis");
    let client = redis::Client::open(stack.value("REDIS_URL").expect("set")).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    let mut redis = connection.expect("a connection");
    // Once appended, everysec leaves it to the system to write it down; a killed process loses nothing.
    redis.set::<_, _, ()>("kept", 7).await.expect("set");
    server.kill().expect("killed");
    assert!(!server.is_running());
    assert!(client.get_multiplexed_async_connection().await.is_err());
    server.restart().expect("started again");
    let mut redis = client
        .get_multiplexed_async_connection()
        .await
        .expect("the same port");
    assert_eq!(redis.get::<_, i64>("kept").await.expect("an answer"), 7);
}

#[test]
fn a_paused_server_keeps_the_connection_and_says_nothing() {
    let stack = private(ServerKind::Redis);
    let server = stack.redis().expect("a private Redis");
    let address = stack.value("REDIS_URL").expect("set").to_owned();
    let address = address.trim_start_matches("redis://").trim_end_matches('/');
    let mut stream = std::net::TcpStream::connect(address).expect("open");
    let limit = Some(Duration::from_millis(200));
    stream.set_read_timeout(limit).expect("a time limit");
    let mut ping = || {
        std::io::Write::write_all(&mut stream, b"PING\r\n").expect("sent");
        std::io::Read::read(&mut stream, &mut [0; 7])
    };
    server.pause().expect("frozen");
    ping().expect_err("silence");
    server.resume().expect("goes on");
    assert_eq!(ping().expect("an answer"), 7);
}

#[test]
fn nothing_stays_behind() {
    let stack = private(ServerKind::Redis);
    let folder = stack.folder().to_owned();
    assert!(folder.is_dir());
    drop(stack);
    assert!(!folder.exists());
}
