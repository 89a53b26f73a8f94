//! What is remembered of limits between two steps, as plain data: the pure twin of what lies in Redis.
//!
//! Every record carries the id of the server process that wrote it. A record that is missing, or was
//! written by another process (a restart, a failover), is LOST: it may be older than what it counted.

use std::collections::BTreeMap;

use super::closed::{Closed, Probed};
use super::numbers::{Hold, Left, Numbers};
use super::{Instance, Moment, Rule};

/// Everything that is remembered for one provider.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Rates and spacings, by [`super::Instance::id`].
    pub paced: BTreeMap<String, Paced>,
    /// Concurrency, by the same.
    pub leases: BTreeMap<String, Leases>,
    /// Quotas, by the same.
    pub quotas: BTreeMap<String, Quota>,
    /// What answers closed, by name.
    pub closed: BTreeMap<String, Closed>,
    /// Claims on shards.
    pub claims: BTreeMap<String, Claim>,
    /// Grants given to each run.
    pub granted: BTreeMap<String, u64>,
    /// What operators said.
    pub kept: Kept,
}

/// What operators said; kept in S3 too, and put back from there when it is lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The server process into which it was put back.
    pub server: Option<String>,
    /// Numbers that hold instead of the file's, by the limit's name.
    pub set: BTreeMap<String, Numbers>,
    /// Nothing starts before; by the name of the whole provider.
    pub holds: BTreeMap<String, Hold>,
}

/// What answers told of a rate or spacing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Numbers that hold instead of the file's.
    pub numbers: Option<Numbers>,
    /// What is left of the provider's window.
    pub left: Option<Left>,
}

/// A rate's or spacing's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paced {
    /// When the next call would start if the bucket were empty (theoretical arrival time, GCRA).
    pub next_us: i64,
    /// The server process that wrote it.
    pub server: String,
    /// For display only: the number of the period that `used` counts.
    pub period: i64,
    /// Calls granted in that period.
    pub used: u64,
    /// Calls granted in the period before.
    pub used_before: u64,
    /// The pace of who wrote it.
    pub by: PacedBy,
    /// Of a bucket of points: when it began, empty.
    pub since_us: i64,
    /// What answers told.
    pub learned: Learned,
    /// Somebody waits who may not plan as far ahead as others did.
    pub nearer: Option<Nearer>,
}

/// A turn for somebody whose horizon is nearer than that of others who draw from the same limit: by another plan's numbers,
/// or by a further limit of its calls. The others would always have taken what lies within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearer {
    /// Nobody plans further ahead than this,
    pub horizon_us: i64,
    /// until then.
    pub until_us: i64,
}

/// The pace that a [`Paced`] was written by: another one does not go on as if nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacedBy {
    /// [`super::Pace::interval_us`]
    pub interval_us: i64,
    /// [`super::Pace::burst_us`]
    pub burst_us: i64,
    /// [`super::Pace::period_us`]
    pub period_us: i64,
}

impl PacedBy {
    /// Of a pace.
    pub fn of(pace: &super::Pace) -> Self {
        PacedBy {
            interval_us: pace.interval_us,
            burst_us: pace.burst_us,
            period_us: pace.period_us,
        }
    }
}

/// Who has how many calls in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    /// The server process that wrote it.
    pub server: String,
    /// Nothing is granted before: holders need the time to register again after a loss.
    pub opens_us: i64,
    /// Holder -> its calls.
    pub holders: BTreeMap<String, Lease>,
    /// Numbers that answers told.
    pub learned: Option<Numbers>,
}

/// The calls of one holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// In flight or granted and not sent yet.
    pub calls: u64,
    /// The holder is taken for dead then.
    pub expires_us: i64,
    /// The number of the ask that wrote it: an older one that arrives later changes nothing.
    pub seq: u64,
}

/// A calendar quota's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The server process that wrote it.
    pub server: String,
    /// Which window is counted.
    pub opened_us: i64,
    /// Calls charged in it.
    pub count: u64,
    /// The counter may go up to here (CORE 17).
    pub mark: u64,
    /// When the loss of the counter was seen; nothing is granted until a mark read later than that is set.
    pub lost_us: Option<i64>,
    /// Numbers that answers told.
    pub learned: Option<Numbers>,
}

/// Who works on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The publication.
    pub publication: String,
    /// The worker.
    pub holder: String,
    /// Without renewal it ends then.
    pub expires_us: i64,
}

impl State {
    /// A refusal at `now_us` closes `name` for `for_us`; see [`Closed`]. Returns its strikes.
    pub fn close(&mut self, name: &str, now_us: i64, for_us: i64, reason: &str) -> u32 {
        let fresh = || Closed {
            until_us: now_us + for_us,
            reason: reason.to_owned(),
            ..Closed::default()
        };
        match self.closed.get_mut(name).filter(|c| !c.is_over(now_us)) {
            Some(closed) => closed.again(now_us, for_us, reason),
            None => drop(self.closed.insert(name.to_owned(), fresh())),
        }
        self.closed[name].strikes
    }

    /// The probe that started at `start_us` ended at `now_us`: what it was a probe of, among `names`, opens.
    pub fn probed(&mut self, names: &[&str], now_us: i64, start_us: i64, how: Probed) {
        for name in names {
            if let Some(closed) = self.closed.get_mut(*name) {
                closed.probed(now_us, start_us, how);
            }
        }
    }

    /// Somebody looked at `now_us`: everything that answers closed gets its probe.
    pub fn reopen(&mut self, now_us: i64) {
        self.closed.values_mut().for_each(|c| c.reopen(now_us));
    }

    /// One closure was wrong: it gets its probe at `now_us`.
    pub fn reopen_one(&mut self, name: &str, now_us: i64) {
        if let Some(closed) = self.closed.get_mut(name) {
            closed.reopen(now_us);
        }
    }

    /// Puts back what operators said, and the closures that were kept, into a state that was lost. Returns
    /// whether it was (else nothing changes).
    pub fn put_back(&mut self, kept: Kept, closed: BTreeMap<String, Closed>, server: &str) -> bool {
        if self.kept.server.as_deref() == Some(server) {
            return false;
        }
        self.kept = Kept {
            server: Some(server.to_owned()),
            ..kept
        };
        for (name, closure) in closed {
            let longer = self
                .closed
                .get(&name)
                .is_some_and(|known| known.until_us >= closure.until_us);
            if !longer {
                self.closed.insert(name, closure);
            }
        }
        true
    }

    /// Sets a quota's mark, which lies in S3 already. `seen_us` is [`super::Answer::now_us`] of the answer
    /// that asked for it: the marks in S3 were read later than that. A counter that was lost goes on from
    /// `before`, the highest mark that was found. Returns whether it was taken; if not, ask again.
    pub fn set_mark(&mut self, quota: &str, set: &SetMark, server: &str) -> bool {
        let Some(now) = self.quotas.get_mut(quota) else {
            return false;
        };
        if now.server != server || now.opened_us != set.opened_us {
            return false;
        }
        match now.lost_us {
            Some(lost) if set.seen_us < lost => return false,
            Some(_) => (now.count, now.mark, now.lost_us) = (set.before, set.mark, None),
            None => now.mark = now.mark.max(set.mark),
        }
        true
    }
}

/// A new mark of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetMark {
    /// The window that it is for.
    pub opened_us: i64,
    /// The clock of the answer that asked for it.
    pub seen_us: i64,
    /// The highest mark that was found in S3 (or the ledger's count, if that is larger); 0 without any.
    pub before: u64,
    /// The mark that was put.
    pub mark: u64,
}

/// What `producer limits` shows of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedNow {
    /// Calls (points, of a bucket of those) in the last period, in flight, or in the window.
    pub used: u64,
    /// What is left of it: of a bucket, what it holds. A spacing leaves nothing to count.
    pub left: Option<u64>,
    /// When the next call may start; `None`: not in this window, or nobody knows before a mark is set.
    pub opens_us: Option<i64>,
}

/// How much of a limit is used now.
pub fn used_now(state: &State, limit: &Instance, moment: &Moment) -> UsedNow {
    let (id, now) = (limit.id(), moment.now_us);
    match limit.rule {
        Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => {
            let paced = state.paced.get(&id);
            let used = match (paced, limit.rule.pace()) {
                (Some(paced), Some(pace)) => paced.used_in_last(pace.period_us, now),
                _ => 0,
            };
            UsedNow {
                used,
                left: left_of_pace(paced, &limit.rule, used, now),
                opens_us: Some(paced.map_or(now, |paced| paced.opens_us(now))),
            }
        }
        Rule::Concurrency { calls } => {
            let leases = state.leases.get(&id);
            let used = leases.map_or(0, |leases| leases.in_flight(now));
            UsedNow {
                used,
                left: Some(calls.saturating_sub(used)),
                opens_us: (used < calls).then_some(now),
            }
        }
        Rule::Quota {
            calls, opened_us, ..
        } => {
            let current = state.quotas.get(&id).filter(|q| q.opened_us == opened_us);
            let lost = current.is_some_and(|q| q.lost_us.is_some());
            let used = current.map_or(0, |q| q.count);
            UsedNow {
                used,
                left: Some(calls.saturating_sub(used)),
                opens_us: (used < calls && !lost).then_some(now),
            }
        }
    }
}

/// Without a bucket what the last period leaves, else what the bucket holds.
fn left_of_pace(paced: Option<&Paced>, rule: &Rule, used: u64, now_us: i64) -> Option<u64> {
    let pace = rule.pace()?;
    let full = match *rule {
        Rule::Rate {
            calls, burst: None, ..
        } => return Some(calls.saturating_sub(used)),
        Rule::Rate {
            burst: Some(full), ..
        }
        | Rule::Cost { burst: full, .. } => full,
        _ => return None,
    };
    let missing_us = paced.map_or(0, |paced| (paced.next_us - now_us).max(0));
    let unit_ns = match pace.point_ns {
        0 => i128::from(pace.interval_us) * 1000,
        point_ns => i128::from(point_ns),
    };
    let missing = (i128::from(missing_us) * 1000 + unit_ns - 1) / unit_ns.max(1);
    Some(full.saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX)))
}

/// The numbers of `limit` that answers told, and those that an operator set.
pub fn in_force(state: &State, limit: &Instance) -> (Option<Numbers>, Option<Numbers>) {
    let id = limit.id();
    let learned = match limit.rule {
        Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => {
            state.paced.get(&id).and_then(|p| p.learned.numbers)
        }
        Rule::Concurrency { .. } => state.leases.get(&id).and_then(|l| l.learned),
        Rule::Quota { .. } => state.quotas.get(&id).and_then(|q| q.learned),
    };
    let fitting = |numbers: &Numbers| numbers.put_into(&limit.rule).is_some();
    let set = state.kept.set.get(&limit.limit).copied();
    (learned.filter(fitting), set.filter(fitting))
}

impl Paced {
    /// Where it goes on with another pace. A bucket starts empty; and one that was slowed down (`is_changed`: by an
    /// answer or an operator) starts so late that the calls of the last two periods may be in its first window.
    pub(super) fn goes_on_us(&self, pace: &super::Pace, is_changed: bool, now_us: i64) -> i64 {
        let mut opens_us = self.next_us - self.by.burst_us;
        if is_changed && pace.burst_us == 0 && pace.interval_us > self.by.interval_us {
            let used = match now_us.div_euclid(self.by.period_us) - self.period {
                0 => self.used + self.used_before,
                1 => self.used,
                _ => 0,
            };
            let used = i64::try_from(used).unwrap_or(i64::MAX / 2);
            let wait_us = used
                .saturating_mul(pace.interval_us)
                .min(pace.period_us + super::FURTHEST_US);
            opens_us = opens_us.max(now_us + wait_us);
        }
        opens_us.max(now_us) + pace.burst_us
    }

    /// When the next call may start.
    fn opens_us(&self, now_us: i64) -> i64 {
        let empty = self.learned.left.filter(|left| left.calls == 0);
        let reset = empty.map_or(now_us, |left| left.till_us);
        (self.next_us - self.by.burst_us).max(now_us).max(reset)
    }

    /// About how many calls the last period holds: all of the current one, and of the one before the share
    /// that a trailing window still covers.
    fn used_in_last(&self, period_us: i64, now_us: i64) -> u64 {
        let (current, passed) = (now_us.div_euclid(period_us), now_us.rem_euclid(period_us));
        let (used, before) = match current - self.period {
            0 => (self.used, self.used_before),
            1 => (0, self.used),
            _ => (0, 0),
        };
        let left = u128::from(before) * u128::from((period_us - passed).unsigned_abs());
        used + u64::try_from(left / u128::from(period_us.unsigned_abs())).unwrap_or(before)
    }
}

impl Leases {
    /// Calls of all holders that are alive.
    fn in_flight(&self, now_us: i64) -> u64 {
        let alive = self
            .holders
            .values()
            .filter(|lease| lease.expires_us > now_us);
        alive.map(|lease| lease.calls).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Pace;

    const NOW: i64 = 1_000_000_000;

    fn paced(rule: &Rule, next_us: i64) -> Paced {
        Paced {
            server: "s".into(),
            next_us,
            period: 0,
            used: 0,
            used_before: 0,
            by: PacedBy::of(&Pace::of(rule).expect("a pace")),
            since_us: 0,
            learned: Learned::default(),
            nearer: None,
        }
    }

    #[test]
    fn of_a_bucket_is_left_what_it_holds() {
        let points = Rule::Cost {
            points: 100,
            period_us: 1_000_000,
            burst: 300,
        };
        let left = |rule: &Rule, next_us| left_of_pace(Some(&paced(rule, next_us)), rule, 0, NOW);
        assert_eq!(left(&points, NOW - 5), Some(300));
        // Half a second of points, at 10.01 ms each.
        assert_eq!(left(&points, NOW + 500_500), Some(250));
        assert_eq!(left(&points, NOW + 60_000_000), Some(0));
        assert_eq!(left_of_pace(None, &points, 0, NOW), Some(300));
        let bucket = Rule::Rate {
            calls: 10,
            period_us: 1_000_000,
            burst: Some(20),
        };
        assert_eq!(left(&bucket, NOW + 1_001_000), Some(10));
    }

    #[test]
    fn of_a_rate_is_left_what_its_last_period_leaves() {
        let rate = Rule::Rate {
            calls: 10,
            period_us: 1_000_000,
            burst: None,
        };
        assert_eq!(left_of_pace(None, &rate, 4, NOW), Some(6));
        assert_eq!(left_of_pace(None, &rate, 12, NOW), Some(0));
        let spacing = Rule::Spacing { least_us: 5 };
        assert_eq!(left_of_pace(None, &spacing, 1, NOW), None);
    }
}
