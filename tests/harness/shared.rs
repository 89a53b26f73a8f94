//! The servers that all tests of a process share. They start with the first test that asks and end with
//! the process; tests keep apart by namespace, bucket, Redis database and index name.

use std::sync::OnceLock;

use paceline_stack::{Stack, StackOptions};

static STACK: OnceLock<Stack> = OnceLock::new();

/// The shared servers: one's own where the environment names them, else private ones.
///
/// # Panics
/// When a server does not come up; the message says which, and where its log is.
pub fn stack() -> &'static Stack {
    STACK.get_or_init(|| match Stack::start(&StackOptions::from_environment()) {
        Ok(stack) => stack,
        Err(error) => panic!("the test servers did not start: {error:#}"),
    })
}
