//! `producer serve`: schedules, requests, notifications and the API, with two replicas where it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use harness::Fleet;
use paceline_loadtest::simulator::{Limits, SimulatorConfig};
use paceline_stack::Process;
use serde_json::{Value, json};

use crate::scene::Scene;

pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// What a webhook received.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Received {
    fn all(&self) -> Vec<(HeaderMap, Bytes)> {
        self.0.lock().expect("not poisoned").clone()
    }
}

/// A receiver that answers 500 to the first `bad` calls; returns its URL.
async fn receiver(bad: usize) -> (String, Received) {
    let received = Received::default();
    let answer = move |State(received): State<Received>, headers: HeaderMap, body: Bytes| async move {
        let mut all = received.0.lock().expect("not poisoned");
        all.push((headers, body));
        if all.len() <= bad {
            StatusCode::INTERNAL_SERVER_ERROR
        } else {
            StatusCode::NO_CONTENT
        }
    };
    let app = Router::new()
        .route("/hook", post(answer))
        .with_state(received.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, received)
}

/// 28 cells of one destination; nothing of the fleet runs yet.
pub(crate) fn scene(test: &str) -> Scene {
    let config = SimulatorConfig {
        limits: Limits {
            concurrency: Some(64),
            ..Limits::per_second(200)
        },
        ..SimulatorConfig::default()
    };
    let scene = Scene::with(Fleet::new(test).expect("a fleet"), config);
    scene.fleet.spec.destinations(&["NRT"]).expect("written");
    scene.replace("providers/fare-search.yaml", "rate: 50/s", "rate: 200/s");
    scene.replace("jobs/fares.yaml", "days: 100}", "days: 2}");
    scene
}

pub(crate) fn serve(fleet: &Fleet) -> (Process, String) {
    let process = fleet
        .start("producer", &["serve", "--listen", "127.0.0.1:0"])
        .expect("it starts");
    let address = harness::fleet::metrics_address(&process, LIMIT).expect("it listens");
    (process, format!("http://{address}"))
}

pub(crate) fn runs(fleet: &Fleet, job: &str) -> Vec<Value> {
    let ended = fleet
        .producer(&["runs", job, "--json"], LIMIT)
        .expect("it runs");
    serde_json::from_str(&ended.expect_code(0).stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_one_run_over_two_replicas_and_its_end_is_told_once() {
    let (url, received) = receiver(2).await;
    let mut scene = scene("serve-cron");
    scene.fleet.set("RUN_WEBHOOK_URL", url);
    scene.fleet.set(
        "PACELINE_WEBHOOK_SECRET",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    );
    // Nobody was there for a day, and the one start that was missed is made up for: no need to wait for the next.
    // The planned hour lies half a day away from now, so that none comes during the test.
    let zone = jiff::tz::TimeZone::get("Asia/Seoul").expect("a zone");
    let hour = (jiff::Timestamp::now().to_zoned(zone).hour() + 12) % 24;
    let made_up = format!("catch_up: true, cron: \"0 {hour} * * *\"");
    scene.replace("jobs/fares.yaml", "cron: \"0 3 * * *\"", &made_up);
    let a_day_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    remember(&scene.fleet, a_day_ago).await;
    scene.replace("jobs/fares.yaml", "format: slack", "format: cloudevents");
    let (mut one, _) = serve(&scene.fleet);
    let (_other, _) = serve(&scene.fleet);
    scene.collect();
    scene.load();
    scene
        .until("a delivery that was taken", |_| received.all().len() >= 3)
        .await;
    let all = received.all();
    let (headers, body) = &all[2];
    let event: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(event["type"], "io.paceline.run.completed", "{event}");
    assert_eq!(
        event["data"]["succeeded"].as_u64().expect("cells")
            + event["data"]["empty"].as_u64().expect("cells"),
        28
    );
    assert!(
        headers["webhook-signature"]
            .to_str()
            .expect("text")
            .starts_with("v1,")
    );
    let ids: Vec<_> = all[..3]
        .iter()
        .map(|(headers, _)| &headers["webhook-id"])
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // One start, one run, however many replicas there are.
    let runs = runs(&scene.fleet, "fares");
    assert!(
        runs.len() == 1 && runs[0]["run"].as_str().expect("an id").ends_with("-cron"),
        "{runs:?}"
    );
    // Beside the cells the provider was asked whether it is ready (`GET /health`), which has no cell.
    let log = scene.simulator.log();
    let cells: BTreeSet<_> = log.iter().filter_map(|call| call.cell.clone()).collect();
    assert_eq!(cells.len(), 28);
    scene.assert_nothing_repeated();
    let status = one.terminate(LIMIT).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", one.last_words(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_start_by_message_and_by_api_and_the_same_id_is_the_same_run() {
    let mut scene = scene("serve-api");
    scene
        .fleet
        .set("PACELINE_API_TOKENS", "eye:read:look,hand:run:start");
    scene.fleet.tells_nobody();
    let (_serving, url) = serve(&scene.fleet);
    scene.collect();
    scene.load();
    let client = reqwest::Client::new();
    let body = json!({"job": "fares", "run_id": "by-api"});
    let start = |token: &'static str, body: Value| {
        let ask = client
            .post(format!("{url}/api/v1/runs"))
            .bearer_auth(token)
            .json(&body);
        async move { ask.send().await.expect("an answer") }
    };
    assert_eq!(start("wrong", body.clone()).await.status(), 401);
    assert_eq!(start("look", body.clone()).await.status(), 403);
    assert_eq!(start("start", body.clone()).await.status(), 201);
    assert_eq!(start("start", body.clone()).await.status(), 200);
    let unknown = start("start", json!({"job": "fairs"})).await;
    assert_eq!(unknown.status(), 404);
    let problem: Value = unknown.json().await.expect("JSON");
    assert_eq!(problem["status"], 404);
    assert_eq!(
        start("start", json!({"job": "fares", "run_id": "../x"}))
            .await
            .status(),
        400
    );

    let topology = paceline_protocol::topology::Topology::new(scene.fleet.name.clone());
    publish(
        &scene.fleet,
        &topology.requests(),
        br#"{"job":"fares","run_id":"by-message","params":{"origin":"PUS"}}"#,
    )
    .await;
    publish(
        &scene.fleet,
        &topology.requests(),
        br#"{"job":"fares","run_id":"../x"}"#,
    )
    .await;
    let mut ended = BTreeMap::new();
    let (get, fleet_url) = (client.clone(), url.clone());
    for run in ["by-api", "by-message"] {
        for _ in 0..600 {
            let ask = get
                .get(format!("{fleet_url}/api/v1/runs/fares/{run}"))
                .bearer_auth("look");
            let shown: Value = ask
                .send()
                .await
                .expect("an answer")
                .json()
                .await
                .expect("JSON");
            if shown["state"] == "completed" {
                ended.insert(run, shown);
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(ended.len(), 2, "{ended:?}");
    let again: Value = start("start", body).await.json().await.expect("JSON");
    assert_eq!(again["state"], "completed", "an ended run says so: {again}");
    let dead = take(&scene.fleet, &topology.dead()).await;
    assert!(dead.contains("../x"), "{dead}");
    let metrics = client
        .get(format!("{url}/metrics"))
        .send()
        .await
        .expect("an answer");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("paceline_build_info"), "{metrics}");
}

/// As if the schedule of `fares` had been looked at last at `seen`.
async fn remember(fleet: &Fleet, seen: jiff::Timestamp) {
    let keys = paceline_protocol::keys::Keys::new(fleet.name.clone());
    let note = json!({ "seen": seen, "waiting": [] }).to_string();
    let mut connection = fleet.redis().await;
    let mut set = redis::cmd("HSET");
    set.arg(keys.serve_notes()).arg("agenda/fares").arg(note);
    set.query_async::<()>(&mut connection).await.expect("noted");
}

/// Publishes to a queue by its name.
pub(crate) async fn publish(fleet: &Fleet, queue: &str, body: &[u8]) {
    let channel = channel(fleet).await;
    let options = lapin::options::BasicPublishOptions::default();
    let sent = channel.basic_publish(
        "".into(),
        queue.into(),
        options,
        body,
        lapin::BasicProperties::default(),
    );
    sent.await.expect("published").await.expect("taken");
}

/// Waits for a message in a queue.
async fn take(fleet: &Fleet, queue: &str) -> String {
    let channel = channel(fleet).await;
    for _ in 0..200 {
        let options = lapin::options::BasicGetOptions { no_ack: true };
        if let Some(message) = channel
            .basic_get(queue.into(), options)
            .await
            .expect("a queue")
        {
            return String::from_utf8_lossy(&message.delivery.data).into_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nothing came to {queue}");
}

async fn channel(fleet: &Fleet) -> lapin::Channel {
    let url = fleet.value("AMQP_URL");
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    let connection = connection.await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    // It lives as long as the test.
    std::mem::forget(connection);
    channel
}
