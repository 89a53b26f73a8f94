//! RabbitMQ's connections cut, its publishers blocked, and itself killed and started again, in the middle
//! of one run.

use std::time::Duration;

use harness::Fleet;
use paceline_stack::ServerKind;

use crate::scene::{Calendar, Scene};

/// Slow enough that the run outlasts all three faults.
const SLOW: Calendar = Calendar {
    rate: 150,
    ..Calendar::LONG
};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cuts_its_connections_blocks_and_restarts_loses_nothing() {
    let (stack, fleet) = Fleet::beside(ServerKind::RabbitMq, "broker").expect("a fleet");
    let control = |arguments: &[&str]| stack.rabbitmqctl(arguments).expect("done");
    let mut scene = Scene::new(fleet, &SLOW);
    scene.start();
    scene.after_calls(300).await;
    control(&["close_all_connections", "for a test"]);
    more_calls(&mut scene, 200).await;
    // Above its memory limit a broker takes nothing from connections that publish.
    control(&["set_vm_memory_high_watermark", "0"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    control(&["set_vm_memory_high_watermark", "0.6"]);
    more_calls(&mut scene, 200).await;
    let server = stack.rabbitmq().expect("a private RabbitMQ");
    server.kill().expect("killed");
    server.restart().expect("started again");
    scene.ends_with(0).await;
    scene.check(&SLOW).await;
}

async fn more_calls(scene: &mut Scene, calls: usize) {
    let so_far = scene.simulator.log().len();
    scene.after_calls(so_far + calls).await;
}
