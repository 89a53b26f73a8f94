//! Merging: after the last receipt of a run whose job has `dedupe` or `changes`, all records are looked at
//! together, before anything comes of them.
//!
//! `dedupe` leaves the parts as they are and says in `doubles/` which records do not count. `changes` sorts
//! the records of `raw/` by id, joins them with the base's `state/`, and writes the run's own `state/` and
//! `data/`: of each part in `raw/` one of the same name, with those of its records that count and their
//! `update_type`. So everything that comes later (sets, documents, manifest) works on `data/` as it does
//! for other jobs. Sorting spills into temporary files, and what is held is one part and two sorters.
//!
//! Everything can be done again, over what lies there already; `merged.json` says that a round is done.

mod ahead;
mod changes;
mod compare;
mod dedupe;
mod join;
mod rows;
mod sort;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::manifest::SavedState;
use paceline_protocol::message::PartSummary;
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::objects::{Object, ObjectError, Objects};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::super::LoadError;
use super::gate::Verdict;
use super::{Finish, Shards, to_json};
use crate::crash;
use crate::output::part::{PartMeta, name_of};
use crate::output::settle::BlockPlace;

/// One merge at a time in a process, so that its memory is bounded.
static MERGING: Semaphore = Semaphore::const_new(1);

/// `merged.json`: what merging came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Merged {
    /// The round after which it was done, and with `changes` the objects of `state/`; none of a narrowed
    /// run.
    #[serde(flatten)]
    saved: SavedState,
    /// With `changes`: the parts of `data/`, by shard.
    shards: BTreeMap<u64, Vec<PartSummary>>,
    /// Rows of the base that are gone.
    pub(super) gone: u64,
    /// Records that `dedupe` takes out of sets and documents.
    pub(super) doubles: u64,
    /// Records whose id cannot be made: always new.
    without_id: u64,
    /// The base has no state any more.
    base_lost: bool,
}

impl Merged {
    /// Adds to the verdict what merging found.
    pub(super) fn judge(&self, plan: &Plan, verdict: &mut Verdict) {
        if let Some(why) = self.fault(plan) {
            verdict.fail(why);
        }
        verdict.notes.extend(self.note());
    }

    /// Why the run must not count as good.
    pub(super) fn fault(&self, plan: &Plan) -> Option<String> {
        let base = plan.base.as_ref().filter(|_| self.base_lost)?;
        Some(format!(
            "the state of the base {base} is gone, so what changed cannot be said: run the job again, and everything is new"
        ))
    }

    /// What a person should know.
    fn note(&self) -> Option<String> {
        (self.without_id > 0).then(|| {
            format!(
                "{} records give no id for `changes`: they are new each time",
                self.without_id
            )
        })
    }

    /// The shards as they are loaded.
    pub(super) fn shards_of(&self, collected: &Shards) -> Shards {
        let given =
            |shard: &u64, parts: &Vec<PartSummary>| self.shards.get(shard).unwrap_or(parts).clone();
        let all = collected.iter();
        all.map(|(shard, (parts, rejected))| (*shard, (given(shard, parts), *rejected)))
            .collect()
    }
}

impl Finish<'_> {
    /// Merges, unless that was done for this round already; `None` when the job needs none.
    pub(super) async fn merge(&self) -> Result<Option<Merged>, LoadError> {
        if !self.run.plan.merges() {
            return Ok(None);
        }
        let key = self.run.layout.merged();
        let done: Option<Merged> = self.loader.stores.read_json(&key).await?;
        if let Some(done) = done.filter(|done| done.saved.round == self.open.round) {
            return Ok(Some(done));
        }
        crash::point("merge-begun");
        let begun = std::time::Instant::now();
        let merged = self.merge_anew().await?;
        crash::point("merge-before-done");
        let objects = &self.loader.stores.objects;
        objects.put(&key, to_json(&merged), &[]).await?;
        self.remove_old_states().await?;
        tracing::info!(
            run.id = %self.run.run, gone = merged.gone, doubles = merged.doubles,
            took.ms = begun.elapsed().as_millis() as u64, "merged",
        );
        Ok(Some(merged))
    }

    /// Removes the states of earlier rounds: from now on nobody is led to them.
    async fn remove_old_states(&self) -> Result<(), LoadError> {
        let (layout, round) = (&self.run.layout, self.open.round);
        if self.run.plan.job.changes.is_none() || round == 0 {
            return Ok(());
        }
        let objects = &self.loader.stores.objects;
        let ours = layout.states_of(round);
        for object in objects.list(&layout.state()).await? {
            if !object.key.starts_with(&ours) {
                objects.delete(&object.key).await?;
            }
        }
        Ok(())
    }

    /// On a thread of its own, since it sorts and hashes; it stops when nobody waits for it any more.
    async fn merge_anew(&self) -> Result<Merged, LoadError> {
        let _alone = MERGING.acquire().await.expect("it is never closed");
        let stopped = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(stopped.clone());
        let merge = Merge {
            objects: self.loader.stores.objects.clone(),
            prefix: self.loader.stores.fleet.prefix.clone(),
            layout: self.run.layout.clone(),
            plan: self.run.plan.clone(),
            format: PartFormat::collected(&self.run.plan),
            round: self.open.round,
            parts: parts_of(&self.shards),
            runtime: Handle::current(),
            stopped,
        };
        match tokio::task::spawn_blocking(move || merge.run()).await {
            Ok(merged) => merged,
            Err(panicked) => Err(LoadError::Unsupported(format!("merging: {panicked}"))),
        }
    }
}

/// All parts, by shard, block and round.
fn parts_of(shards: &Shards) -> Vec<Part> {
    let mut all = Vec::new();
    for (shard, (parts, _)) in shards {
        let mut parts: Vec<&PartSummary> = parts.iter().collect();
        parts.sort_by_key(|part| name_of(part));
        all.extend(parts.into_iter().map(|summary| Part {
            shard: *shard,
            summary: summary.clone(),
        }));
    }
    all
}

/// Tells the thread to stop when the future that waits for it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A part as it was collected.
struct Part {
    shard: u64,
    summary: PartSummary,
}

/// Its records.
struct Collected {
    meta: PartMeta,
    text: String,
}

/// A merge in hand, on its own thread.
struct Merge {
    objects: Objects,
    prefix: String,
    /// Where the collected parts lie.
    layout: RunLayout,
    plan: Plan,
    /// How the collected parts are written.
    format: PartFormat,
    round: u32,
    parts: Vec<Part>,
    runtime: Handle,
    stopped: Arc<AtomicBool>,
}

impl Merge {
    fn run(&self) -> Result<Merged, LoadError> {
        let mut merged = Merged {
            saved: SavedState {
                round: self.round,
                state: 0,
            },
            ..Merged::default()
        };
        if let Some(dedupe) = &self.plan.job.dedupe {
            merged.doubles = self.find_doubles(dedupe)?;
        }
        if let Some(changes) = &self.plan.job.changes {
            self.compare(changes, &mut merged)?;
            // They are not in `data/` any more.
            merged.doubles = 0;
        }
        Ok(merged)
    }

    /// Waits for S3.
    fn wait<T>(&self, asked: impl Future<Output = Result<T, ObjectError>>) -> Result<T, LoadError> {
        self.go_on()?;
        Ok(self.runtime.block_on(asked)?)
    }

    /// Whether anybody still waits for the merge.
    fn go_on(&self) -> Result<(), LoadError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(LoadError::LeaseLost);
        }
        Ok(())
    }

    fn name(part: &Part) -> PartName {
        name_of(&part.summary)
    }

    /// Where a part lies.
    fn key(&self, part: &Part) -> String {
        let suffix = self.format.suffix();
        self.layout.part(part.shard, Self::name(part), suffix)
    }

    fn read(&self, part: &Part, object: Option<Object>) -> Result<Collected, LoadError> {
        let wrong = |why: String| LoadError::Part {
            key: self.key(part),
            why,
        };
        let object = object.ok_or_else(|| wrong("it is missing".to_owned()))?;
        let meta =
            PartMeta::from_metadata(&object.metadata).map_err(|error| wrong(error.to_string()))?;
        let text = self
            .format
            .read(&object.body)
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Collected { meta, text })
    }

    fn put(&self, key: &str, body: Bytes, metadata: &[(&str, String)]) -> Result<(), LoadError> {
        self.wait(self.objects.put(key, body, metadata))
    }

    fn place(&self, part: &Part) -> Result<BlockPlace, LoadError> {
        let PartSummary { block, round, .. } = part.summary;
        let place = BlockPlace::of(&self.plan, part.shard, block, round);
        place.ok_or_else(|| LoadError::Part {
            key: format!("{}/{}", part.shard, Self::name(part)),
            why: "the plan has no such block".to_owned(),
        })
    }
}

/// A template that does not compile.
fn broken(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Unsupported(error.to_string())
}

/// What fits into 32 bits, since it was counted in an object of bounded size.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The four bytes of `bytes` from `at`, as they were written.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(number)
}
