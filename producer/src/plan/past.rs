//! How many calls a cell takes, as the ledger of the job's newest good run tells it.

use std::collections::HashSet;
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
    let (mut calls, mut cells) = (0u64, HashSet::new());
    for listed in objects {
        let Some(object) = archive.objects.get(&listed.key).await? else {
            continue;
        };
        let body = zstd::Decoder::new(&object.body[..])?;
        for line in std::io::BufReader::new(body).lines() {
            let row: LedgerRow = serde_json::from_str(&line?).context("a row of the ledger")?;
            if !matches!(row.endpoint.as_str(), "token" | "login" | "ready") {
                calls += 1;
                cells.insert(row.cell);
            }
        }
    }
    Ok((!cells.is_empty()).then(|| Expected {
        calls_per_cell: calls as f64 / cells.len() as f64,
        run: run.run.to_string(),
    }))
}
