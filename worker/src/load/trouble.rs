//! What people hear of an arrival that cannot be settled yet: every reason once as a warning, and as an
//! error what stays so and ends only when somebody does something.

use paceline_protocol::ids::RunRef;
use paceline_protocol::stores::broker::Arrival;

use super::LoadError;

/// After so many tries with one outcome (about eight seconds) somebody is called.
const TRIES: u32 = 6;

/// The tries of one arrival.
pub(super) struct Trouble {
    run: Option<RunRef>,
    shard: Option<u64>,
    why: String,
    tries: u32,
}

impl Trouble {
    pub(super) fn of(arrival: &Arrival) -> Self {
        let (run, shard) = match arrival {
            Arrival::Receipt(receipt) => (Some(receipt.run_ref()), receipt.shard),
            Arrival::DeadShard(shard, _) => (Some(shard.run_ref()), Some(shard.shard)),
            Arrival::Newer(_) | Arrival::Unreadable(_) => (None, None),
        };
        Trouble {
            run,
            shard,
            why: String::new(),
            tries: 0,
        }
    }

    /// The run that it is about.
    pub(super) fn run(&self) -> Option<&RunRef> {
        self.run.as_ref()
    }

    /// Tells of a try that failed.
    pub(super) fn tell(&mut self, error: &LoadError) {
        let why = error.to_string();
        let new = self.is_new(&why);
        let run = self.run.as_ref().map(tracing::field::display);
        if new {
            tracing::warn!(
                run.id = run,
                shard.id = self.shard,
                error = why,
                "a receipt waits and is tried again"
            );
        }
        if self.tries != TRIES {
            return;
        }
        let Some(remedy) = self.run.as_ref().and_then(|run| remedy(error, run)) else {
            return;
        };
        let key = match error {
            LoadError::Part { key, .. } | LoadError::Object { key, .. } => Some(key),
            _ => None,
        };
        tracing::error!(
            run.id = run,
            shard.id = self.shard,
            object.key = key,
            error = why,
            "the run cannot end like this: {remedy}"
        );
    }

    /// Counts the try; true when its reason differs from the last one's.
    fn is_new(&mut self, why: &str) -> bool {
        let new = self.why != why;
        if new {
            self.why = why.to_owned();
            self.tries = 0;
        }
        self.tries += 1;
        new
    }
}

/// What somebody has to do; `None` where waiting helps.
fn remedy(error: &LoadError, run: &RunRef) -> Option<String> {
    match error {
        LoadError::Part { key, .. } => Some(format!(
            "put the right {key} back, or delete it and start `producer enqueue {} --run-id {}` (in a retry `producer retry {run}`), which collects its cells again",
            run.job, run.run
        )),
        LoadError::Object { key, .. } => Some(format!(
            "put the right {key} back, or give the run up with `producer cancel {run}`"
        )),
        LoadError::Unsupported(_) => Some(format!(
            "start a `worker load` of the version that planned it, or give the run up with `producer cancel {run}`"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble() -> Trouble {
        Trouble {
            run: None,
            shard: None,
            why: String::new(),
            tries: 0,
        }
    }

    #[test]
    fn a_reason_is_told_once_until_another_one_comes() {
        let mut trouble = trouble();
        let told = ["a", "a", "a", "b", "b", "a"].map(|why| trouble.is_new(why));
        assert_eq!(told, [true, false, false, true, false, true]);
        assert_eq!(trouble.tries, 1);
    }

    #[test]
    fn who_is_called_hears_the_key_and_what_to_do() {
        let run = RunRef {
            job: "fares".into(),
            run: "2026-11-21".parse().expect("a run id"),
        };
        let damaged = LoadError::Part {
            key: "p/fares/2026-11-21/data/shard-3/part-1.ndjson.zst".into(),
            why: "damaged".into(),
        };
        let remedy = remedy(&damaged, &run).expect("somebody has to act");
        assert!(remedy.contains("shard-3/part-1.ndjson.zst"), "{remedy}");
        assert!(remedy.contains("producer enqueue fares --run-id 2026-11-21"));
        assert_eq!(super::remedy(&LoadError::LeaseLost, &run), None);
    }
}
