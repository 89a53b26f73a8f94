//! What an answer of S3 means, and trying again until there is one.

use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use tokio::time::{Instant, sleep, timeout};

use super::{ObjectError, Objects};
use crate::stores::backoff::Backoff;

/// How long an operation is tried in all.
const LIMIT: Duration = Duration::from_secs(60);

/// What S3 said, when it decided.
pub(super) enum Answer<T> {
    /// It did it.
    Done(T),
    /// The key was taken (412).
    Exists,
    /// There is no such key.
    Missing,
}

impl<T> Answer<T> {
    /// What was asked for, when there is such a thing.
    pub(super) fn found(self) -> Option<T> {
        match self {
            Answer::Done(value) => Some(value),
            Answer::Exists | Answer::Missing => None,
        }
    }
}

/// Why a try came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another try may go better.
    Again(String),
    /// It will not.
    Final(String),
    /// It does not let us do it.
    Denied(String),
    /// No such key.
    Missing,
    /// The key is taken.
    Exists,
    /// No such bucket.
    NoBucket,
}

impl Fault {
    pub(super) fn late(limit: Duration) -> Self {
        Fault::Again(format!("no answer within {} s", limit.as_secs()))
    }
}

impl From<tokio::time::error::Elapsed> for Fault {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Fault::Again("no answer in time".into())
    }
}

impl<E> From<SdkError<E>> for Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let why = || chain(&error);
        match &error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                from_answer(status, answer.err().code(), answer.err().message())
            }
            SdkError::ConstructionFailure(_) => Fault::Final(why()),
            SdkError::DispatchFailure(failure) if failure.is_user() => Fault::Final(why()),
            _ => Fault::Again(why()),
        }
    }
}

/// An error and what caused it, each said once; the SDK's own way adds a dump of its types.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// How the words of an answer begin that says that the store cannot do this at all.
pub(super) const NOT_IMPLEMENTED: &str = "501";

/// The code decides where there is one; an answer to HEAD has only its status.
fn from_answer(status: u16, code: Option<&str>, message: Option<&str>) -> Fault {
    let code = code.unwrap_or("");
    let why = format!("{status} {code} {}", message.unwrap_or(""));
    let why = why.trim_end().to_owned();
    match (status, code) {
        (_, "NoSuchBucket") => Fault::NoBucket,
        (412, _) => Fault::Exists,
        (404, _) => Fault::Missing,
        (501, _) => Fault::Final(why),
        (429 | 500..=599, _) => Fault::Again(why),
        // Another conditional put of the key was under way; or the key was renewed while we asked.
        (409, "ConditionalRequestConflict" | "OperationAborted") => Fault::Again(why),
        (_, "SlowDown" | "RequestTimeout" | "ExpiredToken" | "TokenRefreshRequired") => {
            Fault::Again(why)
        }
        (401 | 403, _) => Fault::Denied(format!("access denied ({why})")),
        _ => Fault::Final(why),
    }
}

impl Objects {
    /// Tries until S3 decided, each try within `limit`, about a minute in all.
    pub(super) async fn until_answered<T, F>(
        &self,
        what: &'static str,
        key: &str,
        limit: Duration,
        mut attempt: impl FnMut() -> F,
    ) -> Result<Answer<T>, ObjectError>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        self.refuse_unreadable_secret(what, key)?;
        let end = Instant::now() + LIMIT.max(limit);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let fault = match timeout(limit, attempt()).await {
                Ok(Ok(value)) => return Ok(Answer::Done(value)),
                Ok(Err(Fault::Exists)) => return Ok(Answer::Exists),
                Ok(Err(Fault::Missing)) => return Ok(Answer::Missing),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::late(limit),
            };
            let wait = backoff.wait();
            if !matches!(fault, Fault::Again(_)) || Instant::now() + wait >= end {
                return Err(self.error(what, key, fault));
            }
            tracing::debug!(object.key = %key, what, ?fault, "S3 is asked again");
            sleep(wait).await;
        }
    }

    fn refuse_unreadable_secret(&self, what: &'static str, key: &str) -> Result<(), ObjectError> {
        match &self.endpoint.fault {
            Some(why) => Err(self.error(what, key, Fault::Final(why.to_string()))),
            None => Ok(()),
        }
    }

    pub(super) fn error(&self, what: &'static str, key: &str, fault: Fault) -> ObjectError {
        let why = match fault {
            Fault::Denied(why) => {
                return ObjectError::Denied {
                    what,
                    key: format!("{}/{key}", self.endpoint()),
                    why,
                };
            }
            Fault::NoBucket | Fault::Missing => return ObjectError::NoBucket(self.bucket.clone()),
            Fault::Exists => "the key is taken".into(),
            Fault::Again(why) | Fault::Final(why) => why,
        };
        ObjectError::Failed {
            what,
            key: format!("{}/{key}", self.endpoint()),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_is_said_without_its_types() {
        #[derive(Debug, thiserror::Error)]
        #[error("dispatch failure")]
        struct Failure(#[source] std::io::Error);
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
        assert_eq!(chain(&Failure(refused)), "dispatch failure: refused");
    }

    #[test]
    fn what_an_answer_means() {
        let again = |status, code| matches!(from_answer(status, Some(code), None), Fault::Again(_));
        assert!(again(503, "SlowDown"));
        assert!(again(500, "InternalError"));
        assert!(again(409, "ConditionalRequestConflict"));
        assert!(again(400, "RequestTimeout"));
        let denied = from_answer(403, Some("SignatureDoesNotMatch"), None);
        assert!(matches!(denied, Fault::Denied(why) if why.contains("SignatureDoesNotMatch")));
        assert!(!again(409, "BucketAlreadyExists"));
        assert!(matches!(from_answer(412, None, None), Fault::Exists));
        assert!(matches!(from_answer(404, None, None), Fault::Missing));
        let none = from_answer(404, Some("NoSuchBucket"), None);
        assert!(matches!(none, Fault::NoBucket));
    }
}
