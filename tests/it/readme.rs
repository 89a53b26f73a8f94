//! README.md's first job as a reader types it, line by line.

use std::path::Path;
use std::process::Command;

use harness::{Binaries, Fleet, binaries};

/// What comes before each block that is typed.
const TYPED: &str = "<!-- first job: run -->\n```sh\n";
/// Where README.md puts its files.
const FOLDER: &str = "/tmp/first";
/// What is done already where tests run: the programs are built, and the servers known.
const DONE: [&str; 3] = ["cargo build", "export PATH", "eval"];

/// The lines of README.md as a script that leaves nothing running.
fn script(readme: &str, folder: &Path) -> String {
    let block = |text| Some(str::split_once(text, "\n```")?.0);
    let typed = readme.split(TYPED).skip(1).map_while(block);
    let lines = typed.flat_map(str::lines);
    let lines = lines.filter(|line| !DONE.iter().any(|done| line.starts_with(done)));
    let lines: Vec<&str> = lines.collect();
    let folder = folder.to_string_lossy();
    format!(
        "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{}\n",
        lines.join("\n").replace(FOLDER, &folder)
    )
}

#[test]
fn the_first_job_can_be_typed_as_it_stands() {
    let readme = binaries::repository().join("README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md");
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::new("readme").expect("a fleet");
    let programs = Binaries::find().expect("built").path("");
    let path = std::env::var("PATH").expect("a path");
    let typed = Command::new("timeout")
        .args(["120", "bash", "-c"])
        .arg(script(&readme, folder.path()))
        .env_clear()
        .envs(fleet.env())
        .env("PATH", format!("{}:{path}", programs.display()))
        .current_dir(folder.path())
        .output();
    let typed = typed.expect("it runs");
    let said = String::from_utf8_lossy(&typed.stderr);
    let shown = String::from_utf8_lossy(&typed.stdout);
    assert!(typed.status.success(), "{shown}\n{said}");
    let all = "of 120 cells succeeded";
    assert!(said.contains(all) || shown.contains(all), "{shown}\n{said}");
    let words: Vec<&str> = shown.split_whitespace().collect();
    let words = words.join(" ");
    for said in ["refused 0", "repeated 0", "% kept", "\"KIX\""] {
        assert!(words.contains(said), "no {said:?} in\n{shown}");
    }
    let members = shown
        .lines()
        .filter(|line| line.ends_with("/2") || line.ends_with("/3"));
    assert_eq!(members.count(), 3, "the cheapest three:\n{shown}");
}
