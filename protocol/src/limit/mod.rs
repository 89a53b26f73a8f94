//! Limits: what one call draws from, and the pure decision whether and when it may start.
//!
//! A provider's limits become [`Instance`]s for a call's scope and credential. A worker asks for a
//! batch ([`Ask`]); all limits of a call are decided together, all or nothing, and charged at the same
//! start ([`Grant::start_us`]). The decision itself is a pure function with the clock passed in; Redis runs
//! the same function as a script.

mod closed;
mod decide;
mod learn;
mod numbers;
mod pace;
#[cfg(test)]
mod properties;
mod scope;
mod slower;
mod state;
mod window;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use closed::{
    BREAKER, BREAKER_US, Closed, DEAD, FORGOTTEN_US, LONGEST_DOUBLED_US, PROBE_AGAIN_US, PROBE_US,
    PROVIDER, Probed, RAMP_OVER_US, RAMP_US,
};
pub use decide::{
    CLAIM_US, IN_FLIGHT_AGAIN_US, LEAD_US, LEASE_US, LEASES_BLIND_US, Moment, NEARER_US, SCARCE_US,
    decide,
};
pub use learn::{Lesson, SeenWindow, Spoken, Told, Windows};
pub use numbers::{
    Back, Heard, Hold, LONGEST_LEFT_US, Left, LeftTold, NoNumbers, Numbers, SAME_RESET_US,
};
pub use pace::{
    FURTHEST_US, LATEST_US, MOST_CHARGE_US, Pace, UNMARKED_WINDOW_US, mark_step, next_mark,
    window_guard_us,
};
pub use scope::{NotALimit, instance};
pub use slower::{PACE_KNOWN_AFTER_US, RAISED_AFTER_US, RAISED_AT_MOST, Slower};
pub use state::{
    Claim, Kept, Learned, Lease, Leases, Nearer, Paced, PacedBy, Quota, SetMark, State, UsedNow,
    in_force, used_now,
};
pub use window::{BadZone, quota_window};

/// The hash tag of a provider's keys: its name, or the name under which it shares a limit.
pub fn tag_of(provider: &str) -> &str {
    provider
        .split_once(PROVIDER)
        .map_or(provider, |(tag, _)| tag)
}

/// The name under which all of a provider may be closed or held: [`PROVIDER`], and of those that share a limit with
/// others its own.
pub fn whole_of(provider: &str) -> &str {
    let place = provider.find(PROVIDER);
    place.map_or(PROVIDER, |place| &provider[place..])
}

/// One limit for one scope: a counter of its own in Redis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The limit's name in its provider's file.
    pub limit: String,
    /// The rendered `per:` (empty without), the credential as its public name.
    pub scope: String,
    /// The numbers.
    pub rule: Rule,
}

impl Instance {
    /// What its state is remembered under: the limit's name and the scope.
    pub fn id(&self) -> String {
        format!("{}:{}", self.limit, self.scope)
    }
}

/// The numbers of an [`Instance`]. All times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `calls` in every trailing window of `period_us` (with `burst`: a token bucket).
    Rate {
        /// Calls in a period.
        calls: u64,
        /// The period.
        period_us: u64,
        /// The bucket's size, when the file says `burst:`.
        burst: Option<u64>,
    },
    /// At least so long between two calls.
    Spacing {
        /// The least time.
        least_us: u64,
    },
    /// So many calls in flight over the fleet.
    Concurrency {
        /// At most.
        calls: u64,
    },
    /// So many calls from `opened_us` until `closes_us` (fleet clock), the current calendar window.
    Quota {
        /// Calls in the window.
        calls: u64,
        /// Start of the window that the worker believes to be current.
        opened_us: i64,
        /// Its end; the script refuses when its clock is past it.
        closes_us: i64,
    },
    /// A bucket of points, of which each call takes its own number ([`Group::points`]).
    Cost {
        /// Points restored in a period.
        points: u64,
        /// The period.
        period_us: u64,
        /// The bucket's size.
        burst: u64,
    },
}

impl Rule {
    /// How it paces calls; `None` for leases and quotas.
    pub fn pace(&self) -> Option<Pace> {
        Pace::of(self)
    }
}

/// A worker's request for a batch of grants at one provider: one atomic step.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The provider, or `<shared name>*<provider>` of one that shares a limit; see [`tag_of`] and [`whole_of`].
    pub provider: String,
    /// Who asks: the worker's id. Leases and claims end with it.
    pub holder: String,
    /// Every limit that any group mentions, each once.
    pub limits: Vec<Instance>,
    /// Calls of this worker that hold a lease of each `Concurrency` limit now, by index into `limits`;
    /// absolute, so that asking twice does not count twice.
    pub held: Vec<(usize, u64)>,
    /// Calls that draw from the same limits, in the order of wish.
    pub groups: Vec<Group>,
    /// The claims that the worker believes to hold; checked and renewed in the same step.
    pub claims: Vec<ClaimRef>,
    /// What answers told of these limits.
    pub heard: Vec<Heard>,
    /// What operators set and long closures are kept in S3: nothing is granted before they were put back into a state
    /// that was lost ([`Why::Unset`]).
    pub keeps: bool,
}

impl Ask {
    /// A request that wants nothing, holds nothing and tells nothing, of a fleet that [keeps](Self::keeps) what operators set.
    pub fn nothing(provider: impl Into<String>, holder: impl Into<String>) -> Self {
        Ask {
            provider: provider.into(),
            holder: holder.into(),
            limits: Vec::new(),
            held: Vec::new(),
            groups: Vec::new(),
            claims: Vec::new(),
            heard: Vec::new(),
            keeps: true,
        }
    }

    /// How many calls of this worker hold a lease of the limit at `index`.
    pub fn held_of(&self, index: usize) -> u64 {
        let of_it = self.held.iter().filter(|(limit, _)| *limit == index);
        of_it.map(|(_, calls)| calls).sum()
    }

    /// What was heard of the limit at `index`.
    pub(crate) fn heard_of(&self, index: usize) -> Option<&Heard> {
        self.heard.iter().find(|heard| heard.limit == index)
    }
}

/// Calls that draw from the same limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `<job>/<run>`, for which the grants are counted.
    pub run: String,
    /// How many grants are wanted at most.
    pub want: u32,
    /// Indices of the limits that every one of these calls draws from.
    pub limits: Vec<usize>,
    /// The credentials that may serve, in the order of preference; empty when there are none.
    pub choices: Vec<Choice>,
    /// The credential that can serve first, of several the least used one, instead of the first that can.
    pub spread: bool,
    /// What each of these calls takes of a [`Rule::Cost`], by index of the limit; 1 where it is not said.
    pub points: Vec<(usize, u64)>,
    /// Plans half as far ahead, so that whoever else wants the same calls comes first.
    pub yields: bool,
}

impl Group {
    /// What a call takes of the limit at `index`.
    pub fn points_of(&self, index: usize) -> u64 {
        let of_it = self.points.iter().find(|(limit, _)| *limit == index);
        of_it.map_or(1, |(_, points)| *points)
    }
}

/// One credential of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its place in the pool.
    pub credential: usize,
    /// Its public name: place and six hex digits of a keyed hash.
    pub name: String,
    /// Indices of the limits that this credential draws from, besides the group's.
    pub limits: Vec<usize>,
}

/// A shard that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRef {
    /// `<job>/<run>/<shard>/<round>`.
    pub shard: String,
    /// The publication that the holder works on.
    pub publication: String,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Redis' clock in the step, microseconds since 1970.
    pub now_us: i64,
    /// What may be sent, and when.
    pub grants: Vec<Grant>,
    /// For each group that got less than it wanted: why, and when to ask again.
    pub refusals: Vec<Refusal>,
    /// Indices of the claims that are lost: their holder writes nothing more.
    pub lost_claims: Vec<usize>,
    /// Indices of quota limits that need a higher mark in S3 soon (CORE 17).
    pub marks_wanted: Vec<usize>,
    /// Limits whose state was lost and started anew.
    pub resets: Vec<usize>,
    /// Limits that were decided by other numbers than the asker's: learned, or set by an operator.
    pub changed: Vec<(usize, Numbers)>,
    /// Half or more of the calls that a limit allows in flight are: others wait for leases that end.
    pub scarce: bool,
}

impl Answer {
    /// An answer that says nothing yet.
    pub fn at(now_us: i64) -> Self {
        Answer {
            now_us,
            grants: Vec::new(),
            refusals: Vec::new(),
            lost_claims: Vec::new(),
            marks_wanted: Vec::new(),
            resets: Vec::new(),
            changed: Vec::new(),
            scarce: false,
        }
    }
}

/// Permission for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which group.
    pub group: usize,
    /// Place of the credential in the pool; `None` without credentials.
    pub credential: Option<usize>,
    /// Not before this instant of the fleet's clock, and not later than it plus `slack_us`.
    pub start_us: i64,
    /// The least slack of all the limits that were charged.
    pub slack_us: i64,
    /// It is the one call that tries whether a closure is over: how it ends has to be told
    /// ([`State::probed`]), else nobody else tries for [`PROBE_US`].
    pub probe: bool,
}

/// Why a group got less than it wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Which group.
    pub group: usize,
    /// The limit that binds, or whose scope is closed, by index; `None` for a closure of the whole provider or of
    /// the credential.
    pub limit: Option<usize>,
    /// It is the credential (of several: the one that opens first) that is closed.
    pub key: bool,
    /// What kind of refusal.
    pub why: Why,
    /// When asking again is worth it, on the fleet's clock.
    pub opens_us: i64,
}

/// The least time between two requests of one caller.
const AGAIN_AT_LEAST_US: i64 = 5_000;

impl Refusal {
    /// When somebody who wants a single call asks again, from `now_us` on. A start can be had half a horizon before
    /// [`Refusal::opens_us`], which is when batches are worth it: who came then would always find the next horizon taken by a
    /// fleet that is never idle.
    pub fn single_call_again(&self, now_us: i64) -> Duration {
        let opens_us = self.opens_us - now_us;
        let wait_us = match self.why {
            Why::Paced => opens_us / 2,
            _ => opens_us,
        };
        Duration::from_micros(wait_us.max(AGAIN_AT_LEAST_US).unsigned_abs())
    }
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The next start lies beyond what may be planned ahead.
    Paced,
    /// All leases are out.
    InFlight,
    /// A quota is used up until its reset.
    Quota,
    /// The scope, or every credential, is closed by a provider's answer.
    Closed,
    /// A quota's counter was lost or is about to pass its mark: the worker must put a mark first.
    Mark,
    /// The worker's idea of the calendar window is not Redis'.
    Window,
    /// The scope, or every credential, is closed and stays so until somebody looks: a key that is not
    /// accepted, or refusals again and again.
    Dead,
    /// An operator holds the provider.
    Held,
    /// What operators set was lost with the state: it has to be put back first ([`State::put_back`]).
    Unset,
    /// A newer build keeps the provider's budgets, in a layout of its own: this one gets nothing any more.
    Newer,
}
