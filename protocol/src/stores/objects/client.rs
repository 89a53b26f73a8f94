//! The SDK's client: whose keys, which address, which of its habits are off.

use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation};

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

/// A client from the SDK's own chain. With an address of its own the store is taken for one of the
/// compatible ones: path style, and only the checksums that an operation demands.
pub(super) async fn connect(env: &impl Environment) -> (Client, Endpoint) {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::disabled())
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_LIMIT)
                .build(),
        );
    let keys = keys_from_files(env);
    if let Ok(Some(keys)) = &keys {
        loader = loader.credentials_provider(keys.clone());
    }
    let shared = loader.load().await;
    let custom = own_endpoint(env);
    let mut config = aws_sdk_s3::config::Builder::from(&shared);
    if shared.region().is_none() {
        config = config.region(aws_sdk_s3::config::Region::new("us-east-1"));
    }
    if custom.is_some() {
        config = config
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

/// The keys, when one of them is in a file; the SDK's own chain knows only the plain variables.
fn keys_from_files(env: &impl Environment) -> Result<Option<Credentials>, SettingError> {
    let in_file = |name: &str| env.get(&format!("{name}_FILE")).is_some();
    if !in_file("AWS_SECRET_ACCESS_KEY") && !in_file("AWS_ACCESS_KEY_ID") {
        return Ok(None);
    }
    let id = env.required("AWS_ACCESS_KEY_ID", "the key for S3")?;
    let secret = env.required("AWS_SECRET_ACCESS_KEY", "the secret for S3")?;
    let token = env.secret("AWS_SESSION_TOKEN")?;
    Ok(Some(Credentials::new(id, secret, token, None, "files")))
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
        let keys = keys_from_files(&env).expect("readable").expect("in a file");
        assert_eq!(keys.secret_access_key(), "hidden");
    }

    #[test]
    fn without_files_the_chain_of_the_sdk_is_used() {
        let env = BTreeMap::from([("AWS_ACCESS_KEY_ID".to_owned(), "me".to_owned())]);
        assert!(keys_from_files(&env).expect("nothing to read").is_none());
    }
}
