//! RabbitMQ's connections cut, and RabbitMQ itself killed and started again, in the middle of a run.

use harness::Fleet;
use paceline_stack::ServerKind;

use crate::scene::{Calendar, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cuts_its_connections_and_restarts_loses_nothing() {
    let (stack, fleet) = Fleet::beside(ServerKind::RabbitMq, "broker").expect("a fleet");
    let mut scene = Scene::new(fleet, &Calendar::LONG);
    scene.start();
    scene.after_calls(400).await;
    let cut = ["close_all_connections", "for a test"];
    stack.rabbitmqctl(&cut).expect("all connections are cut");
    let calls = scene.simulator.log().len();
    scene.after_calls(calls + 300).await;
    let server = stack.rabbitmq().expect("a private RabbitMQ");
    server.kill().expect("killed");
    server.restart().expect("started again");
    scene.ends_with(0).await;
    scene.check(&Calendar::LONG).await;
}
