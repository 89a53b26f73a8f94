//! Failed cells by reason, with one example for each. Of many, some objects are read: enough for examples.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, stream};
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::stores::objects::Listed;
use serde_json::Value;

use crate::serve::Server;

/// Objects read for examples.
const READ: usize = 24;
/// How long what was found holds.
const HOLDS: Duration = Duration::from_secs(8);
/// Runs of which it is remembered.
const REMEMBERED: usize = 64;
/// The longest text of one value.
const LONGEST: usize = 160;

/// The failures of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// Shards that have some.
    pub(super) shards: BTreeSet<u64>,
    pub(super) reasons: Vec<Reason>,
    /// Only some were read: the counts are of those.
    pub(super) some: bool,
}

/// One reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reason {
    pub(super) reason: String,
    pub(super) cells: u64,
    /// `destination=NRT depart=2026-12-01: status 500, 5 attempts`
    pub(super) example: String,
}

/// What was found lately.
#[derive(Default)]
pub(super) struct Found(Mutex<BTreeMap<RunRef, (Instant, Arc<Failures>)>>);

impl Found {
    /// The failures of a run.
    pub(super) async fn of(&self, server: &Server, run: &RunRef) -> Result<Arc<Failures>> {
        if let Some(known) = self.known(run) {
            return Ok(known);
        }
        let found = Arc::new(read(server, run).await?);
        if let Ok(mut all) = self.0.lock() {
            all.retain(|_, (at, _)| at.elapsed() < HOLDS);
            if all.len() < REMEMBERED {
                all.insert(run.clone(), (Instant::now(), found.clone()));
            }
        }
        Ok(found)
    }

    fn known(&self, run: &RunRef) -> Option<Arc<Failures>> {
        let all = self.0.lock().ok()?;
        let (at, found) = all.get(run)?;
        (at.elapsed() < HOLDS).then(|| found.clone())
    }
}

async fn read(server: &Server, run: &RunRef) -> Result<Failures> {
    let objects = server.stores.objects();
    let layout = RunLayout::new(server.stores.prefix(), run);
    let mut shards = BTreeSet::new();
    let mut each = |listed: Listed| shards.extend(shard_of(&listed.key));
    objects.list_each(&layout.all_failures(), &mut each).await?;
    let step = shards.len().div_ceil(READ).max(1);
    let chosen: Vec<String> = shards
        .iter()
        .step_by(step)
        .map(|shard| layout.failures(*shard))
        .collect();
    let some = chosen.len() < shards.len();
    let bodies: Vec<_> = stream::iter(chosen)
        .map(|key| async move { objects.get(&key).await })
        .buffered(8)
        .collect()
        .await;
    let mut rows = Vec::new();
    for body in bodies {
        let Some(object) = body? else { continue };
        rows.extend(
            object
                .body
                .split(|b| *b == b'\n')
                .filter_map(|row| serde_json::from_slice::<Value>(row).ok()),
        );
    }
    Ok(Failures {
        shards,
        reasons: grouped(&rows),
        some,
    })
}

fn shard_of(key: &str) -> Option<u64> {
    let name = key.rsplit('/').next()?;
    name.strip_prefix("shard-")?
        .strip_suffix(".ndjson")?
        .parse()
        .ok()
}

/// The most frequent reason first.
fn grouped(rows: &[Value]) -> Vec<Reason> {
    let mut by: BTreeMap<String, (u64, &Value)> = BTreeMap::new();
    for row in rows {
        let reason = row["reason"].as_str().unwrap_or("unknown");
        by.entry(reason.to_owned()).or_insert((0, row)).0 += 1;
    }
    let mut reasons: Vec<Reason> = by
        .into_iter()
        .map(|(reason, (cells, row))| Reason {
            reason,
            cells,
            example: example(row),
        })
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.cells));
    reasons
}

/// A row in one line: its dimensions, then what happened.
fn example(row: &Value) -> String {
    const KNOWN: [&str; 6] = ["cell", "reason", "outcome", "status", "field", "attempts"];
    let Some(object) = row.as_object() else {
        return String::new();
    };
    let dimensions = object
        .iter()
        .filter(|(name, _)| !KNOWN.contains(&name.as_str()));
    let dimensions: Vec<String> = dimensions
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    let told = ["outcome", "status", "field", "attempts"];
    let told = told.iter().filter_map(|name| {
        let value = object.get(*name).filter(|value| !value.is_null())?;
        Some(format!("{name} {}", text(value)))
    });
    let told: Vec<String> = told.collect();
    let cell = object.get("cell").map(text).unwrap_or_default();
    let whose = if dimensions.is_empty() {
        format!("cell {cell}")
    } else {
        dimensions.join(" ")
    };
    format!("{whose}: {}", told.join(", "))
}

fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}\u{2026}", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn failures_are_grouped_with_an_example() {
        let row = |reason: &str, status: u32| json!({"cell": 3, "destination": "NRT", "reason": reason, "outcome": "failed", "status": status, "field": null, "attempts": 5});
        let reasons = grouped(&[
            row("server_error", 500),
            row("poison", 0),
            row("server_error", 502),
        ]);
        assert_eq!(reasons.len(), 2);
        assert_eq!(
            (reasons[0].reason.as_str(), reasons[0].cells),
            ("server_error", 2)
        );
        assert_eq!(
            reasons[0].example,
            "destination=NRT: outcome failed, status 500, attempts 5"
        );
        let long = json!({"cell": 1, "x": "y".repeat(500)});
        assert!(example(&long).chars().count() < 200);
    }
}
