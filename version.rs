//! Build script of the programs: what `--version` says. The commit is `PACELINE_COMMIT`, else in release builds what git says; debug
//! builds leave git alone, so that no commit makes anything compile again.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PACELINE_COMMIT");
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let told = std::env::var("PACELINE_COMMIT").unwrap_or_default();
    let commit = match told.is_empty() && release {
        true => git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default(),
        false => told,
    };
    if release
        && let Some(log) = git(&[
            "rev-parse",
            "--path-format=absolute",
            "--git-path",
            "logs/HEAD",
        ])
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let shown = match commit.is_empty() {
        true => version,
        false => format!("{version} ({commit})"),
    };
    println!("cargo::rustc-env=PACELINE_VERSION={shown}");
}

/// What git says; nothing outside of a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| said.trim().to_owned())
}
