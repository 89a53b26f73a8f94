//! What goes wrong while a run finishes: all calls are made, and what is left is to load and publish.

use std::time::Duration;

use harness::{Fault, Fleet, Proxy};
use paceline_stack::ServerKind;

use crate::scene::{Calendar, Scene};

const CALENDAR: Calendar = Calendar::SHORT;
const CALLS: usize = 1_400;
/// Calls of a block, and those in flight.
const BLOCK: u64 = 20 + 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_finishes_although_all_servers_go_away_at_its_end() {
    let mut fleet = Fleet::new("finish").expect("a fleet");
    let mut proxies = Vec::new();
    for variable in [
        "REDIS_URL",
        "AMQP_URL",
        "AWS_ENDPOINT_URL_S3",
        "ELASTICSEARCH_URL",
    ] {
        let (proxy, url) = Proxy::before(fleet.value(variable)).await.expect("a proxy");
        fleet.set(variable, url);
        proxies.push(proxy);
    }
    let mut scene = Scene::new(fleet, &CALENDAR);
    scene.start();
    scene.after_calls(CALLS).await;
    for _ in 0..2 {
        proxies.iter().for_each(|proxy| proxy.set(Fault::Reset));
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxies.iter().for_each(|proxy| proxy.set(Fault::None));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    scene.ends_with(0).await;
    scene.check(&CALENDAR).await;
    // A claim that nobody could renew is another's; the block that its first holder had in hand is called again.
    let repeated = scene.simulator.report().repeated;
    assert!(repeated <= 2 * BLOCK, "{repeated} repeated");
    for worker in scene.collectors.iter().chain([scene.loader()]) {
        // An ERROR needs an operator; an outage that was waited out does not.
        let said = worker.said();
        let error = said
            .lines()
            .find(|line| line.contains(r#""level":"ERROR""#));
        assert_eq!(error, None, "{}", worker.name());
    }
}

/// The sets are made again from the parts before they are published.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_finishes_although_redis_forgets_everything_at_its_end() {
    let (stack, fleet) = Fleet::beside(ServerKind::Redis, "forgets").expect("a fleet");
    let mut redis = harness::redis_at(stack.value("REDIS_URL").expect("set")).await;
    let mut scene = Scene::new(fleet, &CALENDAR);
    scene.start();
    scene.after_calls(CALLS).await;
    // Soon enough one after the other that the run cannot be published in between: what is published stays lost.
    for _ in 0..3 {
        redis::cmd("FLUSHALL")
            .exec_async(&mut redis)
            .await
            .expect("flushed");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    scene.ends_with(0).await;
    scene.check(&CALENDAR).await;
    scene.assert_nothing_repeated();
}
