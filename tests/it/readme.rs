//! The files of README.md's first job, as a reader types them: they are right, and can be planned.

use std::path::Path;
use std::process::{Command, Output};

use harness::Binaries;

/// Where README.md puts them.
const FOLDER: &str = "/tmp/first/";

/// The files that README.md writes with `cat > FILE <<'YAML'`: path below [`FOLDER`], text.
fn files(readme: &str) -> Vec<(&str, &str)> {
    let begin = format!("cat > {FOLDER}");
    let written = readme.split(begin.as_str()).skip(1);
    let file = |text| {
        let (path, rest) = str::split_once(text, " <<'YAML'\n")?;
        Some((path, rest.split_once("YAML\n")?.0))
    };
    written.filter_map(file).collect()
}

fn producer(spec: &Path, arguments: &[&str]) -> Output {
    let binaries = Binaries::find().expect("they are built");
    Command::new(binaries.path("producer"))
        .args(arguments)
        .env("PACELINE_SPEC", spec)
        .env("FLIGHTS_URL", "http://127.0.0.1:1")
        .env("FLIGHTS_KEYS", "one,two")
        .output()
        .expect("it starts")
}

#[test]
fn the_first_job_is_right_and_can_be_planned() {
    let readme = harness::binaries::repository().join("README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md");
    let folder = tempfile::tempdir().expect("a folder");
    let files = files(&readme);
    assert_eq!(files.len(), 2, "a provider and a job");
    for (path, text) in files {
        let path = folder.path().join(path);
        let parent = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(parent).expect("folders");
        std::fs::write(path, text).expect("a file");
    }
    for command in [&["check"][..], &["plan", "getaways"]] {
        let output = producer(folder.path(), command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }
    let planned = producer(folder.path(), &["plan", "getaways", "--json"]);
    let planned: serde_json::Value = serde_json::from_slice(&planned.stdout).expect("JSON");
    assert_eq!(planned["cells"], 120);
}
