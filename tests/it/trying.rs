//! `producer try` makes the calls of one cell under the fleet's limits and shows them without secrets; what it keeps,
//! `producer test` replays without any server.

use std::time::Duration;

use harness::{Binaries, Fleet};
use paceline_loadtest::fares::World;
use paceline_loadtest::simulator::{Limits, SimulatorConfig};

use crate::scene::Scene;

const PATIENCE: Duration = Duration::from_secs(180);
const KEYS: [&str; 2] = ["canary-5d1f0c", "canary-e27b94"];

/// `producer` without any server's address.
fn offline(scene: &Scene, arguments: &[&str]) -> (Option<i32>, String) {
    let producer = Binaries::find().expect("built").path("producer");
    let output = std::process::Command::new(producer)
        .args(arguments)
        .env_clear()
        .env("PACELINE_SPEC", scene.fleet.spec.path())
        .output()
        .expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_tried_kept_and_replayed() {
    let config = SimulatorConfig {
        limits: Limits::per_second(50),
        world: World {
            seed: 1,
            empty_share: 0.0,
            missing_share: 0.0,
        },
        ..SimulatorConfig::default()
    };
    let scene = Scene::with(Fleet::new("trying").expect("a fleet"), config);
    let cases = scene.fleet.spec.path().join("cases");
    let dir = cases.to_string_lossy().into_owned();
    let arguments = ["try", "fares", "--only", "destination=NRT", "--cell", "2"];
    let tried = scene.fleet.producer(&arguments, PATIENCE).expect("it ends");
    let shown = tried.expect_code(0).stdout;
    for part in [
        "GET http://",
        "x-api-key: <key>",
        "limits second, ",
        "by the built-in list",
        "fields.price",
        "set fares:NRT",
        "shard-0/part-0.ndjson.zst",
    ] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
    assert!(KEYS.iter().all(|key| !shown.contains(key)), "{shown}");
    let calls = scene.simulator.log().len();
    assert_eq!(calls, 1, "one call for one cell");

    let mut keeping: Vec<&str> = arguments.to_vec();
    keeping.extend(["--record", &dir, "--json"]);
    let kept = scene.fleet.producer(&keeping, PATIENCE).expect("it ends");
    let kept: serde_json::Value = serde_json::from_str(&kept.expect_code(0).stdout).expect("JSON");
    assert_eq!(kept["calls"][0]["outcome"], "ok");
    let files: Vec<_> = std::fs::read_dir(&cases)
        .expect("a folder")
        .map(|file| file.expect("readable").path())
        .collect();
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(&files[0]).expect("a case");
    assert!(KEYS.iter().all(|key| !text.contains(key)), "{text}");

    let (code, said) = offline(&scene, &["test"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = offline(&scene, &["test", "fares"]);
    assert_eq!(code, Some(0), "{said}");
    scene.replace("providers/fare-search.yaml", "$.price.total", "$.price.sum");
    let (code, said) = offline(&scene, &["test"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("$.price.sum"), "{said}");
    let (code, said) = offline(&scene, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("`$.price.sum` found nothing in any kept case"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_would_fail_says_so() {
    let scene = Scene::with(
        Fleet::new("tryfail").expect("a fleet"),
        SimulatorConfig::default(),
    );
    scene.replace("providers/fare-search.yaml", "/v1/fares", "/v1/nothing");
    scene.replace(
        "providers/fare-search.yaml",
        "{status: 404}",
        "{status: 499}",
    );
    let tried = scene.fleet.producer(&["try", "fares"], PATIENCE);
    let shown = tried.expect("it ends").expect_code(4).stdout;
    assert!(shown.contains("permanent: status 400"), "{shown}");
    let none = ["try", "fares", "--cell", "9999999"];
    let none = scene.fleet.producer(&none, PATIENCE).expect("it ends");
    none.expect_code(2);
}
