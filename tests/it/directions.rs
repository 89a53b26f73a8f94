//! Who may depend on whom: `protocol` <- `producer`, `worker`, `loadtest` <- `tests`. The tests start
//! producer and worker as processes and link neither; the two never see each other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// A package of the workspace, and which others of it it may use in whatever way (normal, build and
/// development dependencies alike).
const MAY_USE: [(&str, &[&str]); 6] = [
    ("paceline-protocol", &[]),
    ("paceline-producer", &["paceline-protocol"]),
    ("paceline-worker", &["paceline-protocol"]),
    ("paceline-stack", &[]),
    (
        "paceline-loadtest",
        &["paceline-protocol", "paceline-stack"],
    ),
    (
        "paceline-tests",
        &["paceline-protocol", "paceline-stack", "paceline-loadtest"],
    ),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(harness::binaries::repository())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("metadata is JSON")
}

/// A feature that only tests ask for makes a second build of its crate, and of all that stand on it, beside the one that
/// the programs use: `tokio/test-util` had 69 crates compiled twice.
#[test]
fn tests_ask_for_no_features_of_their_own() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let all = || packages.iter().flat_map(dependencies_of);
    let features = |dependency: &Value| -> BTreeSet<String> {
        let features = dependency["features"].as_array().expect("features");
        let text = |feature: &Value| feature.as_str().expect("a text").to_owned();
        features.iter().map(text).collect()
    };
    let is_for_tests = |dependency: &Value| dependency["kind"] == "dev";
    for dev in all().filter(|dependency| is_for_tests(dependency)) {
        let same = all().filter(|other| other["name"] == dev["name"] && !is_for_tests(other));
        let used: Vec<BTreeSet<String>> = same.map(features).collect();
        let by_programs: BTreeSet<String> = used.iter().flatten().cloned().collect();
        let more: Vec<String> = features(dev).difference(&by_programs).cloned().collect();
        let alone = used.is_empty();
        assert!(alone || more.is_empty(), "{}: {more:?}", dev["name"]);
    }
}

fn dependencies_of(package: &Value) -> &Vec<Value> {
    package["dependencies"].as_array().expect("dependencies")
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into();
    for package in packages {
        let package_name = name(package);
        let allowed = allowed.get(package_name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{package_name} is not listed here"));
        let dependencies = dependencies_of(package);
        for used in dependencies.iter().map(name).filter(|d| ours.contains(d)) {
            let permitted = allowed.contains(&used.as_str());
            assert!(permitted, "{package_name} must not depend on {used}");
        }
    }
}
