//! RabbitMQ's connections cut, its publishers blocked, and itself killed and started again, in the middle
//! of one run.

use std::time::Duration;

use harness::Fleet;
use paceline_stack::ServerKind;

use crate::scene::{Calendar, RUN, Scene};

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
    let doctor = scene.fleet.producer(&["doctor"], Duration::from_secs(60));
    let doctor = doctor.expect("it ends").expect_code(1).stdout;
    assert!(doctor.contains("takes no messages"), "{doctor}");
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

/// The broker takes nothing while a run is enqueued: it is open then, and none of its shards is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_off_says_so_and_is_made_whole_by_resume() {
    let (stack, fleet) = Fleet::beside(ServerKind::RabbitMq, "cut-off").expect("a fleet");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    let patience = Duration::from_secs(180);
    let producer = |scene: &Scene, arguments: &[&str]| {
        let ended = scene.fleet.producer(arguments, patience);
        ended.expect("it ends")
    };
    let control = |arguments: &[&str]| stack.rabbitmqctl(arguments).expect("done");
    control(&["set_vm_memory_high_watermark", "0"]);
    let enqueued = producer(&scene, &["enqueue", "fares", "--run-id", RUN]).expect_code(1);
    assert!(enqueued.stderr.contains("alarm"), "{}", enqueued.stderr);
    control(&["set_vm_memory_high_watermark", "0.6"]);
    scene.collect();
    scene.load();
    let status = producer(&scene, &["status", RUN]).expect_code(0).stdout;
    assert!(status.contains("a start that was cut off"), "{status}");
    assert!(!status.contains("ETA"), "{status}");
    let resumed = producer(&scene, &["resume", RUN]).expect_code(0);
    let said = "had not been published as a whole";
    assert!(resumed.stderr.contains(said), "{}", resumed.stderr);
    producer(&scene, &["watch", RUN]).expect_code(0);
    scene.assert_nothing_repeated();
}

/// A broker that dies while it makes a queue may come back with one that has no leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_leader_holds_up_no_other_run_and_is_made_anew() {
    let (stack, fleet) = Fleet::beside(ServerKind::RabbitMq, "leaderless").expect("a fleet");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    let patience = Duration::from_secs(180);
    let enqueue = |scene: &Scene, run: &str, more: &[&str]| {
        let arguments = [&["enqueue", "fares", "--run-id", run], more].concat();
        let ended = scene.fleet.producer(&arguments, patience);
        ended.expect("it ends").expect_code(0)
    };
    enqueue(&scene, RUN, &[]);
    let queue = format!("{}.work.fare-search.fares.{RUN}", scene.fleet.name);
    let stop = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)), \
         {{N, Node}} = amqqueue:get_pid(Q), ra:stop_server(quorum_queues, {{N, Node}})."
    );
    stack.rabbitmqctl(&["eval", &stop]).expect("stopped");
    scene.collect();
    scene.load();
    enqueue(&scene, "another", &["--wait"]);
    let healed = enqueue(&scene, RUN, &["--wait"]);
    assert!(healed.stderr.contains("is made anew"), "{}", healed.stderr);
    let manifest = scene.manifest().await;
    assert_eq!(manifest.failed, 0);
    assert_eq!(manifest.succeeded + manifest.empty, manifest.cells);
}

/// Somebody deleted the queue of a run that goes on: its shards are lost until they are published again.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_queue_is_gone_says_so_and_goes_on_when_it_is_enqueued_again() {
    let (stack, fleet) = Fleet::beside(ServerKind::RabbitMq, "queueless").expect("a fleet");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    let patience = Duration::from_secs(180);
    let producer = |scene: &Scene, arguments: &[&str]| {
        let ended = scene.fleet.producer(arguments, patience);
        ended.expect("it ends")
    };
    let enqueue = ["enqueue", "fares", "--run-id", RUN];
    producer(&scene, &enqueue).expect_code(0);
    let queue = format!("{}.work.fare-search.fares.{RUN}", scene.fleet.name);
    stack
        .rabbitmqctl(&["delete_queue", &queue])
        .expect("deleted");
    scene.collect();
    let until = std::time::Instant::now() + patience;
    loop {
        let status = producer(&scene, &["status", RUN]).expect_code(0).stdout;
        if status.contains("is gone; `producer enqueue fares") {
            assert!(!status.contains("ETA"), "{status}");
            break;
        }
        assert!(std::time::Instant::now() < until, "{status}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let doctor = producer(&scene, &["doctor"]).stdout;
    assert!(doctor.contains("shards of fares/"), "{doctor}");
    scene.load();
    producer(&scene, &[&enqueue[..], &["--wait"]].concat()).expect_code(0);
    scene.assert_nothing_repeated();
}

/// Who waits for a run, or serves, publishes its shards again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_in_the_middle_is_made_again_by_who_looks_after_the_run() {
    let (stack, fleet) = Fleet::beside(ServerKind::RabbitMq, "requeued").expect("a fleet");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    scene.load();
    let serve = scene
        .fleet
        .start("producer", &["serve", "--listen", "127.0.0.1:0"])
        .expect("started");
    let delete = |scene: &Scene, run: &str| {
        let queue = format!("{}.work.fare-search.fares.{run}", scene.fleet.name);
        stack
            .rabbitmqctl(&["delete_queue", &queue])
            .expect("deleted");
    };
    let patience = Duration::from_secs(180);
    let enqueue = ["enqueue", "fares", "--run-id", RUN];
    let enqueued = scene.fleet.producer(&enqueue, patience).expect("it ends");
    enqueued.expect_code(0);
    delete(&scene, RUN);
    scene.collect();
    // Only looks: the server publishes.
    let watched = scene.fleet.producer(&["watch", RUN], patience);
    watched.expect("it ends").expect_code(0);
    let manifest = scene.manifest().await;
    assert_eq!(manifest.succeeded + manifest.empty, manifest.cells);
    scene.assert_nothing_repeated();
    drop(serve);

    let calls = scene.simulator.log().len();
    let waits = ["enqueue", "fares", "--run-id", "waited", "--wait"];
    let mut waiting = scene.fleet.start("producer", &waits).expect("started");
    scene.after_calls(calls + 5).await;
    delete(&scene, "waited");
    let ended = waiting.wait_at_most(patience).expect("waited for");
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    assert!(
        waiting.said().contains("its shards are published again"),
        "{}",
        waiting.last_words(20)
    );
}
