//! Numbers that replace those of a provider's file: learned from its answers, or set by an operator.
//!
//! What an operator set for a limit wins over what its answers told, and that over the file. They are kept
//! beside the state, and each step takes them in: nobody ever gets a grant by numbers that were replaced.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Rule;

/// The numbers of a limit, without what cannot be changed (a quota's window).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// Of a rate.
    Rate {
        /// Calls in a period.
        calls: u64,
        /// The period.
        period_us: u64,
        /// The bucket's size, if it is one.
        burst: Option<u64>,
    },
    /// Of a spacing.
    Spacing {
        /// The least time.
        least_us: u64,
    },
    /// Calls in flight, or calls of a quota's window.
    Calls(u64),
    /// Of a bucket of points.
    Points {
        /// Points restored in a period.
        points: u64,
        /// The period.
        period_us: u64,
        /// The bucket's size.
        burst: u64,
    },
}

impl Numbers {
    /// Those of `rule`.
    pub fn of(rule: &Rule) -> Self {
        match *rule {
            Rule::Rate {
                calls,
                period_us,
                burst,
            } => Numbers::Rate {
                calls,
                period_us,
                burst,
            },
            Rule::Spacing { least_us } => Numbers::Spacing { least_us },
            Rule::Concurrency { calls } | Rule::Quota { calls, .. } => Numbers::Calls(calls),
            Rule::Cost {
                points,
                period_us,
                burst,
            } => Numbers::Points {
                points,
                period_us,
                burst,
            },
        }
    }

    /// `rule` with these numbers; `None` when they are of another kind.
    pub fn put_into(self, rule: &Rule) -> Option<Rule> {
        Some(match (self, *rule) {
            (
                Numbers::Rate {
                    calls,
                    period_us,
                    burst,
                },
                Rule::Rate { .. } | Rule::Spacing { .. },
            ) => Rule::Rate {
                calls,
                period_us,
                burst,
            },
            (Numbers::Spacing { least_us }, Rule::Rate { .. } | Rule::Spacing { .. }) => {
                Rule::Spacing { least_us }
            }
            (Numbers::Calls(calls), Rule::Concurrency { .. }) => Rule::Concurrency { calls },
            (
                Numbers::Calls(calls),
                Rule::Quota {
                    opened_us,
                    closes_us,
                    ..
                },
            ) => Rule::Quota {
                calls,
                opened_us,
                closes_us,
            },
            (
                Numbers::Points {
                    points,
                    period_us,
                    burst,
                },
                Rule::Cost { .. },
            ) => Rule::Cost {
                points,
                period_us,
                burst,
            },
            _ => return None,
        })
    }
}

/// As it is kept in Redis: `rate 50 1000000 -`, `spacing 100000`, `calls 64`.
impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Numbers::Rate {
                calls,
                period_us,
                burst: Some(burst),
            } => write!(f, "rate {calls} {period_us} {burst}"),
            Numbers::Rate {
                calls, period_us, ..
            } => write!(f, "rate {calls} {period_us} -"),
            Numbers::Spacing { least_us } => write!(f, "spacing {least_us}"),
            Numbers::Calls(calls) => write!(f, "calls {calls}"),
            Numbers::Points {
                points,
                period_us,
                burst,
            } => write!(f, "points {points} {period_us} {burst}"),
        }
    }
}

/// A text that is no [`Numbers`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` are no numbers of a limit")]
pub struct NoNumbers(String);

impl FromStr for Numbers {
    type Err = NoNumbers;

    fn from_str(text: &str) -> Result<Self, NoNumbers> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().ok().filter(|n| *n > 0);
        let read = || match *words.as_slice() {
            ["rate", calls, period_us, burst] => Some(Numbers::Rate {
                calls: number(calls)?,
                period_us: number(period_us)?,
                burst: match burst {
                    "-" => None,
                    burst => Some(number(burst)?),
                },
            }),
            ["spacing", least_us] => Some(Numbers::Spacing {
                least_us: number(least_us)?,
            }),
            ["points", points, period_us, burst] => Some(Numbers::Points {
                points: number(points)?,
                period_us: number(period_us)?,
                burst: number(burst)?,
            }),
            ["calls", calls] => Some(Numbers::Calls(number(calls)?)),
            _ => None,
        };
        read().ok_or_else(|| NoNumbers(text.to_owned()))
    }
}

/// What answers told of a limit since the last ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which limit, by index into [`super::Ask::limits`].
    pub limit: usize,
    /// The numbers that answers told last, as far as the asker knows.
    pub numbers: Option<Numbers>,
    /// They were told just now: they replace what is remembered. Else they only fill in for a state that is lost.
    pub fresh: bool,
    /// A bucket is at least so empty (the same as [`super::Paced::next_us`]).
    pub next_us: Option<i64>,
    /// Until its next reset the provider serves no more than this.
    pub left: Option<LeftTold>,
    /// At least so much of a quota's window is used up.
    pub used: Option<u64>,
    /// Points that calls took and did not cost after all.
    pub back: Option<Back>,
    /// Points that calls cost beyond those that they took.
    pub more: u64,
    /// A call left so much later than its slack allows (microseconds): the next start moves as far, so that no
    /// window holds one too many. It is told at once, before the call a period later is granted.
    pub late_us: i64,
}

/// Points that are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// How many.
    pub points: u64,
    /// The start of the first call that took some of them: a state that began later never charged it.
    pub of_us: i64,
}

impl Heard {
    /// Nothing heard of the limit at `limit` yet.
    pub fn nothing(limit: usize) -> Self {
        Heard {
            limit,
            numbers: None,
            fresh: false,
            next_us: None,
            left: None,
            used: None,
            back: None,
            more: 0,
            late_us: 0,
        }
    }
}

/// What an answer said is left until a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftTold {
    /// Calls.
    pub calls: u64,
    /// The start of the call whose answer said so: later ones are not counted in it.
    pub of_us: i64,
    /// The reset, on the fleet's clock.
    pub till_us: i64,
}

/// What is left of a window that answers tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Calls that may still start before.
    pub calls: u64,
    /// The reset.
    pub till_us: i64,
}

/// Resets told for one window differ by at most this (1.5 s): they come in whole seconds.
pub const SAME_RESET_US: i64 = 1_500_000;
/// No answer empties a limit for longer (1 day).
pub const LONGEST_LEFT_US: i64 = 86_400_000_000;

impl Left {
    /// What is left after `told`, at `now_us`; `next_us` and `interval_us` bound how many calls were granted after
    /// the one whose answer it was.
    pub(super) fn hear(
        before: Option<Left>,
        told: &LeftTold,
        now_us: i64,
        next_us: i64,
        interval_us: i64,
    ) -> Option<Left> {
        let after = ((next_us - told.of_us).div_euclid(interval_us) - 1).max(0);
        let calls = told.calls.saturating_sub(after.unsigned_abs());
        let till_us = told.till_us.min(now_us + LONGEST_LEFT_US);
        if till_us <= now_us {
            return before;
        }
        Some(match before {
            Some(b) if (till_us - b.till_us).abs() <= SAME_RESET_US => Left {
                calls: calls.min(b.calls),
                till_us: till_us.max(b.till_us),
            },
            _ => Left { calls, till_us },
        })
    }
}

/// Nothing starts before, whatever is left: an operator holds the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// On the fleet's clock.
    pub until_us: i64,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_they_are_written() {
        for numbers in [
            Numbers::Rate {
                calls: 50,
                period_us: 1_000_000,
                burst: None,
            },
            Numbers::Rate {
                calls: 5,
                period_us: 60_000_000,
                burst: Some(10),
            },
            Numbers::Spacing { least_us: 100_000 },
            Numbers::Calls(64),
            Numbers::Points {
                points: 100,
                period_us: 1_000_000,
                burst: 2_000,
            },
        ] {
            assert_eq!(numbers.to_string().parse(), Ok(numbers));
        }
        for text in [
            "",
            "rate 0 1 -",
            "rate 5 1",
            "calls",
            "calls x",
            "spacing 0",
        ] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_left_never_grows_within_a_window() {
        let told = |calls, of_us, till_us| LeftTold {
            calls,
            of_us,
            till_us,
        };
        let first = Left::hear(None, &told(10, 0, 60_000_000), 100, 300, 100);
        assert_eq!(
            first,
            Some(Left {
                calls: 8,
                till_us: 60_000_000
            })
        );
        let same = Left::hear(first, &told(20, 200, 60_900_000), 300, 300, 100);
        assert_eq!(same.map(|l| l.calls), Some(8));
        let next = Left::hear(first, &told(20, 200, 120_000_000), 300, 300, 100);
        assert_eq!(next.map(|l| l.calls), Some(20));
    }
}
