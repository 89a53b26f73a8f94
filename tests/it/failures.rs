//! What a provider does wrong, and what becomes of it: failures with a reason, retries, closed scopes, dead
//! letters.

use std::time::Duration;

use harness::calendar::calls_of;
use harness::{Calendar, Shape};
use paceline_loadtest::simulator::{Fault, FaultRule, Limits, Quota, RetryAfter};
use paceline_stack::Process;
use serde_json::{Value, json};

const RUN: &str = "night";
/// Three cells, one for each length of stay, all in the first shard.
const DAY: &str = "NRT/2026-12-02";

fn with_fault(fault: FaultRule, gate: &'static str) -> Shape {
    Shape {
        faults: vec![fault],
        gate,
        ..Shape::default()
    }
}

fn workers(calendar: &Calendar) -> [Process; 2] {
    [calendar.load(), calendar.collect()].map(|worker| worker.expect("started"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_answer_is_a_failure_at_once() {
    let shape = with_fault(FaultRule::cells(Fault::Status(400), DAY), "0.9");
    let calendar = Calendar::new("permanent", shape).expect("a calendar");
    let _workers = workers(&calendar);
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    let verdict = calendar.check(RUN).await.expect("checked");
    verdict.assert_kept();
    calendar
        .compare_with_the_truth(RUN)
        .await
        .expect("the truth");
    assert_eq!(
        calls_of(&calendar.provider.log(), DAY).len(),
        3,
        "one call for each cell"
    );
    let failures = calendar.collected(RUN).await.expect("read").failures;
    assert_eq!(failures.len(), 3);
    for row in &failures {
        assert_eq!(row["depart"], "2026-12-02", "{row:?}");
        assert_eq!(
            (&row["outcome"], &row["status"], &row["attempts"]),
            (&json!("permanent"), &json!(400), &json!(1)),
            "{row:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_is_tried_as_often_as_allowed() {
    let faults = vec![
        FaultRule::cells(Fault::Status(503), DAY),
        FaultRule::cells(Fault::Status(500), "NRT/2026-12-03").first(2),
    ];
    let shape = Shape {
        faults,
        gate: "0.9",
        ..Shape::default()
    };
    let calendar = Calendar::new("retryable", shape).expect("a calendar");
    let _workers = workers(&calendar);
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    calendar
        .compare_with_the_truth(RUN)
        .await
        .expect("the truth");
    let log = calendar.provider.log();
    assert_eq!(calls_of(&log, DAY).len(), 3 * 5, "five attempts each");
    assert_eq!(
        calls_of(&log, "NRT/2026-12-03").len(),
        3 * 3,
        "the third is good"
    );
    let failures = calendar.collected(RUN).await.expect("read").failures;
    assert_eq!(failures.len(), 3);
    assert!(
        failures
            .iter()
            .all(|row| row["attempts"] == 5 && row["status"] == 503)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_night_changes_nothing_and_a_retry_mends_it() {
    let calendar = Calendar::new("gate", Shape::default()).expect("a calendar");
    let _workers = workers(&calendar);
    calendar
        .enqueue_and_wait("good")
        .expect("it ends")
        .expect_code(0);
    calendar
        .provider
        .set_faults(vec![FaultRule::cells(Fault::Status(400), DAY)]);
    calendar
        .enqueue_and_wait("bad")
        .expect("it ends")
        .expect_code(4);
    calendar.check("bad").await.expect("checked").assert_kept();
    calendar.check("good").await.expect("checked").assert_kept();
    let live = calendar.live_index().await.expect("an answer");
    assert_eq!(
        live,
        Some(calendar.index_of("good")),
        "the last good night stays"
    );
    calendar.enqueue("bad").expect("it ends").expect_code(4);

    let before = calendar.provider.log().len();
    calendar.provider.set_faults(Vec::new());
    calendar
        .producer(&["retry", "bad", "--wait"])
        .expect("it ends")
        .expect_code(0);
    let log = calendar.provider.log();
    let searches = log[before..]
        .iter()
        .filter(|call| call.cell.is_some())
        .count();
    assert_eq!(
        (searches, calls_of(&log[before..], DAY).len()),
        (3, 3),
        "failed cells only"
    );
    calendar.check("bad").await.expect("checked").assert_kept();
    calendar
        .compare_with_the_truth("bad")
        .await
        .expect("the truth");
    let parts = calendar.collected("bad").await.expect("read").parts;
    assert!(parts.values().any(|part| part.key.contains("/part-r1-")));
    let live = calendar.live_index().await.expect("an answer");
    assert_eq!(live, Some(calendar.index_of("bad")));
}

/// A worker that was stopped and woke up puts its own failures over those of the worker that went on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn failures_that_two_workers_put_over_each_other_are_those_of_the_parts_in_the_end() {
    let shape = with_fault(FaultRule::cells(Fault::Status(400), DAY), "0.9");
    let calendar = Calendar::new("two-holders", shape).expect("a calendar");
    let _collector = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let cells = calendar.cells();
    let all_ended = async {
        loop {
            let status = calendar.json(&["status", RUN]).expect("a status");
            let ended = ["succeeded", "empty", "failed"].map(|end| status[end].as_u64());
            if ended.into_iter().flatten().sum::<u64>() == cells {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_ended)
        .await
        .expect("all cells end");
    let (bucket, layout) = (calendar.bucket(), calendar.layout(RUN));
    let lost_one = bucket.get(&layout.failures(0)).await.expect("failures");
    let rows = lost_one.rows().expect("rows");
    let mut stray = rows[0].clone();
    let (first, other) = (cells / 2, layout.failures(1));
    stray["cell"] = json!(first);
    let left: Vec<String> = rows[1..].iter().map(Value::to_string).collect();
    let put = async |key: &str, body: &str| bucket.put(key, body.as_bytes()).await.expect("put");
    put(&layout.failures(0), &left.join("\n")).await;
    put(&other, &stray.to_string()).await;

    let _loader = calendar.load().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let failures = calendar.collected(RUN).await.expect("read").failures;
    let reasons: Vec<&Value> = failures.iter().map(|row| &row["reason"]).collect();
    assert_eq!(
        reasons,
        [
            &json!("unknown"),
            &json!("status 400"),
            &json!("status 400")
        ]
    );
    let manifest = calendar.manifest(RUN).await.expect("a manifest");
    assert_eq!(manifest.reasons.get("unknown"), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_kills_its_workers_dies_alone() {
    // Whoever calls that day is killed by this test.
    let shape = with_fault(FaultRule::cells(Fault::Hang, DAY), "0.5");
    let calendar = Calendar::new("poison", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    fewer_deliveries(&calendar).await;
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    for _ in 0..8 {
        let seen = calls_of(&calendar.provider.log(), DAY).len();
        let mut victim = calendar.collect().expect("started");
        let until = tokio::time::Instant::now() + Duration::from_secs(15);
        while calls_of(&calendar.provider.log(), DAY).len() == seen
            && tokio::time::Instant::now() < until
            && !has_ended(&calendar)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if has_ended(&calendar) {
            break;
        }
        victim.kill().expect("killed");
    }
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let failures = calendar.collected(RUN).await.expect("read").failures;
    assert!(
        (3..=20).contains(&failures.len()),
        "{} failures",
        failures.len()
    );
    for row in &failures {
        assert_eq!(row["reason"], "poison", "{row:?}");
        assert!(
            row["cell"].as_u64().is_some_and(|cell| cell < 20),
            "a neighbour: {row:?}"
        );
    }
}

fn has_ended(calendar: &Calendar) -> bool {
    let status = calendar.json(&["status", RUN]).expect("a status");
    status["state"] == "completed" || status["state"] == "failed"
}

/// Lets the broker give a shard up after a few deliveries instead of twenty.
async fn fewer_deliveries(calendar: &Calendar) {
    let management = calendar.fleet.management().expect("a private broker");
    let name = &calendar.fleet.name;
    let policy = json!({
        "pattern": format!("^{name}\\.work\\."), "apply-to": "queues",
        "definition": {"delivery-limit": 3},
    });
    let put = reqwest::Client::new().put(format!("{management}/api/policies/%2f/{name}"));
    let answer = put.json(&policy).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_holds_the_whole_fleet_and_burns_no_attempt() {
    let throttle = Fault::Throttle {
        wait_ms: 2_000,
        retry_after: RetryAfter::Seconds,
    };
    let shape = Shape {
        faults: vec![FaultRule::cells(throttle, "NRT/2026-12-11/2026-12-12").first(1)],
        // One attempt: a cell whose attempt were burnt would fail.
        provider: vec![("attempts: 5", "attempts: 1".into())],
        ..Shape::default()
    };
    let calendar = Calendar::new("throttled", shape).expect("a calendar");
    let _workers = workers(&calendar);
    let _second = calendar.collect().expect("started");
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let log = calendar.provider.log();
    let refused = log
        .iter()
        .find(|call| call.status == 429)
        .expect("a 429")
        .arrived_us;
    // What was granted before the fleet knew may still come; then nothing does.
    let quiet = refused + 300_000..refused + 1_900_000;
    let early = log
        .iter()
        .filter(|call| quiet.contains(&call.arrived_us))
        .count();
    assert_eq!(
        early, 0,
        "calls inside the wait that the provider asked for"
    );
    assert_eq!(calendar.provider.report().repeated, 0);
}

fn quota(calls: u64) -> Limits {
    let quota: Quota = serde_json::from_value(json!({ "calls": calls })).expect("a quota");
    Limits {
        quota: Some(quota),
        ..Limits::per_second(400)
    }
}

/// Slow enough that hardly a grant comes too late to be used: a dropped one counts against its key.
fn own_quota(calls: u64) -> Shape {
    Shape {
        rate: 50,
        provider: vec![("quota: 25000/day", format!("quota: {calls}/day"))],
        ..Shape::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_used_up_makes_way_for_the_next() {
    let calendar = Calendar::new("keys", own_quota(45)).expect("a calendar");
    calendar.provider.set_limits(quota(45));
    let _workers = workers(&calendar);
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let used = calendar.provider.report().per_key;
    let [first, second] = [0, 1].map(|key| used.get(&calendar.keys[key]).copied().unwrap_or(0));
    assert_eq!(first + second, calendar.cells());
    assert!(first <= 45 && first > second, "{first} and {second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_counts_otherwise_is_believed() {
    let calendar = Calendar::new("believed", Shape::default()).expect("a calendar");
    calendar.provider.set_limits(quota(40));
    let _workers = workers(&calendar);
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    let checker = calendar.checker(RUN).expect("a checker");
    checker.check().await.expect("checked").assert_kept();
    let report = calendar.provider.report();
    assert_eq!(report.per_key.get(&calendar.keys[1]), Some(&20));
    assert!((1..64).contains(&report.refused), "{report:?}");
    assert_eq!(report.refused_by.get("quota"), Some(&report.refused));
    // What was granted of the first key before it closed was dropped, and is no call.
    let audit = calendar.json(&["audit", RUN]).expect("an audit");
    let of = |name: &str| audit[name].as_u64().expect("a number");
    assert_eq!(of("granted") - of("dropped"), of("calls"), "{audit}");
    assert!(of("dropped") > 0, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_used_up_stops_the_waiting() {
    let calendar = Calendar::new("pool", own_quota(20)).expect("a calendar");
    calendar.provider.set_limits(quota(20));
    let _workers = workers(&calendar);
    let stopped = calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(5);
    assert_eq!(stopped.stdout.trim(), RUN);
    let report = calendar.provider.report();
    assert_eq!(report.refused, 0, "{}", stopped.stderr);
    assert!((1..=40).contains(&report.calls), "{report:?}");
    let status: Value = calendar.json(&["status", RUN]).expect("a status");
    assert_eq!(status["state"], "running", "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_leaves_the_pool() {
    // One cell is always refused, with whatever key: it must not take the good ones along.
    let refused = FaultRule::cells(Fault::Status(401), "NRT/2026-12-02/2026-12-05");
    let shape = with_fault(refused, "0.9");
    let mut calendar = Calendar::new("badkey", shape).expect("a calendar");
    let wrong = format!("canary-wrong-{}", calendar.fleet.name);
    let keys = format!("{wrong},{}", calendar.keys.join(","));
    calendar.fleet.set("FARE_SEARCH_KEYS", keys);
    calendar.keys.push(wrong);
    let _workers = workers(&calendar);
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    let checker = calendar.checker(RUN).expect("a checker");
    checker.check().await.expect("checked").assert_kept();
    let report = calendar.provider.report();
    assert_eq!(
        report.refused_by.get("key"),
        Some(&report.refused),
        "{report:?}"
    );
    let failures = calendar.collected(RUN).await.expect("read").failures;
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0]["depart"], "2026-12-02", "{failures:?}");
    assert_eq!(
        (&failures[0]["outcome"], &failures[0]["status"]),
        (&json!("auth_expired"), &json!(401)),
        "{failures:?}"
    );
    // Of the keys only the wrong one stays out; one that came back last may still wait for its probe.
    let limits = calendar.json(&["limits", "fare-search"]).expect("limits");
    let closed = limits[0]["closed"].as_array().expect("closures");
    let out = closed.iter().filter(|closed| closed["for_s"] != 0);
    assert_eq!(out.count(), 1, "{limits}");
}
