//! When a schedule's runs start: cron lines in a time zone, jitter seeded by job and time. Pure; the clock is
//! passed in.
//!
//! Days with a change of the clock: a time that does not exist is taken at the first instant after the gap, a
//! fixed time that comes twice is taken at its first coming.

use std::time::Duration;

use croner::Cron;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use paceline_protocol::ids::RunId;
use paceline_protocol::spec::{Overlap, Schedule};
use sha2::{Digest, Sha256};

/// What a run id of a schedule ends with.
const SUFFIX: &str = "-cron";

/// A schedule that can be asked.
#[derive(Clone, Debug)]
pub struct Calendar {
    job: String,
    line: String,
    cron: Cron,
    zone: TimeZone,
    jitter: Duration,
    /// What to do while a run is open.
    pub overlap: Overlap,
    /// Whether missed starts are made up for.
    pub catch_up: bool,
}

impl Calendar {
    /// The calendar of `job`.
    ///
    /// # Errors
    /// When the cron line or the zone cannot be read.
    pub fn new(job: &str, schedule: &Schedule) -> Result<Self, String> {
        Ok(Calendar {
            job: job.to_owned(),
            line: format!("{} {}", schedule.cron.trim(), schedule.timezone),
            cron: schedule.cron.parse().map_err(|e| format!("{e}"))?,
            zone: TimeZone::get(&schedule.timezone).map_err(|e| e.to_string())?,
            jitter: schedule.jitter.map_or(Duration::ZERO, |span| span.0),
            overlap: schedule.overlap,
            catch_up: schedule.catch_up,
        })
    }

    /// Which times it names, as a text that two schedules share when they name the same.
    pub fn print(&self) -> String {
        self.line.clone()
    }

    /// The zone in which its lines are read.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The planned start after `after`; `None` when there is none any more.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = Zoned::new(after, self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(next.timestamp())
    }

    /// When the run planned for `planned` starts: up to the jitter later, the same for every replica.
    pub fn start(&self, planned: Timestamp) -> Timestamp {
        let micros = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return planned;
        }
        let seed = Sha256::digest(format!("{}@{planned}", self.job));
        let mut first = [0; 8];
        first.copy_from_slice(&seed[..8]);
        let later = u64::from_be_bytes(first) % micros;
        planned + Duration::from_micros(later)
    }

    /// `today` of the run planned for `planned`: its date in the schedule's zone.
    pub fn date(&self, planned: Timestamp) -> Date {
        Zoned::new(planned, self.zone.clone()).date()
    }

    /// How late the run planned for `planned` may start and still count as on time: half the way to the
    /// next one, at least 30 s, at most 10 minutes.
    pub fn patience(&self, planned: Timestamp) -> SignedDuration {
        let (least, most) = (SignedDuration::from_secs(30), SignedDuration::from_mins(10));
        let gap = self
            .next(planned)
            .map(|next| next.duration_since(planned) / 2);
        gap.unwrap_or(most).clamp(least, most)
    }
}

/// The id of the run planned for `planned`: the same on every replica.
///
/// # Panics
/// Never: a time in digits is a run id.
pub fn run_id(planned: Timestamp) -> RunId {
    let utc = planned.to_zoned(TimeZone::UTC);
    format!("{}{SUFFIX}", utc.strftime("%Y%m%d-%H%M%S"))
        .parse()
        .expect("digits and a suffix are a run id")
}

/// The planned start that a run id of [`run_id`] holds.
pub fn planned_in(id: &RunId) -> Option<Timestamp> {
    let digits = id.as_str().strip_suffix(SUFFIX)?;
    let civil = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", digits).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::spec::Span;

    fn calendar(cron: &str, zone: &str, jitter: Option<Span>) -> Calendar {
        let schedule = Schedule {
            cron: cron.into(),
            timezone: zone.into(),
            overlap: Overlap::Skip,
            jitter,
            catch_up: false,
            deadline: Span::secs(86_400),
        };
        Calendar::new("fares", &schedule).expect("a calendar")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn nexts(calendar: &Calendar, from: &str, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        let mut last = at(from);
        for _ in 0..count {
            last = calendar.next(last).expect("a next one");
            all.push(last.to_string());
        }
        all
    }

    #[test]
    fn a_schedule_follows_its_zone() {
        let seoul = calendar("0 3 * * *", "Asia/Seoul", None);
        assert_eq!(
            nexts(&seoul, "2026-11-27T00:00:00Z", 2),
            ["2026-11-27T18:00:00Z", "2026-11-28T18:00:00Z"]
        );
        assert_eq!(
            seoul.date(at("2026-11-27T18:00:00Z")).to_string(),
            "2026-11-28"
        );
    }

    #[test]
    fn a_time_that_does_not_exist_is_taken_once_after_the_gap() {
        let berlin = calendar("30 2 * * *", "Europe/Berlin", None);
        let days = nexts(&berlin, "2027-03-27T12:00:00Z", 2);
        assert_eq!(days, ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]);
    }

    #[test]
    fn a_time_that_comes_twice_is_taken_once() {
        let berlin = calendar("30 2 * * *", "Europe/Berlin", None);
        let days = nexts(&berlin, "2026-10-24T12:00:00Z", 2);
        assert_eq!(days, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn an_interval_goes_on_through_both_passes_of_an_hour() {
        let berlin = calendar("*/30 * * * *", "Europe/Berlin", None);
        let found = nexts(&berlin, "2026-10-24T23:59:00Z", 5);
        assert_eq!(found[0], "2026-10-25T00:00:00Z");
        assert_eq!(found[4], "2026-10-25T02:00:00Z");
    }

    #[test]
    fn jitter_is_the_same_everywhere_and_stays_in_bounds() {
        let some = calendar("*/10 * * * *", "UTC", Some(Span::secs(60)));
        let planned = at("2026-11-27T00:10:00Z");
        assert_eq!(some.start(planned), some.start(planned));
        assert!(some.start(planned).duration_since(planned) < SignedDuration::from_secs(60));
        assert_ne!(
            some.start(planned).duration_since(planned),
            some.start(at("2026-11-27T00:20:00Z"))
                .duration_since(at("2026-11-27T00:20:00Z"))
        );
    }

    #[test]
    fn a_run_id_holds_its_planned_start() {
        let planned = at("2026-11-27T18:00:00Z");
        let id = run_id(planned);
        assert_eq!(id.as_str(), "20261127-180000-cron");
        assert_eq!(planned_in(&id), Some(planned));
        assert_eq!(planned_in(&"2026-11-21".parse().expect("an id")), None);
    }
}
