//! The decision: what is remembered + an [`Ask`] + the clock -> an [`Answer`] and what is remembered next.
//!
//! `stores/limiter/ask.lua` is the same function, line by line; one suite feeds both.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::closed::{Closed, Door};
use super::numbers::{Left, Numbers};
use super::pace::{self, LATEST_US, Pace};
use super::state::{Claim, Kept, Learned, Lease, Leases, Nearer, Paced, PacedBy, Quota, State};
use super::{Answer, Ask, Choice, Grant, Group, Instance, Refusal, Rule, Why};

/// While half of the leases are out, calls are planned no further ahead than this (50 ms): each holds one from its grant on.
pub const SCARCE_US: i64 = 50_000;
/// A lease of a holder that does not renew ends after so long (10 s).
pub const LEASE_US: i64 = 10_000_000;
/// Lost leases open after two renewals of one a second, and a little (2.2 s).
pub const LEASES_BLIND_US: i64 = 2_200_000;
/// When all leases are out, asking again is worth it after so long, unless one's own calls end (1 s).
pub const IN_FLIGHT_AGAIN_US: i64 = 1_000_000;
/// No start is nearer than this (2 ms): the answer is still on its way, and its way would use up the slack.
pub const LEAD_US: i64 = 2_000;
/// Somebody who waits for starts nearer than others plan is thought of for so long (3 s): a hungry worker asks once a second.
pub const NEARER_US: i64 = 3_000_000;
/// A claim that is not renewed ends after so long (30 s).
pub const CLAIM_US: i64 = 30_000_000;

/// The clock and what else the step needs beside the ask.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The server's clock.
    pub now_us: i64,
    /// The id of the server process; another one means that state may be lost.
    pub server: &'a str,
    /// The number of this ask among its holder's, rising.
    pub seq: u64,
}

/// Decides a batch. All limits of a call are charged at the call's start, the latest that any of them
/// gives; a call that one limit refuses takes nothing from the others.
pub fn decide(state: &mut State, ask: &Ask, moment: &Moment) -> Answer {
    Step::load(state, ask, moment, &Policy::REAL).run(state)
}

/// What the tests break on purpose, to see that they notice.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// Where a lost pace goes on.
    pub restart: fn(&Pace, i64) -> i64,
    /// The numbers of a rule.
    pub pace: fn(&Rule) -> Option<Pace>,
    /// Whether a call is charged at its start in every limit.
    pub together: bool,
}

impl Policy {
    pub(super) const REAL: Policy = Policy {
        restart: Pace::restart_us,
        pace: Pace::of,
        together: true,
    };
}

/// As [`decide`], with another policy.
#[cfg(test)]
pub(super) fn decide_with(
    state: &mut State,
    ask: &Ask,
    moment: &Moment,
    policy: &Policy,
) -> Answer {
    Step::load(state, ask, moment, policy).run(state)
}

/// One limit in the step.
enum Live {
    Paced {
        pace: Pace,
        next_us: i64,
        granted: u64,
        learned: Learned,
        since_us: i64,
        nearer: Cell<Option<Nearer>>,
    },
    Leases {
        calls: u64,
        others: u64,
        mine: u64,
        opens_us: i64,
        stale: bool,
        learned: Option<Numbers>,
    },
    Quota {
        calls: u64,
        closes_us: i64,
        quota: Quota,
        guard_us: i64,
        marked: bool,
        /// A call that it could serve waits for its next mark.
        awaited: Cell<bool>,
    },
    /// The asker's window is not the current one.
    OtherWindow { opens_us: i64 },
}

/// When a limit would let the next call start.
enum Opening {
    At(i64),
    Shut(Why, i64),
}

/// A call that may start.
struct Draft {
    start_us: i64,
    slack_us: i64,
    choice: Option<usize>,
    probe: bool,
}

/// Why a call may not, and the limit that binds.
#[derive(Clone, Copy)]
struct No {
    binds: Binds,
    why: Why,
    opens_us: i64,
}

/// What keeps a call back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Binds {
    /// A closure of the whole provider.
    Provider,
    /// A closure of the credential.
    Key,
    /// A limit, or a closure of its scope.
    Limit(usize),
}

/// One step under way.
struct Step<'a> {
    ask: &'a Ask,
    moment: &'a Moment<'a>,
    policy: &'a Policy,
    live: Vec<Live>,
    /// What is closed, or opening again.
    closed: BTreeMap<String, Closed>,
    /// What operators said.
    kept: Kept,
    /// The names under which each limit may be closed; empty while nothing is.
    ids: Vec<String>,
    /// Calls given to each credential in this step, by its name.
    given: BTreeMap<&'a str, u32>,
    answer: Answer,
}

impl<'a> Step<'a> {
    fn load(state: &State, ask: &'a Ask, moment: &'a Moment<'a>, policy: &'a Policy) -> Self {
        let mut step = Step {
            ask,
            moment,
            policy,
            live: Vec::new(),
            closed: state.closed.clone(),
            kept: state.kept.clone(),
            ids: Vec::new(),
            given: BTreeMap::new(),
            answer: Answer::at(moment.now_us),
        };
        step.closed.retain(|_, c| !c.is_over(moment.now_us));
        if !step.closed.is_empty() {
            step.ids = ask.limits.iter().map(Instance::id).collect();
        }
        for (index, limit) in ask.limits.iter().enumerate() {
            let live = step.load_limit(state, index, limit);
            step.live.push(live);
        }
        step
    }

    fn run(mut self, state: &mut State) -> Answer {
        self.answer.lost_claims = self.renew_claims(state);
        self.give();
        self.want_marks();
        self.answer.scarce = self.live.iter().any(Live::is_scarce);
        self.save(state);
        self.answer
    }

    // ------------------------------------------------------------------------------------ loading

    fn load_limit(&mut self, state: &State, index: usize, limit: &Instance) -> Live {
        let id = limit.id();
        match limit.rule {
            Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => {
                self.load_paced(state.paced.get(&id), index, limit)
            }
            Rule::Concurrency { .. } => self.load_leases(state.leases.get(&id), index, limit),
            Rule::Quota { .. } => self.load_quota(state.quotas.get(&id), index, limit),
        }
    }

    /// The numbers that answers told: those that the asker heard just now, else those that are remembered. Of a
    /// state that was lost the asker's come first, since the remembered ones may be older.
    fn learned(&self, index: usize, stored: Option<Numbers>, known: bool) -> Option<Numbers> {
        let heard = self.ask.heard_of(index);
        let heard = heard.filter(|h| h.fresh || !known).and_then(|h| h.numbers);
        heard.or(stored)
    }

    /// The rule by which the limit at `index` is decided: as an operator set it, as answers told, as the asker
    /// has it from the file.
    fn in_force(&mut self, index: usize, limit: &Instance, learned: Option<Numbers>) -> Rule {
        let set = self.kept.set.get(&limit.limit).copied();
        let put = |numbers: Option<Numbers>| {
            let rule = numbers?.put_into(&limit.rule)?;
            Some((numbers?, rule))
        };
        let Some((numbers, rule)) = put(set).or_else(|| put(learned)) else {
            return limit.rule;
        };
        if numbers != Numbers::of(&limit.rule) {
            self.answer.changed.push((index, numbers));
        }
        rule
    }

    fn load_paced(&mut self, stored: Option<&Paced>, index: usize, limit: &Instance) -> Live {
        let now = self.moment.now_us;
        let known = stored.filter(|s| s.server == self.moment.server);
        let before = stored.and_then(|s| s.learned.numbers);
        let numbers = self.learned(index, before, known.is_some());
        let rule = self.in_force(index, limit, numbers);
        let is_changed = rule != limit.rule;
        let pace = (self.policy.pace)(&rule).expect("a rate, a spacing and points are paced");
        let mut next_us = match known {
            Some(s) if s.by != PacedBy::of(&pace) => s.goes_on_us(&pace, is_changed, now),
            Some(s) => s.next_us,
            None => {
                self.answer.resets.push(index);
                (self.policy.restart)(&pace, now)
            }
        };
        next_us = next_us.min(pace.cap_us(now));
        let left = known.and_then(|s| s.learned.left);
        let mut left = left.filter(|left| left.till_us > now);
        if let Some(heard) = self.ask.heard_of(index) {
            if let Some(told) = &heard.left {
                left = Left::hear(left, told, now, next_us, pace.interval_us);
            }
            let told_us = heard.next_us.map(|us| us.min(pace.cap_us(now)));
            next_us = next_us.max(told_us.unwrap_or(next_us)) + heard.late_us;
        }
        let since_us = known.map_or(now, |s| s.since_us);
        if pace.point_ns > 0
            && let Some(heard) = self.ask.heard_of(index)
        {
            let since = known.map(|s| s.since_us);
            let back = heard.back.filter(|b| since.is_some_and(|s| s < b.of_us));
            next_us -= back.map_or(0, |b| pace.charge_us(b.points));
            if heard.more > 0 {
                next_us += pace.charge_us(heard.more);
            }
        }
        Live::Paced {
            pace,
            next_us,
            granted: 0,
            learned: Learned { numbers, left },
            since_us,
            nearer: Cell::new(known.and_then(|s| s.nearer)),
        }
    }

    fn load_leases(&mut self, stored: Option<&Leases>, index: usize, limit: &Instance) -> Live {
        let now = self.moment.now_us;
        let mine = self.ask.held_of(index);
        let is_known = stored.is_some_and(|s| s.server == self.moment.server);
        let learned = self.learned(index, stored.and_then(|s| s.learned), is_known);
        let Rule::Concurrency { calls } = self.in_force(index, limit, learned) else {
            unreachable!("numbers never change the kind")
        };
        let Some(known) = stored.filter(|s| s.server == self.moment.server) else {
            self.answer.resets.push(index);
            return Live::Leases {
                calls,
                others: 0,
                mine,
                opens_us: now + LEASES_BLIND_US,
                stale: false,
                learned,
            };
        };
        let live = known
            .holders
            .iter()
            .filter(|(_, lease)| lease.expires_us > now);
        let others = live
            .filter(|(name, _)| **name != self.ask.holder)
            .map(|(_, l)| l.calls)
            .sum();
        let stale = known
            .holders
            .get(&self.ask.holder)
            .is_some_and(|l| l.seq >= self.moment.seq);
        let opens_us = known.opens_us.min(now + LEASES_BLIND_US);
        Live::Leases {
            calls,
            others,
            mine,
            opens_us,
            stale,
            learned,
        }
    }

    fn load_quota(&mut self, stored: Option<&Quota>, index: usize, limit: &Instance) -> Live {
        let now = self.moment.now_us;
        let is_known = stored.is_some_and(|s| s.server == self.moment.server);
        let learned = self.learned(index, stored.and_then(|s| s.learned), is_known);
        let Rule::Quota {
            calls,
            opened_us,
            closes_us,
        } = self.in_force(index, limit, learned)
        else {
            unreachable!("numbers never change the kind")
        };
        let newer =
            stored.is_some_and(|s| s.server == self.moment.server && s.opened_us > opened_us);
        if now < opened_us || now >= closes_us || newer {
            return Live::OtherWindow {
                opens_us: now.max(opened_us),
            };
        }
        let marked = closes_us - opened_us > pace::UNMARKED_WINDOW_US;
        let mut quota = match stored.filter(|s| s.server == self.moment.server) {
            Some(s) if s.opened_us == opened_us => {
                // A loss that lies ahead was seen before the clock stepped back: seen now, it can be mended.
                let lost_us = s.lost_us.map(|lost| lost.min(now));
                Quota {
                    lost_us,
                    ..s.clone()
                }
            }
            Some(_) => self.new_window(opened_us, if marked { 0 } else { calls }),
            None => {
                self.answer.resets.push(index);
                self.lost_window(opened_us, calls, marked)
            }
        };
        if !marked {
            quota.mark = quota.mark.max(calls);
        }
        let heard = self.ask.heard_of(index);
        let same = is_known && stored.is_some_and(|s| s.opened_us == opened_us);
        let back = heard.and_then(|heard| heard.back).filter(|_| same);
        let back = back.filter(|back| back.of_us >= opened_us && back.of_us < closes_us);
        // Calls of this window that were granted and never sent; what the provider tells counts more.
        quota.count = quota
            .count
            .saturating_sub(back.map_or(0, |back| back.points))
            .max(heard.and_then(|heard| heard.used).unwrap_or(0));
        quota.learned = learned;
        let guard_us = pace::window_guard_us(opened_us, closes_us);
        Live::Quota {
            calls,
            closes_us,
            quota,
            guard_us,
            marked,
            awaited: Cell::new(false),
        }
    }

    /// The counter of the window before is here, so nothing of this one can have been lost.
    fn new_window(&self, opened_us: i64, mark: u64) -> Quota {
        let server = self.moment.server.to_owned();
        Quota {
            server,
            opened_us,
            count: 0,
            mark,
            lost_us: None,
            learned: None,
        }
    }

    /// Without marks, a lost counter counts as used up: the window is short.
    fn lost_window(&self, opened_us: i64, calls: u64, marked: bool) -> Quota {
        let fresh = self.new_window(opened_us, 0);
        if marked {
            Quota {
                lost_us: Some(self.moment.now_us),
                ..fresh
            }
        } else {
            Quota {
                count: calls,
                mark: calls,
                ..fresh
            }
        }
    }

    // ------------------------------------------------------------------------------------- giving

    /// Gives to the group whose next call can start first, in the order of wish among equals, until no
    /// group can go on: so a scope that opens late does not push the shared limits ahead of the others.
    fn give(&mut self) {
        if let Some((why, opens_us)) = self.shut() {
            for group in 0..self.ask.groups.len() {
                if self.ask.groups[group].want > 0 {
                    let binds = Binds::Provider;
                    self.refuse(
                        group,
                        No {
                            binds,
                            why,
                            opens_us,
                        },
                    );
                }
            }
            return;
        }
        // The earliest that a group may start: a lower bound, since starts only move away.
        let mut bounds: Vec<Option<i64>> = self
            .ask
            .groups
            .iter()
            .map(|g| (g.want > 0).then_some(i64::MIN))
            .collect();
        let mut left: Vec<u32> = self.ask.groups.iter().map(|g| g.want).collect();
        while let Some(group) = first(&bounds) {
            match self.next_call(&self.ask.groups[group]) {
                Err(no) => {
                    self.refuse(group, no);
                    bounds[group] = None;
                }
                Ok(draft)
                    if bounds[group] != Some(draft.start_us)
                        && !leads(&bounds, group, draft.start_us) =>
                {
                    bounds[group] = Some(draft.start_us);
                }
                Ok(draft) => {
                    left[group] -= 1;
                    bounds[group] = (left[group] > 0).then_some(draft.start_us);
                    self.grant(group, &draft);
                }
            }
        }
    }

    /// What operators said was lost with the state and is not back yet.
    fn is_unset(&self) -> bool {
        self.ask.keeps && self.kept.server.as_deref() != Some(self.moment.server)
    }

    /// Why nothing at all is granted, and until when.
    fn shut(&self) -> Option<(Why, i64)> {
        let now = self.moment.now_us;
        if self.is_unset() {
            return Some((Why::Unset, now));
        }
        let hold = self.kept.holds.get(super::whole_of(&self.ask.provider));
        let hold = hold.filter(|hold| hold.until_us > now);
        hold.map(|hold| (Why::Held, hold.until_us))
    }

    /// When and with which credential the group's next call may start.
    fn next_call(&self, group: &Group) -> Result<Draft, No> {
        if group.choices.is_empty() {
            return self.try_call(group, None);
        }
        if group.spread {
            return self.least_used(group);
        }
        let mut best: Option<No> = None;
        for index in 0..group.choices.len() {
            let no = match self.try_call(group, Some(index)) {
                Ok(draft) => return Ok(draft),
                Err(no) if !may_skip(&no, &group.choices[index]) => return Err(no),
                Err(no) => no,
            };
            if best.is_none_or(|b| no.opens_us < b.opens_us) {
                best = Some(no);
            }
        }
        Err(best.expect("there is at least one choice, and each gave a reason"))
    }

    /// The credential that can serve first; of several the one with the least of its quotas used up, then the one that
    /// was given least in this step, then the first.
    fn least_used(&self, group: &Group) -> Result<Draft, No> {
        let mut best: Option<(Draft, (i64, u64, u32))> = None;
        let mut refused: Option<No> = None;
        for index in 0..group.choices.len() {
            match self.try_call(group, Some(index)) {
                Ok(draft) => {
                    let choice = &group.choices[index];
                    let given = self.given.get(choice.name.as_str()).copied().unwrap_or(0);
                    let key = (draft.start_us, self.used_of(choice), given);
                    if best.as_ref().is_none_or(|(_, least)| key < *least) {
                        best = Some((draft, key));
                    }
                }
                Err(no) if refused.is_none_or(|r| no.opens_us < r.opens_us) => refused = Some(no),
                Err(_) => {}
            }
        }
        best.map(|(draft, _)| draft)
            .ok_or_else(|| refused.expect("there is at least one choice, and each gave a reason"))
    }

    /// How much of a credential's own quotas is used up, in millionths of the fullest one.
    fn used_of(&self, choice: &Choice) -> u64 {
        let used = choice.limits.iter().map(|index| match &self.live[*index] {
            Live::Quota { calls, quota, .. } => {
                quota.count.saturating_mul(1_000_000) / (*calls).max(1)
            }
            _ => 0,
        });
        used.max().unwrap_or(0)
    }

    /// The closures of a call, each with the limit that it is named after, the widest first.
    fn doors(&self, group: &Group, choice: Option<usize>) -> Vec<(Binds, Door)> {
        if self.closed.is_empty() {
            return Vec::new();
        }
        let now = self.moment.now_us;
        let door = |name: &str| self.closed.get(name).map(|closed| closed.door(now));
        let provider = door(super::whole_of(&self.ask.provider)).map(|d| (Binds::Provider, d));
        let key = choice.and_then(|c| door(&group.choices[c].name));
        let limits =
            drawn(group, choice).filter_map(|l| Some((Binds::Limit(l), door(&self.ids[l])?)));
        let key = key.map(|d| (Binds::Key, d));
        provider.into_iter().chain(key).chain(limits).collect()
    }

    /// The latest start that any limit gives, when it is near enough for all of them.
    fn try_call(&self, group: &Group, choice: Option<usize>) -> Result<Draft, No> {
        let now = self.moment.now_us;
        let mut start_us = now + LEAD_US;
        let mut binding = Binds::Provider;
        let (mut slack_us, mut own_us) = (LATEST_US, pace::FURTHEST_US);
        let (mut turn_us, mut scarce_us) = (own_us, own_us);
        let mut probe = false;
        for (binds, door) in self.doors(group, choice) {
            match door {
                Door::Shut(opens_us, dead) => {
                    return Err(No {
                        binds,
                        why: if dead { Why::Dead } else { Why::Closed },
                        opens_us,
                    });
                }
                Door::Probe => probe = true,
                Door::Ramp(at) if at > start_us => (start_us, binding) = (at, binds),
                Door::Ramp(_) => {}
            }
        }
        for index in drawn(group, choice) {
            match self.live[index].opening(now, group.points_of(index)) {
                Opening::Shut(why, opens_us) => {
                    return Err(No {
                        binds: Binds::Limit(index),
                        why,
                        opens_us,
                    });
                }
                Opening::At(at) if at > start_us => {
                    (start_us, binding) = (at, Binds::Limit(index));
                }
                Opening::At(_) => {}
            }
            if let Live::Paced { pace, nearer, .. } = &self.live[index] {
                slack_us = slack_us.min(pace.slack_us);
                own_us = own_us.min(pace.horizon_us);
                let turn = nearer.get().filter(|turn| turn.until_us > now);
                turn_us = turn.map_or(turn_us, |turn| turn_us.min(turn.horizon_us));
            }
            if self.live[index].is_scarce() {
                scarce_us = SCARCE_US;
            }
        }
        let horizon_us = own_us.min(turn_us).min(scarce_us) >> u32::from(group.yields);
        if start_us > now + horizon_us {
            if let Binds::Limit(index) = binding {
                self.live[index].wait_for_turn(now, start_us, own_us);
            }
            // Half a horizon before it opens: the next batch is then worth its round trip.
            let opens_us = start_us - horizon_us / 2;
            return Err(No {
                binds: binding,
                why: Why::Paced,
                opens_us,
            });
        }
        for index in drawn(group, choice) {
            if let Some(opens_us) = self.live[index].turns_before(start_us) {
                return Err(No {
                    binds: Binds::Limit(index),
                    why: Why::Window,
                    opens_us,
                });
            }
        }
        Ok(Draft {
            start_us,
            slack_us,
            choice,
            probe,
        })
    }

    fn grant(&mut self, group: usize, draft: &Draft) {
        let asked: &'a Group = &self.ask.groups[group];
        let now = self.moment.now_us;
        for index in drawn(asked, draft.choice) {
            let at = if self.policy.together {
                draft.start_us
            } else {
                now
            };
            self.live[index].charge(at, asked.points_of(index));
        }
        self.charge_closures(asked, draft);
        if let Some(choice) = draft.choice {
            *self.given.entry(&asked.choices[choice].name).or_default() += 1;
        }
        self.answer.grants.push(Grant {
            group,
            credential: draft.choice.map(|c| asked.choices[c].credential),
            start_us: draft.start_us,
            slack_us: draft.slack_us,
            probe: draft.probe,
        });
    }

    fn charge_closures(&mut self, group: &Group, draft: &Draft) {
        if self.closed.is_empty() {
            return;
        }
        let now = self.moment.now_us;
        let mut charge = |name: &str| {
            if let Some(closed) = self.closed.get_mut(name) {
                closed.charge(now, draft.start_us);
            }
        };
        charge(super::whole_of(&self.ask.provider));
        if let Some(choice) = draft.choice {
            charge(&group.choices[choice].name);
        }
        drawn(group, draft.choice).for_each(|index| charge(&self.ids[index]));
    }

    fn refuse(&mut self, group: usize, no: No) {
        let No {
            binds,
            why,
            opens_us,
        } = no;
        let limit = match binds {
            Binds::Limit(limit) => Some(limit),
            Binds::Provider | Binds::Key => None,
        };
        self.answer.refusals.push(Refusal {
            group,
            limit,
            key: binds == Binds::Key,
            why,
            opens_us,
        });
    }

    fn want_marks(&mut self) {
        for (index, live) in self.live.iter().enumerate() {
            if live.wants_mark() {
                self.answer.marks_wanted.push(index);
            }
        }
    }

    // ------------------------------------------------------------------------------------- saving

    fn renew_claims(&self, state: &mut State) -> Vec<usize> {
        let now = self.moment.now_us;
        let mut lost = Vec::new();
        for (index, claim) in self.ask.claims.iter().enumerate() {
            let other = state.claims.get(&claim.shard).is_some_and(|c| {
                let ours = c.holder == self.ask.holder && c.publication == claim.publication;
                c.expires_us > now && !ours
            });
            if other {
                lost.push(index);
                continue;
            }
            let publication = claim.publication.clone();
            let holder = self.ask.holder.clone();
            let renewed = Claim {
                publication,
                holder,
                expires_us: now + CLAIM_US,
            };
            state.claims.insert(claim.shard.clone(), renewed);
        }
        lost
    }

    fn save(&mut self, state: &mut State) {
        state.closed = std::mem::take(&mut self.closed);
        for grant in &self.answer.grants {
            let run = self.ask.groups[grant.group].run.clone();
            *state.granted.entry(run).or_default() += 1;
        }
        for (limit, live) in self.ask.limits.iter().zip(std::mem::take(&mut self.live)) {
            let id = limit.id();
            match live {
                Live::Paced {
                    pace,
                    next_us,
                    granted,
                    learned,
                    since_us,
                    nearer,
                } => {
                    let stored = state.paced.get(&id);
                    let is_lost = stored.is_none_or(|s| s.server != self.moment.server);
                    // It begins anew by the numbers that are in force, so not before those are back: grants in hand
                    // lie as far ahead as an operator's slower pace let them.
                    if is_lost && self.is_unset() {
                        continue;
                    }
                    let saved = self.saved_pace(stored, &pace, next_us, granted);
                    let saved = Paced {
                        learned,
                        since_us,
                        nearer: nearer.get(),
                        ..saved
                    };
                    state.paced.insert(id, saved);
                }
                Live::Leases {
                    opens_us,
                    mine,
                    stale,
                    learned,
                    ..
                } => {
                    let mine = (!stale).then_some(mine);
                    self.save_leases(state, id, opens_us, mine, learned);
                }
                Live::Quota { quota, .. } => drop(state.quotas.insert(id, quota)),
                Live::OtherWindow { .. } => {}
            }
        }
    }

    fn saved_pace(&self, stored: Option<&Paced>, pace: &Pace, next_us: i64, granted: u64) -> Paced {
        let period = self.moment.now_us.div_euclid(pace.period_us);
        let (used, used_before) = match stored {
            Some(s) if s.period == period => (s.used, s.used_before),
            Some(s) if s.period == period - 1 => (0, s.used),
            _ => (0, 0),
        };
        let server = self.moment.server.to_owned();
        Paced {
            next_us,
            server,
            period,
            used: used + granted,
            used_before,
            by: PacedBy::of(pace),
            since_us: 0,
            learned: Learned::default(),
            nearer: None,
        }
    }

    fn save_leases(
        &self,
        state: &mut State,
        id: String,
        opens_us: i64,
        mine: Option<u64>,
        learned: Option<Numbers>,
    ) {
        let server = self.moment.server;
        let known = state.leases.remove(&id).filter(|l| l.server == server);
        let mut holders = known.map(|l| l.holders).unwrap_or_default();
        let now = self.moment.now_us;
        holders.retain(|_, lease| lease.expires_us > now);
        if let Some(calls) = mine {
            let lease = Lease {
                calls,
                expires_us: now + LEASE_US,
                seq: self.moment.seq,
            };
            holders.insert(self.ask.holder.clone(), lease);
        }
        let server = server.to_owned();
        state.leases.insert(
            id,
            Leases {
                server,
                opens_us,
                holders,
                learned,
            },
        );
    }
}

impl Live {
    fn opening(&self, now: i64, points: u64) -> Opening {
        match self {
            Live::Paced {
                pace,
                next_us,
                learned,
                ..
            } => {
                let at = next_us + pace.wait_us(points);
                let empty = learned.left.filter(|left| left.calls == 0);
                Opening::At(empty.map_or(at, |left| at.max(left.till_us)))
            }
            Live::Leases { opens_us, .. } if *opens_us > now => {
                Opening::Shut(Why::InFlight, *opens_us)
            }
            Live::Leases {
                calls,
                others,
                mine,
                stale,
                ..
            } => {
                if *stale || others + mine >= *calls {
                    return Opening::Shut(Why::InFlight, now + IN_FLIGHT_AGAIN_US);
                }
                Opening::At(now)
            }
            Live::Quota {
                calls,
                quota,
                closes_us,
                guard_us,
                awaited,
                ..
            } => {
                let is_lost = quota.lost_us.is_some();
                if !is_lost && quota.count >= *calls {
                    Opening::Shut(Why::Quota, *closes_us)
                } else if is_lost || quota.count >= quota.mark {
                    awaited.set(true);
                    Opening::Shut(Why::Mark, now)
                } else {
                    Opening::At(quota.opened_us + guard_us)
                }
            }
            Live::OtherWindow { opens_us } => Opening::Shut(Why::Window, *opens_us),
        }
    }

    /// Whether half of the leases are out.
    fn is_scarce(&self) -> bool {
        match self {
            Live::Leases {
                calls,
                others,
                mine,
                ..
            } => 2 * (others + mine) >= *calls,
            _ => false,
        }
    }

    /// A call that may start `own_us` ahead and no further waits for `start_us`. Nobody with its horizon can have planned
    /// beyond one more interval: who did gives it a turn.
    fn wait_for_turn(&self, now: i64, start_us: i64, own_us: i64) {
        let Live::Paced { pace, nearer, .. } = self else {
            return;
        };
        if start_us <= now + own_us + pace.interval_us {
            return;
        }
        let turn = nearer.get().filter(|turn| turn.until_us > now);
        let given = |turn: Nearer| turn.horizon_us <= own_us && turn.until_us > now + NEARER_US / 2;
        if !turn.is_some_and(given) {
            nearer.set(Some(Nearer {
                horizon_us: turn.map_or(own_us, |turn| own_us.min(turn.horizon_us)),
                until_us: now + NEARER_US,
            }));
        }
    }

    /// When the window that closes before `start_us` turns: that call belongs to the next one.
    fn turns_before(&self, start_us: i64) -> Option<i64> {
        match self {
            Live::Quota {
                closes_us,
                guard_us,
                ..
            } if start_us >= closes_us - guard_us => Some(*closes_us),
            _ => None,
        }
    }

    fn charge(&mut self, start_us: i64, points: u64) {
        match self {
            Live::Paced {
                pace,
                next_us,
                granted,
                learned,
                ..
            } => {
                *next_us = (*next_us).max(start_us) + pace.charge_us(points);
                *granted += if pace.point_ns == 0 { 1 } else { points };
                if let Some(left) = learned.left.as_mut().filter(|l| start_us < l.till_us) {
                    left.calls = left.calls.saturating_sub(1);
                }
            }
            Live::Leases { mine, .. } => *mine += 1,
            Live::Quota { quota, .. } => quota.count += 1,
            Live::OtherWindow { .. } => {}
        }
    }

    /// A counter that nobody draws from wants none: after a loss its mark would count as used.
    fn wants_mark(&self) -> bool {
        match self {
            Live::Quota {
                calls,
                quota,
                marked: true,
                awaited,
                ..
            } => {
                let near = quota.mark < quota.count + pace::mark_step(*calls) / 2;
                let due = quota.lost_us.is_some() || (quota.mark < *calls && near);
                due && (quota.count > 0 || awaited.get())
            }
            _ => false,
        }
    }
}

/// Whether the next credential may serve when this one cannot: it is closed, or its own pace, leases or quota
/// bind. A counter that waits for its mark is not used up, so its credential stays the one in use.
fn may_skip(no: &No, choice: &Choice) -> bool {
    let of_its_own = match no.binds {
        Binds::Provider => false,
        Binds::Key => true,
        Binds::Limit(limit) => choice.limits.contains(&limit),
    };
    of_its_own && !matches!(no.why, Why::Mark | Why::Window)
}

/// The limits that a call draws from, each once as the asker lists them.
fn drawn(group: &Group, choice: Option<usize>) -> impl Iterator<Item = usize> + '_ {
    let own = choice.map_or(&[][..], |c| &group.choices[c].limits);
    group.limits.iter().chain(own).copied()
}

/// The group with the least bound, the first among equals.
fn first(bounds: &[Option<i64>]) -> Option<usize> {
    let open = bounds
        .iter()
        .enumerate()
        .filter_map(|(i, b)| b.map(|at| (at, i)));
    open.min().map(|(_, i)| i)
}

/// Whether a start of `group` comes before every other group's bound.
fn leads(bounds: &[Option<i64>], group: usize, start_us: i64) -> bool {
    let mut others = bounds.iter().enumerate().filter(|(i, _)| *i != group);
    others.all(|(i, b)| b.is_none_or(|at| (start_us, group) < (at, i)))
}
