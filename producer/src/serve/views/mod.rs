//! A job's view (`view:`) over its live run: made once of the parts that hold it, then kept in memory.

mod heatmap;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, PartName, RunLayout};
use paceline_protocol::manifest::{Live, ManifestPart};
use paceline_protocol::plan::Plan;
use paceline_protocol::record_names::ReadRecord;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use self::heatmap::{Axis, Grid, Heatmap, as_text};
use crate::inputs::RunRecords;
use crate::stores::Archive;

/// How long it is believed which run is live.
const BELIEVED: Duration = Duration::from_millis(250);
/// How many grids are kept, and how many runs' lists of parts.
const KEPT: usize = 64;

/// What was asked for.
pub(super) enum View {
    /// JSON, and what it is known by (an `ETag` without its quotes).
    Here(Bytes, String),
    /// There is nothing of that kind.
    Missing(String),
}

/// The run that is live, and what tells it from the same run after a retry.
#[derive(Clone)]
struct Current {
    job: String,
    live: Live,
    version: String,
}

type Grids = HashMap<String, (Instant, Bytes)>;

/// What is kept of views.
#[derive(Default)]
pub(super) struct Views {
    live: Mutex<HashMap<String, (Instant, Option<Current>)>>,
    runs: Mutex<HashMap<String, (Instant, Arc<RunRecords>)>>,
    grids: Mutex<Grids>,
}

impl Views {
    /// The view of `job`, of one value of what it is divided by.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub(super) async fn show(
        &self,
        archive: &Archive,
        job: &str,
        view: &Value,
        of: Option<&str>,
    ) -> Result<View> {
        let heatmap = match Heatmap::read(view) {
            Ok(heatmap) => heatmap,
            Err(why) => return Ok(View::Missing(why)),
        };
        let Some(current) = self.current(archive, job).await? else {
            return Ok(View::Missing(format!("job `{job}` has no good run yet")));
        };
        let name = json!([current.job, current.version, view, of]).to_string();
        let tag = digest(&name);
        if let Some((used, body)) = self.grids.lock().await.get_mut(&tag) {
            *used = Instant::now();
            return Ok(View::Here(body.clone(), tag));
        }
        // One grid is made at a time; whoever wants the same one finds it then.
        let mut runs = self.runs.lock().await;
        if let Some((_, body)) = self.grids.lock().await.get(&tag) {
            return Ok(View::Here(body.clone(), tag));
        }
        let run = match runs.get_mut(&current.version) {
            Some((used, run)) => {
                *used = Instant::now();
                run.clone()
            }
            None => {
                let run = Arc::new(read(archive, &current).await?);
                keep(&mut runs, current.version.clone(), run.clone());
                run
            }
        };
        let shown = match shown(archive, &run, &heatmap, of).await? {
            Ok(shown) => Bytes::from(shown.to_string()),
            Err(why) => return Ok(View::Missing(why)),
        };
        keep(&mut *self.grids.lock().await, tag.clone(), shown.clone());
        Ok(View::Here(shown, tag))
    }

    /// Which run is live.
    async fn current(&self, archive: &Archive, job: &str) -> Result<Option<Current>> {
        let mut known = self.live.lock().await;
        if let Some((at, current)) = known.get(job)
            && at.elapsed() < BELIEVED
        {
            return Ok(current.clone());
        }
        let key = layout::live(&archive.fleet.prefix, job);
        let current = match archive.objects.get(&key).await? {
            None => None,
            Some(object) => Some(Current {
                job: job.to_owned(),
                live: serde_json::from_slice(&object.body)
                    .with_context(|| format!("{key} is not what it should be"))?,
                version: digest(&format!("{job}/{}", String::from_utf8_lossy(&object.body))),
            }),
        };
        known.insert(job.to_owned(), (Instant::now(), current.clone()));
        Ok(current)
    }
}

/// Puts something in, for what was not used longest.
fn keep<T>(kept: &mut HashMap<String, (Instant, T)>, name: String, what: T) {
    if kept.len() >= KEPT
        && let Some(oldest) = kept.iter().min_by_key(|(_, (used, _))| *used)
    {
        let oldest = oldest.0.clone();
        kept.remove(&oldest);
    }
    kept.insert(name, (Instant::now(), what));
}

fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..12])
}

/// Plan and parts of the live run. Its manifest comes right after `live.json`.
async fn read(archive: &Archive, current: &Current) -> Result<RunRecords> {
    let run = RunRef {
        job: current.job.clone(),
        run: current.live.run.clone(),
    };
    let manifest = RunLayout::new(&archive.fleet.prefix, &run).manifest();
    let what = || format!("run {run} is being published; ask again");
    archive.objects.head(&manifest).await?.with_context(what)?;
    RunRecords::of(archive, &run).await
}

/// The grid, or why there is none.
async fn shown(
    archive: &Archive,
    run: &RunRecords,
    heatmap: &Heatmap,
    of: Option<&str>,
) -> Result<Result<Value, String>> {
    let choices = heatmap.choices(&run.plan.matrix);
    let texts: Vec<String> = choices.iter().map(as_text).collect();
    let of = match (&heatmap.of, of) {
        (Some(_), None) if texts.len() == 1 => texts.first().map(String::as_str),
        (Some(name), None) => {
            let plan = &run.plan;
            return Ok(Ok(
                json!({ "job": plan.job.name, "run": plan.run, "date": plan.date,
                "planned_at": plan.planned_at, "of": { "name": name, "values": choices } }),
            ));
        }
        (Some(name), Some(of)) if !texts.is_empty() && !texts.iter().any(|text| text == of) => {
            return Ok(Err(format!("the live run has no {name} `{of}`")));
        }
        (None, Some(_)) => return Ok(Err("this view is not divided: ask without `of`".into())),
        (_, of) => of,
    };
    let mut grid = Grid::new(heatmap, of);
    let wanted = Wanted::new(&run.plan, heatmap, of);
    let mut each = |record: ReadRecord| {
        grid.add(record);
        Ok(())
    };
    run.each_of(archive, &|part| wanted.holds(&run.plan, part), &mut each)
        .await?;
    Ok(Ok(grid.shown(&run.plan)))
}

/// Which parts can hold records of a grid.
struct Wanted {
    name: Option<String>,
    /// By place of the dimension; every part without.
    places: Option<Vec<bool>>,
}

impl Wanted {
    fn new(plan: &Plan, heatmap: &Heatmap, of: Option<&str>) -> Self {
        // Parts that were merged are not those of their cells.
        let name = heatmap.of.clone().filter(|_| plan.job.changes.is_none());
        let axis = name
            .as_deref()
            .and_then(|name| Axis::find(&plan.matrix, name));
        Wanted {
            places: axis.zip(of).map(|(axis, of)| axis.places(of)),
            name,
        }
    }

    fn holds(&self, plan: &Plan, part: &ManifestPart) -> bool {
        let (Some(name), Some(places)) = (&self.name, &self.places) else {
            return true;
        };
        let Some(axis) = Axis::find(&plan.matrix, name) else {
            return true;
        };
        let Some((shard, PartName { block, .. })) = PartName::from_key(&part.key) else {
            return true;
        };
        let Some(shard) = plan.shard(shard) else {
            return true;
        };
        if block >= shard.blocks(plan.job.shard) {
            return true;
        }
        let (first, cells) = shard.block(plan.job.shard, block);
        (first..first + u64::from(cells)).any(|cell| {
            let place = usize::try_from(axis.place(cell)).unwrap_or(usize::MAX);
            places.get(place).copied().unwrap_or(true)
        })
    }
}
