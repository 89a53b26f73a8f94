//! `producer new`: drafts are right as `check` sees them, and secrets stay out of them.

use std::path::Path;
use std::process::{Command, Output};

use harness::Binaries;

fn producer(spec: &Path, arguments: &[&str]) -> Output {
    let binaries = Binaries::find().expect("they are built");
    Command::new(binaries.path("producer"))
        .args(arguments)
        .env("PACELINE_SPEC", spec)
        .env("WEATHER_URL", "http://127.0.0.1:1")
        .env("WEATHER_KEYS", "one,two")
        .output()
        .expect("it starts")
}

#[track_caller]
fn succeeds(spec: &Path, arguments: &[&str]) -> String {
    let output = producer(spec, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_job_on_a_drafted_provider_can_be_planned() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let path = succeeds(spec, &["new", "provider", "weather"]);
    assert!(
        path.trim_end().ends_with("providers/weather.yaml"),
        "{path}"
    );
    succeeds(spec, &["new", "job", "cities", "--provider", "weather"]);
    let planned = succeeds(spec, &["plan", "cities", "--json"]);
    let planned: serde_json::Value = serde_json::from_str(&planned).expect("JSON");
    assert_eq!(planned["cells"], 1);
}

#[test]
fn a_curl_command_becomes_a_provider_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let command = "curl -X POST 'https://api.example.com/v1/search?lang=en&api_key=SECRET1' \
        -H 'Authorization: Bearer SECRET2' -H 'Accept: application/json' -H 'X-Odd: a \"b\": #c' \
        --json '{\"q\": \"a: #b\", \"n\": [1, 2.50]}'";
    let path = succeeds(
        spec,
        &["new", "provider", "weather", "--from-curl", command],
    );
    let text = std::fs::read_to_string(path.trim_end()).expect("written");
    assert!(!text.contains("SECRET"), "{text}");
    succeeds(spec, &["new", "job", "cities", "--provider", "weather"]);
    succeeds(spec, &["check"]);
}

#[test]
fn a_file_that_is_there_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = folder.path();
    let path = succeeds(spec, &["new", "provider", "weather"]);
    std::fs::write(path.trim_end(), "mine").expect("written");
    let again = producer(spec, &["new", "provider", "weather"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        std::fs::read_to_string(path.trim_end()).expect("kept"),
        "mine"
    );
    let odd = producer(spec, &["new", "provider", "../odd"]);
    assert_eq!(odd.status.code(), Some(2));
}
