//! What a provider's answer closes: its own scope, one probe after it, then a ramp; refused again and again,
//! the run is paused.

use std::time::Duration;

use harness::calendar::calls_of;
use harness::{Calendar, Shape};
use paceline_loadtest::simulator::{Call, Fault, FaultRule, RetryAfter};

const RUN: &str = "night";

/// A limit for each destination beside the shared one.
fn by_place() -> (&'static str, String) {
    (
        "  - {name: in-flight",
        "  - {name: place, rate: 40/s, per: \"{{ destination }}\"}\n  - {name: in-flight".into(),
    )
}

fn inside(calls: &[Call], from: u64, to: u64) -> usize {
    let hit = |call: &&Call| (from..to).contains(&call.arrived_us);
    calls.iter().filter(hit).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_closes_its_own_scope_and_one_probe_opens_it() {
    let throttle = Fault::Throttle {
        wait_ms: 4_000,
        retry_after: RetryAfter::Float,
    };
    let shape = Shape {
        destinations: &["NRT", "KIX"],
        days: 60,
        latency: Duration::from_millis(150),
        faults: vec![FaultRule::cells(throttle, "NRT/2026-12-05/2026-12-06").first(1)],
        provider: vec![by_place(), ("attempts: 5", "attempts: 1".into())],
        ..Shape::default()
    };
    let calendar = Calendar::new("scopes", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let log = calendar.provider.log();
    let refused = log.iter().find(|call| call.status == 429).expect("a 429");
    // Grants that were on their way when the fleet heard of it may still come.
    let (from, to) = (refused.arrived_us + 500_000, refused.arrived_us + 3_950_000);
    let (closed, other) = (calls_of(&log, "NRT/"), calls_of(&log, "KIX/"));
    assert_eq!(inside(&closed, from, to), 0, "the closed scope");
    let others = inside(&other, from, to);
    let is_done = other.iter().all(|call| call.arrived_us < to);
    assert!(
        others > 10 || is_done,
        "the other one goes on: {others} calls"
    );
    let mut after = closed.iter().filter(|c| c.arrived_us >= to);
    let probe = after.next().expect("the probe").arrived_us;
    // The probe's answer takes 150 ms; then two a second, then four, or fewer where the machine has no time for us.
    assert_eq!(inside(&closed, probe, probe + 150_000), 1, "one probe");
    let second = inside(&closed, probe, probe + 1_150_000);
    assert!(second <= 5, "{second} calls in the ramp's first second");
    let soon = inside(&closed, probe, probe + 5_000_000);
    assert!(soon > 1, "the ramp begins: {soon} calls in five seconds");
    assert_eq!(calendar.provider.report().repeated, 0);
}

/// The file says 60 a second, the provider serves 20.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_serves_less_than_its_file_is_refused_ever_more_rarely_and_named() {
    let shape = Shape {
        rate: 60,
        serves: Some(20),
        days: 60,
        ..Shape::default()
    };
    let calendar = Calendar::new("stricter", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    let enqueued = calendar.producer(&["enqueue", "fares", "--run-id", RUN]);
    enqueued.expect("it ends").expect_code(0);
    let patience = std::time::Instant::now() + Duration::from_secs(180);
    loop {
        let limits = calendar.producer(&["limits", "fare-search"]);
        let limits = limits.expect("it ends").expect_code(0).stdout;
        if limits.contains("was refused at a pace that its limits allow; kept below") {
            break;
        }
        assert!(std::time::Instant::now() < patience, "{limits}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let status = calendar.json(&["status", RUN]).expect("a status");
    let binds = status["binds"].as_str().unwrap_or_default();
    assert!(binds.contains("refuses more than about"), "{status}");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    let log = calendar.provider.log();
    let refused = log.iter().filter(|call| call.status == 429).count();
    assert!((2..12).contains(&refused), "{refused} refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_again_and_again_the_run_is_paused() {
    let throttle = Fault::Throttle {
        wait_ms: 100,
        retry_after: RetryAfter::Float,
    };
    let shape = Shape {
        faults: vec![FaultRule::share(throttle, 1.0)],
        ..Shape::default()
    };
    let calendar = Calendar::new("breaker", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    let stopped = calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(5);
    assert!(
        stopped.stderr.contains("stopped by provider fare-search"),
        "{}",
        stopped.stderr
    );
    let status = calendar.json(&["status", RUN]).expect("a status");
    assert_eq!(status["state"], "paused", "{status}");
    let calls = calendar
        .provider
        .log()
        .iter()
        .filter(|c| c.status == 429)
        .count();
    assert!((7..40).contains(&calls), "{calls} refusals: no loop");

    calendar.provider.set_faults(Vec::new());
    calendar
        .producer(&["resume", RUN])
        .expect("it ends")
        .expect_code(0);
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_last_cells_wait_for_a_closed_scope_stops_who_waits_for_it() {
    let throttle = Fault::Throttle {
        wait_ms: 600_000,
        retry_after: RetryAfter::Float,
    };
    let shape = Shape {
        destinations: &["NRT", "KIX"],
        faults: vec![FaultRule::cells(throttle, "NRT/2026-12-05/2026-12-06").first(1)],
        provider: vec![by_place()],
        ..Shape::default()
    };
    let calendar = Calendar::new("standstill", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _worker = calendar.collect().expect("started");
    let stopped = calendar.enqueue_and_wait(RUN).expect("it ends");
    let stopped = stopped.expect_code(5);
    let what = "what is left waits for place:NRT";
    assert!(stopped.stderr.contains(what), "{}", stopped.stderr);
    let others = calendar.provider.log();
    assert_eq!(calls_of(&others, "KIX/").len(), 60, "the others are done");

    let resumed = calendar.producer(&["resume", RUN]);
    resumed.expect("it ends").expect_code(0);
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
}
