//! Elasticsearch away, restarted, busy, and refusing documents.

use std::time::{Duration, Instant};

use harness::{Fault, Fleet, Proxy};
use paceline_loadtest::simulator::{Limits, SimulatorConfig};
use paceline_protocol::manifest::RunEnd;
use paceline_stack::ServerKind;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::busy_index::BusyIndex;
use crate::scene::{Calendar, RUN, Scene};
use crate::serve::LIMIT;

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_away_for_a_while_is_waited_for() {
    let mut fleet = Fleet::new("index-away").expect("a fleet");
    let (proxy, url) = Proxy::before(fleet.value("ELASTICSEARCH_URL"))
        .await
        .expect("a proxy");
    fleet.set("ELASTICSEARCH_URL", url);
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    scene.start();
    scene.after_calls(500).await;
    proxy.set(Fault::Reset);
    // Who waits for the run is told what for.
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        let status = ["status", RUN, "--json"];
        let status = scene.fleet.producer(&status, LIMIT).expect("it ends");
        let status = status.expect_code(0).stdout;
        if status.contains("the loader, which waits") {
            break;
        }
        assert!(Instant::now() < until, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    proxy.set(Fault::None);
    scene.ends_with(0).await;
    scene.check(&Calendar::SHORT).await;
    scene.assert_nothing_repeated();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_restarts_gets_every_document() {
    let (stack, fleet) = Fleet::beside(ServerKind::Elasticsearch, "index-new").expect("a fleet");
    let server = stack.elasticsearch().expect("a private Elasticsearch");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    scene.start();
    scene.after_calls(700).await;
    server.kill().expect("killed");
    server.restart().expect("started again");
    scene.ends_with(0).await;
    scene.check(&Calendar::SHORT).await;
    scene.assert_nothing_repeated();
}

/// What Elasticsearch does to its indices when its disk is full.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_read_only_for_a_while_is_waited_for() {
    let mut scene = Scene::new(Fleet::new("read-only").expect("a fleet"), &Calendar::SHORT);
    scene.start();
    scene.after_calls(300).await;
    read_only(&scene, json!(true)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    read_only(&scene, json!(null)).await;
    scene.ends_with(0).await;
    assert!(scene.loader().said().contains("cluster_block_exception"));
    scene.check(&Calendar::SHORT).await;
    scene.assert_nothing_repeated();
}

/// Sets the block as soon as there is an index.
async fn read_only(scene: &Scene, value: Value) {
    let (url, index) = (scene.fleet.value("ELASTICSEARCH_URL"), scene.index());
    let client = reqwest::Client::new();
    let settings = || {
        let put = client.put(format!("{url}/{index}-{RUN}/_settings"));
        put.json(&json!({"index.blocks.read_only_allow_delete": value}))
    };
    while settings().send().await.expect("an answer").status() != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_told_429_is_sent_again_alone() {
    const CALENDAR: Calendar = Calendar {
        airports: &["NRT"],
        days: 20,
        rate: 400,
    };
    let mut fleet = Fleet::new("index-busy").expect("a fleet");
    let index = BusyIndex::before(fleet.value("ELASTICSEARCH_URL")).await;
    fleet.set("ELASTICSEARCH_URL", index.url());
    let mut scene = Scene::new(fleet, &CALENDAR);
    scene.start();
    scene.ends_with(0).await;
    scene.check(&CALENDAR).await;
    scene.assert_nothing_repeated();
    let bulks = index.bulks();
    let refused = &bulks[0][0];
    let again: Vec<_> = bulks[1..].iter().filter(|b| b.contains(refused)).collect();
    assert_eq!(again, [&vec![refused.clone()]]);
    let mut others: Vec<_> = bulks.iter().flatten().filter(|id| *id != refused).collect();
    let sent = others.len();
    others.sort();
    others.dedup();
    assert_eq!(
        others.len(),
        sent,
        "a document that was stored was sent again"
    );
}

/// `NRT` is no number; the other destinations are.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_does_not_fit_the_mapping_is_listed_and_the_others_are_there() {
    let config = SimulatorConfig {
        limits: Limits::per_second(50),
        lenient: true,
        ..SimulatorConfig::default()
    };
    let mut scene = Scene::with(Fleet::new("unfit").expect("a fleet"), config);
    let spec = &scene.fleet.spec;
    spec.destinations(&["NRT", "1001", "1002", "1003", "1004"])
        .expect("written");
    scene.replace("jobs/fares.yaml", "days: 100}", "days: 1}");
    scene.replace("jobs/fares.yaml", "range: [1, 14]", "range: [1, 2]");
    scene.replace(
        "jobs/fares.yaml",
        "destination: keyword",
        "destination: integer",
    );
    scene.start();
    scene.ends_with(0).await;
    let verdict = scene.verdict().await;
    verdict.assert_kept();
    let documents = format!("{}documents-", scene.layout().all_failures());
    let listed = scene.rows(&documents).await;
    assert_eq!(verdict.records - verdict.documents, listed.len() as u64);
    assert!(!listed.is_empty(), "NRT fits no integer");
    for row in listed {
        let row = row.to_string();
        assert!(row.contains("NRT") && row.contains("integer"), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_percent_of_rejected_documents_stop_the_run() {
    let fleet = Fleet::new("wrong-mapping").expect("a fleet");
    let mut scene = Scene::new(fleet, &Calendar::LONG);
    scene.replace("jobs/fares.yaml", "carrier: keyword", "carrier: integer");
    scene.start();
    scene.ends_with(4).await;
    let manifest = scene.manifest().await;
    assert_eq!(manifest.state, RunEnd::Failed);
    let notes = manifest.notes.join("\n");
    assert!(notes.contains("more than 1 %"), "{notes}");
    assert!(notes.contains("mapping"), "{notes}");
    let calls = scene.simulator.log().len();
    assert!(calls < 2_800, "all {calls} calls were made");
}
