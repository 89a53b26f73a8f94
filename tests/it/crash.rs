//! Processes that die between any two steps: whoever goes on loses nothing, tells nothing twice, and
//! repeats no call beyond those of the blocks that were open.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use harness::calendar::answered;
use harness::{Calendar, Shape, binaries};
use paceline_stack::Process;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const RUN: &str = "night";
/// Longer than a worker needs to come to its crash point.
const DEATH: Duration = Duration::from_secs(180);

/// The collector's crash points, and the how-manieth passage is worth dying at.
const COLLECTOR: [(&str, u32); 10] = [
    ("call-before-send", 17),
    ("call-after-answer", 17),
    ("settle-before-failures", 3),
    ("settle-before-part", 3),
    ("settle-before-sets", 3),
    ("settle-after-sets", 3),
    ("done-before-receipt", 1),
    ("done-before-ack", 1),
    ("done-after-ack", 1),
    ("back-before-ack", 1),
];

/// The same of the loader.
const LOADER: [(&str, u32); 14] = [
    ("load-before-bulk", 2),
    ("load-before-mark", 2),
    ("load-before-ack", 2),
    ("finish-begun", 1),
    ("finish-before-swap", 1),
    ("finish-before-objects", 1),
    ("finish-before-sets", 1),
    ("finish-before-live", 1),
    ("finish-before-manifest", 1),
    ("finish-before-success", 1),
    ("finish-before-clean-up", 1),
    ("finish-before-end", 1),
    ("finish-before-registry", 1),
    ("finish-before-announcement", 1),
];

#[test]
fn every_crash_point_of_the_worker_is_known_here() {
    let path = binaries::repository().join("worker/src/crash.rs");
    let source = std::fs::read_to_string(path).expect("the worker's source");
    let (_, list) = source.split_once("POINTS: [&str;").expect("a list");
    let (list, _) = list.split_once("];").expect("its end");
    let there: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let merge = &crate::changes::MERGE;
    let known = COLLECTOR.iter().chain(&LOADER).chain(merge);
    let known = known.map(|(point, _)| *point);
    // Cells that are read pass these instead of those of a call, and a token is asked for elsewhere; the calendar
    // has neither. A rebuild has tests of its own.
    let elsewhere = ["read-", "token-", "rebuild-"];
    let called = there
        .iter()
        .filter(|point| !elsewhere.iter().any(|life| point.starts_with(life)));
    assert_eq!(
        called.copied().collect::<Vec<_>>(),
        known.collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_dies_while_it_calls() {
    dies_at(0..2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_dies_while_it_settles_a_block() {
    dies_at(2..6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_dies_while_it_parts_with_a_shard() {
    dies_at(6..10).await;
}

/// One run, one death after the other at each of these points, and a survivor.
async fn dies_at(points: std::ops::Range<usize>) {
    for (point, nth) in &COLLECTOR[points] {
        println!("dying at {point}@{nth}");
        // So slow that a drain finds shards that are not done.
        let slow = Shape {
            rate: 40,
            ..Shape::default()
        };
        let shape = if *point == "back-before-ack" {
            slow
        } else {
            Shape::default()
        };
        let calendar = Calendar::new("crash", shape).expect("a calendar");
        let _loader = calendar.load().expect("started");
        calendar.enqueue(RUN).expect("it ends").expect_code(0);
        let told = format!("{point}@{nth}");
        let env = [("PACELINE_CRASH_AT", told.as_str())];
        let victim = calendar.fleet.start_with(&env, "worker", &["collect"]);
        let victim = victim.expect("started");
        if *point == "back-before-ack" {
            calendar.until_answered(10).await.expect("it works");
        }
        dead(victim, *point == "back-before-ack");
        goes_on(&calendar).await;
    }
}

/// Waits for a death by SIGKILL; `drain` asks for it.
fn dead(mut victim: Process, drain: bool) {
    if drain {
        let term = nix::sys::signal::Signal::SIGTERM;
        victim.signal(term).expect("signalled");
    }
    let status = victim
        .wait_at_most(DEATH)
        .expect("waited")
        .expect("it dies");
    assert_eq!(status.signal(), Some(9), "{}", victim.last_words(20));
}

/// Another collector finishes the run; it repeats at most what no part had kept.
async fn goes_on(calendar: &Calendar) {
    let lost = answers_without_a_part(calendar).await;
    let _survivor = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    calendar
        .compare_with_the_truth(RUN)
        .await
        .expect("the truth");
    let repeated = calendar.provider.report().repeated;
    assert!(
        repeated <= lost,
        "{repeated} calls repeated, {lost} answers were lost"
    );
}

/// Good answers that only the dead one had: calls in flight and finished cells of open blocks.
async fn answers_without_a_part(calendar: &Calendar) -> u64 {
    // What was on its way when it died arrives at the provider now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let collected = calendar.collected(RUN).await.expect("parts");
    let kept: usize = collected.parts.values().map(|part| part.ends.0.len()).sum();
    answered(&calendar.provider.log()).saturating_sub(kept) as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_random_moments() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let shape = Shape {
        destinations: &["NRT", "BKK"],
        rate: 200,
        ..Shape::default()
    };
    let calendar = Calendar::new("kill", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let mut lost = 0;
    let mut done = 0;
    for _ in 0..3 {
        let mut victim = calendar.collect().expect("started");
        done += random.random_range(1..30);
        calendar.until_answered(done).await.expect("it works");
        tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
        victim.kill().expect("killed");
        lost += answers_without_a_part(&calendar).await;
        done = answered(&calendar.provider.log());
    }
    let _survivor = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let repeated = calendar.provider.report().repeated;
    assert!(
        repeated <= lost,
        "seed {seed}: {repeated} calls repeated, {lost} answers were lost"
    );
}

#[test]
fn a_loader_dies_while_it_loads() {
    loaders_die_at(&LOADER[..3]);
}

#[test]
fn a_loader_dies_before_it_has_published() {
    loaders_die_at(&LOADER[3..7]);
}

#[test]
fn a_loader_dies_while_it_ends_the_run() {
    loaders_die_at(&LOADER[7..10]);
}

#[test]
fn a_loader_dies_while_it_leaves_the_run() {
    loaders_die_at(&LOADER[10..]);
}

/// One run for each of these points: a loader dies there, another one goes on.
async fn a_loader_dies_at((point, nth): (&str, u32)) {
    println!("dying at {point}@{nth}");
    let calendar = Calendar::new("loader-steps", Shape::default()).expect("a calendar");
    let told = format!("{point}@{nth}");
    let env = [("PACELINE_CRASH_AT", told.as_str())];
    let victim = calendar.fleet.start_with(&env, "worker", &["load"]);
    let _collector = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    dead(victim.expect("started"), false);
    let _next = calendar.load().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    assert_eq!(calendar.provider.report().repeated, 0);
}

/// The runs of these points side by side: each of them mostly waits until the dead one's lease has ended.
fn loaders_die_at(points: &[(&'static str, u32)]) {
    std::thread::scope(|scope| {
        for point in points {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(a_loader_dies_at(*point));
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loader_dies_in_the_middle_and_at_its_finish() {
    let calendar = Calendar::new(
        "loader",
        Shape {
            rate: 100,
            ..Shape::default()
        },
    );
    let calendar = calendar.expect("a calendar");
    let mut in_the_middle = calendar.load().expect("started");
    let _collector = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(40).await.expect("it works");
    in_the_middle.kill().expect("killed");

    let mut at_the_finish = calendar.load().expect("started");
    until_there(&calendar, &calendar.layout(RUN).manifest()).await;
    at_the_finish.kill().expect("killed");

    let _third = calendar.load().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    until_there(&calendar, &calendar.layout(RUN).success()).await;
    calendar.check(RUN).await.expect("checked").assert_kept();
    assert_eq!(calendar.provider.report().repeated, 0);
}

async fn until_there(calendar: &Calendar, key: &str) {
    let until = tokio::time::Instant::now() + DEATH;
    while calendar
        .bucket()
        .keys(key)
        .await
        .expect("a list")
        .is_empty()
    {
        assert!(tokio::time::Instant::now() < until, "{key} never came");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
