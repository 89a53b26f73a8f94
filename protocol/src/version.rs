//! The versions of what two builds may share: messages, plans, the limiter's state. A build reads what an older one
//! wrote and leaves to newer ones what they wrote.

use serde::Deserialize;

/// The form of messages. Raise it when an older build would misread them.
const MESSAGE: u32 = 1;
/// The form of plans. 2: dimensions out of `documents` and `object`, whose rows lie in the plan.
const PLAN: u32 = 2;
/// The layout of the limiter's state in Redis. Raise it when an older build would count wrongly beside this one: from
/// the first request of a newer build on it gets no grants any more.
const LIMITER: u32 = 1;

/// The version of the messages that this build writes, and the newest that it reads.
pub fn message() -> u32 {
    MESSAGE + ahead()
}

/// The same of plans.
pub fn plan() -> u32 {
    PLAN + ahead()
}

/// The same of the limiter's state.
pub fn limiter() -> u32 {
    LIMITER + ahead()
}

/// How many versions ahead a debug build is told to be (`PACELINE_VERSIONS_AHEAD`), so that a test can run two
/// builds of one source side by side. Release builds are what they are.
#[cfg(debug_assertions)]
fn ahead() -> u32 {
    use std::sync::LazyLock;
    static AHEAD: LazyLock<u32> = LazyLock::new(|| {
        let told = std::env::var("PACELINE_VERSIONS_AHEAD").ok();
        told.and_then(|text| text.parse().ok()).unwrap_or(0)
    });
    *AHEAD
}

#[cfg(not(debug_assertions))]
const fn ahead() -> u32 {
    0
}

/// Why something of another build cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A newer build wrote it: it is left to one.
    #[error("it has version {found}, this build reads up to {known}")]
    Newer {
        /// The version that it says to have.
        found: u32,
        /// The newest one that is known.
        known: u32,
    },
    /// It is not what it should be.
    #[error("{0}")]
    Broken(String),
}

#[derive(Deserialize)]
struct Marked {
    #[serde(alias = "v")]
    version: u32,
}

/// Looks at the version alone: a newer form may be one that a whole reading would complain of.
///
/// # Errors
/// When it is newer than `known`, or no JSON with a version.
pub fn check(body: &[u8], known: u32) -> Result<(), Unread> {
    let marked: Result<Marked, _> = serde_json::from_slice(body);
    match marked {
        Ok(Marked { version }) if version > known => Err(Unread::Newer {
            found: version,
            known,
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(Unread::Broken(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_dimensions_that_are_looked_up_leaves_plans_alone() {
        let body = format!(r#"{{"version": {}}}"#, plan());
        assert!(matches!(
            check(body.as_bytes(), 1),
            Err(Unread::Newer { .. })
        ));
        assert_eq!(check(br#"{"version": 1}"#, plan()), Ok(()));
    }

    #[test]
    fn older_forms_are_read_and_newer_ones_left() {
        assert_eq!(check(br#"{"v": 1, "new": []}"#, 2), Ok(()));
        assert_eq!(check(br#"{"version": 2}"#, 2), Ok(()));
        let newer = Unread::Newer { found: 3, known: 2 };
        assert_eq!(check(br#"{"v": 3, "shard": {"other": 1}}"#, 2), Err(newer));
        assert!(matches!(check(b"{}", 2), Err(Unread::Broken(_))));
        assert!(matches!(check(b"no", 2), Err(Unread::Broken(_))));
    }
}
