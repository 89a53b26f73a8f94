//! Who may do what at the private S3: the owner everything, further users what their policy allows, judged as AWS
//! judges it (`Allow` alone, `*` and `?` in actions and resources, what is not allowed is denied).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, ensure};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Result, s3_error};
use serde_json::Value;

/// What a policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy(Vec<Statement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    actions: Vec<String>,
    resources: Vec<String>,
}

impl Policy {
    /// Reads a policy document.
    ///
    /// # Errors
    /// When it says something that is not judged here: then nothing is allowed by mistake.
    pub(crate) fn read(document: &Value) -> anyhow::Result<Self> {
        let statements = document["Statement"].as_array().context("no Statement")?;
        let read = statements.iter().map(|statement| {
            ensure!(statement["Effect"] == "Allow", "only Allow is judged here");
            for other in ["Condition", "NotAction", "NotResource", "Principal"] {
                ensure!(statement[other].is_null(), "{other} is not judged here");
            }
            Ok(Statement {
                actions: texts(&statement["Action"])?,
                resources: texts(&statement["Resource"])?,
            })
        });
        Ok(Policy(read.collect::<anyhow::Result<_>>()?))
    }

    fn allows(&self, action: &str, resource: &str) -> bool {
        self.0.iter().any(|statement| {
            let action_fits = statement.actions.iter().any(|a| fits(a, action));
            action_fits && statement.resources.iter().any(|r| fits(r, resource))
        })
    }
}

/// One text or a list of them.
fn texts(value: &Value) -> anyhow::Result<Vec<String>> {
    let one = |value: &Value| value.as_str().map(str::to_owned);
    let all = match value {
        Value::Array(all) => all.iter().map(one).collect(),
        single => one(single).map(|text| vec![text]),
    };
    all.context("Action and Resource are texts")
}

/// Whether `text` is what `pattern` says.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // How far both are, and where the last `*` began to swallow.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The action that an operation needs, as the policies of AWS call it.
fn action(operation: &str) -> String {
    let action = match operation {
        "GetObject" | "HeadObject" => "GetObject",
        "PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload" => {
            "PutObject"
        }
        "ListObjects" | "ListObjectsV2" | "HeadBucket" => "ListBucket",
        "ListBuckets" => "ListAllMyBuckets",
        // Its keys are in the body, and a copy reads as well: neither is judged here, so a policy allows none.
        "DeleteObjects" => "DeleteObjects",
        other => other,
    };
    format!("s3:{action}")
}

fn resource(path: &S3Path) -> String {
    match path {
        S3Path::Root => "*".to_owned(),
        S3Path::Bucket { bucket } => format!("arn:aws:s3:::{bucket}"),
        S3Path::Object { bucket, key } => format!("arn:aws:s3:::{bucket}/{key}"),
    }
}

/// The users, by their access keys. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Users(Arc<RwLock<BTreeMap<String, User>>>);

struct User {
    secret: String,
    /// None: everything.
    policy: Option<Policy>,
}

impl Users {
    pub(crate) fn add(&self, access_key: &str, secret: &str, policy: Option<Policy>) {
        let user = User {
            secret: secret.to_owned(),
            policy,
        };
        let mut users = self.0.write().unwrap_or_else(PoisonError::into_inner);
        users.insert(access_key.to_owned(), user);
    }

    fn may(&self, access_key: &str, action: &str, resource: &str) -> bool {
        let users = self.0.read().unwrap_or_else(PoisonError::into_inner);
        users
            .get(access_key)
            .is_some_and(|user| match &user.policy {
                None => true,
                Some(policy) => policy.allows(action, resource),
            })
    }
}

#[async_trait::async_trait]
impl S3Auth for Users {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let users = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match users.get(access_key) {
            Some(user) => Ok(SecretKey::from(user.secret.clone())),
            None => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Users {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let (action, resource) = (action(cx.s3_op().name()), resource(cx.s3_path()));
        let key = cx.credentials().map(|known| known.access_key.as_str());
        match key {
            Some(key) if self.may(key, &action, &resource) => Ok(()),
            _ => {
                tracing::debug!(action, resource, "S3 denies it");
                Err(s3_error!(AccessDenied))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy() -> Policy {
        let document = json!({ "Statement": [
            { "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::night" },
            { "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": ["arn:aws:s3:::night/a/*.csv"] },
        ]});
        Policy::read(&document).expect("a policy")
    }

    #[test]
    fn what_is_not_allowed_is_denied() {
        let may = |operation, place: &str| {
            policy().allows(&action(operation), &format!("arn:aws:s3:::{place}"))
        };
        assert!(may("GetObject", "night/a/b/c.csv"));
        assert!(may("HeadObject", "night/a/b.csv"));
        assert!(may("UploadPart", "night/a/b.csv"));
        assert!(may("ListObjectsV2", "night") && may("HeadBucket", "night"));
        assert!(!may("GetObject", "night/b/c.csv"));
        assert!(!may("DeleteObject", "night/a/b.csv"));
        assert!(!may("ListObjectsV2", "day"));
        assert!(!policy().allows(&action("ListBuckets"), "*"));
        assert!(!may("DeleteObjects", "night"));
    }

    #[test]
    fn stars_swallow_and_give_back() {
        assert!(fits("a*c*e", "abcdce"));
        assert!(!fits("a*c*e", "abcd"));
        assert!(fits("**", ""));
        assert!(fits("a?c", "abc") && !fits("a?c", "ac"));
        assert!(!fits("abc", "abcd") && !fits("abcd", "abc"));
    }

    #[test]
    fn what_is_not_judged_is_refused() {
        let with = |key: &str, value: Value| {
            let mut statement = json!({ "Effect": "Allow", "Action": "s3:*", "Resource": "*" });
            statement[key] = value;
            Policy::read(&json!({ "Statement": [statement] })).is_err()
        };
        assert!(with("Effect", json!("Deny")));
        assert!(with("Condition", json!({})));
        assert!(Policy::read(&json!({})).is_err());
    }
}
