//! Finishing a run: count, judge, publish, say so, clean up. Under a lease, and yet every step can be done
//! twice: whoever dies in the middle leaves the run open, and its receipt comes again.

mod at_once;
mod documents;
mod gate;
mod keep;
mod lease;
mod merge;
mod objects;
mod publish;
mod rebuilt;
mod scores;
mod stale;
mod stand_ins;
mod standing;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use paceline_protocol::layout;
use paceline_protocol::manifest::{Live, Manifest, ManifestPart, RunEnd};
use paceline_protocol::message::PartSummary;
use paceline_protocol::stores::traces;
use tracing::Instrument;

use super::runs::{Opened, OpenedRun, Stage};
use super::{LoadError, Loader};
use crate::crash;
use crate::output::failures;
use crate::output::part::name_of;
use crate::traced;
use gate::Verdict;
use lease::Lease;
use merge::Merged;
use publish::Published;
use tally::Tally;

/// How long a finished run's own keys stay in Redis, for `status` and a retry; both can do without.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// What every loaded shard came to: its parts, and its rejected documents.
type Shards = BTreeMap<u64, (Vec<PartSummary>, u64)>;

/// A finish in hand.
struct Finish<'a> {
    loader: &'a Loader,
    run: &'a OpenedRun,
    open: Opened,
    /// What the shards came to; once merged, by the merged parts.
    shards: Shards,
    merged: Option<Merged>,
    /// What others may have replaced is written only while it is held.
    lease: Lease,
    /// The entity tag of the `live.json` that was read.
    live_tag: Option<String>,
    /// That of the manifest of an earlier round.
    manifest_tag: Option<String>,
}

impl Loader {
    /// Finishes the run when nothing of it is missing.
    pub(crate) async fn finish_if_complete(&self, run: &Arc<OpenedRun>) -> Result<(), LoadError> {
        let Some(finish) = self.begin_finish(run).await? else {
            return Ok(());
        };
        if finish.is_complete() {
            let finish = async |lease| self.finish_under_lease(run, lease, None).await;
            self.with_lease(run, finish).await?;
        }
        Ok(())
    }

    /// Ends the run at once when more than 1 % of its documents were rejected: then the mapping is wrong,
    /// not a document.
    pub(crate) async fn stop_if_too_many_rejected(&self, run: &OpenedRun) -> Result<(), LoadError> {
        let Some(finish) = self.begin_finish(run).await? else {
            return Ok(());
        };
        let tally = Tally::of(&run.plan, &finish.shards);
        match gate::too_many_rejected(tally.rejected, tally.records) {
            Some(why) => {
                let stop = async |lease| self.finish_under_lease(run, lease, Some(why)).await;
                self.with_lease(run, stop).await
            }
            None => Ok(()),
        }
    }

    /// Ends a run that this version cannot load: what was collected stays in S3, and the manifest names it
    /// and says why there is nothing more.
    pub(crate) async fn end_unloadable(
        &self,
        run: &OpenedRun,
        why: String,
    ) -> Result<(), LoadError> {
        tracing::error!(run.id = %run.run, why, "a run cannot be loaded and ends; its parts stay in S3");
        let note = format!("not loaded: {why}; what was collected is in the parts");
        let end = async |lease| self.finish_under_lease(run, lease, Some(note)).await;
        self.with_lease(run, end).await
    }

    /// What is known of the run; `None` when it has ended.
    async fn begin_finish<'a>(
        &'a self,
        run: &'a OpenedRun,
    ) -> Result<Option<Finish<'a>>, LoadError> {
        let Some(open) = self.stores.open_run(&run.run).await? else {
            // Whoever ended it may have died before it left the registry.
            self.stores.state.remove_open_run(&run.run).await?;
            self.close(run);
            return Ok(None);
        };
        let shards = match run.unloadable {
            None => self.stores.state.loaded_shards(&run.run).await?,
            Some(_) => self.collected(run).await?,
        };
        Ok(Some(Finish {
            loader: self,
            run,
            open,
            shards,
            merged: None,
            lease: Lease::default(),
            live_tag: None,
            manifest_tag: None,
        }))
    }

    /// What every shard came to by its parts in S3 alone.
    async fn collected(&self, run: &OpenedRun) -> Result<Shards, LoadError> {
        let mut shards = Shards::new();
        for shard in self.parts_in_s3(run).await?.into_keys() {
            shards.insert(shard, (self.summaries(run, shard).await?, 0));
        }
        Ok(shards)
    }

    /// Looks again, since the lease may have been waited for, and finishes; with `stopped`, in the middle.
    async fn finish_under_lease(
        &self,
        run: &OpenedRun,
        lease: Lease,
        stopped: Option<String>,
    ) -> Result<(), LoadError> {
        match self.begin_finish(run).await? {
            Some(mut finish) if stopped.is_some() || finish.is_complete() => {
                finish.lease = lease;
                let span = traced::finish(&run.plan, finish.open.round);
                // Boxed: the steps of a finish are large, and each layer around them would copy them.
                let finishing = Box::pin(finish.finish(stopped));
                let finished = finishing.instrument(span.lines()).await;
                if let Err(error) = &finished {
                    span.failed(error.to_string());
                }
                finished
            }
            _ => Ok(()),
        }
    }
}

impl Finish<'_> {
    /// Every shard is loaded, and what the round under way owes is there.
    fn is_complete(&self) -> bool {
        self.shards.len() as u64 >= self.run.plan.shards()
            && (self.open.round == 0
                || self.shards.iter().all(|(shard, (parts, _))| {
                    self.run.owes_nothing(*shard, parts, self.open.round)
                }))
    }

    async fn finish(&mut self, stopped: Option<String>) -> Result<(), LoadError> {
        let begun = std::time::Instant::now();
        crash::point("finish-begun");
        match &stopped {
            None => self.take_merged().await?,
            Some(_) if self.open.rebuild.is_none() => self.end_queues().await?,
            Some(_) => {}
        }
        let live = self.live().await?;
        let objects = &self.loader.stores.objects;
        let before = objects.get(&self.run.layout.manifest()).await?;
        self.manifest_tag = before.and_then(|object| object.etag);
        let mut tally = Tally::of(&self.run.plan, &self.shards);
        tally.doubles = self.merged.as_ref().map_or(0, |merged| merged.doubles);
        let base = live
            .as_ref()
            // What is made again has been judged before.
            .filter(|_| self.open.rebuild.is_none())
            .and_then(|live| previous_records(live, self.run));
        let mut verdict = match stopped {
            Some(why) => Verdict::failed(why),
            None => gate::judge(&self.run.plan, &tally, base),
        };
        if let Some(merged) = &self.merged {
            merged.judge(&self.run.plan, &mut verdict);
        }
        self.name_stand_ins(&mut verdict).await?;
        let documents = self.check_documents(&mut tally, &mut verdict).await?;
        let published = Box::pin(self.publish(&tally, &mut verdict, live)).await?;
        if let Some(rebuild) = &self.open.rebuild {
            let sets = published.sets;
            return self.end_rebuild(rebuild, &verdict, documents, sets).await;
        }
        let manifest = self
            .manifest(&tally, &verdict, documents, published)
            .await?;
        self.say(&manifest, verdict.passed).await?;
        if self.open.round == 0 {
            let state = manifest.state.as_str();
            traces::run_ended(&self.run.plan, state, manifest.cells, manifest.failed);
        }
        self.clean_up(&verdict).await?;
        crash::point("finish-before-announcement");
        self.announce(&manifest).await;
        tracing::info!(
            run.id = %self.run.run, run.state = ?manifest.state, cells = manifest.cells,
            records = manifest.records, documents, notes = ?manifest.notes,
            took.ms = begun.elapsed().as_millis() as u64, "finished",
        );
        Ok(())
    }

    /// Merges where the job asks for it, and loads what comes of it: before that nothing was loaded.
    async fn take_merged(&mut self) -> Result<(), LoadError> {
        let Some(merged) = self.merge().await? else {
            return Ok(());
        };
        self.shards = merged.shards_of(&self.shards);
        let is_loaded = merged.fault(&self.run.plan).is_none();
        self.merged = Some(merged);
        if is_loaded {
            self.delete_stale().await?;
            self.load_all().await?;
        }
        Ok(())
    }

    /// What the newest good run published, remembered as what may be written over.
    async fn live(&mut self) -> Result<Option<Live>, LoadError> {
        let key = layout::live(&self.loader.stores.fleet.prefix, &self.run.run.job);
        let found = self.loader.stores.read_tagged(&key).await?;
        let (live, tag) = found.unzip();
        self.live_tag = tag.flatten();
        Ok(live)
    }

    async fn end_queues(&self) -> Result<(), LoadError> {
        let lanes = self.run.plan.lanes();
        let publisher = &self.loader.stores.publisher;
        Ok(publisher.end_queues(&lanes, &self.run.run).await?)
    }

    async fn manifest(
        &self,
        tally: &Tally,
        verdict: &Verdict,
        documents: u64,
        published: Published,
    ) -> Result<Manifest, LoadError> {
        let plan = &self.run.plan;
        let state = if verdict.passed {
            RunEnd::Completed
        } else {
            RunEnd::Failed
        };
        Ok(Manifest {
            job: plan.job.name.clone(),
            run: plan.run.clone(),
            state,
            planned_at: plan.planned_at,
            finished_at: Timestamp::now(),
            cells: tally.cells,
            succeeded: tally.succeeded,
            empty: tally.empty,
            failed: tally.failed + tally.not_collected,
            reasons: self.reasons(tally).await?,
            records: tally.records,
            parts: self.parts(),
            documents,
            rejected: tally.rejected,
            sets: published.sets,
            limits: limits(self.run),
            truncated: tally.truncated,
            missing: tally.missing,
            gone: self.merged.as_ref().map_or(0, |merged| merged.gone),
            calls_saved: plan.inputs.calls_saved(plan.cells()),
            notes: verdict.notes.iter().cloned().chain(tally.notes()).collect(),
            standings: published.standings,
        })
    }

    fn parts(&self) -> Vec<ManifestPart> {
        let stage = match self.merged {
            Some(_) => Stage::Given,
            None => Stage::Collected,
        };
        let mut all = Vec::new();
        for (shard, (parts, _)) in &self.shards {
            let mut parts: Vec<&PartSummary> = parts.iter().collect();
            parts.sort_by_key(|part| name_of(part));
            all.extend(parts.into_iter().map(|part| ManifestPart {
                key: self.run.part_key(stage, *shard, name_of(part)),
                cells: tally::covered(part),
                records: part.records,
            }));
        }
        all
    }

    /// Failed cells by reason, out of the failures objects; from here on these name just the cells that failed in the end.
    async fn reasons(&self, tally: &Tally) -> Result<BTreeMap<String, u64>, LoadError> {
        let objects = &self.loader.stores.objects;
        let listed = objects.list(&self.run.layout.all_failures()).await?;
        let listed: BTreeSet<String> = listed.into_iter().map(|listed| listed.key).collect();
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for (shard, (parts, _)) in &self.shards {
            let failed = tally::failed_cells(&self.run.plan, *shard, parts);
            let key = self.run.layout.failures(*shard);
            if failed.is_empty() && !listed.contains(&key) {
                continue;
            }
            let object = objects.get(&key).await?;
            let mut body = object.map(|object| object.body).unwrap_or_default();
            if let Some(mended) = failures::mended(&body, &failed, &self.run.plan) {
                tracing::warn!(run.id = %self.run.run, shard.id = *shard, "its failures were not those of its parts: two workers had it at a time");
                body = mended;
                objects.put(&key, body.clone(), &[]).await?;
            }
            for (row, _) in failures::rows(&body) {
                *reasons.entry(row.reason).or_default() += 1;
            }
        }
        if tally.not_collected > 0 {
            reasons.insert("not_collected".to_owned(), tally.not_collected);
        }
        Ok(reasons)
    }

    /// The manifest, and `_SUCCESS` behind it.
    async fn say(&self, manifest: &Manifest, passed: bool) -> Result<(), LoadError> {
        let objects = &self.loader.stores.objects;
        let layout = &self.run.layout;
        crash::point("finish-before-manifest");
        self.lease.holds()?;
        let over = self.manifest_tag.as_deref();
        let body = to_json(manifest);
        if !objects.put_over(&layout.manifest(), body, over).await? {
            // Another loader finished this round, or a later one, meanwhile.
            return Err(LoadError::LeaseLost);
        }
        crash::point("finish-before-success");
        if passed {
            let plan = &self.run.plan;
            let said = [
                ("planned", plan.planned_at.to_string()),
                ("date", plan.date.to_string()),
                ("narrowed", (!plan.only.is_empty()).to_string()),
                ("round", self.open.round.to_string()),
            ];
            objects.put(&layout.success(), Bytes::new(), &said).await?;
        }
        Ok(())
    }

    /// Takes the run out of everything that is open. The object in S3 goes before the registry, which is
    /// rebuilt from it; what Redis knows of the run gets its end before, since from then on a retry may
    /// open the run again and keep it.
    async fn clean_up(&self, verdict: &Verdict) -> Result<(), LoadError> {
        let stores = &self.loader.stores;
        crash::point("finish-before-clean-up");
        self.lease.holds()?;
        if verdict.publish {
            self.remove_old_indices().await?;
        }
        self.end_queues().await?;
        stores.state.expire_run(&self.run.run, REMEMBERED).await?;
        crash::point("finish-before-end");
        stores
            .objects
            .delete(&layout::open_run(&stores.fleet.prefix, &self.run.run))
            .await?;
        crash::point("finish-before-registry");
        stores.state.remove_open_run(&self.run.run).await?;
        self.loader.close(self.run);
        Ok(())
    }

    /// Tells whoever listens. The run has ended already, so a broker that is away changes nothing.
    async fn announce(&self, manifest: &Manifest) {
        let topic = match manifest.state {
            RunEnd::Completed => "run.completed",
            RunEnd::Failed | RunEnd::Cancelled => "run.failed",
        };
        let body = serde_json::json!({
            "job": manifest.job, "run": manifest.run, "state": manifest.state,
            "cells": manifest.cells, "succeeded": manifest.succeeded, "empty": manifest.empty,
            "failed": manifest.failed, "records": manifest.records,
            "documents": manifest.documents, "notes": manifest.notes, "round": self.open.round,
        });
        if let Err(error) = self.loader.stores.publisher.event(topic, &body).await {
            tracing::warn!(run.id = %self.run.run, %error, "the end of the run could not be announced");
        }
    }
}

/// Records of the last good run before this one: while this one is live itself, of the one before it.
fn previous_records(live: &Live, run: &OpenedRun) -> Option<u64> {
    if live.run == run.run.run {
        live.previous_records
    } else {
        Some(live.records)
    }
}

fn limits(run: &OpenedRun) -> serde_json::Value {
    let by_provider = run.plan.providers.iter().map(|(name, provider)| {
        let limits = serde_json::to_value(&provider.limits).expect("limits are plain data");
        (name.clone(), limits)
    });
    serde_json::Value::Object(by_provider.collect())
}

fn to_json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec_pretty(value)
        .expect("plain data with text keys always serialises")
        .into()
}
