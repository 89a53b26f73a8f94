//! What readers see: documents in Elasticsearch, sorted sets in Redis, the mark of success.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::{Manifest, RunEnd};
use redis::AsyncCommands;
use serde_json::Value;

use super::{Collected, Row, Verdict};
use crate::{Bucket, Fleet};

type Name = Box<dyn Fn(&Row) -> String + Send + Sync>;
type Score = Box<dyn Fn(&Row) -> f64 + Send + Sync>;

/// A job's outputs, worked out from a record by plain code beside the job's templates.
#[derive(Default)]
pub struct Outputs {
    /// The name of the index (`index.name`) and of a record's document.
    pub index: Option<(String, Name)>,
    /// Set, member and score of a record; the lowest score counts (`keep: min`).
    pub ranking: Option<(Name, Name, Score)>,
}

impl Outputs {
    /// Those of `fares.yaml`, with its index called `index`.
    pub fn fares(index: &str) -> Self {
        let id = |row: &Row| {
            format!(
                "{}-{}-{}-{}",
                text(row, "destination"),
                text(row, "depart"),
                text(row, "nights"),
                text(row, "carrier")
            )
        };
        let set = |row: &Row| format!("fares:{}", text(row, "destination"));
        let member = |row: &Row| format!("{}/{}", text(row, "depart"), text(row, "nights"));
        let score = |row: &Row| text(row, "price").parse().unwrap_or(f64::NAN);
        Outputs {
            index: Some((index.to_owned(), Box::new(id))),
            ranking: Some((Box::new(set), Box::new(member), Box::new(score))),
        }
    }

    /// Checks what was published, or that nothing of a failed run was.
    pub async fn check(
        &self,
        fleet: &Fleet,
        run: &RunRef,
        collected: &Collected,
        manifest: &Manifest,
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let good = manifest.state == RunEnd::Completed;
        let layout = RunLayout::new(fleet.value("PACELINE_PREFIX"), run);
        let marked = Bucket::of(fleet).keys(&layout.success()).await?.len() == 1;
        verdict.demand_equal("_SUCCESS", marked, good);
        if let Some((index, id)) = &self.index {
            let expected: BTreeSet<String> = collected.rows().map(|(row, _)| id(row)).collect();
            let expected = expected.len() as u64 - collected.rejected;
            let concrete = format!("{index}-{}", run.run);
            let url = fleet.value("ELASTICSEARCH_URL");
            let found = count(url, &concrete.to_lowercase()).await?;
            verdict.documents = found;
            verdict.demand_equal("documents against distinct ids", found, expected);
            verdict.demand_equal("manifest: documents", manifest.documents, found);
        }
        if good {
            self.check_sets(fleet, collected, manifest, verdict).await?;
        }
        Ok(())
    }

    async fn check_sets(
        &self,
        fleet: &Fleet,
        collected: &Collected,
        manifest: &Manifest,
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let expected = self.expected_sets(collected);
        let sizes: BTreeMap<String, u64> = expected
            .iter()
            .map(|(name, members)| (name.clone(), members.len() as u64))
            .collect();
        verdict.demand_equal("manifest: sets", &manifest.sets, &sizes);
        let mut redis = fleet.redis().await;
        for (name, members) in expected {
            let found: BTreeMap<String, f64> = redis
                .zrange_withscores::<_, Vec<(String, f64)>>(&name, 0, -1)
                .await?
                .into_iter()
                .collect();
            verdict.demand(found == members, || {
                let differing = members
                    .iter()
                    .find(|(m, score)| found.get(*m) != Some(score));
                format!(
                    "set {name}: {} members, expected {}; first that differs: {differing:?}",
                    found.len(),
                    members.len()
                )
            });
        }
        Ok(())
    }

    fn expected_sets(&self, collected: &Collected) -> BTreeMap<String, BTreeMap<String, f64>> {
        let mut sets: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        if let Some((set, member, score)) = &self.ranking {
            for (row, _) in collected.rows() {
                let members = sets.entry(set(row)).or_default();
                let lowest = members.entry(member(row)).or_insert(f64::INFINITY);
                *lowest = lowest.min(score(row));
            }
        }
        sets
    }
}

/// A value as a template would write it.
fn text(row: &Row, name: &str) -> String {
    match row.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

async fn count(url: &str, index: &str) -> anyhow::Result<u64> {
    let answer = reqwest::get(format!("{url}/{index}/_count")).await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    let count = answer.get("count").and_then(Value::as_u64);
    count.context("an answer of _count without count")
}
