//! What answers told of limits, kept until the next request for grants takes it along: it costs no round trip.

use std::collections::HashMap;

use paceline_protocol::limit::{
    Back, Heard, Instance, LeftTold, Lesson, Numbers, Rule, SeenWindow, Spoken, Told, Windows,
};

/// A limit in a scope.
type Key = (String, String);

/// What this process has heard.
#[derive(Debug, Default)]
pub struct Ears {
    known: HashMap<Key, Known>,
    /// Of limits whose answers name no window.
    windows: HashMap<Key, Windows>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    numbers: Option<Numbers>,
    /// The numbers have not been told to the fleet yet.
    fresh: bool,
    next_us: Option<i64>,
    left: Option<LeftTold>,
    used: Option<u64>,
    back: Option<Back>,
    more: u64,
}

impl Ears {
    /// A call that started at `of_us` took `taken` points of `limit` and cost `actual`.
    pub fn cost(&mut self, limit: &Instance, taken: u64, actual: u64, of_us: i64) {
        if taken == actual {
            return;
        }
        let key = (limit.limit.clone(), limit.scope.clone());
        let known = self.known.entry(key).or_default();
        known.more += actual.saturating_sub(taken);
        let points = taken.saturating_sub(actual);
        if points > 0 {
            let before = known.back.unwrap_or(Back { points: 0, of_us });
            known.back = Some(Back {
                points: before.points + points,
                of_us: before.of_us.min(of_us),
            });
        }
    }

    /// What answers showed of the window of a number that names none, after one more; the file's rule is `file`.
    pub fn window(
        &mut self,
        limit: &Instance,
        told: &Told,
        file: &Rule,
        spoken: Spoken,
    ) -> SeenWindow {
        if !told.is_of_unknown_window() {
            return SeenWindow::Unknown;
        }
        let key = (limit.limit.clone(), limit.scope.clone());
        let windows = self.windows.entry(key).or_default();
        windows.see(told, file, spoken)
    }

    /// An answer told something of `limit`.
    pub fn hear(&mut self, limit: &Instance, lesson: &Lesson) {
        if *lesson == Lesson::default() {
            return;
        }
        let key = (limit.limit.clone(), limit.scope.clone());
        let known = self.known.entry(key).or_default();
        if lesson.numbers.is_some() && lesson.numbers != known.numbers {
            (known.numbers, known.fresh) = (lesson.numbers, true);
        }
        known.next_us = known.next_us.max(lesson.next_us);
        known.used = known.used.max(lesson.used);
        known.left = match (known.left, lesson.left) {
            // Answers come in any order; the fewer are the newer.
            (Some(a), Some(b)) if a.calls < b.calls && a.till_us >= b.till_us => Some(a),
            (_, Some(b)) => Some(b),
            (a, None) => a,
        };
    }

    /// What the fleet should hear of `limits`; from now on it counts as told.
    pub fn tell(&mut self, limits: &[Instance]) -> Vec<Heard> {
        let mut all = Vec::new();
        if self.known.is_empty() {
            return all;
        }
        for (limit, instance) in limits.iter().enumerate() {
            let key = (instance.limit.clone(), instance.scope.clone());
            let Some(known) = self.known.get_mut(&key) else {
                continue;
            };
            all.push(Heard {
                limit,
                numbers: known.numbers,
                fresh: known.fresh,
                next_us: known.next_us.take(),
                left: known.left.take(),
                used: known.used.take(),
                back: known.back.take(),
                more: std::mem::take(&mut known.more),
                // Told at once, see `late`.
                late_us: 0,
            });
            known.fresh = false;
        }
        all
    }

    /// Nobody knows whether the fleet heard it: it is told again.
    pub fn tell_again(&mut self, limits: &[Instance]) {
        for instance in limits {
            let key = (instance.limit.clone(), instance.scope.clone());
            if let Some(known) = self.known.get_mut(&key) {
                known.fresh = known.numbers.is_some();
            }
        }
    }

    /// An operator changed limits: what is heard next counts as new.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::limit::Rule;

    fn limit() -> Instance {
        Instance {
            limit: "second".into(),
            scope: "a".into(),
            rule: Rule::Spacing { least_us: 1 },
        }
    }

    fn lesson(calls: u64) -> Lesson {
        Lesson {
            numbers: Some(Numbers::Calls(calls)),
            used: Some(calls),
            ..Lesson::default()
        }
    }

    #[test]
    fn what_a_call_did_not_cost_is_given_back_once() {
        let mut ears = Ears::default();
        ears.cost(&limit(), 10, 4, 7);
        ears.cost(&limit(), 10, 9, 5);
        ears.cost(&limit(), 1, 3, 9);
        let heard = ears.tell(&[limit()]);
        let back = Back {
            points: 7,
            of_us: 5,
        };
        assert_eq!((heard[0].back, heard[0].more), (Some(back), 2));
        let again = ears.tell(&[limit()]);
        assert_eq!((again[0].back, again[0].more), (None, 0));
    }

    #[test]
    fn numbers_are_new_once_and_then_carried_along() {
        let mut ears = Ears::default();
        let limits = [limit()];
        assert!(ears.tell(&limits).is_empty());
        ears.hear(&limits[0], &lesson(5));
        let first = ears.tell(&limits);
        assert_eq!((first[0].fresh, first[0].used), (true, Some(5)));
        ears.hear(&limits[0], &lesson(5));
        let second = ears.tell(&limits);
        assert_eq!((second[0].fresh, second[0].used), (false, Some(5)));
        assert_eq!(ears.tell(&limits)[0].used, None);
        ears.tell_again(&limits);
        assert!(ears.tell(&limits)[0].fresh);
        ears.hear(&limits[0], &lesson(7));
        assert!(ears.tell(&limits)[0].fresh);
        ears.forget();
        assert!(ears.tell(&limits).is_empty());
    }
}
