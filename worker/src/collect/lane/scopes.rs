//! Refusals of single scopes: their cells sleep, so that they neither fill a batch nor hold the cells of other
//! scopes (the slow seller does not hold the others).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::limit::{Answer, Refusal, Why};

use super::asking::{Asking, Kin};

/// A scope opens again this soon: its cells stay ready.
const SOON: Duration = Duration::from_millis(15);
/// So many cells of a scope wake when it opens, beside twice as many as were just granted; the same number each time it
/// opens again.
pub(super) const WAKE: usize = 8;
/// Nobody looks at a waiting scope more often when others get all of it.
const HUNGRY: Duration = Duration::from_secs(1);

/// The cells of one group sleep.
#[derive(Clone, Debug, PartialEq)]
pub struct Sleep {
    /// Which group of the asking.
    pub group: usize,
    /// Until its scope opens.
    pub wait: Duration,
    /// Why it was refused.
    pub why: Why,
    /// The name of what is closed.
    pub name: Option<Arc<str>>,
    /// How many calls of the group were granted beside.
    pub granted: usize,
}

impl Sleep {
    /// Whether it is a credential that stays closed until somebody looks.
    pub fn is_dead_key(&self) -> bool {
        // A limit in a scope has a colon in its name, a credential's public name has none.
        let key = self.name.as_deref().is_some_and(|name| !name.contains(':'));
        self.why == Why::Dead && key
    }

    /// How long the cell at `place` of `number` sleeps. A paced scope opens for a few calls each time, so that
    /// its cells wake a few at a time.
    pub fn of(&self, place: usize, _number: usize, hungry: bool) -> Duration {
        if self.why != Why::Paced {
            return self.wait;
        }
        let least = if hungry { HUNGRY } else { SOON };
        let turns = u32::try_from(place / (WAKE + 2 * self.granted))
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        self.wait.max(least).saturating_mul(turns.min(20))
    }
}

/// So many scopes are remembered at most.
const REMEMBERED: usize = 1_024;

/// Paced scopes that were refused, each until it opens: their other cells, of whichever shard, wait as well, so that those
/// that were refused first are not overtaken.
#[derive(Debug, Default)]
pub struct Asleep(HashMap<Kin, Queue>);

/// The cells that sleep for one scope.
#[derive(Debug)]
struct Queue {
    sleep: Sleep,
    hungry: bool,
    /// When it was refused.
    at: Instant,
    /// How many there are.
    cells: usize,
}

impl Queue {
    fn wakes(&self, place: usize) -> Instant {
        self.at + self.sleep.of(place, self.cells, self.hungry)
    }
}

impl Asleep {
    /// The scope of `kin` was refused at `now`, and `cells` sleep for it.
    pub fn note(&mut self, kin: Kin, sleep: &Sleep, hungry: bool, cells: usize, now: Instant) {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, queue| queue.wakes(0) > now);
        }
        if self.0.len() < REMEMBERED {
            let queue = Queue {
                sleep: sleep.clone(),
                hungry,
                at: now,
                cells,
            };
            self.0.insert(kin, queue);
        }
    }

    /// Where the scope of `kin` is known to be shut: until when one more cell sleeps behind the others, and what is refused.
    pub fn queue(&mut self, kin: &Kin, now: Instant) -> Option<(Instant, Arc<str>)> {
        let queue = self.0.get_mut(kin).filter(|queue| queue.wakes(0) > now)?;
        let until = queue.wakes(queue.cells);
        queue.cells += 1;
        Some((until, queue.sleep.name.clone().unwrap_or_default()))
    }

    /// Something was opened or changed.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// Parts the refusals of an answer into those of single scopes and those of the whole lane.
pub fn part<'a>(answer: &'a Answer, asking: &Asking) -> (Vec<Sleep>, Vec<&'a Refusal>) {
    let (mut sleeps, mut wide) = (Vec::new(), Vec::new());
    let granted = |group| answer.grants.iter().filter(|g| g.group == group).count();
    for refusal in &answer.refusals {
        let wait = u64::try_from(refusal.opens_us - answer.now_us).unwrap_or(0);
        if asking.is_scoped(refusal.group) && is_of_scope(refusal, asking) {
            sleeps.push(Sleep {
                group: refusal.group,
                wait: Duration::from_micros(wait),
                why: refusal.why,
                name: asking.refused_name(refusal).map(Arc::from),
                granted: granted(refusal.group),
            });
        } else {
            wide.push(refusal);
        }
    }
    (sleeps, wide)
}

fn is_of_scope(refusal: &Refusal, asking: &Asking) -> bool {
    let scoped = refusal
        .limit
        .and_then(|place| asking.limit_at(place))
        .is_some_and(|limit| !limit.scope.is_empty());
    let urgent = matches!(refusal.why, Why::Mark | Why::Window);
    (scoped || refusal.key) && !urgent
}
