//! The names on the broker, and the arguments that every declaration must agree on.

use std::time::Duration;

use crate::ids::RunRef;

/// How often a shard may come back unacknowledged before the broker dead-letters it. Set explicitly,
/// since 3.10 has no default and 4.x has 20.
pub const DELIVERY_LIMIT: i64 = 20;

/// The names of one namespace (`PACELINE_NAMESPACE`).
#[derive(Clone, Debug)]
pub struct Topology {
    namespace: String,
}

impl Topology {
    /// The topology of the fleet called `namespace`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Topology {
            namespace: namespace.into(),
        }
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Direct exchange of the shards; the routing key is the work queue's name.
    pub fn work_exchange(&self) -> String {
        format!("{}.work", self.namespace)
    }

    /// The work queue of one lane and open run.
    pub fn work_queue(&self, lane: &str, run: &RunRef) -> String {
        format!("{}.work.{lane}.{}.{}", self.namespace, run.job, run.run)
    }

    /// Whether a queue of this name is a work queue.
    pub fn is_work_queue(&self, name: &str) -> bool {
        name.strip_prefix(&self.work_exchange())
            .is_some_and(|rest| rest.starts_with('.'))
    }

    /// Queue (and direct exchange) of the receipts.
    pub fn receipts(&self) -> String {
        format!("{}.receipts", self.namespace)
    }

    /// Fanout exchange for dead letters, and the queue that keeps them for people.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.namespace)
    }

    /// Fanout exchange of cancel, pause, resume and changed limits.
    pub fn control(&self) -> String {
        format!("{}.control", self.namespace)
    }

    /// Topic exchange of run started, progressed, completed, failed.
    pub fn events(&self) -> String {
        format!("{}.events", self.namespace)
    }

    /// Queue of messages that start runs (`{"job", "run_id", "params"}`).
    pub fn requests(&self) -> String {
        format!("{}.requests", self.namespace)
    }

    /// Queue that keeps the starts and ends of runs until they are told (`notify:`).
    pub fn notifications(&self) -> String {
        format!("{}.notifications", self.namespace)
    }

    /// Queue of the webhooks to be called, one message for each.
    pub fn deliveries(&self) -> String {
        format!("{}.deliveries", self.namespace)
    }

    /// The delay queue (and its fanout exchange) of one level.
    pub fn delay(&self, level: DelayLevel) -> String {
        format!("{}.delay.{}", self.namespace, level.name())
    }
}

/// The delays that the broker offers: one queue each, with a fixed time to live. Never a time to live
/// for each message: a quorum queue expires at its head only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DelayLevel {
    /// One second.
    S1,
    /// Five seconds.
    S5,
    /// Thirty seconds.
    S30,
    /// Two minutes.
    M2,
    /// Ten minutes.
    M10,
}

impl DelayLevel {
    /// Every level, shortest first.
    pub const ALL: [DelayLevel; 5] = [Self::S1, Self::S5, Self::S30, Self::M2, Self::M10];

    /// The level's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::S1 => "1s",
            Self::S5 => "5s",
            Self::S30 => "30s",
            Self::M2 => "2m",
            Self::M10 => "10m",
        }
    }

    /// How long a message stays.
    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::S1 => 1,
            Self::S5 => 5,
            Self::S30 => 30,
            Self::M2 => 120,
            Self::M10 => 600,
        })
    }

    /// The longest level that does not pass `wait`; the shortest one when all do.
    pub fn for_wait(wait: Duration) -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|level| level.duration() <= wait)
            .unwrap_or(Self::S1)
    }
}
