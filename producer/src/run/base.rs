//! Which run a new one with `changes` is compared with.

use std::collections::BTreeSet;

use anyhow::Result;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::layout::{self, RunLayout};
use paceline_protocol::manifest::{Live, SavedState};
use paceline_protocol::plan::Plan;

use super::read::json;
use crate::stores::Stores;

/// The last good run of the plan's job, when the job has `changes` and that run left its state: the live
/// one, or while that is still being finished, the one before it.
///
/// # Errors
/// When S3 does not answer, or holds what this version cannot read.
pub async fn base_of(stores: &Stores, plan: &Plan) -> Result<Option<RunId>> {
    if plan.job.changes.is_none() {
        return Ok(None);
    }
    let key = layout::live(stores.prefix(), &plan.job.name);
    let Some(live) = json::<Live>(stores.objects(), &key).await? else {
        return Ok(None);
    };
    for run in [Some(live.run), live.previous_run].into_iter().flatten() {
        if is_base(stores, plan, &run).await? {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Whether a run has passed its gate and its state is there, whole.
async fn is_base(stores: &Stores, plan: &Plan, run: &RunId) -> Result<bool> {
    let run = RunRef {
        job: plan.job.name.clone(),
        run: run.clone(),
    };
    let layout = RunLayout::new(stores.prefix(), &run);
    let objects = stores.objects();
    if objects.head(&layout.success()).await?.is_none() {
        return Ok(false);
    }
    let saved: Option<SavedState> = json(objects, &layout.merged()).await?;
    let there = objects.list(&layout.state()).await?;
    let there: BTreeSet<String> = there.into_iter().map(|listed| listed.key).collect();
    Ok(saved.is_some_and(|saved| saved.whole(&layout, &there).is_some()))
}
