//! Servers that keep their connections and say nothing for a while, one after the other.

use std::time::Duration;

use harness::{Fault, Fleet, Proxy};

use crate::scene::{Calendar, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_survives_each_server_saying_nothing_for_a_while() {
    let mut fleet = Fleet::new("silent").expect("a fleet");
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
    let mut scene = Scene::new(fleet, &Calendar::LONG);
    scene.start();
    for (proxy, calls) in proxies.iter().zip([400, 900, 1_400, 1_900]) {
        scene.after_calls(calls).await;
        proxy.set(Fault::Blackhole);
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.set(Fault::None);
    }
    scene.ends_with(0).await;
    scene.check(&Calendar::LONG).await;
    scene.assert_nothing_repeated();
}
