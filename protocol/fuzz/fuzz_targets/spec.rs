//! Job and provider files: every text is read, every fault has a place inside of it, and what `check` passes compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use paceline_fuzz::{compile, folder, load};
use paceline_protocol::connector::CompileError;
use paceline_protocol::spec::{LoadError, not_built};
use serde_json::json;

/// Parts the job's text from the provider's.
const BETWEEN: &str = "=====\n";

fuzz_target!(|text: &str| {
    let (job, provider) = text.split_once(BETWEEN).unwrap_or((text, ""));
    let folder = folder(job, provider);
    // YAML breaks lines at more than a line feed.
    let lines = |text: &str| {
        text.matches(|c| "\n\r\u{85}\u{2028}\u{2029}".contains(c))
            .count()
            + 2
    };
    let most = lines(job).max(lines(provider));
    let found = folder.check(&[], None).expect("nothing is listed");
    for diagnostic in &found {
        assert!((1..=most).contains(&diagnostic.line), "{diagnostic}");
        assert!(diagnostic.column >= 1, "{diagnostic}");
        assert!(!diagnostic.message.is_empty());
    }
    match load(&folder) {
        Some(Ok(loaded)) => compiles(loaded),
        Some(Err(LoadError::Wrong(found))) => assert!(!found.is_empty()),
        _ => {}
    }
});

fn compiles(loaded: paceline_protocol::spec::LoadedJob) {
    if !not_built(&loaded).is_empty() || loaded.job.endpoint.is_none() {
        return;
    }
    let names: Vec<String> = loaded.providers.keys().cloned().collect();
    for name in names {
        match compile(loaded.clone(), &name, &[("d", json!(1))]) {
            Ok(_) | Err(CompileError::NotBuilt(_)) => {}
            Err(error) => panic!("check passes what does not compile: {error}"),
        }
    }
}
