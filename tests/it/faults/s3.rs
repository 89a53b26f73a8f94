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

/// A put that is tried again finds the object of the first try, and adopts it: from the plan to the mark
/// of success.
#[tokio::test(flavor = "multi_thread")]
async fn objects_whose_answers_were_lost_are_not_taken_for_somebody_elses() {
    let (stack, fleet) = Fleet::beside(ServerKind::S3, "s3-lost").expect("a fleet");
    let s3 = stack.s3().expect("a private S3");
    let mut scene = Scene::new(fleet, &Calendar::SHORT);
    s3.set_fault(S3Fault::LoseAnswer { share: 0.2 });
    scene.start();
    scene.ends_with(0).await;
    s3.set_fault(S3Fault::None);
    scene.check(&Calendar::SHORT).await;
    scene.assert_nothing_repeated();
}
