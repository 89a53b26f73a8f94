//! The clients of the four stores on real servers: what the rest of Paceline takes for granted of them.
//! Tests keep apart by namespace, bucket and index name.

mod broker;
mod index;
mod marks;
mod objects;
mod state;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::shared;
use paceline_protocol::ids::RunRef;

/// How long anything may take that only takes long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

fn value(name: &str) -> &'static str {
    shared::stack().value(name).expect("the stack sets it")
}

/// A name that no other test uses.
fn own_name(test: &str) -> String {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    let number = TESTS.fetch_add(1, Ordering::Relaxed);
    format!("{test}-{}-{number}", std::process::id())
}

fn a_run() -> RunRef {
    RunRef {
        job: "fares".into(),
        run: "2026-11-21".parse().expect("a run id"),
    }
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
