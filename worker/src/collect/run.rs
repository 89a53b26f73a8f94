//! A run as a collector sees it: its plan, compiled once, and what this worker needs to serve it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use paceline_protocol::connector::{
    CompileError, Connector, Pool, PoolError, in_environment, outputs_in_environment,
};
use paceline_protocol::http::HttpClient;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::{self, RunLayout};
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::MissingNames;
use paceline_protocol::stores::objects::{ObjectError, Objects};
use tokio::sync::Mutex;

use super::governor::Governor;
use super::ledger::Ledger;
use super::source::{Source, SourceError};
use super::spent::Spent;
use crate::output::rankings::Rankings;

/// One run at one provider, ready to be called.
#[derive(Debug)]
pub struct RunAtProvider {
    /// Its connector.
    pub connector: Connector,
    /// Its credentials.
    pub pool: Pool,
    /// Its HTTP client.
    pub http: HttpClient,
    /// This process' own limiter.
    pub governor: Governor,
    /// Where its cells are read, when it is no HTTP API.
    pub source: Option<Source>,
}

/// A run, compiled.
#[derive(Debug)]
pub struct Run {
    /// Which run.
    pub id: RunRef,
    /// `<job>/<run>`, as grants are counted by.
    pub name: String,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Where its objects lie.
    pub layout: RunLayout,
    /// How its parts are written.
    pub format: PartFormat,
    /// Its sorted sets.
    pub rankings: Rankings,
    /// This worker's rows of its ledger.
    pub ledger: Ledger,
    /// Calls of this worker, and their time, that no settled block has told of yet.
    pub spent: Spent,
    providers: BTreeMap<String, Arc<RunAtProvider>>,
}

/// Why a run cannot be served by this worker.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// There is no plan, or it is not one.
    #[error("{key}: {why}")]
    Plan {
        /// The plan's key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The plan does not fit this build.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// This worker lacks what calls are made of.
    #[error(transparent)]
    Environment(#[from] MissingNames),
    /// A source that is no HTTP API.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// This worker lacks the credentials.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// TLS.
    #[error("the HTTP client cannot be made: {0}")]
    Http(#[from] reqwest::Error),
}

impl Run {
    /// The run at `provider`.
    pub fn at(&self, provider: &str) -> Option<&Arc<RunAtProvider>> {
        self.providers.get(provider)
    }

    async fn load(
        objects: &Objects,
        prefix: &str,
        id: &RunRef,
        worker: &str,
        env: &impl Environment,
    ) -> Result<Self, RunError> {
        let layout = RunLayout::new(prefix, id);
        let key = layout.plan();
        let broken = |why: String| RunError::Plan {
            key: key.clone(),
            why,
        };
        let object = objects
            .get(&key)
            .await?
            .ok_or_else(|| broken("there is no such object".into()))?;
        let plan = Plan::read(&object.body).map_err(|unread| broken(unread.to_string()))?;
        let plan = outputs_in_environment(&plan, env)?.unwrap_or(plan);
        let layout = layout.collecting(&plan);
        let mut providers = BTreeMap::new();
        for (name, provider) in &plan.providers {
            let called = in_environment(&plan, name, env)?;
            let at = RunAtProvider {
                connector: Connector::compile(called.as_ref().unwrap_or(&plan), name)?,
                pool: Pool::read(provider, env)?,
                http: HttpClient::new(provider.timeout)?,
                governor: Governor::new(provider),
                source: Source::open(&plan, provider, objects, prefix, env).await?,
            };
            providers.insert(name.clone(), Arc::new(at));
        }
        Ok(Run {
            name: id.to_string(),
            id: id.clone(),
            format: PartFormat::collected(&plan),
            rankings: match plan.merges() {
                // Its sets are made of the merged records, by the finisher.
                true => Rankings::none(),
                false => Rankings::compile(&plan).map_err(|e| broken(e.to_string()))?,
            },
            ledger: Ledger::new(layout.clone(), worker),
            spent: Spent::default(),
            plan: Arc::new(plan),
            layout,
            providers,
        })
    }
}

/// The runs that this worker has read, each once.
pub struct Runs<E> {
    objects: Objects,
    prefix: String,
    worker: String,
    env: E,
    known: Mutex<HashMap<RunRef, Arc<Run>>>,
}

impl<E: Environment> Runs<E> {
    /// None read yet.
    pub fn new(objects: Objects, prefix: &str, worker: &str, env: E) -> Self {
        Runs {
            objects,
            prefix: prefix.to_owned(),
            worker: worker.to_owned(),
            env,
            known: Mutex::default(),
        }
    }

    /// Where the open runs are listed in S3.
    pub fn open_prefix(&self) -> String {
        layout::open_runs(&self.prefix)
    }

    /// The run called `id`, read from S3 the first time.
    ///
    /// # Errors
    /// When it cannot be served by this worker.
    pub async fn get(&self, id: &RunRef) -> Result<Arc<Run>, RunError> {
        let mut known = self.known.lock().await;
        if let Some(run) = known.get(id) {
            return Ok(run.clone());
        }
        let run =
            Arc::new(Run::load(&self.objects, &self.prefix, id, &self.worker, &self.env).await?);
        known.insert(id.clone(), run.clone());
        Ok(run)
    }

    /// Forgets the runs that are not among `open` any more, that nobody works on, and whose ledger is written; what is
    /// left of it (a token's request, or S3 was away) is written now.
    pub async fn forget_ended(&self, open: &[RunRef]) {
        let mut known = self.known.lock().await;
        let mut unwritten = Vec::new();
        known.retain(|id, run| {
            if open.contains(id) || Arc::strong_count(run) > 1 {
                return true;
            }
            let rows = !run.ledger.is_empty();
            if rows {
                unwritten.push(run.clone());
            }
            rows
        });
        drop(known);
        for run in unwritten {
            if let Err(error) = run.ledger.flush(&self.objects).await {
                tracing::warn!(run.id = %run.id, error = %error, "the ledger is not written yet");
            }
        }
    }

    /// Every run that has been read.
    pub async fn all(&self) -> Vec<Arc<Run>> {
        self.known.lock().await.values().cloned().collect()
    }
}
