//! The SDK's client: whose keys, which address, which of its habits are off.

use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};

use crate::settings::{Environment, SettingError, shown_url};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where the store is, and what is wrong with how we were told to reach it.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// Without secrets.
    pub(super) shown: Arc<str>,
    /// A secret's file that cannot be read.
    pub(super) fault: Option<Arc<str>>,
}

/// A client from what `env` names, and the SDK's own chain for the rest. With an address of its own the
/// store is taken for one of the compatible ones: path style, and only the checksums that an operation
/// demands.
pub(super) async fn connect(env: &impl Environment) -> (Client, Endpoint) {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_LIMIT)
                .build(),
        );
    let keys = keys(env);
    if let Ok(Some(keys)) = &keys {
        loader = loader.credentials_provider(keys.clone());
    }
    let shared = loader.load().await;
    let custom = own_endpoint(env);
    let mut config = aws_sdk_s3::config::Builder::from(&shared);
    if let Some(region) = env.get("AWS_REGION").filter(|region| !region.is_empty()) {
        config = config.region(Region::new(region));
    } else if shared.region().is_none() {
        config = config.region(Region::new("us-east-1"));
    }
    if let Some(url) = &custom {
        config = config
            .endpoint_url(url)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    let endpoint = Endpoint {
        shown: custom.map_or("s3:/".into(), |url| {
            shown_url(url.trim_end_matches('/')).into()
        }),
        fault: keys.err().map(|e| e.to_string().into()),
    };
    (Client::from_conf(config.build()), endpoint)
}

fn own_endpoint(env: &impl Environment) -> Option<String> {
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| env.get(name).filter(|url| !url.is_empty()))
}

/// The keys, where `env` or a file that it names has them: the SDK's own chain knows no files. Without
/// both of them that chain goes on to profiles and roles.
fn keys(env: &impl Environment) -> Result<Option<Credentials>, SettingError> {
    let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    let (Some(id), Some(secret)) = (env.secret(id)?, env.secret(secret)?) else {
        return Ok(None);
    };
    let token = env.secret("AWS_SESSION_TOKEN")?;
    Ok(Some(Credentials::new(id, secret, token, None, "paceline")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_secret_may_lie_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "hidden\n").expect("written");
        let env = BTreeMap::from([
            ("AWS_ACCESS_KEY_ID".to_owned(), "me".to_owned()),
            (
                "AWS_SECRET_ACCESS_KEY_FILE".to_owned(),
                path.display().to_string(),
            ),
        ]);
        let keys = keys(&env).expect("readable").expect("in a file");
        assert_eq!(keys.secret_access_key(), "hidden");
    }

    #[test]
    fn without_both_keys_the_chain_of_the_sdk_is_used() {
        let env = BTreeMap::from([("AWS_ACCESS_KEY_ID".to_owned(), "me".to_owned())]);
        assert!(keys(&env).expect("nothing to read").is_none());
    }
}
