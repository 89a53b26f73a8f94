//! The open runs that this loader knows: plan, compiled outputs, index. A run's plan never changes, so
//! it is read once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use paceline_protocol::connector::outputs_in_environment;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, PartName, RunLayout};
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use paceline_protocol::rebuild::Rebuild;
use paceline_protocol::settings::ProcessEnvironment;
use paceline_protocol::spec::{IndexMode, IndexOutput};
use paceline_protocol::stores::state::OpenRun;
use paceline_protocol::version::Unread;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::LoadError;
use super::bulk::BulkWriter;
use super::stores::Stores;
use crate::output::documents::DocumentIds;
use crate::output::rankings::Rankings;

/// The runs, by name. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runs {
    stores: Arc<Stores>,
    known: Arc<Mutex<HashMap<RunRef, Arc<OpenedRun>>>>,
}

/// Whether a run still takes receipts.
pub(crate) enum Opening {
    /// It does.
    Open(Arc<OpenedRun>),
    /// It has ended, or was cancelled: nothing of it may come back.
    Ended,
}

/// How a run is open.
pub(crate) struct Opened {
    /// The round that it is in.
    pub(crate) round: u32,
    /// It has ended, and what it published is made again.
    pub(crate) rebuild: Option<Rebuild>,
}

/// Which parts of a run: only with `changes` are these two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// As collecting wrote them.
    Collected,
    /// What the run gives: sets and documents are made of them.
    Given,
}

/// A run with everything that loading it needs.
pub(crate) struct OpenedRun {
    pub(crate) run: RunRef,
    pub(crate) plan: Plan,
    /// Where what is collected lies.
    pub(crate) layout: RunLayout,
    /// How what the run gives is written.
    pub(crate) format: PartFormat,
    /// How what is collected is written.
    collected: PartFormat,
    pub(crate) rankings: Rankings,
    pub(crate) ids: Option<DocumentIds>,
    /// It has ended, and what it published is made again.
    pub(crate) rebuild: Option<Rebuild>,
    /// Why this version cannot load what the run should give; then `plan` is without those outputs.
    pub(crate) unloadable: Option<String>,
    index: OnceCell<String>,
    writer: OnceCell<BulkWriter>,
    stores: Arc<Stores>,
}

impl Runs {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Runs {
            stores,
            known: Arc::default(),
        }
    }

    /// The run, read from S3 when it is not known yet, or only from another life: before a rebuild, whose
    /// index may be gone.
    pub(crate) async fn open(
        &self,
        run: &RunRef,
        rebuild: Option<Uuid>,
    ) -> Result<Opening, LoadError> {
        let known = self.lock().get(run).cloned();
        // Another loader may have ended it since, and what it had may be gone: nothing of it may come back.
        if let Some(known) = known.filter(|known| known.lives_in(rebuild))
            && self.stores.state.is_registered(run).await?
        {
            return Ok(Opening::Open(known));
        }
        let Some(opened) = self.stores.open_run(run).await? else {
            tracing::info!(run.id = %run, "a receipt of a run that has ended");
            self.forget(run);
            return Ok(Opening::Ended);
        };
        let opened = Arc::new(OpenedRun::read(run, opened.rebuild, self.stores.clone()).await?);
        let mut known = self.lock();
        let kept = known.entry(run.clone()).or_insert_with(|| opened.clone());
        // What was known stays, with the index that it has begun to fill.
        if !kept.lives_in(opened.rebuild.as_ref().map(|rebuild| rebuild.id)) {
            *kept = opened;
        }
        Ok(Opening::Open(kept.clone()))
    }

    pub(crate) fn forget(&self, run: &RunRef) {
        self.lock().remove(run);
    }

    /// Forgets all others.
    pub(crate) fn keep_only(&self, runs: &BTreeSet<RunRef>) {
        self.lock().retain(|run, _| runs.contains(run));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunRef, Arc<OpenedRun>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stores {
    /// How a run is open, by the objects that say so; `None` when it has ended.
    pub(crate) async fn open_run(&self, run: &RunRef) -> Result<Option<Opened>, LoadError> {
        let prefix = &self.fleet.prefix;
        let open: Option<OpenRun> = self.read_json(&layout::open_run(prefix, run)).await?;
        if let Some(open) = open {
            return Ok(Some(Opened {
                round: open.round,
                rebuild: None,
            }));
        }
        let rebuild: Option<Rebuild> = self.read_json(&layout::rebuild(prefix, run)).await?;
        Ok(rebuild.map(|rebuild| Opened {
            round: rebuild.round,
            rebuild: Some(rebuild),
        }))
    }

    /// A JSON object in S3.
    pub(crate) async fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<T>, LoadError> {
        Ok(self.read_tagged(key).await?.map(|(read, _)| read))
    }

    /// The same with its entity tag.
    pub(crate) async fn read_tagged<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<(T, Option<String>)>, LoadError> {
        let Some(object) = self.objects.get(key).await? else {
            return Ok(None);
        };
        match serde_json::from_slice(&object.body) {
            Ok(read) => Ok(Some((read, object.etag))),
            Err(error) => Err(LoadError::Object {
                key: key.to_owned(),
                why: error.to_string(),
            }),
        }
    }
}

/// A plan's outputs, compiled.
struct Loading {
    rankings: Rankings,
    ids: Option<DocumentIds>,
}

impl Loading {
    /// What loading a run needs, or why this version cannot.
    fn of(plan: &Plan) -> Result<Self, String> {
        Ok(Loading {
            rankings: Rankings::compile(plan).map_err(|error| error.to_string())?,
            ids: DocumentIds::compile(plan).map_err(|error| error.to_string())?,
        })
    }
}

impl OpenedRun {
    async fn read(
        run: &RunRef,
        rebuild: Option<Rebuild>,
        stores: Arc<Stores>,
    ) -> Result<Self, LoadError> {
        let layout = RunLayout::new(&stores.fleet.prefix, run);
        let key = layout.plan();
        let missing = || LoadError::Object {
            key: key.clone(),
            why: "an open run has no plan".to_owned(),
        };
        let object = stores.objects.get(&key).await?.ok_or_else(missing)?;
        let mut plan = Plan::read(&object.body).map_err(|unread| match unread {
            Unread::Newer { found, .. } => LoadError::Newer(found),
            Unread::Broken(why) => LoadError::Object {
                key: key.clone(),
                why,
            },
        })?;
        let named = outputs_in_environment(&plan, &ProcessEnvironment);
        if let Some(named) = named.map_err(|lacks| LoadError::Unsupported(lacks.to_string()))? {
            plan = named;
        }
        let (Loading { rankings, ids }, unloadable) = match Loading::of(&plan) {
            Ok(loading) => (loading, None),
            Err(why) => {
                plan.job.outputs.index = None;
                plan.job.outputs.rankings.clear();
                let bare = Loading::of(&plan).map_err(LoadError::Unsupported)?;
                (bare, Some(why))
            }
        };
        Ok(OpenedRun {
            run: run.clone(),
            rankings,
            ids,
            rebuild,
            unloadable,
            format: PartFormat::of(&plan),
            collected: PartFormat::collected(&plan),
            layout: layout.collecting(&plan),
            plan,
            index: OnceCell::new(),
            writer: OnceCell::new(),
            stores,
        })
    }

    /// Whether what is known of the run is of this rebuild, or of the run itself.
    fn lives_in(&self, rebuild: Option<Uuid>) -> bool {
        self.rebuild.as_ref().map(|rebuild| rebuild.id) == rebuild
    }

    /// The job's index, when it has one.
    pub(crate) fn output(&self) -> Option<&IndexOutput> {
        self.plan.job.outputs.index.as_ref()
    }

    /// How the parts of a stage are written.
    pub(crate) fn format_of(&self, stage: Stage) -> &PartFormat {
        match stage {
            Stage::Collected => &self.collected,
            Stage::Given => &self.format,
        }
    }

    /// Where a part of a stage lies.
    pub(crate) fn part_key(&self, stage: Stage, shard: u64, name: PartName) -> String {
        let suffix = self.format_of(stage).suffix();
        match stage {
            Stage::Collected => self.layout.part(shard, name, suffix),
            Stage::Given => self.layout.clone().giving().part(shard, name, suffix),
        }
    }

    /// The writer of the run's index, which is there from now on: writing to one that is gone would make
    /// another, without its mapping and nobody's.
    pub(crate) async fn writer(&self) -> Result<Option<&BulkWriter>, LoadError> {
        let Some(output) = self.output() else {
            return Ok(None);
        };
        let name = self.index_name(output).await?;
        if self.writer.get().is_none() || !self.stores.index.exists(&name).await? {
            let body = index_body(output, &self.plan, &self.stores.fleet.namespace);
            self.stores.index.create(&name, &body).await?;
        }
        let made = async || {
            let stores = &self.stores;
            BulkWriter::new(stores.index.clone(), name, stores.metrics.clone())
        };
        Ok(Some(self.writer.get_or_init(made).await))
    }

    /// The concrete index that the run is loaded into.
    pub(crate) async fn index_name(&self, output: &IndexOutput) -> Result<String, LoadError> {
        let name = self.index.get_or_try_init(|| self.choose_index(output));
        Ok(name.await?.clone())
    }

    /// `<name>-<run>`, or beside it where that is somebody else's: of another namespace or job, or of a run whose id
    /// differs in what index names do not tell apart. Nothing of others is overwritten. Every loader chooses the same.
    async fn choose_index(&self, output: &IndexOutput) -> Result<String, LoadError> {
        let name = self.plan.index_name(output);
        if output.mode == IndexMode::Upsert {
            return Ok(name);
        }
        let (chosen, is_there) = self.free_or_own(&name).await?;
        let body = index_body(output, &self.plan, &self.stores.fleet.namespace);
        if is_there || self.stores.index.create(&chosen, &body).await? {
            return Ok(chosen);
        }
        // Somebody made it in this moment: whose it is now counts.
        Ok(self.free_or_own(&name).await?.0)
    }

    /// The name to take by what is there, and whether the run's own index is there already.
    async fn free_or_own(&self, name: &str) -> Result<(String, bool), LoadError> {
        let ours = meta(&self.plan, &self.stores.fleet.namespace);
        let beside = beside(name, &ours);
        let there = self.stores.index.metas(&format!("{name}*")).await?;
        let owner = |name: &str| there.iter().find(|(found, _)| found == name);
        let is_ours = |theirs: &Value| {
            let same = |key: &&str| theirs["paceline"][key] == ours["paceline"][key];
            OWNER.iter().all(same)
        };
        if owner(&beside).is_some() {
            return Ok((beside, true));
        }
        match owner(name) {
            None => Ok((name.to_owned(), false)),
            Some((_, theirs)) if is_ours(theirs) => Ok((name.to_owned(), true)),
            Some((_, theirs)) => {
                tracing::warn!(run.id = %self.run, index.name = name, of = %theirs["paceline"], "that index is somebody else's: the run is loaded into {beside}");
                Ok((beside, false))
            }
        }
    }
}

/// What of an index's `_meta` says whose it is.
const OWNER: [&str; 3] = ["namespace", "job", "run"];

/// A name beside `name` for the run of this `_meta` alone.
fn beside(name: &str, meta: &Value) -> String {
    let owner = OWNER.map(|key| meta["paceline"][key].as_str().unwrap_or_default());
    let digest = hex::encode(Sha256::digest(owner.join("\n")));
    format!("{name}-{}", &digest[..8])
}

/// Settings and mapping of a new index. A snapshot is filled without refreshes and copies; both come when
/// it is finished.
fn index_body(output: &IndexOutput, plan: &Plan, namespace: &str) -> Value {
    let settings = match output.mode {
        IndexMode::Snapshot => json!({ "refresh_interval": "-1", "number_of_replicas": 0 }),
        IndexMode::Upsert => json!({ "auto_expand_replicas": "0-1" }),
    };
    let property = |kind: &Value| match kind {
        Value::String(name) => json!({ "type": name }),
        whole => whole.clone(),
    };
    let properties: serde_json::Map<String, Value> = output
        .mapping
        .iter()
        .map(|(field, kind)| (field.clone(), property(kind)))
        .collect();
    json!({
        "settings": { "index": settings },
        "mappings": { "dynamic": false, "_meta": meta(plan, namespace), "properties": properties },
    })
}

/// What an index says of itself: nothing is ever deleted by its name alone.
fn meta(plan: &Plan, namespace: &str) -> Value {
    json!({ "paceline": {
        "namespace": namespace,
        "job": plan.job.name,
        "run": plan.run,
        "planned_at": plan.planned_at,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::{plan, snapshot};

    #[test]
    fn what_this_version_cannot_load_is_said() {
        let mut broken = plan(4);
        broken.job.outputs.index = Some(snapshot("{{ night"));
        assert!(Loading::of(&broken).is_err_and(|why| why.contains("{{ night")));
        assert!(Loading::of(&plan(4)).is_ok());
    }

    #[test]
    fn an_index_has_the_runs_name_in_lower_case() {
        let mut plan = plan(4);
        plan.run = "Nightly_1.b".parse().expect("a run id");
        let mut output = snapshot("{{ night }}");
        assert_eq!(plan.index_name(&output), "fares-nightly_1.b");
        output.mode = IndexMode::Upsert;
        assert_eq!(plan.index_name(&output), "fares");
    }

    #[test]
    fn a_mapping_takes_types_and_whole_properties() {
        let mut output = snapshot("{{ night }}");
        output.mapping.insert("price".into(), "double".into());
        output
            .mapping
            .insert("title".into(), json!({ "type": "text", "index": false }));
        let body = index_body(&output, &plan(4), "paceline");
        assert_eq!(
            body["mappings"]["properties"]["price"],
            json!({ "type": "double" })
        );
        assert_eq!(
            body["mappings"]["properties"]["title"]["index"],
            json!(false)
        );
        assert_eq!(
            body["mappings"]["_meta"]["paceline"]["run"],
            json!("2026-11-21")
        );
        assert_eq!(body["mappings"]["dynamic"], json!(false));
    }
}
