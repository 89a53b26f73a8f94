//! Whether a run fits: into its quotas, before the next run of its schedule, before its deadline; and what would make
//! it fit.

use std::time::Duration;

use jiff::Timestamp;
use paceline_protocol::plan::Plan;
use serde::Serialize;

use super::estimate::{Estimate, QuotaShare};
use crate::serve::calendar::Calendar;
use crate::show;

/// Something that a run does not fit into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// What.
    pub what: String,
    /// What would make it fit.
    pub remedy: String,
}

/// Everything that the run does not fit into; `now` is when it would start.
pub fn misfits(plan: &Plan, estimate: &Estimate, now: Timestamp) -> Vec<Misfit> {
    let mut found: Vec<Misfit> = estimate
        .quotas
        .iter()
        .filter(|quota| quota.share > 1.0 && !quota.is_pace)
        .map(|quota| beyond_quota(estimate, quota))
        .collect();
    let Some(schedule) = &plan.job.schedule else {
        return found;
    };
    let Some(seconds) = estimate.seconds else {
        return found;
    };
    let next = Calendar::new(&plan.job.name, schedule)
        .ok()
        .and_then(|calendar| shortest_pause(&calendar, now));
    let limits = [
        (next, "before the next run starts"),
        (Some(schedule.deadline.0), "before its deadline"),
    ];
    for (limit, what) in limits {
        found.extend(limit.and_then(|limit| too_slow(estimate, seconds, limit, what)));
    }
    found
}

/// The shortest time from one start to the next among the next few.
fn shortest_pause(calendar: &Calendar, now: Timestamp) -> Option<Duration> {
    let mut at = calendar.next(now)?;
    let mut shortest: Option<Duration> = None;
    for _ in 0..24 {
        let Some(next) = calendar.next(at) else { break };
        let pause = Duration::try_from(next.duration_since(at)).ok()?;
        shortest = Some(shortest.map_or(pause, |s| s.min(pause)));
        at = next;
    }
    shortest
}

fn beyond_quota(estimate: &Estimate, quota: &QuotaShare) -> Misfit {
    let calls = (quota.share * quota.allowed as f64 * quota.scopes as f64).round();
    let cells = estimate.cells as f64 / quota.share;
    let fewer = format!("at most {} cells", show::count(cells.floor() as u64));
    let remedy = match quota.pool {
        Some(pool) => {
            let keys = (calls * pool as f64 / (quota.allowed as f64 * quota.scopes as f64)).ceil();
            let more = keys as u64 - pool.min(keys as u64);
            format!("{more} more keys ({} in all), or {fewer}", keys as u64)
        }
        None => fewer,
    };
    Misfit {
        what: format!(
            "quota {}/{}: {} calls, and {} are allowed until its reset",
            quota.provider,
            quota.limit,
            show::count(calls as u64),
            show::count(quota.allowed * quota.scopes),
        ),
        remedy,
    }
}

fn too_slow(estimate: &Estimate, seconds: f64, limit: Duration, what: &str) -> Option<Misfit> {
    let share = seconds / limit.as_secs_f64();
    if share <= 1.0 {
        return None;
    }
    let binds = estimate.binds.as_deref().unwrap_or("its limits");
    let cells = (estimate.cells as f64 / share).floor() as u64;
    let needs = show::span(Duration::from_secs_f64(seconds.ceil()));
    Some(Misfit {
        what: format!(
            "it takes {needs} at the allowed rate, and has {} {what}",
            show::span(limit)
        ),
        remedy: format!(
            "{share:.1} times as much of {binds}, or at most {} cells",
            show::count(cells)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(cells: u64, seconds: f64) -> Estimate {
        Estimate {
            job: "j".into(),
            run: "r".into(),
            cells,
            calls: cells,
            calls_saved: None,
            expected: None,
            at_least: false,
            shards: 1,
            seconds: Some(seconds),
            starts: Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC),
            ends: None,
            next_start: None,
            binds: Some("p/second".into()),
            lanes: Vec::new(),
            quotas: Vec::new(),
            misfits: Vec::new(),
            first_cell: None,
            last_cell: None,
            names: Vec::new(),
        }
    }

    #[test]
    fn more_keys_or_fewer_cells_make_it_fit() {
        let quota = QuotaShare {
            provider: "naver".into(),
            limit: "day".into(),
            allowed: 1_000,
            scopes: 2,
            pool: Some(2),
            share: 2.25,
            resets: None,
            is_pace: false,
        };
        let misfit = beyond_quota(&estimate(4_500, 1.0), &quota);
        assert_eq!(
            misfit.remedy,
            "3 more keys (5 in all), or at most 2,000 cells"
        );
        assert!(misfit.what.contains("4,500 calls, and 2,000"), "{misfit:?}");
    }

    #[test]
    fn a_run_has_to_end_before_the_next_one() {
        let limit = Duration::from_secs(600);
        assert_eq!(too_slow(&estimate(100, 600.0), 600.0, limit, "x"), None);
        let slow = too_slow(&estimate(100, 900.0), 900.0, limit, "before the next").expect("slow");
        assert!(
            slow.remedy.contains("1.5 times as much of p/second"),
            "{slow:?}"
        );
        assert!(slow.remedy.contains("66 cells"), "{slow:?}");
    }
}
