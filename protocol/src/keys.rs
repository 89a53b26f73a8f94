//! The names in Redis. Every one starts with the namespace; all keys of one provider's limits share a
//! hash tag, all keys of one run share another.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::ids::RunRef;
use crate::limit::{Instance, Rule, tag_of};

/// The names of one namespace (`PACELINE_NAMESPACE`).
#[derive(Clone, Debug)]
pub struct Keys {
    namespace: String,
}

impl Keys {
    /// The keys of the fleet called `namespace`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Keys {
            namespace: namespace.into(),
        }
    }

    /// What all keys of a provider's limits (or of a shared limit's name) begin with.
    pub fn limits(&self, provider: &str) -> String {
        format!("{}:{{{}}}", self.namespace, tag_of(provider))
    }

    /// Hash of what a provider's answers closed.
    pub fn closures(&self, provider: &str) -> String {
        format!("{}:closed", self.limits(provider))
    }

    /// Hash of one limit's state for one scope.
    pub fn limit(&self, provider: &str, limit: &Instance) -> String {
        let kind = match limit.rule {
            Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => "paced",
            Rule::Concurrency { .. } => "leases",
            Rule::Quota { .. } => "quota",
        };
        let scope = short(&limit.scope);
        format!("{}:{kind}:{}:{scope}", self.limits(provider), limit.limit)
    }

    /// Somebody puts the next mark of this quota.
    pub fn marking(&self, provider: &str, quota: &Instance) -> String {
        let scope = short(&quota.scope);
        format!("{}:marking:{}:{scope}", self.limits(provider), quota.limit)
    }

    /// Number of grants given to `<job>/<run>`.
    pub fn granted(&self, provider: &str, run: &str) -> String {
        format!("{}:granted:{run}", self.limits(provider))
    }

    /// Number of those that were dropped: no call was made.
    pub fn dropped(&self, provider: &str, run: &str) -> String {
        format!("{}:dropped:{run}", self.limits(provider))
    }

    /// Hash of who works on `<job>/<run>/<shard>/<round>`.
    pub fn claim(&self, provider: &str, shard: &str) -> String {
        format!("{}:claim:{shard}", self.limits(provider))
    }

    /// Hash of one credential's token or session, and of who renews it.
    pub fn token(&self, provider: &str, credential: &str) -> String {
        format!("{}:token:{{{provider}}}:{credential}", self.namespace)
    }

    /// What all keys of a run begin with.
    fn run(&self, run: &RunRef) -> String {
        format!("{}:run:{{{run}}}", self.namespace)
    }

    /// Hash of the open runs: `<job>/<run>` -> their state.
    pub fn open_runs(&self) -> String {
        format!("{}:open-runs", self.namespace)
    }

    /// Sorted set of which lanes are taken: a collector's choice -> when one with it was seen last.
    pub fn takers(&self) -> String {
        format!("{}:takers", self.namespace)
    }

    /// Hash of a run's counters (cells by end, records, calls), moved with the blocks' bits.
    pub fn progress(&self, run: &RunRef) -> String {
        format!("{}:progress", self.run(run))
    }

    /// Hash of the same counters by the value of `progress_by`.
    pub fn progress_by(&self, run: &RunRef) -> String {
        format!("{}:progress-by", self.run(run))
    }

    /// Bitmap of the blocks whose part is counted and in the sets.
    pub fn settled_blocks(&self, run: &RunRef) -> String {
        format!("{}:settled", self.run(run))
    }

    /// Bitmap of the shards that are loaded.
    pub fn loaded_shards(&self, run: &RunRef) -> String {
        format!("{}:loaded", self.run(run))
    }

    /// Why the run's loader waits, said for a while.
    pub fn loader_waits(&self, run: &RunRef) -> String {
        format!("{}:waits", self.run(run))
    }

    /// Why a collector cannot serve the run, said for a while.
    pub fn unserved(&self, run: &RunRef) -> String {
        format!("{}:unserved", self.run(run))
    }

    /// Hash of what the loaded shards came to: number -> JSON.
    pub fn shard_summaries(&self, run: &RunRef) -> String {
        format!("{}:shards", self.run(run))
    }

    /// Set of the names of a run's own sorted sets.
    pub fn run_sets(&self, run: &RunRef) -> String {
        format!("{}:sets", self.run(run))
    }

    /// A run's own sorted set, which gets the `name` that the job names when the run is good.
    pub fn run_set(&self, run: &RunRef, name: &str) -> String {
        format!("{}:set:{name}", self.run(run))
    }

    /// Beside a set that keeps the last score: member -> the cell that its score comes from.
    pub fn run_set_cells(&self, run: &RunRef, name: &str) -> String {
        format!("{}:cells:{name}", self.run(run))
    }

    /// Hash of the run's sets that took the job's names: name -> members when that happened.
    pub fn published_sets(&self, run: &RunRef) -> String {
        format!("{}:published", self.run(run))
    }

    /// The lease of the `producer serve` that starts runs, and the number that it has as a fence.
    pub fn serving(&self) -> [String; 2] {
        let lease = format!("{}:{{serve}}:lease", self.namespace);
        [lease, format!("{}:{{serve}}:fence", self.namespace)]
    }

    /// Hash of what `producer serve` remembers: name -> JSON.
    pub fn serve_notes(&self) -> String {
        format!("{}:{{serve}}:notes", self.namespace)
    }

    /// Sorted set of the starts that have begun and not ended: `<job>/<run>` -> when, in seconds.
    pub fn starts(&self) -> String {
        format!("{}:{{serve}}:starts", self.namespace)
    }

    /// List of the webhooks that were called last, newest first.
    pub fn deliveries(&self) -> String {
        format!("{}:{{serve}}:deliveries", self.namespace)
    }

    /// That a webhook has been told of an event.
    pub fn told(&self, id: &str) -> String {
        format!("{}:told:{id}", self.namespace)
    }

    /// The lease of whoever finishes a run of `job`.
    pub fn finisher(&self, job: &str) -> String {
        format!("{}:finisher:{job}", self.namespace)
    }
}

/// A scope may be any text, also a long one; a long one goes by its digest.
fn short(scope: &str) -> Cow<'_, str> {
    if scope.len() <= 100 {
        return Cow::Borrowed(scope);
    }
    Cow::Owned(format!("sha256-{}", hex::encode(Sha256::digest(scope))))
}
