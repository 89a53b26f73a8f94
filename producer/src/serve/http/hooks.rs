//! `POST /api/v1/hooks/s3`: somebody says that there are new objects. It is a hint and no more: what triggers
//! is found by listing, and no bucket or key of the body is ever used.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use reqwest::Url;
use serde_json::{Value, json};

use super::Shared;
use super::door::LARGEST_EVENT;
use super::problem::{Answer, Problem};
use crate::serve::Server;
use crate::serve::notify::address;
use crate::serve::triggers::HINT;

/// How long a notification service may take to confirm a subscription.
const LONGEST: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Arc<Server>> {
    let heard = post(heard).layer(DefaultBodyLimit::max(LARGEST_EVENT));
    Router::new().route("/api/v1/hooks/s3", heard)
}

/// What a notification says.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    /// There may be new objects.
    Hint,
    /// The notification service asks whether it may send; the URL says yes.
    Confirm(Url),
    /// Nothing that concerns us.
    Nothing,
}

async fn heard(State(server): Shared, body: Bytes) -> Answer<Response> {
    let told = serde_json::from_slice(&body)
        .map_err(|_| Problem::bad("a notification is JSON"))
        .and_then(|said| read(&said, true).map_err(Problem::bad))?;
    match told {
        Notice::Hint => {
            let hint = server.stores.publisher.event(HINT, &json!({})).await;
            hint.map_err(anyhow::Error::from)?;
        }
        Notice::Confirm(url) => confirm(&url).await?,
        Notice::Nothing => {}
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": true }))).into_response())
}

/// Reads the shapes of S3 and MinIO (`Records`), EventBridge (`detail`), and SNS around the first.
fn read(said: &Value, may_wrap: bool) -> Result<Notice, String> {
    let unknown = || Err("this is no notification of S3, MinIO, EventBridge or SNS".to_owned());
    match said["Type"].as_str() {
        Some("Notification") if may_wrap => {
            let inner = said["Message"].as_str().unwrap_or_default();
            return match serde_json::from_str(inner) {
                Ok(inner) => read(&inner, false),
                Err(_) => unknown(),
            };
        }
        Some("SubscriptionConfirmation") if may_wrap => {
            return subscribe_url(said["SubscribeURL"].as_str().unwrap_or_default());
        }
        Some("UnsubscribeConfirmation") if may_wrap => return Ok(Notice::Nothing),
        Some(_) => return unknown(),
        None => {}
    }
    let of_s3 = |record: &Value| record["s3"]["bucket"].is_object();
    if said["Event"] == "s3:TestEvent" {
        Ok(Notice::Nothing)
    } else if said["detail"]["bucket"].is_object() && said["detail-type"].is_string()
        || said["Records"]
            .as_array()
            .is_some_and(|all| all.iter().any(of_s3))
    {
        Ok(Notice::Hint)
    } else {
        unknown()
    }
}

/// A subscription is confirmed at the notification service's own host alone.
fn subscribe_url(text: &str) -> Result<Notice, String> {
    let url = Url::parse(text).map_err(|_| "SubscribeURL is no URL".to_owned())?;
    let plain = url.scheme() == "https"
        && url.port().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if plain && url.host_str().is_some_and(is_notification_service) {
        Ok(Notice::Confirm(url))
    } else {
        Err("SubscribeURL does not lead to sns.<region>.amazonaws.com; it is not called".to_owned())
    }
}

fn is_notification_service(host: &str) -> bool {
    let region = host.strip_prefix("sns.").and_then(|rest| {
        rest.strip_suffix(".amazonaws.com")
            .or_else(|| rest.strip_suffix(".amazonaws.com.cn"))
    });
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    region.is_some_and(|region| !region.is_empty() && region.chars().all(letters))
}

async fn confirm(url: &Url) -> Answer<()> {
    let failed = |why: &str| {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            format!("the subscription is not confirmed: {why}"),
        )
    };
    let client = address::client(url.as_str(), false, LONGEST)
        .await
        .map_err(|_| failed("its host cannot be called"))?;
    let answer = client.get(url.clone()).send().await;
    match answer {
        Ok(answer) if answer.status().is_success() => {
            tracing::info!(host = url.host_str(), "a subscription is confirmed");
            Ok(())
        }
        Ok(answer) => Err(failed(&format!("status {}", answer.status().as_u16()))),
        Err(_) => Err(failed("no answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_is_a_hint() {
        let records = json!({"EventName": "s3:ObjectCreated:Put", "Key": "b/k",
            "Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "k"}}}]});
        let bridge = json!({"source": "aws.s3", "detail-type": "Object Created",
            "detail": {"bucket": {"name": "b"}, "object": {"key": "k"}}});
        let wrapped = json!({"Type": "Notification", "Message": records.to_string()});
        for said in [&records, &bridge, &wrapped] {
            assert_eq!(read(said, true), Ok(Notice::Hint), "{said}");
        }
        let twice = json!({"Type": "Notification", "Message": wrapped.to_string()});
        let test = json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"});
        assert_eq!(read(&test, true), Ok(Notice::Nothing));
        let strange = [
            twice,
            json!([]),
            json!("x"),
            json!({"Records": []}),
            json!({"Type": "Notification"}),
        ];
        for said in &strange {
            assert!(read(said, true).is_err(), "{said}");
        }
    }

    #[test]
    fn a_subscription_is_confirmed_at_the_services_own_host_alone() {
        let may = |url: &str| {
            let said = json!({"Type": "SubscriptionConfirmation", "SubscribeURL": url});
            matches!(read(&said, true), Ok(Notice::Confirm(_)))
        };
        assert!(may(
            "https://sns.ap-northeast-2.amazonaws.com/?Action=ConfirmSubscription&Token=x"
        ));
        assert!(may(
            "https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription"
        ));
        for bad in [
            "http://sns.us-east-1.amazonaws.com/",
            "https://sns.us-east-1.amazonaws.com.evil.example/",
            "https://evil.example/sns.us-east-1.amazonaws.com",
            "https://sns.us-east-1.amazonaws.com:8443/",
            "https://sns.us-east-1.amazonaws.com@evil.example/",
            "https://sns.evil.example#.amazonaws.com/",
            "https://sns.a.b.amazonaws.com/",
            "https://169.254.169.254/latest",
            "",
        ] {
            assert!(!may(bad), "{bad}");
        }
    }
}
