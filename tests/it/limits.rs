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
    let mut redis = redis(&calendar).await;
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

async fn redis(calendar: &Calendar) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(calendar.fleet.value("REDIS_URL")).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("connects")
}
