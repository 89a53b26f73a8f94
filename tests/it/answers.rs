//! Answers that no provider should give, and values in a dimension that no list should hold.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Bucket, Fleet};
use paceline_loadtest::fares::World;
use paceline_loadtest::simulator::{
    Fault, FaultRule, Faults, Latency, Limits, Simulator, SimulatorConfig,
};
use paceline_stack::Process;
use serde_json::Value;

use crate::scene::Scene;

/// More than a worker may ever need beside what it reads of answers that are too large.
const MOST_MEMORY_KB: u64 = 200 << 10;
/// Of every answer that is too large, so much is sent, in megabytes.
const HUGE_MB: u64 = 300;

/// Two nights on one day for each destination.
const CELLS_EACH: usize = 2;

fn world() -> World {
    World {
        seed: 1,
        empty_share: 0.0,
        missing_share: 0.0,
    }
}

fn config(faults: Vec<FaultRule>) -> SimulatorConfig {
    SimulatorConfig {
        limits: Limits::per_second(200),
        faults: Faults(faults),
        world: world(),
        lenient: true,
        ..SimulatorConfig::default()
    }
}

/// A scene of few cells at 200 calls a second, whose retries come soon.
fn scene(name: &str, faults: Vec<FaultRule>) -> Scene {
    let scene = Scene::with(Fleet::new(name).expect("a fleet"), config(faults));
    let provider = "providers/fare-search.yaml";
    scene.replace(provider, "rate: 50/s", "rate: 200/s");
    scene.replace(provider, "total: 10s", "total: 3s");
    let retry = "attempts: 3, backoff: {from: 50ms, to: 200ms}";
    let usual = "attempts: 5, backoff: {from: 500ms, to: 30s}";
    scene.replace(provider, usual, retry);
    scene.replace("jobs/fares.yaml", "days: 100}", "days: 1}");
    scene.replace("jobs/fares.yaml", "range: [1, 14]", "range: [1, 2]");
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn while_answers_take_seconds_a_worker_takes_further_shards() {
    const CELLS_OF_A_SHARD: u32 = 7;
    let slow = SimulatorConfig {
        latency: Latency::fixed(Duration::from_secs(2)),
        ..config(Vec::new())
    };
    let mut scene = Scene::with(Fleet::new("slow").expect("a fleet"), slow);
    let shard = format!("cells: {CELLS_OF_A_SHARD}, checkpoint: {CELLS_OF_A_SHARD}");
    scene.replace("jobs/fares.yaml", "cells: 140, checkpoint: 20", &shard);
    scene.replace("jobs/fares.yaml", "days: 100}", "days: 4}");
    scene.fleet.spec.destinations(&["NRT"]).expect("written");
    let one_at_a_time = scene.fleet.collect(&["--shards", "1"]);
    scene.collectors.push(one_at_a_time.expect("it starts"));
    scene.load();
    scene.enqueue();
    scene.ends_with(0).await;
    let most = scene.simulator.report().most_in_flight;
    assert!(most > CELLS_OF_A_SHARD, "{most} calls in flight at most");
    scene.assert_nothing_repeated();
}

/// The most memory that a process has had, in kB.
fn peak_memory_kb(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("VmHWM").parse().expect("a number")
}

/// A destination with what its answers are like, and how its cells must fail: part of the reason, the
/// field, the attempts.
type Bad = (&'static str, Fault, &'static str, Option<&'static str>, u64);

fn bad_answers(elsewhere: &str) -> Vec<Bad> {
    vec![
        ("BKK", Fault::Truncated, "connection failed", None, 3),
        ("HKG", Fault::NotJson, "JSON", None, 3),
        ("SIN", Fault::WrongShape, "carrier", Some("carrier"), 1),
        ("CDG", Fault::Redirect(elsewhere.into()), "302", None, 1),
        ("LAX", Fault::Hang, "no whole answer within 3 s", None, 3),
        ("TPE", Fault::Huge(HUGE_MB), "larger than", None, 1),
        ("SFO", Fault::PriceMissing, "price", Some("price"), 1),
        ("JFK", Fault::BadTime, "departs_at", Some("departs_at"), 1),
    ]
}

/// Failures by destination.
fn by_destination(rows: Vec<Value>) -> BTreeMap<String, Vec<Value>> {
    let mut failures: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in rows {
        let destination = row["destination"].as_str().expect("text").to_owned();
        failures.entry(destination).or_default().push(row);
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_fail_their_cells_and_nothing_else() {
    let other = Simulator::start(SimulatorConfig::default()).expect("it listens");
    let elsewhere = format!("{}/v1/fares?origin=ICN", other.url());
    let bad = bad_answers(&elsewhere);
    let mut faults: Vec<FaultRule> = bad
        .iter()
        .map(|(destination, fault, ..)| FaultRule::cells(fault.clone(), destination))
        .collect();
    faults.push(FaultRule::cells(Fault::Truncated, "KIX").first(2));
    let mut scene = scene("answers", faults);
    let mut airports: Vec<&str> = bad.iter().map(|(destination, ..)| *destination).collect();
    airports.extend(["NRT", "KIX"]);
    scene.fleet.spec.destinations(&airports).expect("written");
    scene.replace("jobs/fares.yaml", "gate: 0.99", "gate: 0.1");
    scene.collect();
    scene.load();
    scene.enqueue();
    scene.ends_with(0).await;

    let verdict = scene.verdict().await;
    verdict.assert_kept();
    let failed = by_destination(scene.rows(&scene.layout().all_failures()).await);
    assert_eq!(failed.len(), bad.len(), "{:?}", failed.keys());
    for (destination, fault, reason, field, attempts) in bad {
        let rows = &failed[destination];
        assert_eq!(rows.len(), CELLS_EACH, "{fault:?}");
        for row in rows {
            let told = row["reason"].as_str().unwrap_or_default();
            assert!(told.contains(reason), "{fault:?}: {row}");
            assert_eq!(row["field"].as_str(), field, "{fault:?}: {row}");
            assert_eq!(row["attempts"].as_u64(), Some(attempts), "{fault:?}: {row}");
        }
    }
    assert!(other.log().is_empty(), "a redirect was followed");
    let peak = peak_memory_kb(&scene.collectors[0]);
    assert!(peak < MOST_MEMORY_KB, "{peak} kB");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_stay_values() {
    let long = "x".repeat(4_096);
    let hostile = [
        "../../../etc/passwd",
        "..",
        "it's \"quoted\" `twice`",
        "two\nlines",
        "tab\tand, comma",
        "☃🛫 é",
        "%2e%2e%2f%00",
        "{{ credential.key }}",
        "${FARE_SEARCH_KEYS}",
        "a/b:c*?[d]{e}#f&g=h+i",
        "\\\\",
        &long,
    ];
    let rows: String = hostile
        .iter()
        .map(|value| format!("\"{}\",x\n", value.replace('"', "\"\"")))
        .collect();
    let mut scene = scene("hostile", Vec::new());
    let list = format!("iata,name\n{rows}");
    let written = scene.fleet.spec.write("jobs/destinations.csv", &list);
    written.expect("written");
    scene.collect();
    scene.load();
    scene.enqueue();
    scene.ends_with(0).await;

    let verdict = scene.verdict().await;
    verdict.assert_kept();
    assert_eq!(verdict.cells, (hostile.len() * CELLS_EACH) as u64);
    assert_eq!((verdict.failed, scene.manifest().await.rejected), (0, 0));
    let root = format!("{}/", scene.fleet.value("PACELINE_PREFIX"));
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"/._-%".contains(&b);
    let mut keys = Bucket::of(&scene.fleet).keys("").await.expect("a list");
    keys.retain(|key| !key.starts_with(&root) || !key.bytes().all(harmless) || key.contains(".."));
    assert!(keys.is_empty(), "{keys:?}");
    let sets = scene.manifest().await.sets;
    for value in hostile {
        assert!(sets.contains_key(&format!("fares:{value}")), "{value:?}");
    }
    scene.assert_nothing_repeated();
}
