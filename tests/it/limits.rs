//! Limits that answers tell and operators change while a run goes on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Calendar, Shape};
use paceline_loadtest::simulator::{Call, Limits};
use serde_json::Value;

const RUN: &str = "night";
/// What was granted before a change may still be called.
const IN_EFFECT: Duration = Duration::from_secs(1);

fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_micros() as i64
}

fn budget(calendar: &Calendar, limit: &str) -> Value {
    let all = calendar
        .json(&["limits", "fare-search"])
        .expect("the budgets");
    let limits = all[0]["limits"].as_array().expect("limits").clone();
    let mut of_it = limits.into_iter().filter(|l| l["limit"] == limit);
    of_it.next().expect("the limit")
}

/// The fullest trailing second of the calls that arrived between two instants.
fn fullest_second(log: &[Call], from: i64, to: i64) -> usize {
    let inside = log.iter().map(|call| call.wall_us);
    let inside: Vec<i64> = inside.filter(|at| (from..to).contains(at)).collect();
    let window = |end: &i64| {
        let in_it = |at: &&i64| end - 1_000_000 < **at && *at <= end;
        inside.iter().filter(in_it).count()
    };
    inside.iter().map(window).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_tell_replaces_the_files_number_for_the_whole_fleet() {
    let learns = "rate: 40/s, learn: {rate: {header: x-ratelimit-limit}}";
    let shape = Shape {
        days: 100,
        nights: 4,
        provider: vec![("rate: 400/s", learns.into())],
        ..Shape::default()
    };
    let calendar = Calendar::new("learns", shape).expect("a calendar");
    calendar.provider.set_limits(Limits {
        tell: true,
        concurrency: Some(64),
        ..Limits::per_second(400)
    });
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let second = budget(&calendar, "second");
    assert_eq!(
        (&second["file"], &second["learned"], &second["allowed"]),
        (&"40/s".into(), &"400/s".into(), &"400/s".into()),
        "{second}"
    );
    // The audit judges each call by the numbers that held for it.
    let audit = calendar.json(&["audit", RUN]).expect("an audit");
    let limits = audit["limits"].as_array().expect("limits");
    let of_second: Vec<&Value> = limits.iter().filter(|l| l["limit"] == "second").collect();
    let learned = of_second.iter().find(|l| l["allowed"] == 400);
    let worst = learned.expect("calls by what was learned")["worst"].as_u64();
    assert!(worst.is_some_and(|calls| calls > 40), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_held_and_reset_while_a_run_goes_on_and_outlive_redis() {
    let shape = Shape {
        days: 60,
        nights: 10,
        rate: 100,
        ..Shape::default()
    };
    let calendar = Calendar::new("changed", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(60).await.expect("under way");

    let nonsense = calendar.producer(&["limits", "set", "fare-search", "second", "fast"]);
    let nonsense = nonsense.expect("it ends").expect_code(2);
    assert!(nonsense.stderr.contains("50/s"), "{}", nonsense.stderr);
    let unknown = calendar.producer(&["limits", "set", "fare-search", "minute", "5/s"]);
    let unknown = unknown.expect("it ends").expect_code(2);
    assert!(unknown.stderr.contains("in-flight"), "{}", unknown.stderr);

    let set = [
        "limits",
        "set",
        "fare-search",
        "second",
        "20/s",
        "--reason",
        "asked",
    ];
    calendar.producer(&set).expect("it ends").expect_code(0);
    let slow_from = wall_us() + IN_EFFECT.as_micros() as i64;
    let second = budget(&calendar, "second");
    assert_eq!(
        (&second["set"], &second["file"]),
        (&"20/s".into(), &"100/s".into())
    );
    let seen = calendar.provider.log().len();
    let more = |calls| move |log: &[Call]| log.len() >= seen + calls;
    calendar.until("calls at 20/s", more(30)).await.expect("on");

    // Redis loses what operators set: it comes back from S3 before anything is granted.
    let mut redis = calendar.fleet.redis().await;
    let closures = format!(
        "{}:{{fare-search}}:closed",
        calendar.fleet.value("PACELINE_NAMESPACE")
    );
    redis::cmd("DEL")
        .arg(&closures)
        .exec_async(&mut redis)
        .await
        .expect("deleted");
    calendar
        .until("calls after the loss", more(60))
        .await
        .expect("on");
    assert_eq!(budget(&calendar, "second")["set"], "20/s");
    let slow_to = wall_us();
    let log = calendar.provider.log();
    let fullest = fullest_second(&log, slow_from, slow_to);
    assert!(
        (5..=20).contains(&fullest),
        "{fullest} calls in a second of 20"
    );

    let hold = ["limits", "hold", "fare-search", "--for", "10m"];
    calendar.producer(&hold).expect("it ends").expect_code(0);
    tokio::time::sleep(IN_EFFECT).await;
    let held = calendar.provider.log().len();
    tokio::time::sleep(IN_EFFECT).await;
    assert_eq!(calendar.provider.log().len(), held, "calls while held");
    let all = calendar.json(&["limits", "fare-search"]).expect("budgets");
    assert!(all[0]["held"]["until"].is_string(), "{all}");

    let reset = ["limits", "reset", "fare-search"];
    calendar.producer(&reset).expect("it ends").expect_code(0);
    calendar.watch(RUN).expect("it ends").expect_code(0);
    assert_eq!(budget(&calendar, "second")["set"], Value::Null);
    calendar.check(RUN).await.expect("checked").assert_kept();
}

/// Each shard has cells of every scope, so that its worker takes all shards to keep every scope busy.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_filled_one_after_the_other_however_many_shards_are_in_hand() {
    let by_nights =
        "  - {name: kind, rate: 5/s, per: \"{{ nights }}\"}\n  - {name: in-flight".to_owned();
    let shape = Shape {
        destinations: &["NRT", "KIX"],
        days: 40,
        provider: vec![("  - {name: in-flight", by_nights)],
        ..Shape::default()
    };
    let calendar = Calendar::new("in-turn", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let worker = calendar.collect().expect("started");
    let enqueue = ["enqueue", "fares", "--run-id", RUN];
    calendar.producer(&enqueue).expect("it ends").expect_code(0);
    let calls = |log: &[Call]| log.len() >= 45;
    calendar.until("45 calls", calls).await.expect("called");
    drop(worker);
    let data = calendar.fleet.layout("fares", RUN).data();
    let parts = calendar.bucket().keys(&data).await.expect("listed").len();
    assert!(parts >= 5, "{parts} blocks of 5 cells after 45 calls");

    let _another = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let repeated = calendar.provider.report().repeated;
    assert!(repeated <= 25, "{repeated} calls were made again");
}

/// Nights of the search `NRT/2026-12-05/2026-12-07`.
fn nights(call: &Call) -> Option<u32> {
    let mut days = call.cell.as_deref()?.split('/').skip(1);
    let mut day = || days.next()?.parse::<jiff::civil::Date>().ok();
    let (out, back) = (day()?, day()?);
    u32::try_from(out.until(back).ok()?.get_days()).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_calls_never_overdraw_their_bucket_and_keys_are_spread() {
    let points =
        "  - {name: points, cost: \"{{ nights }}\", rate: 100/s, burst: 60}\n  - {name: in-flight";
    let shape = Shape {
        days: 40,
        provider: vec![
            ("  - {name: in-flight", points.into()),
            ("use: exhaust", "use: spread".into()),
        ],
        ..Shape::default()
    };
    let calendar = Calendar::new("points", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();

    // The bucket as a provider counts it: 60 points, 100 restored a second.
    let mut log = calendar.provider.log();
    log.sort_by_key(|call| call.arrived_us);
    let (mut level, mut last) = (60.0f64, log[0].arrived_us);
    for call in log.iter().filter(|call| nights(call).is_some()) {
        let restored = (call.arrived_us - last) as f64 * 100.0 / 1e6;
        last = call.arrived_us;
        level = (level + restored).min(60.0) - f64::from(nights(call).unwrap_or(0));
        assert!(level >= 0.0, "overdrawn by {level} at {call:?}");
    }
    let by_key = |key: &String| {
        let of_key = |call: &&Call| call.key.as_deref() == Some(key.as_str());
        log.iter().filter(of_key).count()
    };
    let counts: Vec<usize> = calendar.keys.iter().map(by_key).collect();
    assert!(counts.iter().all(|calls| *calls >= 40), "{counts:?} of 120");

    let audit = calendar.json(&["audit", RUN]).expect("an audit");
    let limits = audit["limits"].as_array().expect("limits").clone();
    let of_points = limits.iter().find(|l| l["limit"] == "points");
    let of_points = of_points.expect("points");
    assert_eq!(of_points["allowed"], 60, "{audit}");
    assert!(of_points["worst_at"].is_string(), "its place: {audit}");
    let left = budget(&calendar, "points")["remaining"].as_u64();
    assert!(left.is_some_and(|left| left <= 60), "{left:?} points");
    let status = calendar
        .json(&["status", RUN, "--by", "nights"])
        .expect("a status");
    for night in ["1", "2", "3"] {
        assert_eq!(status["progress"][night]["cells"], 40, "{status}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("calls.svg");
    let picture = ["audit", RUN, "--svg", file.to_str().expect("text")];
    calendar.producer(&picture).expect("it ends").expect_code(0);
    let svg = std::fs::read_to_string(file).expect("a picture");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_share_one_limit() {
    let shape = Shape {
        days: 20,
        rate: 40,
        provider: vec![("rate: 40/s", "rate: 40/s, shared: account".into())],
        ..Shape::default()
    };
    let calendar = Calendar::new("shared", shape).expect("a calendar");
    let spec = &calendar.fleet.spec;
    let first = std::fs::read_to_string(spec.path().join("providers/fare-search.yaml"));
    let second = first
        .expect("the provider")
        .replace("provider: fare-search", "provider: fare-two")
        .replace("name: second", "name: each-second");
    spec.write("providers/fare-two.yaml", &second)
        .expect("written");
    let job = "jobs/fares.yaml";
    spec.replace(job, "provider: fare-search", "provider: \"{{ engine }}\"")
        .expect("replaced");
    let both = "split:\n  engine: [fare-search, fare-two]\n";
    spec.replace(job, "split:\n", both).expect("replaced");
    let _loader = calendar.load().expect("started");
    let _workers = [calendar.collect(), calendar.collect()].map(|w| w.expect("started"));
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    // The one provider behind both allows 40 a second in all.
    let report = calendar.provider.report();
    assert_eq!(report.refused, 0, "{report:?}");
    let audit = calendar.json(&["audit", RUN]).expect("an audit");
    let limits = audit["limits"].as_array().expect("limits").clone();
    let shared: Vec<&Value> = limits
        .iter()
        .filter(|l| l["provider"] == "account")
        .collect();
    assert_eq!(shared.len(), 1, "one counter: {audit}");

    // One of them is held alone.
    let hold = ["limits", "hold", "fare-two", "--for", "10m"];
    calendar.producer(&hold).expect("it ends").expect_code(0);
    let held = |name: &str| {
        let all = calendar.json(&["limits", name]).expect("budgets");
        all[0]["held"].is_object()
    };
    assert!(held("fare-two") && !held("fare-search"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_two_plans_with_other_numbers_keep_one_limit() {
    let shape = Shape {
        days: 80,
        nights: 5,
        rate: 10,
        ..Shape::default()
    };
    let calendar = Calendar::new("two-plans", shape).expect("a calendar");
    let _loader = calendar.load().expect("started");
    let _worker = calendar.collect().expect("started");
    calendar.enqueue("before").expect("it ends").expect_code(0);
    calendar.until_answered(10).await.expect("under way");

    // The provider allows more from now on, and says so; the first run's plan does not.
    calendar.provider.set_limits(Limits {
        concurrency: Some(64),
        ..Limits::per_second(20)
    });
    let provider = "providers/fare-search.yaml";
    let spec = &calendar.fleet.spec;
    spec.replace(provider, "rate: 10/s", "rate: 20/s")
        .expect("replaced");
    let after = calendar.enqueue_and_wait("after");
    after.expect("it ends").expect_code(0);
    calendar.watch("before").expect("it ends").expect_code(0);
    // The first one ends later and publishes nothing over it. Nothing was refused, and the audit of either ends well.
    calendar
        .check("after")
        .await
        .expect("checked")
        .assert_kept();
    // They went side by side: the second one's `ready` got its turn, and calls of the first went by the newer numbers.
    let audit = calendar.json(&["audit", "before"]).expect("an audit");
    let limits = audit["limits"].as_array().expect("limits");
    let newer = |l: &&Value| l["limit"] == "second" && l["allowed"] == 20;
    assert!(limits.iter().any(|l| newer(&l)), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_calls_slow_providers_side_by_side() {
    let shape = Shape {
        days: 40,
        nights: 1,
        rate: 4,
        ..Shape::default()
    };
    let calendar = Calendar::new("side-by-side", shape).expect("a calendar");
    calendar.provider.set_limits(Limits {
        concurrency: Some(64),
        ..Limits::per_second(16)
    });
    let spec = &calendar.fleet.spec;
    let first = std::fs::read_to_string(spec.path().join("providers/fare-search.yaml"));
    let first = first.expect("the provider");
    let engines = ["fare-search", "fare-two", "fare-three", "fare-four"];
    for engine in &engines[1..] {
        let text = first.replace("provider: fare-search", &format!("provider: {engine}"));
        spec.write(&format!("providers/{engine}.yaml"), &text)
            .expect("written");
    }
    let job = "jobs/fares.yaml";
    spec.replace(
        job,
        "provider: fare-search",
        "progress_by: engine\nprovider: \"{{ engine }}\"",
    )
    .expect("replaced");
    let all = format!("split:\n  engine: [{}]\n", engines.join(", "));
    spec.replace(job, "split:\n", &all).expect("replaced");
    let _loader = calendar.load().expect("started");
    // It works on two shards at once.
    let _worker = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let half = |log: &[Call]| log.len() >= 80;
    calendar.until("half of them", half).await.expect("on");
    let status = calendar.json(&["status", RUN]).expect("a status");
    for engine in engines {
        let of_it = &status["progress"][engine];
        let ended = of_it["succeeded"].as_u64().zip(of_it["empty"].as_u64());
        let ended = ended.map(|(succeeded, empty)| succeeded + empty);
        assert!(ended > Some(0), "{engine} waits for others: {status}");
    }
    let cancel = calendar.producer(&["cancel", RUN]);
    cancel.expect("it ends").expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_run_has_its_share_at_once_beside_one_whose_shards_are_in_hand() {
    let shape = Shape {
        days: 50,
        nights: 4,
        rate: 40,
        ..Shape::default()
    };
    let calendar = Calendar::new("urgent", shape).expect("a calendar");
    let job = "jobs/fares.yaml";
    let replace = |from: &str, to: &str| {
        let spec = &calendar.fleet.spec;
        spec.replace(job, from, to).expect("replaced");
    };
    // One shard is the whole run, and a worker wants no more than one.
    replace("cells: 20, checkpoint: 5", "cells: 200, checkpoint: 20");
    replace("job: fares", "job: fares\npriority: 1");
    let _loader = calendar.load().expect("started");
    let _worker = calendar.fleet.collect(&["--shards", "1"]);
    calendar.enqueue("nightly").expect("it ends").expect_code(0);
    calendar.until_answered(40).await.expect("under way");
    replace("priority: 1", "priority: 9");
    let urgent = calendar.enqueue_and_wait("urgent");
    urgent.expect("it ends").expect_code(0);
    let nightly = calendar.json(&["status", "nightly"]).expect("a status");
    assert_eq!(nightly["state"], "running", "{nightly}");
    let ended = nightly["succeeded"].as_u64().expect("a count");
    assert!(ended < 150, "{nightly}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_workers_says_so() {
    let mut calendar = Calendar::new("no-worker", Shape::default()).expect("a calendar");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    let status = calendar.json(&["status", RUN]).expect("a status");
    let binds = status["binds"].as_str().unwrap_or_default().to_owned();
    assert!(binds.contains("start `worker collect`"), "{status}");
    assert!(status["eta_s"].is_null(), "{status}");
    let doctor = calendar.producer(&["doctor"]).expect("it ends");
    let told = "no running worker takes fare-search";
    assert!(doctor.stdout.contains(told), "{}", doctor.stdout);

    // One that lacks the provider's keys takes the lane, and cannot serve it.
    let keys = calendar.fleet.value("FARE_SEARCH_KEYS").to_owned();
    calendar.fleet.set("FARE_SEARCH_KEYS", "");
    let _poor = calendar.collect().expect("started");
    calendar.fleet.set("FARE_SEARCH_KEYS", keys);
    let lacks = || {
        let status = calendar.json(&["status", RUN]).expect("a status");
        status["binds"].as_str().unwrap_or_default().to_owned()
    };
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !lacks().contains("FARE_SEARCH_KEYS") {
        assert!(std::time::Instant::now() < until, "{}", lacks());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let doctor = calendar.producer(&["doctor"]).expect("it ends");
    assert!(doctor.stdout.contains("cannot serve"), "{}", doctor.stdout);
}
