//! Which webhooks were called lately, for people to see.

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::spec::Notify;
use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use crate::serve::Server;

/// How many are remembered.
const REMEMBERED: usize = 300;

/// One call of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::serve) struct Delivered {
    /// When.
    pub(in crate::serve) at: Timestamp,
    /// `<job>/<run>`
    pub(in crate::serve) run: String,
    /// `run.completed`, ...
    pub(in crate::serve) topic: String,
    /// Whom, without what may be secret.
    pub(in crate::serve) to: String,
    /// Which try it was.
    pub(in crate::serve) attempt: u32,
    /// `ok`, `retried`, `failed`
    pub(in crate::serve) result: String,
    /// Why not.
    pub(in crate::serve) why: Option<String>,
}

/// Remembers a call. That it is seen is not worth holding a delivery back.
pub(super) async fn note(
    server: &Server,
    delivery: &Delivery,
    to: &str,
    result: &str,
    why: Option<&str>,
) {
    let told = Delivered {
        at: Timestamp::now(),
        run: delivery.run.to_string(),
        topic: delivery.topic.clone(),
        to: to.to_owned(),
        attempt: delivery.attempt,
        result: result.to_owned(),
        why: why.map(str::to_owned),
    };
    let Ok(note) = serde_json::to_string(&told) else {
        return;
    };
    if let Err(error) = server.stores.state.note_delivery(&note, REMEMBERED).await {
        tracing::debug!(%error, "a delivery is not remembered");
    }
}

/// The last calls, newest first.
///
/// # Errors
/// When Redis does not answer.
pub(in crate::serve) async fn delivered(server: &Server, most: usize) -> Result<Vec<Delivered>> {
    let notes = server.stores.state.deliveries(most).await?;
    Ok(notes
        .iter()
        .filter_map(|note| serde_json::from_str(note).ok())
        .collect())
}

/// A webhook's address as far as it holds no secret: the name of its variable, or the host.
pub(super) fn whom(hook: &Notify) -> String {
    let written = &hook.webhook;
    if written.starts_with("${")
        && let Some(end) = written.find('}')
    {
        return written[..=end].to_owned();
    }
    let host = url::Url::parse(written).ok();
    let host = host.and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "a webhook".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secret() {
        let shown = |written: &str| {
            let hook = serde_json::json!({"webhook": written, "on": [], "format": "slack", "template": null});
            serde_json::from_value::<Notify>(hook).map(|hook| whom(&hook))
        };
        if let Ok(named) = shown("${RUN_WEBHOOK_URL}/T0/secret") {
            assert_eq!(named, "${RUN_WEBHOOK_URL}");
        }
        if let Ok(host) = shown("https://hooks.example/T0/secret") {
            assert_eq!(host, "hooks.example");
        }
    }
}
