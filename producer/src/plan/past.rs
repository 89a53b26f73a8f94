//! How many calls a cell takes, as the ledger of the job's newest good run tells it.

use std::collections::{BTreeMap, HashSet};
use std::io::BufRead;
use std::time::Duration;

use anyhow::{Context as _, Result};
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::settings::Environment;
use serde::Serialize;

use crate::inputs::runs::good_runs;
use crate::stores::Archive;

/// A plan does not wait long for S3, which it can do without.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many objects of a ledger tell enough.
const OBJECTS: usize = 16;

/// What a past run tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// Calls for each cell, pages, details and retries among them.
    pub calls_per_cell: f64,
    /// The same for each endpoint.
    pub by_endpoint: BTreeMap<String, f64>,
    /// What a call cost of each bucket of points, `provider/limit`, as the answers told it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub points_per_call: BTreeMap<String, f64>,
    /// How long a call takes, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_s: Option<f64>,
    /// Which run.
    pub run: String,
}

/// What the newest good run of `job` tells; `None` without S3, without such a run, or without its ledger.
pub async fn expected(env: &impl Environment, job: &str) -> Option<Expected> {
    env.get("PACELINE_BUCKET")?;
    let read = async {
        let archive = Archive::connect(env).await?;
        of_newest(&archive, job).await
    };
    tokio::time::timeout(PATIENCE, read).await.ok()?.ok()?
}

async fn of_newest(archive: &Archive, job: &str) -> Result<Option<Expected>> {
    let runs = good_runs(archive, job).await?;
    let Some(newest) = runs.iter().max_by_key(|run| run.planned_at) else {
        return Ok(None);
    };
    let run = RunRef {
        job: job.to_owned(),
        run: newest.id.clone(),
    };
    let layout = RunLayout::new(&archive.fleet.prefix, &run);
    let mut objects = archive.objects.list(&layout.ledger()).await?;
    objects.truncate(OBJECTS);
    let mut seen = Seen::default();
    for listed in objects {
        let Some(object) = archive.objects.get(&listed.key).await? else {
            continue;
        };
        let body = zstd::Decoder::new(&object.body[..])?;
        for line in std::io::BufReader::new(body).lines() {
            seen.add(&serde_json::from_str(&line?).context("a row of the ledger")?);
        }
    }
    Ok(seen.tell(run.run.to_string()))
}

/// Calls of a ledger.
#[derive(Default)]
struct Seen {
    calls: BTreeMap<String, u64>,
    took_us: u64,
    cells: HashSet<u64>,
    /// Points and calls.
    points: BTreeMap<String, (f64, f64)>,
}

impl Seen {
    fn add(&mut self, row: &LedgerRow) {
        if !matches!(row.endpoint.as_str(), "token" | "login" | "ready") {
            *self.calls.entry(row.endpoint.clone()).or_default() += 1;
            self.took_us = self.took_us.saturating_add(row.duration_us);
            self.cells.insert(row.cell);
        }
        for told in &row.points {
            let Some((limit, Ok(points))) = told.rsplit_once('=').map(|(l, p)| (l, p.parse()))
            else {
                continue;
            };
            let name = format!("{}/{limit}", row.provider);
            let (sum, calls) = self.points.entry(name).or_default();
            (*sum, *calls) = (*sum + f64::max(points, 0.0), *calls + 1.0);
        }
    }

    fn tell(self, run: String) -> Option<Expected> {
        let cells = self.cells.len() as f64;
        let calls = self.calls.values().sum::<u64>() as f64;
        (calls > 0.0).then(|| Expected {
            calls_per_cell: calls / cells,
            by_endpoint: self
                .calls
                .into_iter()
                .map(|(name, calls)| (name, calls as f64 / cells))
                .collect(),
            points_per_call: self
                .points
                .into_iter()
                .map(|(limit, (points, calls))| (limit, points / calls))
                .collect(),
            call_s: Some(self.took_us as f64 / calls / 1e6),
            run,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::row;

    #[test]
    fn the_points_of_a_call_are_those_that_the_answers_told() {
        let mut seen = Seen::default();
        for points in ["points=10", "points=20", "points"] {
            seen.add(&LedgerRow {
                points: vec![points.into()],
                ..row(1)
            });
        }
        let told = seen.tell("n".into()).expect("calls");
        assert_eq!(told.points_per_call["fare-search/points"], 15.0);
    }
}
