//! Calls that left later than their slack allows: between the last look at the clock and the socket a busy machine
//! can stop a process for longer than any window has room for.
//!
//! What has left cannot be called back. But the call that it may crowd comes a whole period later and is not granted
//! yet: the limits of the late call are told at once, and their next starts move by what it was late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paceline_protocol::connector::cooldown::DrawnLimit;
use paceline_protocol::limit::{Ask, FURTHEST_US, Heard, Instance, Rule};
use paceline_protocol::stores::limiter::FleetLimiter;
use tokio_util::task::TaskTracker;

/// A limiter that does not answer has lost more than this; then nothing is granted anyway.
const TRIES: usize = 3;
const BETWEEN: Duration = Duration::from_millis(50);

/// Tells the limiter of late calls, one request at a time.
#[derive(Clone)]
pub struct Late {
    limiter: FleetLimiter,
    provider: String,
    holder: String,
    tasks: TaskTracker,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// By the limits' ids: the latest call that was not told yet.
    limits: HashMap<String, (Instance, i64)>,
    telling: bool,
}

impl Late {
    /// For the calls of one lane; `provider` as the limiter knows it.
    pub fn new(limiter: FleetLimiter, provider: &str, holder: &str, tasks: TaskTracker) -> Self {
        Late {
            limiter,
            provider: provider.to_owned(),
            holder: holder.to_owned(),
            tasks,
            noted: Arc::default(),
        }
    }

    /// A call that drew from `drawn` left `late_us` after the end of its slack.
    pub fn note(&self, drawn: &[DrawnLimit], late_us: i64) {
        let paced = drawn.iter().map(|drawn| &drawn.instance);
        let paced = paced
            .filter(|limit| !matches!(limit.rule, Rule::Concurrency { .. } | Rule::Quota { .. }));
        let mut noted = self
            .noted
            .lock()
            .expect("no panic while late calls are noted");
        noted.add(paced, late_us.min(FURTHEST_US));
        if noted.limits.is_empty() || noted.telling {
            return;
        }
        noted.telling = true;
        drop(noted);
        let late = self.clone();
        self.tasks.spawn(async move { late.tell().await });
    }

    async fn tell(&self) {
        while let Some(ask) = self.next_ask() {
            for _ in 0..TRIES {
                match self.limiter.ask(&ask).await {
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(error = %error, "a late call could not be told");
                        tokio::time::sleep(BETWEEN).await;
                    }
                }
            }
        }
    }

    /// A request that only says how late calls were; `None` when all is told.
    fn next_ask(&self) -> Option<Ask> {
        let mut noted = self
            .noted
            .lock()
            .expect("no panic while late calls are noted");
        let all = std::mem::take(&mut noted.limits);
        noted.telling = !all.is_empty();
        drop(noted);
        let (limits, late): (Vec<Instance>, Vec<i64>) = all.into_values().unzip();
        let heard = late.into_iter().enumerate().map(|(limit, late_us)| Heard {
            late_us,
            ..Heard::nothing(limit)
        });
        (!limits.is_empty()).then(|| Ask {
            provider: self.provider.clone(),
            holder: self.holder.clone(),
            heard: heard.collect(),
            limits,
            held: Vec::new(),
            groups: Vec::new(),
            claims: Vec::new(),
            keeps: true,
        })
    }
}

impl Noted {
    /// Of several late calls one move is enough: by the latest.
    fn add<'l>(&mut self, limits: impl Iterator<Item = &'l Instance>, late_us: i64) {
        for limit in limits {
            let known = self
                .limits
                .entry(limit.id())
                .or_insert_with(|| (limit.clone(), 0));
            known.1 = known.1.max(late_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_late_calls_the_latest_is_told() {
        let limit = |name: &str| Instance {
            limit: name.into(),
            scope: String::new(),
            rule: Rule::Spacing { least_us: 1 },
        };
        let (a, b) = (limit("a"), limit("b"));
        let mut noted = Noted::default();
        noted.add([&a, &b].into_iter(), 5);
        noted.add([&a].into_iter(), 9);
        noted.add([&b].into_iter(), 3);
        let told = |limit: &Instance| noted.limits[&limit.id()].1;
        assert_eq!((told(&a), told(&b)), (9, 5));
    }
}
