//! Runs that are cut off, enqueued again, paused and cancelled: S3 is the truth, and nothing that it holds
//! is called again.

use std::time::Duration;

use harness::{Calendar, Shape};
use paceline_protocol::keys::Keys;
use paceline_protocol::stores::state::State;
use serde_json::Value;

const RUN: &str = "night";
const GRACE: Duration = Duration::from_secs(60);

/// Long enough to be caught in the middle.
fn slow() -> Shape {
    Shape {
        destinations: &["NRT", "BKK"],
        rate: 100,
        ..Shape::default()
    }
}

/// What was called for shards that were dropped, too.
async fn every_call_is_in_the_ledger(calendar: &Calendar) {
    let mut written = 0;
    for _ in 0..100 {
        let audit = calendar.json(&["audit", RUN]).expect("an audit");
        written = audit["calls"].as_u64().expect("a number");
        // The producer's question whether the provider is ready is in the ledger too, and no fare.
        if written == calendar.provider.report().calls + 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let calls = calendar.provider.report().calls;
    panic!("{written} calls are in the ledger, {calls} were made");
}

async fn ends_well(calendar: &Calendar) {
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    assert_eq!(calendar.provider.report().repeated, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_enqueued_twice_at_once_is_one_run() {
    let calendar = Calendar::new("twins", Shape::default()).expect("a calendar");
    let _workers = [calendar.load(), calendar.collect(), calendar.collect()];
    std::thread::scope(|scope| {
        let twins = [(); 2].map(|()| scope.spawn(|| calendar.enqueue_and_wait(RUN)));
        for twin in twins {
            let ended = twin.join().expect("no panic").expect("it ends");
            assert_eq!(ended.expect_code(0).stdout.trim(), RUN);
        }
    });
    ends_well(&calendar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_plan_under_the_same_run_id_is_refused() {
    let calendar = Calendar::new("differs", Shape::default()).expect("a calendar");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let spec = &calendar.fleet.spec;
    spec.replace("jobs/fares.yaml", "days: 20", "days: 21")
        .expect("changed");
    let refused = calendar.enqueue(RUN).expect("it ends").expect_code(2);
    assert!(
        refused.stderr.contains("stands for another plan"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("the dimensions' values"),
        "{}",
        refused.stderr
    );
    spec.replace("jobs/fares.yaml", "days: 21", "days: 20")
        .expect("undone");
    let _workers = [calendar.load(), calendar.collect()];
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    ends_well(&calendar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_everything_loses_nothing() {
    let calendar = Calendar::new("lost", slow()).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let mut collector = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(50).await.expect("it works");
    let status = collector.terminate(GRACE).expect("drained");
    assert!(status.success(), "{}", collector.last_words(20));
    delete_queues(&calendar).await;

    let _next = calendar.collect().expect("started");
    let again = calendar.enqueue(RUN).expect("it ends").expect_code(0);
    assert!(again.stderr.contains("going on with"), "{}", again.stderr);
    ends_well(&calendar).await;
    calendar
        .compare_with_the_truth(RUN)
        .await
        .expect("the truth");
}

/// Deletes every queue of the fleet, whatever is in it.
async fn delete_queues(calendar: &Calendar) {
    let management = calendar.fleet.management().expect("a private broker");
    let client = reqwest::Client::new();
    let list = client.get(format!("{management}/api/queues/%2f?columns=name"));
    let queues: Vec<Value> = list
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let names = queues.iter().filter_map(|queue| queue["name"].as_str());
    for name in names.filter(|name| name.starts_with(&calendar.fleet.name)) {
        let delete = client.delete(format!("{management}/api/queues/%2f/{name}"));
        let answer = delete.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{name}: {}", answer.status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_rests_and_goes_on() {
    let calendar = Calendar::new("pause", slow()).expect("a calendar");
    let _workers = [calendar.load(), calendar.collect()];
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(40).await.expect("it works");
    calendar
        .producer(&["pause", RUN])
        .expect("it ends")
        .expect_code(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = calendar.json(&["status", RUN]).expect("a status");
    assert_eq!(status["state"], "paused", "{status}");
    let calls = calendar.provider.report().calls;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(
        calendar.provider.report().calls,
        calls,
        "a paused run calls nobody"
    );
    assert!(calls < calendar.cells());
    calendar
        .producer(&["resume", RUN])
        .expect("it ends")
        .expect_code(0);
    ends_well(&calendar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_stays_so_until_a_retry() {
    let calendar = Calendar::new("cancel", slow()).expect("a calendar");
    let _workers = [calendar.load(), calendar.collect()];
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(40).await.expect("it works");
    calendar
        .producer(&["cancel", RUN])
        .expect("it ends")
        .expect_code(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = calendar.provider.report().calls;
    let again = calendar.enqueue(RUN).expect("it ends").expect_code(4);
    assert!(again.stderr.contains("was cancelled"), "{}", again.stderr);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(calendar.provider.report().calls, calls, "nothing is called");
    assert_eq!(calendar.live_index().await.expect("an answer"), None);
    every_call_is_in_the_ledger(&calendar).await;

    calendar
        .producer(&["retry", RUN, "--wait"])
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    calendar
        .compare_with_the_truth(RUN)
        .await
        .expect("the truth");
    // What was answered when the run was cancelled is not paid for twice.
    let report = calendar.provider.report();
    assert_eq!(report.repeated, 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cancelled_with_all_its_cells_is_ended_by_a_retry() {
    let calendar = Calendar::new("cancelwhole", Shape::default()).expect("a calendar");
    let collector = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let cells = calendar.cells();
    let mut settled = 0;
    for _ in 0..240 {
        let status = calendar.json(&["status", RUN]).expect("a status");
        let count = |key: &str| status[key].as_u64().unwrap_or(0);
        settled = count("succeeded") + count("empty") + count("failed");
        if settled == cells {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(settled, cells, "{}", collector.last_words(20));
    calendar
        .producer(&["cancel", RUN])
        .expect("it ends")
        .expect_code(0);

    let _loader = calendar.load().expect("started");
    calendar
        .producer(&["retry", RUN, "--wait"])
        .expect("it ends")
        .expect_code(0);
    ends_well(&calendar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_a_run_that_is_open_goes_on_with_it() {
    let calendar = Calendar::new("retryopen", Shape::default()).expect("a calendar");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar
        .producer(&["pause", RUN])
        .expect("it ends")
        .expect_code(0);
    let _workers = [calendar.load(), calendar.collect()];
    calendar
        .producer(&["retry", RUN, "--wait"])
        .expect("it ends")
        .expect_code(0);
    ends_well(&calendar).await;
}

/// As a `cancel` leaves it that was cut off after it had deleted the queues.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_queue_is_gone_is_published_again_by_resume() {
    let calendar = Calendar::new("no-queue", slow()).expect("a calendar");
    let _loader = calendar.load().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    delete_queues(&calendar).await;
    let resumed = calendar.producer(&["resume", RUN]).expect("it ends");
    let said = resumed.expect_code(0).stderr;
    assert!(said.contains("its shards are published again"), "{said}");
    let _collector = calendar.collect().expect("started");
    ends_well(&calendar).await;
}

/// As an `enqueue` leaves it that was stopped before it registered its run, and woke up when the run had ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_run_that_was_registered_late_is_forgotten() {
    let calendar = Calendar::new("late-entry", slow()).expect("a calendar");
    let fleet = &calendar.fleet;
    let keys = Keys::new(fleet.value("PACELINE_NAMESPACE"));
    let state = State::connect(fleet.value("REDIS_URL"), keys).await;
    let state = state.expect("connected");
    let open = async || state.open_runs().await.expect("read").unwrap_or_default();
    let _loader = calendar.load().expect("started");
    let _collector = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(5).await.expect("it works");
    let entry = open().await.pop().expect("it is open");
    ends_well(&calendar).await;
    state.set_open_run(&entry).await.expect("registered");
    let cancelled = calendar.producer(&["cancel", RUN]).expect("it ends");
    cancelled.expect_code(0);
    assert_eq!(open().await, []);
    assert_eq!(
        calendar.json(&["status", RUN]).expect("a status")["state"],
        "completed"
    );
}
