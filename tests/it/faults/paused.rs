//! A collector that stands still and then goes on where it was, with grants from long ago.

use std::time::Duration;

use harness::Fleet;

use crate::scene::{Calendar, Scene};

const CALENDAR: Calendar = Calendar {
    airports: &["NRT"],
    days: 100,
    rate: 80,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_slept_for_15_s_uses_none_of_its_old_grants() {
    let mut scene = Scene::new(Fleet::new("paused").expect("a fleet"), &CALENDAR);
    scene.start();
    scene.after_calls(160).await;
    scene.collectors[0].pause().expect("frozen");
    tokio::time::sleep(Duration::from_secs(15)).await;
    scene.collectors[0].resume().expect("goes on");
    scene.ends_with(0).await;
    scene.check(&CALENDAR).await;
    scene.assert_nothing_repeated();
}
