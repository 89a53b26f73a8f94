//! `trigger: {new_objects: ...}`: `votes` unchanged. A region pushes, a run starts; its own result starts none.

use harness::{Bucket, Fleet};
use paceline_loadtest::simulator::SimulatorConfig;
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::serve::{runs, serve};

const RESULT: &str = "data/104/result-global.csv";

/// The runs that completed.
fn completed(fleet: &Fleet) -> usize {
    let runs = runs(fleet, "votes");
    let is_good = |run: &&Value| run["state"] == "completed";
    runs.iter().filter(is_good).count()
}

async fn push(bucket: &Bucket, region: &str, minute: u32, votes: &str) {
    let key = format!("data/104/{region}-2026112706{minute:02}.csv");
    let body = format!("kseq,score\n{votes}");
    bucket.put(&key, body.as_bytes()).await.expect("put");
}

async fn hint(url: &str, body: &Value) -> u16 {
    let hook = format!("{url}/api/v1/hooks/s3");
    let asked = reqwest::Client::new().post(hook).json(body).send().await;
    asked.expect("an answer").status().as_u16()
}

async fn until_completed(scene: &mut Scene, count: usize) {
    let there = move |scene: &mut Scene| completed(&scene.fleet) >= count;
    scene.until(&format!("{count} good runs"), there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_pushes_starts_a_run_and_no_result_starts_another() {
    let fleet = Fleet::new("serve-votes").expect("a fleet");
    let mut scene = Scene::with(fleet, SimulatorConfig::default());
    let name = scene.fleet.value("PACELINE_BUCKET").to_owned();
    scene.fleet.set("VOTES_BUCKET", name.clone());
    scene.fleet.tells_nobody();
    let bucket = Bucket::of(&scene.fleet);
    for region in ["jp", "tw", "kr", "na"] {
        push(&bucket, region, 0, "one,60\ntwo,40\n").await;
    }
    let (_first, url) = serve(&scene.fleet);
    let (_second, other) = serve(&scene.fleet);
    scene.collect();
    scene.load();
    until_completed(&mut scene, 1).await;
    let result = bucket.get(RESULT).await.expect("a result").body;
    assert!(result.starts_with(b"candidate,score\none,"), "{result:?}");

    // A body says that something is new; what it names besides is not believed.
    let minio = json!({"EventName": "s3:ObjectCreated:Put", "Key": "elsewhere/x",
        "Records": [{"s3": {"bucket": {"name": "elsewhere"}, "object": {"key": "x"}}}]});
    let of_result = json!({"detail-type": "Object Created",
        "detail": {"bucket": {"name": name}, "object": {"key": RESULT}}});
    assert_eq!(hint(&url, &of_result).await, 202);
    push(&bucket, "jp", 30, "two,900\none,1\n").await;
    // Either replica passes it on to the one that starts runs.
    assert_eq!(hint(&url, &minio).await, 202);
    assert_eq!(hint(&other, &minio).await, 202);
    until_completed(&mut scene, 2).await;
    let result = bucket.get(RESULT).await.expect("a result").body;
    assert!(result.starts_with(b"candidate,score\ntwo,"), "{result:?}");

    let strange =
        json!({"Type": "SubscriptionConfirmation", "SubscribeURL": "https://sns.evil.example/"});
    assert_eq!(hint(&url, &strange).await, 400);
    assert_eq!(
        hint(&url, &json!({"keys": ["data/104/jp-x.csv"]})).await,
        400
    );
    assert_eq!(hint(&url, &of_result).await, 202);
    // Had a result or a doubled hint started a run, it would have come before this one.
    push(&bucket, "kr", 30, "three,100\n").await;
    assert_eq!(hint(&url, &minio).await, 202);
    until_completed(&mut scene, 3).await;
    let all = runs(&scene.fleet, "votes");
    assert_eq!(all.len(), 3, "{all:?}");
}
