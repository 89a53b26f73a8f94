//! SIGTERM: a collector ends in order within its grace, and nothing that was finished is called again.

use std::time::{Duration, Instant};

use harness::{Calendar, Shape};
use nix::sys::signal::Signal;
use paceline_loadtest::bench::cpu_of;
use paceline_loadtest::simulator::{Fault, FaultRule};

const RUN: &str = "night";
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_in_the_middle_repeats_no_finished_call() {
    let shape = Shape {
        destinations: &["NRT", "BKK"],
        rate: 200,
        ..Shape::default()
    };
    let calendar = Calendar::new("drain", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let mut used_open = false;
    for done in [12, 38, 71] {
        let mut collector = calendar.collect().expect("started");
        calendar.until_answered(done).await.expect("it works");
        let status = collector.terminate(PATIENCE).expect("drained");
        assert_eq!(status.code(), Some(0), "{}", collector.last_words(20));
        let opened = calendar.bucket().keys(&calendar.fleet.name).await;
        used_open |= opened
            .expect("keys")
            .iter()
            .any(|key| key.contains("/open/"));
    }
    assert!(used_open, "no drain left anything in open/");
    let _last = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    calendar
        .compare_with_the_truth(RUN)
        .await
        .expect("the truth");
    assert_eq!(calendar.provider.report().repeated, 0);
}

/// The provider never answers the first call of any cell.
fn hanging() -> Shape {
    Shape {
        faults: vec![FaultRule::share(Fault::Hang, 1.0).first(1)],
        ..Shape::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_provider_does_not_outlast_the_grace() {
    let calendar = Calendar::new("hang", hanging()).expect("a calendar");
    let _loader = calendar.load().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let grace = ["--grace", "4s"];
    let mut collector = calendar.fleet.collect(&grace).expect("started");
    calendar
        .until("a call", |log| log.iter().any(|c| c.cell.is_some()))
        .await
        .expect("a call");
    let asked = Instant::now();
    let status = collector.terminate(PATIENCE).expect("drained");
    assert_eq!(status.code(), Some(0), "{}", collector.last_words(20));
    assert!(
        asked.elapsed() < Duration::from_secs(6),
        "{:?}",
        asked.elapsed()
    );

    calendar.provider.set_faults(Vec::new());
    let _next = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_calls_are_all_in_flight_waits_without_turning_round() {
    let calendar = Calendar::new("seats", hanging()).expect("a calendar");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let collector = calendar.fleet.collect(&["--concurrency", "2"]);
    let collector = collector.expect("started");
    calendar
        .until("both calls", |log| {
            log.iter().filter(|c| c.cell.is_some()).count() == 2
        })
        .await
        .expect("both calls");
    let before = cpu_of(collector.id());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = cpu_of(collector.id()) - before;
    assert!(spent < Duration::from_millis(500), "{spent:?} of 2 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_stops_at_once() {
    let calendar = Calendar::new("twice", hanging()).expect("a calendar");
    let _loader = calendar.load().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let mut collector = calendar.collect().expect("started");
    calendar
        .until("a call", |log| log.iter().any(|c| c.cell.is_some()))
        .await
        .expect("a call");
    collector.signal(Signal::SIGTERM).expect("signalled");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = Instant::now();
    collector.signal(Signal::SIGTERM).expect("signalled");
    let status = collector
        .wait_at_most(PATIENCE)
        .expect("waited")
        .expect("it ends");
    assert_eq!(status.code(), Some(130), "{}", collector.last_words(20));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );

    calendar.provider.set_faults(Vec::new());
    let _next = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
}
