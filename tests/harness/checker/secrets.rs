//! Nothing secret in logs, objects, messages.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::Verdict;
use crate::{Bucket, Fleet};

/// Looks for every one of `canaries`.
pub async fn check(
    fleet: &Fleet,
    bucket: &Bucket,
    canaries: &[String],
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    if canaries.is_empty() {
        return Ok(());
    }
    let mut look = |place: &str, bytes: &[u8]| {
        for canary in canaries {
            let found = contains(bytes, canary.as_bytes());
            verdict.demand(!found, || format!("a secret is in {place}"));
        }
    };
    look_into_logs(fleet.logs(), &mut look)?;
    for key in bucket.keys("").await? {
        let object = bucket.get(&key).await?;
        look(&key, &object.body);
        for value in object.metadata.values() {
            look(&key, value.as_bytes());
        }
    }
    look_into_messages(fleet, &mut look).await
}

fn look_into_logs(folder: &Path, look: &mut impl FnMut(&str, &[u8])) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            look(&path.display().to_string(), &std::fs::read(&path)?);
        }
    }
    Ok(())
}

/// Peeks at what is left in the fleet's queues, through the management plugin. That counts as a delivery,
/// so it comes last.
async fn look_into_messages(
    fleet: &Fleet,
    look: &mut impl FnMut(&str, &[u8]),
) -> anyhow::Result<()> {
    let Some(management) = fleet.management() else {
        return Ok(());
    };
    let client = reqwest::Client::new();
    let queues: Vec<Value> = client
        .get(format!("{management}/api/queues/%2f?columns=name"))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await
        .context("the list of queues")?;
    let names = queues.iter().filter_map(|queue| queue["name"].as_str());
    for name in names.filter(|name| name.starts_with(&fleet.name)) {
        let question = json!({"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"});
        let messages = client
            .post(format!("{management}/api/queues/%2f/{name}/get"))
            .json(&question)
            .send()
            .await?
            .error_for_status()?
            .bytes()
            .await?;
        look(&format!("queue {name}"), &messages);
    }
    Ok(())
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    !text.is_empty() && bytes.windows(text.len()).any(|window| window == text)
}
