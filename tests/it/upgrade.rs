//! Two builds side by side: the second one is the same source with raised versions, as a debug build can be told to
//! be. Nothing is lost, nothing refused, and from the newer one's first request on the older one gets no grants.

use std::time::Duration;

use harness::calendar::answered;
use harness::{Calendar, Shape};
use paceline_stack::Process;

const NEWER: (&str, &str) = ("PACELINE_VERSIONS_AHEAD", "1");
const LONGEST: Duration = Duration::from_secs(240);

/// Waits until a process has said so.
fn until_said(process: &Process, what: &str) {
    let until = std::time::Instant::now() + LONGEST;
    while !process.said().contains(what) {
        assert!(
            std::time::Instant::now() < until,
            "{}",
            process.last_words(20)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_builds_share_a_run_and_never_keep_two_budgets() {
    let shape = Shape {
        destinations: &["NRT", "BKK"],
        days: 40,
        rate: 60,
        ..Shape::default()
    };
    let mut calendar = Calendar::new("upgrade", shape).expect("a calendar");
    let old = [
        calendar.load().expect("started"),
        calendar.collect().expect("started"),
    ];
    calendar.enqueue("n1").expect("it ends").expect_code(0);
    calendar.until_answered(40).await.expect("it works");

    // The newer build comes in the middle of the run, and works on what the older one has planned and published.
    let start = |role: &str| calendar.fleet.start_with(&[NEWER], "worker", &[role]);
    let _new = ["load", "collect"].map(|role| start(role).expect("started"));
    until_said(&old[1], "Newer");
    calendar.watch("n1").expect("it ends").expect_code(0);
    calendar.check("n1").await.expect("checked").assert_kept();
    calendar
        .compare_with_the_truth("n1")
        .await
        .expect("the truth");

    // What the newer one plans the older ones hand back unharmed.
    calendar.fleet.set(NEWER.0, NEWER.1);
    calendar
        .enqueue_and_wait("n2")
        .expect("it ends")
        .expect_code(0);
    calendar.check("n2").await.expect("checked").assert_kept();
    calendar.fleet.set(NEWER.0, "0");
    let refused = calendar.producer(&["status", "n2"]).expect("it ends");
    let refused = refused.expect_code(1);
    assert!(
        refused.stderr.contains("a newer producer's"),
        "{}",
        refused.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_worker_hands_newer_work_back_until_a_newer_one_comes() {
    let mut calendar = Calendar::new("upgrade-back", Shape::default()).expect("a calendar");
    let old = [
        calendar.load().expect("started"),
        calendar.collect().expect("started"),
    ];
    calendar.fleet.set(NEWER.0, NEWER.1);
    calendar.enqueue("n1").expect("it ends").expect_code(0);
    until_said(&old[1], "is of a newer build");
    assert_eq!(answered(&calendar.provider.log()), 0);
    let collector = calendar.collect().expect("started");
    until_said(&old[0], "is of a newer build");
    let _loader = calendar.load().expect("started");
    calendar.watch("n1").expect("it ends").expect_code(0);
    calendar.check("n1").await.expect("checked").assert_kept();
    assert_eq!(calendar.provider.report().repeated, 0);
    drop(collector);
}
