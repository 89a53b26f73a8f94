//! Logs on stderr, as `PACELINE_LOG` and `PACELINE_LOG_FORMAT` say. Commands speak to people by
//! themselves; the log holds what the stores' clients have to tell.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged unless `PACELINE_LOG` says otherwise. The AMQP client complains when it is closed in order.
const USUAL: &str = "info,lapin=off";

/// Starts logging, on a terminal with colours unless it has to be `plain`; a filter that cannot be read falls back to the
/// usual one.
pub fn start(plain: bool) {
    let wanted = std::env::var("PACELINE_LOG").unwrap_or_else(|_| USUAL.into());
    let filter = EnvFilter::try_new(&wanted).unwrap_or_else(|_| EnvFilter::new(USUAL));
    let is_terminal = std::io::stderr().is_terminal();
    let json = match std::env::var("PACELINE_LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !is_terminal,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        let colours = is_terminal && !plain;
        let builder = builder.with_ansi(colours);
        builder.without_time().with_target(false).init();
    }
}
