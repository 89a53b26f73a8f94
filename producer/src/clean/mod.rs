//! Housekeeping: what is known of all runs, and taking the old ones out of S3, Elasticsearch and Redis.

mod choose;
mod upsert;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use paceline_protocol::connector::outputs_in_environment;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::layout::{self, RunLayout};
use paceline_protocol::manifest::{Live, RunEnd};
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::ProcessEnvironment;
use paceline_protocol::spec::{CalendarWindow, IndexMode, LimitRule};
use paceline_protocol::stores::index::Index;
use paceline_protocol::stores::objects::Listed;
use paceline_protocol::stores::state::State;

pub use choose::{Ask, Fate, Seen, Why, choose};
pub use upsert::lost_documents;

use crate::run::{RunFiles, all_runs, json, open_entry};
use crate::stores::Archive;

/// Objects that are deleted, and runs that are read, at a time.
const AT_A_TIME: usize = 16;
const DAY: Duration = Duration::from_secs(86_400);

/// Everything that is known of the runs.
#[derive(Default)]
pub struct Known {
    /// What the choice goes by.
    pub seen: Vec<Seen>,
    /// In the same order, what taking one away has to know.
    pub found: Vec<Found>,
    /// The live run of each job.
    pub live: BTreeMap<String, RunId>,
    /// Names of sorted sets that are live.
    live_sets: BTreeSet<String>,
    /// The longest window of any quota.
    pub longest_quota: Duration,
}

/// What taking a run away has to know.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which one.
    pub run: RunRef,
    /// The sorted sets that it published.
    sets: Vec<String>,
    /// Its concrete index, and the name that it stands behind.
    index: Option<(String, String)>,
    /// The index that it wrote its documents into beside other runs, when that is not its own.
    pub upserts: Option<String>,
}

impl Found {
    /// Whether anything of it is in Elasticsearch.
    pub fn has_documents(&self) -> bool {
        self.index.is_some() || self.upserts.is_some()
    }
}

impl Known {
    /// Reads what S3 has of every run.
    ///
    /// # Errors
    /// When S3 does not answer, or a newer version has planned one of them.
    pub async fn read(archive: &Archive) -> Result<Self> {
        let runs = all_runs(archive, None).await?;
        let jobs: BTreeSet<&str> = runs.iter().map(|run| run.job.as_str()).collect();
        let mut known = Known::default();
        for job in jobs {
            let key = layout::live(&archive.fleet.prefix, job);
            if let Some(live) = json::<Live>(&archive.objects, &key).await? {
                known.live.insert(job.to_owned(), live.run);
                known.live_sets.extend(live.sets);
            }
        }
        let read: Vec<Option<(Seen, Found, Duration)>> = stream::iter(&runs)
            .map(|run| read_run(archive, run))
            .buffered(AT_A_TIME)
            .try_collect()
            .await?;
        for (seen, found, quota) in read.into_iter().flatten() {
            known.longest_quota = known.longest_quota.max(quota);
            known.seen.push(seen);
            known.found.push(found);
        }
        Ok(known)
    }

    /// How long ledgers stay: a quota is counted again from them.
    pub fn ledgers(&self) -> Duration {
        self.longest_quota + DAY
    }

    /// The names of sets that only these runs have published, `chosen` in the order of the runs.
    fn sets_of_nobody_else(&self, chosen: &[Fate]) -> BTreeSet<String> {
        let sets = |kept: bool| {
            let of = self.found.iter().zip(chosen);
            of.filter(move |(_, fate)| matches!(fate, Fate::Kept(_)) == kept)
                .flat_map(|(found, _)| found.sets.iter().cloned())
        };
        let stay: BTreeSet<String> = sets(true).chain(self.live_sets.iter().cloned()).collect();
        sets(false).filter(|name| !stay.contains(name)).collect()
    }
}

/// `None` when the run has no plan (any more): then it is not ours to judge.
async fn read_run(archive: &Archive, run: &RunRef) -> Result<Option<(Seen, Found, Duration)>> {
    let Some(files) = RunFiles::read(archive, run).await? else {
        return Ok(None);
    };
    let plan = &files.plan;
    let layout = RunLayout::new(&archive.fleet.prefix, run);
    let good = archive.objects.head(&layout.success()).await?.is_some();
    let open = files.open.is_some() || is_rebuilt(archive, run).await?;
    let own = |run: &RunId| RunRef {
        job: plan.job.name.clone(),
        run: run.clone(),
    };
    let inputs = &plan.inputs;
    let read = |read: &paceline_protocol::inputs::ReadRun| RunRef {
        job: read.job.clone(),
        run: read.id.clone(),
    };
    let ended = files.manifest.as_ref();
    let seen = Seen {
        run: run.clone(),
        planned_at: plan.planned_at,
        ended_at: ended.map_or(plan.planned_at, |manifest| manifest.finished_at),
        open,
        good: good && plan.only.is_empty(),
        retention: plan.job.retention.map(|span| span.0),
        changes: plan.job.changes.is_some(),
        after: plan.job.after.as_ref().map(|after| after.job.clone()),
        parent: inputs.parent.as_ref().map(read),
        reads: inputs
            .runs
            .iter()
            .map(|r| (read(r), r.planned_at))
            .collect(),
        base: plan.base.as_ref().map(own),
    };
    // An index may be named by the environment.
    let named = outputs_in_environment(plan, &ProcessEnvironment);
    let named = named.ok().flatten();
    let plan = named.as_ref().unwrap_or(plan);
    let published = ended.filter(|manifest| manifest.state == RunEnd::Completed);
    let output = plan.job.outputs.index.as_ref();
    let upsert = output.is_some_and(|index| index.mode == IndexMode::Upsert);
    let found = Found {
        run: run.clone(),
        sets: published.map_or_else(Vec::new, |m| m.sets.keys().cloned().collect()),
        index: output
            .filter(|_| !upsert)
            .map(|index| (plan.index_name(index), index.name.clone())),
        upserts: output.filter(|_| upsert).map(|index| index.name.clone()),
    };
    Ok(Some((seen, found, longest_quota(plan))))
}

async fn is_rebuilt(archive: &Archive, run: &RunRef) -> Result<bool> {
    let key = layout::rebuild(&archive.fleet.prefix, run);
    Ok(archive.objects.head(&key).await?.is_some())
}

/// The longest window of a plan's quotas.
fn longest_quota(plan: &Plan) -> Duration {
    let limits = plan.providers.values().flat_map(|p| &p.limits);
    let windows = limits.filter_map(|limit| match &limit.rule {
        LimitRule::Quota { window, .. } => Some(match window {
            CalendarWindow::Minute => Duration::from_secs(60),
            CalendarWindow::Hour => Duration::from_secs(3_600),
            CalendarWindow::Day => DAY,
            CalendarWindow::Month => 31 * DAY,
        }),
        _ => None,
    });
    windows.max().unwrap_or(Duration::ZERO)
}

/// What of a run is to be taken away.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Which run.
    pub found: Found,
    /// Whether its ledger, plan and manifest stay.
    pub keeps_ledger: bool,
    /// The keys that go, the plan last.
    pub keys: Vec<String>,
    /// How many bytes.
    pub bytes: u64,
    /// The index that goes.
    pub index: Option<String>,
}

/// What is to be done, before any of it is.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Run by run.
    pub runs: Vec<Removal>,
    /// Names of sorted sets that go.
    pub sets: BTreeSet<String>,
}

/// Works out what `chosen` (in the order of the runs) comes to. Changes nothing.
///
/// # Errors
/// When a server is away.
pub async fn work_out(
    archive: &Archive,
    index: Option<&Index>,
    known: &Known,
    chosen: &[Fate],
) -> Result<Work> {
    let goes = |fate: &Fate| !matches!(fate, Fate::Kept(_));
    let mut runs = Vec::new();
    for (found, fate) in known.found.iter().zip(chosen).filter(|(_, f)| goes(f)) {
        let layout = RunLayout::new(&archive.fleet.prefix, &found.run);
        let keeps_ledger = *fate == Fate::Ledger;
        let listed = archive.objects.list(&layout.root()).await?;
        let (keys, bytes) = going(&layout, listed, keeps_ledger);
        let own = match index {
            Some(index) => own_index(archive, index, found).await?,
            None => None,
        };
        if !keys.is_empty() || own.is_some() {
            runs.push(Removal {
                found: found.clone(),
                keeps_ledger,
                keys,
                bytes,
                index: own,
            });
        }
    }
    Ok(Work {
        runs,
        sets: known.sets_of_nobody_else(chosen),
    })
}

/// The keys that go, in this order: the mark of success first, so that nobody takes the run for a good one, and the
/// plan last, so that a clean that is cut off finds the run again.
fn going(layout: &RunLayout, listed: Vec<Listed>, keeps_ledger: bool) -> (Vec<String>, u64) {
    let (plan, manifest, ledger) = (layout.plan(), layout.manifest(), layout.ledger());
    let stays =
        |key: &str| keeps_ledger && (key == plan || key == manifest || key.starts_with(&ledger));
    let mut going: Vec<Listed> = listed
        .into_iter()
        .filter(|object| !stays(&object.key))
        .collect();
    let success = layout.success();
    going.sort_by_key(|object| match &object.key {
        key if *key == success => 0,
        key if *key == manifest => 2,
        key if *key == plan => 3,
        _ => 1,
    });
    let bytes = going.iter().map(|object| object.size).sum();
    (going.into_iter().map(|object| object.key).collect(), bytes)
}

/// The run's index, when it is there, says to be this run's, and no reader sees it.
async fn own_index(archive: &Archive, index: &Index, found: &Found) -> Result<Option<String>> {
    let Some((name, alias)) = &found.index else {
        return Ok(None);
    };
    // One of somebody else's may have its name; then its own stands beside it.
    let metas = index.metas(&format!("{name}*")).await?;
    let is_own = |meta: &serde_json::Value| {
        let says = |key: &str, value: &str| meta["paceline"][key].as_str() == Some(value);
        says("namespace", &archive.fleet.namespace)
            && says("job", &found.run.job)
            && says("run", found.run.run.as_str())
    };
    let Some((name, _)) = metas.into_iter().find(|(_, meta)| is_own(meta)) else {
        return Ok(None);
    };
    let is_read = index.behind(alias).await?.contains(&name);
    Ok((!is_read).then_some(name))
}

/// Takes away what was worked out. Cut off anywhere, the same again goes on.
///
/// # Errors
/// When a server is away.
pub async fn take_away(
    archive: &Archive,
    index: Option<&Index>,
    state: &State,
    work: &Work,
) -> Result<()> {
    for removal in &work.runs {
        let run = &removal.found.run;
        // Somebody may retry or rebuild it by now.
        if open_entry(archive, run).await?.is_some() || is_rebuilt(archive, run).await? {
            tracing::warn!(run.id = %run, "it was opened again in this moment and stays");
            continue;
        }
        let (last, others): (Vec<&String>, Vec<&String>) = removal
            .keys
            .iter()
            .partition(|key| is_last(archive, run, key));
        let (first, others) = others.split_at(1.min(others.len()));
        delete(archive, first).await?;
        if let (Some(name), Some(index)) = (&removal.index, index) {
            index.delete(name).await?;
        }
        state.forget_run(run).await?;
        delete(archive, others).await?;
        for key in last {
            archive.objects.delete(key).await?;
        }
    }
    let sets: Vec<&String> = work.sets.iter().collect();
    Ok(state.delete_sets(&sets).await?)
}

fn is_last(archive: &Archive, run: &RunRef, key: &str) -> bool {
    let layout = RunLayout::new(&archive.fleet.prefix, run);
    key == layout.plan() || key == layout.manifest()
}

async fn delete(archive: &Archive, keys: &[&String]) -> Result<()> {
    stream::iter(keys.iter().map(Ok))
        .try_for_each_concurrent(AT_A_TIME, |key| async move {
            Ok(archive.objects.delete(key).await?)
        })
        .await
}
