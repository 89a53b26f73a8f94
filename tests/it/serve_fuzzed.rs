//! The API against its own OpenAPI document: schemathesis asks what the document allows and what it does not.

use std::path::Path;
use std::process::Command;

use crate::serve::{scene, serve};

/// The script's word for "what I need is not there".
const SKIPPED: i32 = 77;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_the_document_says() {
    let mut scene = scene("fuzzed");
    scene.fleet.set("PACELINE_API_TOKENS", "boss:admin:all");
    scene.fleet.tells_nobody();
    let (serving, url) = serve(&scene.fleet);
    // A run for what is asked of runs.
    scene.collect();
    scene.load();
    scene.enqueue();
    scene.ends_with(0).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("api/check.sh");
    let asked = Command::new(script).args([&url, "all"]).output();
    let asked = asked.expect("a shell");
    let said = String::from_utf8_lossy(&asked.stdout);
    let complaints = String::from_utf8_lossy(&asked.stderr);
    if asked.status.code() == Some(SKIPPED) {
        println!("skipped: {complaints}");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api.txt");
    std::fs::write(folder, said.as_bytes()).expect("written");
    assert!(asked.status.success(), "{said}\n{complaints}");
    assert!(
        !serving.said().contains("panicked"),
        "{}",
        serving.last_words(20)
    );
}
