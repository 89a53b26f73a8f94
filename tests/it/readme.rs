//! The first job of README.md and of the guide as a reader types it, line by line.

use std::path::Path;
use std::process::Command;

use harness::{Binaries, Fleet, binaries};

/// What comes before each block that is typed.
const TYPED: &str = "<!-- first job: run -->\n```sh\n";
/// Where README.md puts its files; the guide puts them where the reader is.
const FOLDER: &str = "/tmp/first";
/// What is done already where tests run: the programs are built, and the servers known.
const DONE: [&str; 3] = ["cargo build", "export PATH", "eval"];

/// The lines of a document as a script that leaves nothing running.
fn script(document: &str, folder: &Path) -> String {
    let block = |text| Some(str::split_once(text, "\n```")?.0);
    let typed = document.split(TYPED).skip(1).map_while(block);
    let lines = typed.flat_map(str::lines);
    let lines = lines.filter(|line| !DONE.iter().any(|done| line.starts_with(done)));
    let lines: Vec<&str> = lines.collect();
    let folder = folder.to_string_lossy();
    format!(
        "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}\n",
        lines.join("\n").replace(FOLDER, &folder)
    )
}

/// Types a document's lines; what the terminal shows, with one space between two words.
fn typed(document: &str) -> String {
    let text = std::fs::read_to_string(binaries::repository().join(document)).expect(document);
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::new("readme").expect("a fleet");
    let programs = Binaries::find().expect("built").path("");
    let path = std::env::var("PATH").expect("a path");
    let ended = Command::new("timeout")
        .args(["120", "bash", "-c"])
        .arg(script(&text, folder.path()))
        .env_clear()
        .envs(fleet.env())
        .env("PATH", format!("{}:{path}", programs.display()))
        .current_dir(folder.path())
        .output();
    let ended = ended.expect("it runs");
    let [shown, said] = [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(ended.status.success(), "{document}:\n{shown}\n{said}");
    let words: Vec<&str> = shown
        .split_whitespace()
        .chain(said.split_whitespace())
        .collect();
    words.join(" ")
}

#[track_caller]
fn assert_all(shown: &str, expected: &[&str]) {
    for words in expected {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
}

#[test]
fn the_first_job_can_be_typed_as_it_stands() {
    let shown = typed("README.md");
    let proof = [
        "of 120 cells succeeded",
        "refused 0",
        "repeated 0",
        "% kept",
    ];
    assert_all(&shown, &proof);
    assert_all(&shown, &["\"KIX\""]);
    let members = shown
        .split(' ')
        .filter(|word| word.ends_with("/2") || word.ends_with("/3"));
    assert_eq!(members.count(), 3, "the cheapest three: {shown}");
}

#[test]
fn so_can_that_of_the_guide() {
    let shown = typed("docs/src/first-job.md");
    let proof = ["of 15 cells succeeded", "refused 0", "repeated 0", "% kept"];
    assert_all(&shown, &proof);
}
