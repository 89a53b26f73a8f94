//! Settings of the two roles, each asking only for the servers that it needs.

use paceline_protocol::settings::{AMQP, Environment, FleetSettings, HTTP, REDIS, SettingError};
use secrecy::SecretString;

use crate::cli::CollectArgs;

/// What `worker load` needs.
#[derive(Debug)]
pub struct LoadSettings {
    /// Where runs live.
    pub fleet: FleetSettings,
    /// `AMQP_URL`
    pub amqp_url: SecretString,
    /// `REDIS_URL`
    pub redis_url: SecretString,
    /// `ELASTICSEARCH_URL`
    pub elasticsearch_url: SecretString,
    /// `ELASTICSEARCH_API_KEY`
    pub elasticsearch_api_key: Option<SecretString>,
}

/// What `worker collect` needs.
#[derive(Debug)]
pub struct CollectSettings {
    /// Where runs live.
    pub fleet: FleetSettings,
    /// `AMQP_URL`
    pub amqp_url: SecretString,
    /// `REDIS_URL`
    pub redis_url: SecretString,
    /// `--egress`
    pub egress: Option<String>,
    /// `--lanes`; empty: all.
    pub lanes: Vec<String>,
    /// `--concurrency`
    pub concurrency: usize,
    /// `--shards`
    pub shards: usize,
}

impl LoadSettings {
    /// Reads them.
    ///
    /// # Errors
    /// When one that has no default is missing or makes no sense.
    pub fn read(env: &impl Environment) -> Result<Self, SettingError> {
        Ok(LoadSettings {
            fleet: FleetSettings::read(env)?,
            amqp_url: amqp_url(env)?,
            redis_url: redis_url(env)?,
            elasticsearch_url: env
                .server(
                    "ELASTICSEARCH_URL",
                    "the Elasticsearch that is loaded",
                    HTTP,
                )?
                .into(),
            elasticsearch_api_key: env.secret("ELASTICSEARCH_API_KEY")?.map(Into::into),
        })
    }
}

impl CollectSettings {
    /// Reads them.
    ///
    /// # Errors
    /// When one that has no default is missing or makes no sense.
    pub fn read(env: &impl Environment, args: &CollectArgs) -> Result<Self, SettingError> {
        Ok(CollectSettings {
            fleet: FleetSettings::read(env)?,
            amqp_url: amqp_url(env)?,
            redis_url: redis_url(env)?,
            egress: args.egress.clone(),
            lanes: args.lanes.clone(),
            concurrency: args.concurrency,
            shards: args.shards,
        })
    }
}

fn amqp_url(env: &impl Environment) -> Result<SecretString, SettingError> {
    Ok(env
        .server("AMQP_URL", "the RabbitMQ that holds the work", AMQP)?
        .into())
}

fn redis_url(env: &impl Environment) -> Result<SecretString, SettingError> {
    Ok(env
        .server("REDIS_URL", "the Redis of limits and progress", REDIS)?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn environment(without: &str) -> BTreeMap<String, String> {
        [
            ("PACELINE_BUCKET", "runs"),
            ("AMQP_URL", "amqp://me:pass@host"),
            ("REDIS_URL", "redis://host"),
            ("ELASTICSEARCH_URL", "http://host:9200"),
        ]
        .into_iter()
        .filter(|(name, _)| *name != without)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    #[test]
    fn a_missing_setting_is_named() {
        assert!(LoadSettings::read(&environment("")).is_ok());
        for name in [
            "PACELINE_BUCKET",
            "AMQP_URL",
            "REDIS_URL",
            "ELASTICSEARCH_URL",
        ] {
            let error = LoadSettings::read(&environment(name)).expect_err(name);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn settings_do_not_show_their_secrets() {
        let settings = LoadSettings::read(&environment("")).expect("complete");
        assert!(!format!("{settings:?}").contains("pass"));
    }
}
