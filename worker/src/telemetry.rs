//! Logs: to stderr, text on a terminal and JSON elsewhere. ERROR is data lost or an operator needed,
//! WARN is recovered; fields are dotted (`run.id`, `shard.id`).

use std::io::IsTerminal;

use paceline_protocol::settings::{Environment, SettingError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogFormat {
    Json,
    Text,
}

/// Starts logging as `PACELINE_LOG` (a filter, `info`) and `PACELINE_LOG_FORMAT` say.
///
/// # Errors
/// When one of the two makes no sense.
pub fn start(env: &impl Environment) -> Result<(), SettingError> {
    let filter = filter(env)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format(env, std::io::stderr().is_terminal())? {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    // A second start (tests in one process) keeps the first one's subscriber.
    drop(started);
    Ok(())
}

fn filter(env: &impl Environment) -> Result<EnvFilter, SettingError> {
    let text = env.get("PACELINE_LOG").filter(|t| !t.is_empty());
    let text = text.unwrap_or_else(|| "info".to_owned());
    EnvFilter::try_new(with_quiet_client(&text)).map_err(|_| SettingError::Invalid {
        name: "PACELINE_LOG",
        value: text,
        why: "use a level (error, warn, info, debug, trace) or a list such as info,paceline_worker=debug",
    })
}

/// The broker's client calls each lost connection an ERROR, and each queue that ended with its run. Both are
/// recovered, and said where they are handled; whoever wants its words too names it in the filter.
fn with_quiet_client(filter: &str) -> String {
    if filter.contains("lapin") {
        filter.to_owned()
    } else {
        format!("lapin=off,{filter}")
    }
}

fn format(env: &impl Environment, terminal: bool) -> Result<LogFormat, SettingError> {
    match env.get("PACELINE_LOG_FORMAT").as_deref() {
        Some("json") => Ok(LogFormat::Json),
        Some("text") => Ok(LogFormat::Text),
        None | Some("") if terminal => Ok(LogFormat::Text),
        None | Some("") => Ok(LogFormat::Json),
        Some(other) => Err(SettingError::Invalid {
            name: "PACELINE_LOG_FORMAT",
            value: other.to_owned(),
            why: "use json or text",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn environment(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn text_is_for_terminals() {
        let none = BTreeMap::new();
        assert_eq!(format(&none, true).ok(), Some(LogFormat::Text));
        assert_eq!(format(&none, false).ok(), Some(LogFormat::Json));
        let text = environment("PACELINE_LOG_FORMAT", "text");
        assert_eq!(format(&text, false).ok(), Some(LogFormat::Text));
    }

    #[test]
    fn the_brokers_client_is_quiet_unless_it_is_named() {
        assert_eq!(with_quiet_client("info"), "lapin=off,info");
        assert_eq!(with_quiet_client("info,lapin=warn"), "info,lapin=warn");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(format(&environment("PACELINE_LOG_FORMAT", "xml"), true).is_err());
        assert!(filter(&environment("PACELINE_LOG", "a=b=c")).is_err());
    }
}
