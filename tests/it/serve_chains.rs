//! `after:`: each end of a parent's run starts one run of the child; what waits is queued, never left out.

use harness::Fleet;
use paceline_loadtest::simulator::{Fault, FaultRule};
use serde_json::Value;

use crate::scene::Scene;
use crate::serve::{LIMIT, runs, scene, serve};

const LONG: std::time::Duration = std::time::Duration::from_secs(180);

/// A job without calls that follows `fares`.
fn child(name: &str, after: &str) -> String {
    format!(
        "job: {name}\nafter: {after}\nsource: {{records_of: {{job: fares}}}}\n\
         fields: {{trip: \"{{{{ destination }}}}-{{{{ depart }}}}-{{{{ nights }}}}-{{{{ carrier }}}}\", of: \"{{{{ parent.id }}}} of {{{{ parent.date }}}}\"}}\n\
         outputs:\n  s3: {{format: ndjson}}\n"
    )
}

fn enqueue(scene: &Scene, run: &str, code: i32) {
    let arguments = ["enqueue", "fares", "--run-id", run, "--wait"];
    let ended = scene.fleet.producer(&arguments, LONG).expect("it ends");
    ended.expect_code(code);
}

/// The state of a run, if there is one.
fn state(fleet: &Fleet, job: &str, run: &str) -> Option<Value> {
    let found = runs(fleet, job)
        .into_iter()
        .find(|line| line["run"] == run)?;
    Some(found["state"].clone())
}

async fn reaches(scene: &mut Scene, job: &str, run: &str, wanted: &str) {
    let what = format!("{job}/{run} {wanted}");
    let there = |scene: &mut Scene| state(&scene.fleet, job, run).is_some_and(|s| s == wanted);
    scene.until(&what, there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_follows_each_run_of_its_parent_one_after_the_other() {
    let mut scene = scene("serve-chains");
    scene.fleet.tells_nobody();
    let spec = &scene.fleet.spec;
    let written = spec.write("jobs/kept.yaml", &child("kept", "fares"));
    written.expect("written");
    let always = child("always", "{job: fares, on_failure: true}");
    spec.write("jobs/always.yaml", &always).expect("written");
    let (mut first, _) = serve(&scene.fleet);
    let (_second, _) = serve(&scene.fleet);
    scene.load();
    // Nobody works on what the children read yet.
    let lane = ["--lanes", "fare-search"];
    let _parents = scene.fleet.collect(&lane).expect("started");
    enqueue(&scene, "p1", 0);
    enqueue(&scene, "p2", 0);
    reaches(&mut scene, "kept", "p1-kept", "queued").await;
    assert_eq!(state(&scene.fleet, "kept", "p2-kept"), None, "it waits");
    // Another replica goes on where the first one ends.
    first.terminate(LIMIT).expect("it ends");
    scene.collect();
    for run in ["p1-kept", "p2-kept"] {
        reaches(&mut scene, "kept", run, "completed").await;
    }

    let broken = FaultRule::cells(Fault::Status(400), "NRT");
    scene.simulator.set_faults(vec![broken]);
    enqueue(&scene, "bad", 4);
    reaches(&mut scene, "always", "bad-always", "completed").await;
    scene.simulator.set_faults(Vec::new());
    enqueue(&scene, "p3", 0);
    reaches(&mut scene, "kept", "p3-kept", "completed").await;
    reaches(&mut scene, "always", "p3-always", "completed").await;
    assert_eq!(state(&scene.fleet, "kept", "bad-kept"), None);
    assert_eq!(runs(&scene.fleet, "kept").len(), 3);

    let parent = &runs(&scene.fleet, "fares")[0];
    for run in ["p1", "p2", "p3"] {
        let kept = records(&scene.fleet, "kept", &format!("{run}-kept")).await;
        let fares = records(&scene.fleet, "fares", run).await;
        assert_eq!(kept.len(), fares.len(), "{run} of {parent}");
        assert!(kept.iter().all(|record| {
            let of = record["of"].as_str().expect("text");
            of.starts_with(&format!("{run} of 20"))
        }));
    }
}

async fn records(fleet: &Fleet, job: &str, run: &str) -> Vec<harness::checker::Row> {
    let layout = fleet.layout(job, run);
    let bucket = harness::Bucket::of(fleet);
    let collected = harness::checker::Collected::read(&bucket, &layout).await;
    let collected = collected.expect("parts");
    collected.rows().map(|(row, _)| row.clone()).collect()
}
