//! Housekeeping on the real servers: what is old goes, what is live, young or still needed stays.

use harness::{Calendar, Shape};
use jiff::{SignedDuration, Timestamp};
use paceline_stack::Process;
use serde_json::Value;

struct Fleet {
    calendar: Calendar,
    _workers: [Process; 2],
}

impl Fleet {
    fn new(test: &str) -> Self {
        let calendar = Calendar::new(test, Shape::default()).expect("a calendar");
        let workers = [
            calendar.load().expect("started"),
            calendar.collect().expect("started"),
        ];
        Fleet {
            calendar,
            _workers: workers,
        }
    }

    fn run(&self, run: &str) {
        let ended = self.calendar.enqueue_and_wait(run).expect("it ends");
        ended.expect_code(0);
    }

    /// Makes a run as old as if it had ended so long ago.
    async fn age(&self, run: &str, hours: i64) {
        let mut manifest = self.calendar.manifest(run).await.expect("a manifest");
        manifest.finished_at = Timestamp::now() - SignedDuration::from_hours(hours);
        let body = serde_json::to_vec(&manifest).expect("JSON");
        let key = self.calendar.layout(run).manifest();
        self.calendar
            .bucket()
            .put(&key, &body)
            .await
            .expect("written");
    }

    async fn keys(&self, run: &str) -> Vec<String> {
        let root = self.calendar.layout(run).root();
        self.calendar.bucket().keys(&root).await.expect("a list")
    }

    async fn has_index(&self, run: &str) -> bool {
        let url = self.calendar.fleet.value("ELASTICSEARCH_URL");
        let name = self.calendar.index_of(run);
        let answer = reqwest::Client::new().head(format!("{url}/{name}"));
        answer
            .send()
            .await
            .expect("an answer")
            .status()
            .is_success()
    }
}

fn names(list: &Value) -> Vec<&str> {
    let rows = list.as_array().expect("a list").iter();
    rows.map(|row| row["run"].as_str().expect("a run"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_runs_go_and_what_is_live_or_young_stays() {
    let fleet = Fleet::new("clean");
    let calendar = &fleet.calendar;
    for run in ["n1", "n2", "n3", "n4"] {
        fleet.run(run);
    }
    fleet.age("n1", 24 * 60).await;
    fleet.age("n2", 20).await;
    fleet.age("n4", 24 * 60).await;
    let before = (fleet.keys("n1").await, fleet.keys("n2").await);
    let arguments = ["clean", "--older-than", "1h"];
    let asked = calendar
        .producer(&["clean"])
        .expect("it ends")
        .expect_code(2);
    assert!(asked.stderr.contains("how old is old"), "{}", asked.stderr);

    let dry = calendar
        .json(&[&arguments[..], &["--dry-run"]].concat())
        .expect("JSON");
    assert_eq!(names(&dry["runs"]), ["n2", "n1"], "{dry}");
    assert_eq!(names(&dry["kept"]), ["n4"], "{dry}");
    assert_eq!(dry["kept"][0]["why"], "live");
    assert_eq!(before, (fleet.keys("n1").await, fleet.keys("n2").await));

    let done = calendar.json(&arguments).expect("JSON");
    assert_eq!(done["objects"], dry["objects"]);
    assert_eq!(done["runs"][0]["keeps_ledger"], true);
    assert_eq!(done["runs"][1]["keeps_ledger"], false);
    assert!(fleet.keys("n1").await.is_empty());
    let layout = calendar.layout("n2");
    let left = fleet.keys("n2").await;
    let stays = |key: &String| {
        *key == layout.plan() || *key == layout.manifest() || key.starts_with(&layout.ledger())
    };
    assert!(left.len() > 2 && left.iter().all(stays), "{left:?}");
    assert!(!fleet.has_index("n2").await);
    assert!(fleet.has_index("n3").await && fleet.has_index("n4").await);

    // The ledger is still proof, and there is nothing to make again.
    calendar
        .producer(&["audit", "fares/n2"])
        .expect("it ends")
        .expect_code(0);
    let refused = calendar.producer(&["rebuild", "n2", "--force"]);
    let refused = refused.expect("it ends").expect_code(1);
    assert!(
        refused.stderr.contains("are gone from S3"),
        "{}",
        refused.stderr
    );
    let calls = calendar.provider.log().len();
    let retried = calendar.producer(&["retry", "fares/n2"]).expect("it ends");
    let retried = retried.expect_code(2);
    assert!(
        retried.stderr.contains("was removed since"),
        "{}",
        retried.stderr
    );
    assert_eq!(calendar.provider.log().len(), calls, "nothing is called");
    let again = calendar.json(&arguments).expect("JSON");
    assert!(names(&again["runs"]).is_empty(), "{again}");
    calendar.check("n4").await.expect("checked").assert_kept();
    assert_eq!(
        calendar.live_index().await.expect("an answer"),
        Some(calendar.index_of("n4"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_could_not_be_made_again_need_a_yes() {
    let fleet = Fleet::new("clean-upsert");
    let calendar = &fleet.calendar;
    let spec = &calendar.fleet.spec;
    spec.replace("jobs/fares.yaml", "mode: snapshot", "mode: upsert")
        .expect("changed");
    spec.replace("jobs/fares.yaml", "gate: 0.99", "gate: 0.99\nretention: 2h")
        .expect("changed");
    fleet.run("n1");
    spec.destinations(&["BKK"]).expect("written");
    fleet.run("n2");
    // The same documents once more: of n2 nothing is the newest.
    fleet.run("n3");
    for run in ["n1", "n2"] {
        fleet.age(run, 24 * 60).await;
    }
    let lost = calendar.manifest("n1").await.expect("a manifest").documents;
    let dry = calendar.json(&["clean", "--dry-run"]).expect("JSON");
    assert_eq!(names(&dry["runs"]), ["n2", "n1"], "{dry}");
    assert_eq!(dry["not_rebuildable"][&calendar.index], lost, "{dry}");
    let refused = calendar
        .producer(&["clean"])
        .expect("it ends")
        .expect_code(2);
    let said = format!("{lost} documents of {} could not", calendar.index);
    assert!(refused.stderr.contains(&said), "{}", refused.stderr);
    assert!(!fleet.keys("n1").await.is_empty());
    calendar
        .producer(&["clean", "--yes"])
        .expect("it ends")
        .expect_code(0);
    assert!(fleet.keys("n1").await.is_empty() && fleet.keys("n2").await.is_empty());
    assert!(!fleet.keys("n3").await.is_empty());
}

/// A receipt as a sweep publishes it: the loader lists the parts.
fn receipt(run: &str) -> Vec<u8> {
    let receipt = serde_json::json!({ "v": 1, "job": "fares", "run": run, "shard": 0, "round": 0, "parts": [] });
    receipt.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_receipt_brings_no_index_back() {
    const LATE: usize = 8;
    let fleet = Fleet::new("late-receipt");
    let calendar = &fleet.calendar;
    // Of two loaders one ends the run; the other still knows it for a while.
    let second = calendar.load().expect("started");
    fleet.run("n1");
    let url = calendar.fleet.value("ELASTICSEARCH_URL");
    let index = format!("{url}/{}", calendar.index_of("n1"));
    let deleted = reqwest::Client::new().delete(&index).send().await;
    deleted
        .expect("an answer")
        .error_for_status()
        .expect("deleted");
    let broker = Broker::connect(&calendar.fleet).await;
    for _ in 0..LATE {
        broker.receipt(&receipt("n1")).await;
    }
    let loaders = [&fleet._workers[0], &second];
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let told = || {
        let said = loaders.map(|loader| loader.said());
        let told = said.iter().flat_map(|said| said.lines());
        told.filter(|line| line.contains("a receipt of a run that has ended"))
            .count()
    };
    while told() < LATE {
        assert!(
            std::time::Instant::now() < until,
            "{}",
            second.last_words(20)
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!fleet.has_index("n1").await);
}

/// What puts receipts beside those of the collectors.
struct Broker {
    channel: lapin::Channel,
    queue: String,
    _connection: lapin::Connection,
}

impl Broker {
    async fn connect(fleet: &harness::Fleet) -> Self {
        let url = fleet.value("AMQP_URL");
        let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
        let connection = connection.await.expect("connected");
        Broker {
            channel: connection.create_channel().await.expect("a channel"),
            queue: format!("{}.receipts", fleet.name),
            _connection: connection,
        }
    }

    async fn receipt(&self, body: &[u8]) {
        let mut headers = lapin::types::FieldTable::default();
        let kind = lapin::types::AMQPValue::LongString("receipt".into());
        headers.insert("paceline-type".into(), kind);
        let properties = lapin::BasicProperties::default().with_headers(headers);
        let options = lapin::options::BasicPublishOptions::default();
        let queue = self.queue.as_str().into();
        let sent = self
            .channel
            .basic_publish("".into(), queue, options, body, properties);
        sent.await.expect("published").await.expect("taken");
    }
}
