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
    /// `calls` may count in another window than the file's, which nothing says: it may only lower the limit, as long as its
    /// resets have not shown that it is no longer one (see [`Windows`]).
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

impl Lesson {
    /// Until when (microseconds, the fleet's clock) the provider serves nothing more of the limit, decided by `rule`; `None`
    /// while something is left. Who has grants in hand for a start before that would be refused.
    pub fn shut_until_us(&self, rule: &Rule) -> Option<i64> {
        let left = self.left.filter(|left| left.calls == 0);
        let used_up = match *rule {
            Rule::Quota {
                calls, closes_us, ..
            } => {
                let calls = match self.numbers {
                    Some(Numbers::Calls(told)) => told,
                    _ => calls,
                };
                self.used.filter(|used| *used >= calls).map(|_| closes_us)
            }
            _ => None,
        };
        left.map(|left| left.till_us).or(used_up)
    }
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

    /// Whether the window of its numbers is unknown.
    pub fn is_of_unknown_window(&self) -> bool {
        self.of_any_window && self.window.is_none() && self.calls.is_some()
    }

    /// What is heard of a limit that is `file` in its file and decided by `now`. `at_most` caps the number of calls.
    /// `seen` is what the resets of earlier answers showed of a window that nothing names.
    pub fn lesson(
        &self,
        file: &Rule,
        now: &Rule,
        at_most: Option<u64>,
        seen: SeenWindow,
        spoken: Spoken,
    ) -> Lesson {
        let numbers = match self.is_of_unknown_window().then_some(seen) {
            // What was believed of an earlier answer is taken back.
            Some(SeenWindow::Longer) => Some(Numbers::of(file)),
            Some(SeenWindow::Unknown) if at_most.is_none() => self.numbers(file, calls_of(file)),
            _ => self.numbers(file, at_most),
        };
        let numbers = numbers.filter(|numbers| numbers.put_into(file).is_some());
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
                // Told in whole seconds it may be nearer by one: of the last second nothing is known.
                let surely_us = reset_us - RESETS_ARE_WHOLE_US;
                // The pace alone leaves it alone.
                if surely_us > 0 && calls <= surely_us / pace.interval_us {
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

    /// Calls in a period, which is the told window or else `period_us`.
    fn rate(&self, period_us: u64) -> Option<(u64, u64)> {
        rate(self.calls?, self.window.map_or(period_us, micros))
    }

    fn numbers(&self, rule: &Rule, at_most: Option<u64>) -> Option<Numbers> {
        let cap = |calls: u64| calls.min(at_most.unwrap_or(u64::MAX)).max(1);
        match *rule {
            Rule::Rate {
                calls,
                period_us,
                burst,
            } => {
                let (told, size) = (self.rate(period_us), self.burst.and_then(whole));
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
                let (told, size) = (self.rate(period_us), self.burst.and_then(whole));
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
}

/// Resets are told in whole seconds (1 s).
const RESETS_ARE_WHOLE_US: i64 = 1_000_000;

/// What the resets of answers showed of a window that no answer names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeenWindow {
    /// Nothing: there were none, or no window has ended yet.
    #[default]
    Unknown,
    /// Windows ended and the next ones were no longer than the limit's period.
    NoLonger,
    /// A reset lay further ahead than the limit's period.
    Longer,
}

/// Watches the resets of one limit. In the last second of a minute a minute's number looks like a second's, so
/// it is believed to be one only when another window has begun and its reset was as near.
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows {
    /// The first reset that was told, on the fleet's clock.
    first_us: Option<i64>,
    seen: SeenWindow,
}

impl Windows {
    /// Learns from an answer about a limit of `file`'s period. What was once longer stays so.
    pub fn see(&mut self, told: &Told, file: &Rule, spoken: Spoken) -> SeenWindow {
        let (Some(reset), Some(pace)) = (told.reset, file.pace()) else {
            return self.seen;
        };
        let reset_us = i64::try_from(reset.as_micros()).unwrap_or(i64::MAX / 4);
        if reset_us > pace.period_us.max(RESETS_ARE_WHOLE_US) {
            self.seen = SeenWindow::Longer;
        }
        let till_us = spoken.answered_us.saturating_add(reset_us);
        let first_us = *self.first_us.get_or_insert(till_us);
        let another = spoken.answered_us >= first_us + RESETS_ARE_WHOLE_US;
        if another && self.seen == SeenWindow::Unknown {
            self.seen = SeenWindow::NoLonger;
        }
        self.seen
    }
}

/// The number that a limit of `rule` has in its file.
fn calls_of(rule: &Rule) -> Option<u64> {
    match *rule {
        Rule::Rate { calls, .. } => Some(calls),
        Rule::Cost { points, .. } => Some(points),
        // Neither has a window of its own, or its window is the calendar's.
        Rule::Concurrency { .. } | Rule::Quota { .. } | Rule::Spacing { .. } => None,
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
        match told
            .lesson(rule, rule, at_most, SeenWindow::Unknown, NOW)
            .numbers?
        {
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
        let seen = Windows::default().see(&hourly, &SECOND, NOW);
        assert_eq!(seen, SeenWindow::Longer);
        let lesson = hourly.lesson(&SECOND, &SECOND, None, seen, NOW);
        assert_eq!(lesson.numbers, Some(Numbers::of(&SECOND)));
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

    /// An answer at `at_s` that tells 200 calls of a window that is reset at the end of each minute.
    fn of_a_minute(at_s: i64) -> (Told, Spoken) {
        let told = Told {
            calls: Some(200.0),
            of_any_window: true,
            reset: Some(Duration::from_secs((60 - at_s % 60) as u64)),
            ..Told::default()
        };
        let at = at_s * 1_000_000;
        let spoken = Spoken {
            sent_us: at - 50_000,
            answered_us: at,
        };
        (told, spoken)
    }

    #[test]
    fn the_last_second_of_a_minute_makes_no_minute_a_second() {
        let mut windows = Windows::default();
        let mut numbers = |at_s| {
            let (told, spoken) = of_a_minute(at_s);
            let seen = windows.see(&told, &SECOND, spoken);
            told.lesson(&SECOND, &SECOND, None, seen, spoken).numbers
        };
        assert_eq!(numbers(59), Some(Numbers::of(&SECOND)), "not known yet");
        assert_eq!(numbers(60), Some(Numbers::of(&SECOND)));
        assert_eq!(numbers(119), Some(Numbers::of(&SECOND)), "it is known");
    }

    #[test]
    fn a_number_without_a_window_only_lowers_until_another_window_has_begun() {
        let told = |calls, reset| Told {
            calls: Some(calls),
            of_any_window: true,
            reset,
            ..Told::default()
        };
        let mut windows = Windows::default();
        let mut calls = |at_s: i64, calls, reset: Option<u64>| {
            let told = told(calls, reset.map(Duration::from_secs));
            let spoken = Spoken {
                sent_us: at_s * 1_000_000,
                answered_us: at_s * 1_000_000,
            };
            let seen = windows.see(&told, &SECOND, spoken);
            match told.lesson(&SECOND, &SECOND, None, seen, spoken).numbers {
                Some(Numbers::Rate { calls, .. }) => calls,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(calls(1, 5_000.0, None), 2);
        assert_eq!(calls(1, 1.0, None), 1);
        assert_eq!(calls(1, 5.0, Some(1)), 2);
        assert_eq!(calls(3, 5.0, Some(1)), 5, "seconds follow seconds");
        let capped = told(5_000.0, None);
        assert_eq!(
            rate_of(&capped, &SECOND, Some(8)),
            Some((8, 1_000_000, None))
        );
    }

    #[test]
    fn a_reset_in_whole_seconds_says_nothing_of_the_last_one() {
        let second = Told {
            calls: Some(50.0),
            remaining: Some(15.0),
            reset: Some(Duration::from_secs(1)),
            of_any_window: true,
            ..Told::default()
        };
        let file = Rule::Rate {
            calls: 50,
            period_us: 1_000_000,
            burst: None,
        };
        let lesson = second.lesson(&file, &file, None, SeenWindow::NoLonger, NOW);
        assert_eq!(lesson.left, None);
    }

    #[test]
    fn plenty_that_is_left_is_not_told() {
        let plenty = Told {
            remaining: Some(100.0),
            reset: Some(Duration::from_secs(30)),
            ..Told::default()
        };
        assert_eq!(
            plenty.lesson(&SECOND, &SECOND, None, SeenWindow::Unknown, NOW),
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
        let lesson = |told: Told| told.lesson(&SECOND, &SECOND, None, SeenWindow::Unknown, NOW);
        let full = lesson(told(9.0));
        let numbers = full.numbers.expect("told");
        let pace = numbers
            .put_into(&SECOND)
            .and_then(|r| r.pace())
            .expect("paced");
        let full = full.next_us.expect("told");
        let empty = lesson(told(0.0)).next_us.expect("told");
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
        let lesson = told.lesson(&day, &day, None, SeenWindow::Unknown, NOW);
        assert_eq!(lesson.numbers, Some(Numbers::Calls(800)));
        assert_eq!(lesson.used, Some(700));
    }

    #[test]
    fn nothing_left_shuts_until_the_reset_for_grants_in_hand_too() {
        let told = |remaining| Told {
            remaining: Some(remaining),
            reset: Some(Duration::from_secs(30)),
            ..Told::default()
        };
        let shut = |rule: &Rule, remaining| {
            let lesson = told(remaining).lesson(rule, rule, None, SeenWindow::Unknown, NOW);
            lesson.shut_until_us(rule)
        };
        let minute = Rule::Rate {
            calls: 60,
            period_us: 60_000_000,
            burst: None,
        };
        assert_eq!(shut(&minute, 0.0), Some(NOW.answered_us + 30_000_000));
        assert_eq!(shut(&minute, 1.0), None);
        let day = Rule::Quota {
            calls: 1_000,
            opened_us: 0,
            closes_us: 86_400_000_000,
        };
        assert_eq!(shut(&day, 0.0), Some(86_400_000_000));
        assert_eq!(shut(&day, 1.0), None);
    }
}
