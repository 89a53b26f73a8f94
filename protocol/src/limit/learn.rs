//! From what an answer tells of a limit to what the limiter hears: numbers that replace the file's, and what is left.

use std::time::Duration;

use super::numbers::{LeftTold, Numbers};
use super::{Pace, Rule};

/// What an answer tells of a limit; everything may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// Calls in the limit's period (in flight, in the window).
    pub calls: Option<f64>,
    /// The period that `calls` count in, where the answer says it.
    pub window: Option<Duration>,
    /// `calls` may count in a longer window than the file's: one that is reset later is no number of this limit.
    pub of_any_window: bool,
    /// Size of the bucket.
    pub burst: Option<f64>,
    /// Calls that are left.
    pub remaining: Option<f64>,
    /// How long until they are restored.
    pub reset: Option<Duration>,
}

/// What is heard of a limit out of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lesson {
    /// Numbers that hold from now on.
    pub numbers: Option<Numbers>,
    /// See [`super::Heard::next_us`].
    pub next_us: Option<i64>,
    /// See [`super::Heard::left`].
    pub left: Option<LeftTold>,
    /// See [`super::Heard::used`].
    pub used: Option<u64>,
}

/// When the call was sent and answered, on the fleet's clock.
#[derive(Clone, Copy, Debug)]
pub struct Spoken {
    /// Sent.
    pub sent_us: i64,
    /// Answered.
    pub answered_us: i64,
}

impl Told {
    /// Nothing is told.
    pub fn is_nothing(&self) -> bool {
        self.calls.is_none() && self.burst.is_none() && self.remaining.is_none()
    }

    /// What is heard of a limit that is `file` in its file and decided by `now`. `at_most` caps the number of calls.
    pub fn lesson(&self, file: &Rule, now: &Rule, at_most: Option<u64>, spoken: Spoken) -> Lesson {
        let numbers = self
            .numbers(file, at_most)
            .filter(|numbers| numbers.put_into(file).is_some());
        let rule = numbers.and_then(|n| n.put_into(file)).unwrap_or(*now);
        let mut lesson = Lesson {
            numbers,
            ..Lesson::default()
        };
        let Some(remaining) = self.remaining.filter(|n| n.is_finite() && *n >= 0.0) else {
            return lesson;
        };
        // Less than a whole call is none.
        let remaining = remaining as u64;
        match (rule, rule.pace()) {
            (Rule::Quota { calls, .. }, _) => lesson.used = Some(calls.saturating_sub(remaining)),
            (_, Some(pace)) => self.left(&mut lesson, remaining, &rule, &pace, spoken),
            _ => {}
        }
        lesson
    }

    fn left(&self, lesson: &mut Lesson, remaining: u64, rule: &Rule, pace: &Pace, spoken: Spoken) {
        let calls = i64::try_from(remaining).unwrap_or(i64::MAX);
        match (self.reset, rule) {
            (Some(reset), rule) if !matches!(rule, Rule::Cost { .. }) => {
                let reset_us = i64::try_from(reset.as_micros()).unwrap_or(i64::MAX / 4);
                // The pace alone leaves it alone.
                if calls <= reset_us / pace.interval_us {
                    lesson.left = Some(LeftTold {
                        calls: remaining,
                        of_us: spoken.sent_us,
                        till_us: spoken.answered_us.saturating_add(reset_us),
                    });
                }
            }
            (None, Rule::Rate { burst: Some(_), .. } | Rule::Cost { .. }) => {
                let full = pace.burst_us + pace.room_us + pace.charge_us(1);
                let left = match pace.point_ns {
                    0 => calls.saturating_mul(pace.interval_us),
                    _ => pace.charge_us(remaining),
                };
                let full_at = full.saturating_sub(left);
                lesson.next_us = Some(spoken.answered_us + full_at.max(0));
            }
            _ => {}
        }
    }

    fn numbers(&self, rule: &Rule, at_most: Option<u64>) -> Option<Numbers> {
        let cap = |calls: u64| calls.min(at_most.unwrap_or(u64::MAX)).max(1);
        match *rule {
            Rule::Rate {
                calls,
                period_us,
                burst,
            } => {
                let told = self.calls.filter(|_| self.is_of(period_us));
                let told = told.and_then(|n| rate(n, self.window.map_or(period_us, micros)));
                let size = self.burst.and_then(whole);
                if told.is_none() && size.is_none() {
                    return None;
                }
                let (calls, period_us) = match told {
                    // Above the cap it is the cap, in the file's own period.
                    Some((calls, _)) if calls > cap(calls) && self.window.is_none() => {
                        (cap(calls), period_us)
                    }
                    Some((calls, period_us)) => (cap(calls), period_us),
                    None => (calls, period_us),
                };
                Some(Numbers::Rate {
                    calls,
                    period_us,
                    burst: size.or(burst),
                })
            }
            Rule::Concurrency { .. } | Rule::Quota { .. } => {
                self.calls.and_then(whole).map(cap).map(Numbers::Calls)
            }
            Rule::Cost {
                points,
                period_us,
                burst,
            } => {
                let told = self.calls.filter(|_| self.is_of(period_us));
                let told = told.and_then(|n| rate(n, self.window.map_or(period_us, micros)));
                let size = self.burst.and_then(whole);
                if told.is_none() && size.is_none() {
                    return None;
                }
                let (points, period_us) = told.unwrap_or((points, period_us));
                Some(Numbers::Points {
                    points: cap(points),
                    period_us,
                    burst: size.unwrap_or(burst),
                })
            }
            Rule::Spacing { .. } => None,
        }
    }

    /// Whether the number can be one of a limit of this period.
    fn is_of(&self, period_us: u64) -> bool {
        let longer = self.reset.is_some_and(|reset| micros(reset) > period_us);
        !(self.of_any_window && self.window.is_none() && longer)
    }
}

/// Calls in a period, of a number that may be broken: 2.5 a second are 2 in 0.8 s, so that no window grows.
fn rate(calls: f64, period_us: u64) -> Option<(u64, u64)> {
    if !calls.is_finite() || calls <= 0.0 || period_us == 0 {
        return None;
    }
    let full = (calls.floor() as u64).max(1);
    let period = period_us as f64 * full as f64 / calls;
    (period < 1e15).then_some((full, (period.round() as u64).max(1)))
}

fn whole(calls: f64) -> Option<u64> {
    (calls.is_finite() && calls >= 1.0).then_some(calls as u64)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Rule = Rule::Rate {
        calls: 2,
        period_us: 1_000_000,
        burst: None,
    };
    const NOW: Spoken = Spoken {
        sent_us: 1_000,
        answered_us: 51_000,
    };

    fn rate_of(told: &Told, rule: &Rule, at_most: Option<u64>) -> Option<(u64, u64, Option<u64>)> {
        match told.lesson(rule, rule, at_most, NOW).numbers? {
            Numbers::Rate {
                calls,
                period_us,
                burst,
            } => Some((calls, period_us, burst)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rate_goes_up_and_down_and_stops_at_its_cap() {
        let told = |calls| Told {
            calls: Some(calls),
            ..Told::default()
        };
        let of = |calls| rate_of(&told(calls), &SECOND, Some(8));
        assert_eq!(of(5.0), Some((5, 1_000_000, None)));
        assert_eq!(of(1.0), Some((1, 1_000_000, None)));
        assert_eq!(of(50.0), Some((8, 1_000_000, None)));
        assert_eq!(of(2.5), Some((2, 800_000, None)));
        assert_eq!(of(0.0167), Some((1, 59_880_240, None)));
        assert_eq!(of(0.0), None);
        assert_eq!(of(f64::NAN), None);
    }

    #[test]
    fn a_number_of_a_longer_window_is_none_of_the_seconds() {
        let hourly = Told {
            calls: Some(5_000.0),
            of_any_window: true,
            remaining: Some(3.0),
            reset: Some(Duration::from_secs(1_800)),
            ..Told::default()
        };
        let lesson = hourly.lesson(&SECOND, &SECOND, None, NOW);
        assert_eq!(lesson.numbers, None);
        let left = lesson.left.expect("scarce");
        assert_eq!((left.calls, left.till_us), (3, 51_000 + 1_800_000_000));
        let named = Told {
            window: Some(Duration::from_secs(3_600)),
            ..hourly
        };
        assert_eq!(
            rate_of(&named, &SECOND, None),
            Some((5_000, 3_600_000_000, None))
        );
    }

    #[test]
    fn plenty_that_is_left_is_not_told() {
        let plenty = Told {
            remaining: Some(100.0),
            reset: Some(Duration::from_secs(30)),
            ..Told::default()
        };
        assert_eq!(
            plenty.lesson(&SECOND, &SECOND, None, NOW),
            Lesson::default()
        );
    }

    #[test]
    fn a_bucket_is_as_empty_as_the_answer_says() {
        let told = |remaining| Told {
            calls: Some(5.0),
            burst: Some(10.0),
            remaining: Some(remaining),
            ..Told::default()
        };
        let full = told(9.0).lesson(&SECOND, &SECOND, None, NOW);
        let numbers = full.numbers.expect("told");
        let pace = numbers
            .put_into(&SECOND)
            .and_then(|r| r.pace())
            .expect("paced");
        let full = full.next_us.expect("told");
        let empty = told(0.0)
            .lesson(&SECOND, &SECOND, None, NOW)
            .next_us
            .expect("told");
        assert_eq!(empty - full, 9 * pace.interval_us);
        assert!(empty - pace.burst_us >= NOW.answered_us, "nothing at once");
    }

    #[test]
    fn a_quota_hears_what_is_used_elsewhere() {
        let day = Rule::Quota {
            calls: 1_000,
            opened_us: 0,
            closes_us: 86_400_000_000,
        };
        let told = Told {
            calls: Some(800.0),
            remaining: Some(100.0),
            ..Told::default()
        };
        let lesson = told.lesson(&day, &day, None, NOW);
        assert_eq!(lesson.numbers, Some(Numbers::Calls(800)));
        assert_eq!(lesson.used, Some(700));
    }
}
