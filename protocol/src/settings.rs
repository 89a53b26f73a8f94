//! Settings from the environment, read through a lookup that a test replaces by a map.

use std::path::PathBuf;

/// Looks a name of the environment up.
pub trait Environment {
    /// The value of `name`, when it is set.
    fn get(&self, name: &str) -> Option<String>;

    /// The secret `name`: its value, or the content of the file that `<name>_FILE` names, without the
    /// line end.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn secret(&self, name: &str) -> Result<Option<String>, SettingError> {
        if let Some(value) = self.get(name).filter(|v| !v.is_empty()) {
            return Ok(Some(value));
        }
        let Some(path) = self.get(&format!("{name}_FILE")).filter(|v| !v.is_empty()) else {
            return Ok(None);
        };
        std::fs::read_to_string(&path)
            .map(|text| Some(text.trim_end_matches(['\r', '\n']).to_owned()))
            .map_err(|source| SettingError::Unreadable {
                name: name.to_owned(),
                path: path.into(),
                source,
            })
    }

    /// The secret `name`, which must be there; `what` says in a few words what it is.
    ///
    /// # Errors
    /// When it is neither set nor in a file.
    fn required(&self, name: &'static str, what: &'static str) -> Result<String, SettingError> {
        self.secret(name)?
            .ok_or(SettingError::Missing { name, what })
    }

    /// The URL `name`, which must be there and begin with one of `schemes`: what is no URL at all never comes up,
    /// however long it is waited for.
    ///
    /// # Errors
    /// When it is not there, or is no such URL.
    fn server(
        &self,
        name: &'static str,
        what: &'static str,
        schemes: &'static [&'static str],
    ) -> Result<String, SettingError> {
        let url = self.required(name, what)?;
        let fits = |scheme: &&str| {
            let rest = url.strip_prefix(*scheme);
            rest.and_then(|rest| rest.strip_prefix("://"))
                .is_some_and(|rest| !rest.is_empty())
        };
        if schemes.iter().any(fits) {
            return Ok(url);
        }
        Err(SettingError::NoUrl { name, schemes })
    }
}

/// How the URL of RabbitMQ begins.
pub const AMQP: &[&str] = &["amqp", "amqps"];
/// How the URL of Redis begins.
pub const REDIS: &[&str] = &[
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+unix",
    "unix",
    "valkey+unix",
];
/// How the URL of Elasticsearch begins.
pub const HTTP: &[&str] = &["http", "https"];

/// The process' own environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Environment for std::collections::BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        std::collections::BTreeMap::get(self, name).cloned()
    }
}

/// Why a setting cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// It is not there.
    #[error("{name} is not set: it names {what}; set it, or {name}_FILE to a file that holds it")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is.
        what: &'static str,
    },
    /// Its file cannot be read.
    #[error("{name}_FILE names {}, which cannot be read", path.display())]
    Unreadable {
        /// The variable.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It leads to no server. What it holds is not shown: it may be a password.
    #[error("{name} is no URL: it begins with {}", schemes.iter().take(2).map(|s| format!("{s}://")).collect::<Vec<_>>().join(" or "))]
    NoUrl {
        /// The variable.
        name: &'static str,
        /// How it may begin.
        schemes: &'static [&'static str],
    },
    /// It makes no sense.
    #[error("{name} is {value:?}: {why}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it holds; never a secret.
        value: String,
        /// What would be right.
        why: &'static str,
    },
}

/// Where runs live, and under which names: what every binary needs.
#[derive(Clone, Debug)]
pub struct FleetSettings {
    /// `PACELINE_BUCKET`
    pub bucket: String,
    /// `PACELINE_PREFIX`
    pub prefix: String,
    /// `PACELINE_NAMESPACE`
    pub namespace: String,
}

impl FleetSettings {
    /// Reads the three.
    ///
    /// # Errors
    /// When the bucket is not named, the namespace could not be part of a name, or the prefix is empty.
    pub fn read(env: &impl Environment) -> Result<Self, SettingError> {
        let namespace = env
            .get("PACELINE_NAMESPACE")
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "paceline".into());
        if !crate::ids::is_name(&namespace) {
            return Err(SettingError::Invalid {
                name: "PACELINE_NAMESPACE",
                value: namespace,
                why: "use 1 to 48 of a-z 0-9 - _ with a letter or digit first",
            });
        }
        let prefix = env.get("PACELINE_PREFIX");
        if let Some(value) = prefix.as_ref().filter(|p| p.trim_matches('/').is_empty()) {
            return Err(SettingError::Invalid {
                name: "PACELINE_PREFIX",
                value: value.clone(),
                why: "runs need a folder of their own in the bucket; name one, or do not set it for `paceline`",
            });
        }
        Ok(FleetSettings {
            bucket: env.required("PACELINE_BUCKET", "the S3 bucket where runs live")?,
            prefix: prefix.unwrap_or_else(|| "paceline".into()),
            namespace,
        })
    }
}

/// A URL as it may be shown: without user, password and query.
pub fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let path = path.split(['?', '#']).next().unwrap_or("");
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_said_at_once_and_not_shown() {
        let held = |value: &str| {
            let env = std::collections::BTreeMap::from([("REDIS_URL".into(), value.into())]);
            env.server("REDIS_URL", "the Redis", REDIS)
        };
        for fine in ["redis://h", "rediss://:p@h:6380/1", "unix:///run/redis"] {
            assert_eq!(held(fine).expect("a URL"), fine);
        }
        for wrong in ["s3cret", "localhost:6379", "http://h", "redis://"] {
            let said = held(wrong).expect_err(wrong).to_string();
            assert_eq!(
                said,
                "REDIS_URL is no URL: it begins with redis:// or rediss://"
            );
        }
    }

    #[test]
    fn runs_never_lie_at_a_buckets_root() {
        let read = |prefix: Option<&str>| {
            let mut env =
                std::collections::BTreeMap::from([("PACELINE_BUCKET".into(), "b".into())]);
            env.extend(prefix.map(|p| ("PACELINE_PREFIX".to_owned(), p.to_owned())));
            FleetSettings::read(&env).map(|fleet| fleet.prefix)
        };
        assert_eq!(read(None).expect("the default"), "paceline");
        assert_eq!(read(Some("a/b")).expect("a folder"), "a/b");
        for empty in ["", "/", "//"] {
            let said = read(Some(empty)).expect_err(empty).to_string();
            assert!(said.starts_with("PACELINE_PREFIX is "), "{said}");
            assert!(said.contains("a folder of their own"), "{said}");
        }
    }

    #[test]
    fn a_shown_url_holds_no_password() {
        assert_eq!(
            shown_url("amqp://me:p%40ss@host:5672/v?x=1"),
            "amqp://host:5672/v"
        );
        assert_eq!(shown_url("redis://:secret@h"), "redis://h");
        assert_eq!(shown_url("http://h:9200"), "http://h:9200");
    }
}
