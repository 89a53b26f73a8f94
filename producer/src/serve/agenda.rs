//! What a schedule does next: pure, over what it has seen, the clock, and what runs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use paceline_protocol::ids::RunId;
use paceline_protocol::spec::Overlap;
use serde::{Deserialize, Serialize};

use super::calendar::{Calendar, run_id};

/// The longest list of starts that wait or are made up for; older ones are missed.
const LONGEST: usize = 100;
/// Missed starts that are remembered.
const REPORTED: usize = 10;

/// What a schedule remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agenda {
    /// The planned start that was looked at last.
    pub seen: Timestamp,
    /// Planned starts that are to be made, oldest first.
    pub waiting: Vec<Timestamp>,
    /// The schedule that it is of ([`Calendar::print`]); empty while there is none.
    #[serde(default)]
    pub of: Option<String>,
    /// The last planned starts that nobody was there for, newest last.
    #[serde(default)]
    pub missed: Vec<Timestamp>,
}

/// What a look at the agenda comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start the run planned for then.
    Start(Timestamp),
    /// End what runs, for another one waits.
    Cancel,
    /// Not started, since the last one still runs.
    Skipped(Timestamp),
    /// Nobody was there to start it.
    Missed(Timestamp),
}

impl Agenda {
    /// Nothing before `now` is remembered.
    pub fn new(now: Timestamp) -> Self {
        Agenda {
            seen: now,
            waiting: Vec::new(),
            of: None,
            missed: Vec::new(),
        }
    }

    /// Follows `calendar` from now on. A schedule that was changed, or was not there for a while, asks for
    /// nothing that lies before; whether anything is new.
    pub fn follow(&mut self, calendar: &Calendar, now: Timestamp) -> bool {
        let print = calendar.print();
        if self.of.as_ref() == Some(&print) {
            return false;
        }
        if self.of.replace(print).is_some() {
            self.seen = self.seen.max(now);
        }
        true
    }

    /// There is no schedule any more; whether that is new.
    pub fn rest(&mut self) -> bool {
        self.waiting.clear();
        self.of.replace(String::new()) != Some(String::new())
    }

    /// Takes in what is due by `now` while the runs `open` are going. A start stays on the list until
    /// [`Agenda::done`].
    pub fn step(
        &mut self,
        calendar: &Calendar,
        now: Timestamp,
        open: &BTreeSet<RunId>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        // Years of missed minutes are not counted one by one.
        for _ in 0..10_000 {
            let Some(planned) = calendar.next(self.seen) else {
                break;
            };
            if calendar.start(planned) > now {
                break;
            }
            self.seen = planned;
            self.take_in(calendar, planned, now, open, &mut steps);
        }
        while self.waiting.len() > LONGEST {
            steps.push(Step::Missed(self.waiting.remove(0)));
        }
        let missed = steps.iter().filter_map(|step| match step {
            Step::Missed(planned) => Some(*planned),
            _ => None,
        });
        self.missed.extend(missed);
        let old = self.missed.len().saturating_sub(REPORTED);
        self.missed.drain(..old);
        if let Some(first) = self.waiting.first() {
            let own = run_id(*first);
            // Its own run is open when its start was cut off: that is done again, until it is whole.
            if open.iter().all(|run| *run == own) {
                steps.push(Step::Start(*first));
            } else if calendar.overlap == Overlap::Cancel && !open.contains(&own) {
                steps.push(Step::Cancel);
            }
        }
        steps
    }

    fn take_in(
        &mut self,
        calendar: &Calendar,
        planned: Timestamp,
        now: Timestamp,
        open: &BTreeSet<RunId>,
        steps: &mut Vec<Step>,
    ) {
        if open.contains(&run_id(planned)) {
            return; // Started already, and not noted any more.
        }
        let late = now.duration_since(calendar.start(planned)) > calendar.patience(planned);
        let busy = !open.is_empty() || !self.waiting.is_empty();
        match calendar.overlap {
            _ if late && !calendar.catch_up => steps.push(Step::Missed(planned)),
            Overlap::Skip if busy && !late => steps.push(Step::Skipped(planned)),
            Overlap::Cancel => {
                self.waiting.clear();
                self.waiting.push(planned);
            }
            Overlap::Skip | Overlap::Queue => self.waiting.push(planned),
        }
    }

    /// The run planned for then was started, or never can be.
    pub fn done(&mut self, planned: Timestamp) {
        self.waiting.retain(|waiting| *waiting != planned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::spec::{Schedule, Span};

    fn schedule(catch_up: bool) -> Schedule {
        Schedule {
            cron: "*/10 * * * *".into(),
            timezone: "UTC".into(),
            overlap: Overlap::Skip,
            jitter: None,
            catch_up,
            deadline: Span::secs(60),
        }
    }

    fn calendar(overlap: Overlap, catch_up: bool) -> Calendar {
        let schedule = Schedule {
            overlap,
            ..schedule(catch_up)
        };
        Calendar::new("orders", &schedule).expect("a calendar")
    }

    fn at(minute: i8) -> Timestamp {
        let day = jiff::civil::date(2026, 11, 27).at(3, 0, 0, 0);
        let day = day.to_zoned(jiff::tz::TimeZone::UTC).expect("a day");
        day.timestamp() + jiff::SignedDuration::from_mins(i64::from(minute))
    }

    fn open(runs: &[i8]) -> BTreeSet<RunId> {
        runs.iter().map(|minute| run_id(at(*minute))).collect()
    }

    #[test]
    fn a_start_is_made_once() {
        let calendar = calendar(Overlap::Skip, false);
        let mut agenda = Agenda::new(at(1));
        assert_eq!(agenda.step(&calendar, at(9), &open(&[])), []);
        assert_eq!(
            agenda.step(&calendar, at(10), &open(&[])),
            [Step::Start(at(10))]
        );
        assert_eq!(
            agenda.step(&calendar, at(10), &open(&[])),
            [Step::Start(at(10))]
        );
        agenda.done(at(10));
        assert_eq!(agenda.step(&calendar, at(11), &open(&[10])), []);
    }

    #[test]
    fn overlap_skips_queues_or_cancels() {
        let skip = calendar(Overlap::Skip, false);
        let mut agenda = Agenda::new(at(15));
        assert_eq!(
            agenda.step(&skip, at(20), &open(&[10])),
            [Step::Skipped(at(20))]
        );
        assert_eq!(agenda.step(&skip, at(21), &open(&[])), []);

        let queue = calendar(Overlap::Queue, false);
        let mut agenda = Agenda::new(at(15));
        assert_eq!(agenda.step(&queue, at(20), &open(&[10])), []);
        assert_eq!(agenda.step(&queue, at(30), &open(&[10])), []);
        assert_eq!(
            agenda.step(&queue, at(35), &open(&[])),
            [Step::Start(at(20))]
        );
        agenda.done(at(20));
        assert_eq!(
            agenda.step(&queue, at(36), &open(&[])),
            [Step::Start(at(30))]
        );

        let cancel = calendar(Overlap::Cancel, false);
        let mut agenda = Agenda::new(at(15));
        assert_eq!(agenda.step(&cancel, at(20), &open(&[10])), [Step::Cancel]);
        assert_eq!(
            agenda.step(&cancel, at(21), &open(&[])),
            [Step::Start(at(20))]
        );
    }

    #[test]
    fn a_missed_start_is_reported_or_made_up_for() {
        let mut agenda = Agenda::new(at(5));
        let steps = agenda.step(&calendar(Overlap::Skip, false), at(41), &open(&[]));
        let missed = [10, 20, 30].map(|m| Step::Missed(at(m)));
        assert_eq!(steps[..3], missed);
        assert_eq!(steps[3], Step::Start(at(40)));

        let mut agenda = Agenda::new(at(5));
        let catching = calendar(Overlap::Skip, true);
        assert_eq!(
            agenda.step(&catching, at(36), &open(&[])),
            [Step::Start(at(10))]
        );
        assert_eq!(agenda.waiting, [at(10), at(20), at(30)]);
    }

    #[test]
    fn its_own_run_does_not_count_as_the_last_one() {
        let mut agenda = Agenda::new(at(5));
        let steps = agenda.step(&calendar(Overlap::Skip, false), at(11), &open(&[10]));
        assert_eq!(steps, []);
    }

    #[test]
    fn missed_starts_are_remembered() {
        let mut agenda = Agenda::new(at(5));
        agenda.step(&calendar(Overlap::Skip, false), at(41), &open(&[]));
        assert_eq!(agenda.missed, [at(10), at(20), at(30)]);
    }

    #[test]
    fn a_schedule_that_was_changed_asks_for_nothing_before() {
        let catching = calendar(Overlap::Skip, true);
        let mut agenda = Agenda::new(at(1));
        assert!(agenda.follow(&catching, at(2)) && !agenda.follow(&catching, at(3)));
        assert_eq!(agenda.seen, at(1), "the first one changes nothing");
        let mut other = Schedule {
            cron: "*/5 * * * *".into(),
            ..schedule(true)
        };
        let changed = Calendar::new("orders", &other).expect("a calendar");
        assert!(agenda.follow(&changed, at(38)));
        assert_eq!(agenda.step(&changed, at(38), &open(&[])), []);
        assert_eq!(
            agenda.step(&changed, at(40), &open(&[])),
            [Step::Start(at(40))]
        );
        // Neither does one that comes back.
        assert!(agenda.rest() && !agenda.rest());
        assert!(agenda.follow(&changed, at(52)));
        assert_eq!(agenda.step(&changed, at(54), &open(&[])), []);
        other.catch_up = false;
        let same_times = Calendar::new("orders", &other).expect("a calendar");
        assert!(!agenda.follow(&same_times, at(55)));
    }

    #[test]
    fn a_start_that_was_cut_off_is_made_again() {
        for overlap in [Overlap::Skip, Overlap::Queue, Overlap::Cancel] {
            let calendar = calendar(overlap, false);
            let mut agenda = Agenda::new(at(5));
            let start = [Step::Start(at(10))];
            assert_eq!(agenda.step(&calendar, at(10), &open(&[])), start);
            // RabbitMQ was away: the run is open, its shards are not published, and nobody said that it is done.
            assert_eq!(agenda.step(&calendar, at(11), &open(&[10])), start);
            agenda.done(at(10));
            assert_eq!(agenda.step(&calendar, at(12), &open(&[10])), []);
        }
    }
}
