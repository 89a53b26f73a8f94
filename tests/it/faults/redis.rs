//! Redis away, emptied and started anew in the middle of a run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Fault, Fleet, Proxy};
use paceline_stack::ServerKind;

use crate::scene::{Calendar, Scene};

/// What was granted before Redis went away may still be called.
const GRANTED_AHEAD: Duration = Duration::from_secs(1);

fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_micros() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_made_while_redis_is_away() {
    let mut fleet = Fleet::new("redis-away").expect("a fleet");
    let (proxy, url) = Proxy::before(fleet.value("REDIS_URL"))
        .await
        .expect("a proxy");
    fleet.set("REDIS_URL", url);
    let mut scene = Scene::new(fleet, &Calendar::LONG);
    scene.start();
    scene.after_calls(600).await;
    proxy.set(Fault::Reset);
    tokio::time::sleep(GRANTED_AHEAD).await;
    let quiet_from = wall_us();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let quiet_to = wall_us();
    proxy.set(Fault::None);
    scene.ends_with(0).await;
    let quiet = quiet_from..quiet_to;
    let calls = scene.simulator.log();
    let meanwhile = calls.iter().filter(|call| quiet.contains(&call.wall_us));
    assert_eq!(meanwhile.count(), 0, "calls without a grant");
    scene.check(&Calendar::LONG).await;
    scene.assert_nothing_repeated();
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_every_two_seconds_neither_doubles_the_rate_nor_loses_anything() {
    const CALENDAR: Calendar = Calendar {
        airports: &["NRT"],
        days: 40,
        rate: 100,
    };
    let (stack, fleet) = Fleet::beside(ServerKind::Redis, "flushed").expect("a fleet");
    let mut redis = harness::redis_at(stack.value("REDIS_URL").expect("set")).await;
    let mut scene = Scene::new(fleet, &CALENDAR);
    scene.start();
    for calls in [100, 200, 300, 400, 500] {
        scene.after_calls(calls).await;
        redis::cmd("FLUSHALL")
            .exec_async(&mut redis)
            .await
            .expect("flushed");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    scene.ends_with(0).await;
    scene.check(&CALENDAR).await;
    scene.assert_nothing_repeated();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_filled_again() {
    let (stack, fleet) = Fleet::beside(ServerKind::Redis, "redis-empty").expect("a fleet");
    let server = stack.redis().expect("a private Redis");
    let mut scene = Scene::new(fleet, &Calendar::LONG);
    scene.start();
    scene.after_calls(800).await;
    server.kill().expect("killed");
    std::fs::remove_dir_all(server.folder().join("appendonlydir")).expect("its data");
    server.restart().expect("started again");
    scene.ends_with(0).await;
    scene.check(&Calendar::LONG).await;
    scene.assert_nothing_repeated();
}

/// A grant that arrives after its start would put one too many into a window.
#[tokio::test(flavor = "multi_thread")]
async fn grants_of_a_redis_that_answers_late_are_dropped() {
    let mut fleet = Fleet::new("redis-late").expect("a fleet");
    let (proxy, url) = Proxy::before(fleet.value("REDIS_URL"))
        .await
        .expect("a proxy");
    fleet.set("REDIS_URL", url);
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    scene.start();
    let faults = [
        Fault::Delay(Duration::from_millis(30)),
        Fault::Delay(Duration::from_millis(300)),
        Fault::HoldAnswers,
    ];
    for (calls, fault) in [200, 500, 800].into_iter().zip(faults) {
        scene.after_calls(calls).await;
        proxy.set(fault);
        tokio::time::sleep(Duration::from_secs(2)).await;
        proxy.set(Fault::None);
    }
    scene.ends_with(0).await;
    scene.check(&Calendar::SHORT).await;
    scene.assert_nothing_repeated();
}
