//! The checker: holds what a finished run has left against what was promised, and tells every breach.
//!
//! It reads S3, Redis and Elasticsearch with plain clients and works out anew what must be there: from
//! the plan the cells, from the parts' metadata how they ended, from the rows the documents and members.

mod outputs;
mod parts;
mod secrets;

use std::fmt;

use anyhow::Context;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::Manifest;
use paceline_protocol::plan::Plan;
use serde_json::Value;

use crate::{Bucket, Fleet};

pub use outputs::Outputs;
pub use parts::Collected;

/// A row of a part or of the failures.
pub type Row = serde_json::Map<String, Value>;

/// What was found: breaches, and the numbers that a test may want to look at.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Everything that is not as promised.
    pub breaches: Vec<String>,
    /// Cells of the plan.
    pub cells: u64,
    /// Records over all parts.
    pub records: u64,
    /// Failed cells.
    pub failed: u64,
    /// Documents behind the run's index.
    pub documents: u64,
}

impl Verdict {
    /// # Panics
    /// When there is any breach; the message lists the first twenty.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(self.breaches.is_empty(), "{self}");
    }

    fn demand(&mut self, holds: bool, breach: impl FnOnce() -> String) {
        if !holds {
            self.breaches.push(breach());
        }
    }

    fn demand_equal<T: PartialEq + fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        self.demand(found == expected, || {
            format!("{what}: {found:?}, expected {expected:?}")
        });
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} breaches of the promise:", self.breaches.len())?;
        for breach in self.breaches.iter().take(20) {
            writeln!(f, "  {breach}")?;
        }
        Ok(())
    }
}

/// Checks one run of one job.
pub struct Checker<'a> {
    fleet: &'a Fleet,
    run: RunRef,
    outputs: Outputs,
    canaries: Vec<String>,
    referee: Option<Value>,
}

impl<'a> Checker<'a> {
    /// A checker for `run` of `job`, whose `outputs` are known.
    ///
    /// # Errors
    /// When `run` is no run id.
    pub fn new(fleet: &'a Fleet, job: &str, run: &str, outputs: Outputs) -> anyhow::Result<Self> {
        let run = RunRef {
            job: job.to_owned(),
            run: run.trim().parse()?,
        };
        Ok(Checker {
            fleet,
            run,
            outputs,
            canaries: Vec::new(),
            referee: None,
        })
    }

    /// `text` (a key given to the workers) must be in no log, object or message.
    pub fn secret(mut self, text: impl Into<String>) -> Self {
        self.canaries.push(text.into());
        self
    }

    /// What the provider saw (the simulator's report): it must have refused nothing.
    pub fn referee(mut self, report: Value) -> Self {
        self.referee = Some(report);
        self
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// When a server cannot be read. What is wrong with the run is in the verdict.
    pub async fn check(&self) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict::default();
        let bucket = Bucket::of(self.fleet);
        let layout = RunLayout::new(self.fleet.value("PACELINE_PREFIX"), &self.run);
        let plan: Plan = read(&bucket, &layout.plan()).await?;
        let manifest: Manifest = read(&bucket, &layout.manifest()).await?;
        let collected = Collected::read(&bucket, &layout).await?;

        verdict.cells = plan.cells();
        verdict.records = collected.records();
        verdict.failed = collected.failures.len() as u64;
        collected.check_cells(&plan, &mut verdict);
        collected.check_manifest(&manifest, &mut verdict);
        self.outputs
            .check(self.fleet, &self.run, &collected, &manifest, &mut verdict)
            .await?;
        secrets::check(self.fleet, &bucket, &self.canaries, &mut verdict).await?;
        if let Some(report) = &self.referee {
            check_referee(report, &mut verdict);
        }
        Ok(verdict)
    }
}

async fn read<T: serde::de::DeserializeOwned>(bucket: &Bucket, key: &str) -> anyhow::Result<T> {
    let object = bucket.get(key).await?;
    serde_json::from_slice(&object.body).with_context(|| format!("{key} does not parse"))
}

fn check_referee(report: &Value, verdict: &mut Verdict) {
    let refused = report.get("refused").and_then(Value::as_u64);
    verdict.demand_equal("calls that the provider refused", refused, Some(0));
}
