//! S3 that answers 503 for a while, and that does what is asked without saying so.

use std::time::Duration;

use harness::Fleet;
use paceline_stack::{S3Fault, ServerKind};

use crate::scene::{Calendar, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_that_says_503_for_a_while_is_waited_for() {
    let (stack, fleet) = Fleet::beside(ServerKind::S3, "s3-busy").expect("a fleet");
    let s3 = stack.s3().expect("a private S3");
    let mut scene = Scene::new(fleet, &Calendar::LONG);
    scene.start();
    scene.after_calls(600).await;
    s3.set_fault(S3Fault::Unavailable { share: 1.0 });
    tokio::time::sleep(Duration::from_secs(4)).await;
    s3.set_fault(S3Fault::Unavailable { share: 0.3 });
    tokio::time::sleep(Duration::from_secs(2)).await;
    s3.set_fault(S3Fault::None);
    scene.ends_with(0).await;
    scene.check(&Calendar::LONG).await;
    scene.assert_nothing_repeated();
}

/// The put that is tried again finds the part of the first try, and adopts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_whose_answer_was_lost_is_not_taken_for_somebody_elses() {
    let (stack, fleet) = Fleet::beside(ServerKind::S3, "s3-lost").expect("a fleet");
    let s3 = stack.s3().expect("a private S3");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    scene.start();
    scene.after_calls(200).await;
    s3.set_fault(S3Fault::LoseAnswer { share: 0.3 });
    scene.after_calls(900).await;
    s3.set_fault(S3Fault::None);
    scene.ends_with(0).await;
    scene.check(&Calendar::SHORT).await;
    scene.assert_nothing_repeated();
}
