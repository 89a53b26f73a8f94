//! What every benchmark begins with.

use paceline_stack::{ServerKind, Stack, StackOptions};

/// Warnings go to stderr, away from the table on stdout.
pub fn warn_on_stderr() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("warn,lapin=off")
        .init();
}

/// Private servers of a fleet that collects and loads nothing: all but Elasticsearch.
///
/// # Errors
/// When one of them does not start.
pub fn servers_to_collect() -> anyhow::Result<Stack> {
    let kinds = [ServerKind::RabbitMq, ServerKind::Redis, ServerKind::S3];
    Stack::start(&StackOptions::only(kinds))
}

/// The servers that the environment names, private ones in the place of those that it does not.
///
/// # Errors
/// When one of them does not start.
pub fn all_servers() -> anyhow::Result<Stack> {
    Stack::start(&StackOptions::from_environment())
}
