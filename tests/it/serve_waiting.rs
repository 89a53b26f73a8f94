//! Runs that cannot go on: a lane that no running worker takes is seen, a run past its deadline ends, and a retry
//! has a deadline of its own.

use std::time::Duration;

use harness::{Bucket, Fault, Proxy};
use serde_json::Value;

use crate::scene::RUN;
use crate::serve::{LIMIT, runs, scene};

const LONG: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_without_a_worker_is_seen_and_the_deadline_ends_its_run_but_not_a_retry() {
    let mut scene = scene("serve-waiting");
    scene.fleet.tells_nobody();
    let provider = "providers/fare-search.yaml";
    scene.replace(provider, "\nlimits:", "\negress: static\nlimits:");
    let (broker, through) = Proxy::before(scene.fleet.value("AMQP_URL"))
        .await
        .expect("a proxy");
    let serving = scene.fleet.start_with(
        &[("AMQP_URL", &through)],
        "producer",
        &["serve", "--listen", "127.0.0.1:0"],
    );
    let serving = serving.expect("it starts");
    let address = harness::fleet::metrics_address(&serving, LIMIT).expect("it listens");
    let url = format!("http://{address}");
    scene.collect();
    scene.load();
    scene.enqueue();
    let remedy = "worker collect --egress static";
    let mut page = String::new();
    for _ in 0..300 {
        let answer = reqwest::get(&url).await.expect("an answer");
        page = answer.text().await.expect("text");
        if page.contains(remedy) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seen = "no running worker takes lane fare-search@static";
    assert!(page.contains(seen) && page.contains(remedy), "{page}");
    let doctor = ["doctor", "--json"];
    let told = scene.fleet.producer(&doctor, LIMIT).expect("it runs");
    let told: Vec<Value> = serde_json::from_str(&told.expect_code(0).stdout).expect("JSON");
    let lanes = told.iter().find(|line| line["what"] == "lanes");
    let lanes = lanes.expect("a line for lanes");
    assert_eq!(lanes["mark"], "warn", "{lanes}");
    assert!(lanes["remedy"].as_str().expect("text").contains(remedy));

    grow_old(&scene).await;
    scene.ends_with(4).await;
    let manifest = scene.manifest().await;
    assert_eq!((manifest.cells, manifest.failed), (28, 28));
    assert_eq!(manifest.reasons.get("deadline"), Some(&28));
    assert_eq!(scene.simulator.report().repeated, 0);

    let _taking = scene
        .fleet
        .collect(&["--egress", "static"])
        .expect("started");
    let retry = ["retry", RUN, "--wait"];
    let ended = scene.fleet.producer(&retry, LONG).expect("it ends");
    ended.expect_code(0);
    let told = scene.fleet.producer(&doctor, LIMIT).expect("it runs");
    let told = told.expect_code(0).stdout.clone();
    assert!(!told.contains("no running worker takes"), "{told}");

    // RabbitMQ goes away in the middle of a start: the run is open and nothing of it is published. Nobody asks again.
    broker.set(Fault::Reset);
    let ask = reqwest::Client::new().post(format!("{url}/api/v1/runs"));
    let body = serde_json::json!({ "job": "fares", "run_id": "half" }).to_string();
    let refused = ask.body(body).send().await.expect("an answer");
    assert_eq!(refused.status(), 503);
    broker.set(Fault::None);
    let half = |scene: &mut crate::scene::Scene| {
        let found = runs(&scene.fleet, "fares");
        let of = found.iter().find(|run| run["run"] == "half");
        of.is_some_and(|run| run["state"] == "completed")
    };
    scene.until("end of the half made run", half).await;
}

/// Its first block is not full when the time is over.
#[tokio::test(flavor = "multi_thread")]
async fn cells_that_were_answered_before_the_deadline_count() {
    let mut scene = scene("serve-deadline");
    scene.fleet.tells_nobody();
    scene.replace("providers/fare-search.yaml", "rate: 200/s", "rate: 2/s");
    let serving = scene
        .fleet
        .start("producer", &["serve", "--listen", "127.0.0.1:0"]);
    let _serving = serving.expect("it starts");
    scene.collect();
    scene.load();
    scene.enqueue();
    scene.after_calls(8).await;
    grow_old(&scene).await;
    scene.ends_with(4).await;
    let manifest = scene.manifest().await;
    let calls = scene.simulator.report().calls;
    let answered = manifest.succeeded + manifest.empty;
    // Of the calls that were on their way when it ended nobody waits for the answer.
    assert!(
        answered >= 7 && answered + 4 >= calls,
        "{answered} of {calls}"
    );
    assert_eq!(answered + manifest.failed, 28);
    assert_eq!(manifest.reasons.get("deadline"), Some(&manifest.failed));
    scene.assert_nothing_repeated();

    let retry = ["retry", RUN, "--wait"];
    let ended = scene.fleet.producer(&retry, LONG).expect("it ends");
    ended.expect_code(0);
    scene.assert_nothing_repeated();
}

/// As if the run had been planned two days ago. How a run is open is read again when that changes.
async fn grow_old(scene: &crate::scene::Scene) {
    let bucket = Bucket::of(&scene.fleet);
    let key = scene.layout().plan();
    let body = bucket.get(&key).await.expect("a plan").body;
    let text = String::from_utf8(body.to_vec()).expect("text");
    let plan: Value = serde_json::from_str(&text).expect("JSON");
    let now = plan["planned_at"].as_str().expect("a time");
    let before = now.parse::<jiff::Timestamp>().expect("a time");
    let before = before - jiff::SignedDuration::from_hours(48);
    let old = text.replace(now, &before.to_string());
    assert_ne!(old, text);
    bucket.put(&key, old.as_bytes()).await.expect("put");
    for command in ["pause", "resume"] {
        let done = scene
            .fleet
            .producer(&[command, RUN], LIMIT)
            .expect("it runs");
        done.expect_code(0);
    }
}
