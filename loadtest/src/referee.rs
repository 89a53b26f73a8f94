//! The referee: what a fleet really did, from the provider's log and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::simulator::{Call, Limits, Rate, Verdict};

/// What is left out at either end of a run to see its steady state.
const EDGE_US: u64 = 1_000_000;

/// A run as the provider saw it. `GET /health` is counted in `health` alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Searches that arrived, refused ones among them.
    pub calls: u64,
    /// With offers.
    pub served: u64,
    /// Rightly without.
    pub empty: u64,
    /// Refused, all together.
    pub refused: u64,
    /// Refused, by limit.
    pub refused_by: BTreeMap<String, u64>,
    /// Spoilt on purpose, by fault.
    pub faults: BTreeMap<String, u64>,
    /// Not understood (status 400).
    pub bad_requests: u64,
    /// `GET /health`.
    pub health: u64,
    /// Different cells that arrived.
    pub distinct_cells: u64,
    /// Different cells with at least one good answer.
    pub answered_cells: u64,
    /// Good answers beyond the first of their cell: calls paid for twice.
    pub repeated: u64,
    /// Most calls in flight at once.
    pub most_in_flight: u32,
    /// Each rate, beside what was seen of it.
    pub rates: Vec<RateUse>,
    /// Searches let in, for each second from the first on.
    pub per_second: Vec<u32>,
    /// Searches let in, for each key.
    pub per_key: BTreeMap<String, u64>,
}

/// How far a shared rate was used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateUse {
    /// The rate, as configured.
    pub rate: String,
    /// The most calls let in during any span of its period.
    pub worst: usize,
    /// Share of the allowance used from the first call to the last; none for fewer than two calls.
    pub used: Option<f64>,
    /// The same without the first and the last second; none for less than a second in between.
    pub steady: Option<f64>,
}

impl Report {
    /// Counts a log against the limits that held.
    pub fn of(calls: &[Call], limits: &Limits) -> Self {
        let mut report = Self::default();
        let mut good: HashMap<&str, u64> = HashMap::new();
        for call in calls {
            report.count(call);
            if let Some(cell) = &call.cell {
                *good.entry(cell).or_default() += u64::from(call.verdict.is_good());
            }
        }
        report.distinct_cells = good.len() as u64;
        report.answered_cells = good.values().filter(|&&n| n > 0).count() as u64;
        report.repeated = good.values().map(|n| n.saturating_sub(1)).sum();
        let searches = arrivals(calls, |call| call.verdict != Verdict::Health);
        let drawn = arrivals(calls, |call| {
            limits.count_health || call.verdict != Verdict::Health
        });
        report.per_second = per_second(&searches);
        report.rates = limits
            .rates
            .iter()
            .filter(|rate| !rate.per_key)
            .map(|rate| RateUse::of(rate, &searches, &drawn))
            .collect();
        report
    }

    fn count(&mut self, call: &Call) {
        self.most_in_flight = self.most_in_flight.max(call.in_flight);
        let by = || call.by.as_deref().unwrap_or("unknown").to_owned();
        match call.verdict {
            Verdict::Health => {
                self.health += 1;
                return;
            }
            Verdict::Served => self.served += 1,
            Verdict::Empty => self.empty += 1,
            Verdict::BadRequest => self.bad_requests += 1,
            Verdict::Fault => *self.faults.entry(by()).or_default() += 1,
            Verdict::Refused => {
                self.refused += 1;
                *self.refused_by.entry(by()).or_default() += 1;
            }
        }
        self.calls += 1;
        if let (true, Some(key)) = (call.verdict.was_let_in(), &call.key) {
            *self.per_key.entry(key.to_string()).or_default() += 1;
        }
    }
}

impl RateUse {
    fn of(rate: &Rate, searches: &[u64], drawn: &[u64]) -> Self {
        Self {
            rate: rate.to_string(),
            worst: worst_window(drawn, rate.period),
            used: used_share(searches, rate),
            steady: steady_share(searches, rate),
        }
    }
}

/// Arrivals of the calls that were let in and that `wanted` picks, in order of time.
pub fn arrivals(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> Vec<u64> {
    let mut times: Vec<u64> = calls
        .iter()
        .filter(|call| call.verdict.was_let_in() && wanted(call))
        .map(|call| call.arrived_us)
        .collect();
    times.sort_unstable();
    times
}

/// The most arrivals in any span of `period`, wherever it begins; `sorted` in microseconds.
pub fn worst_window(sorted: &[u64], period: Duration) -> usize {
    let period_us = period.as_micros() as u64;
    let mut start = 0;
    let mut worst = 0;
    for (end, &at) in sorted.iter().enumerate() {
        while at - sorted[start] >= period_us {
            start += 1;
        }
        worst = worst.max(end + 1 - start);
    }
    worst
}

/// Share of `rate` used from the first arrival to the last: N calls span N - 1 gaps.
pub fn used_share(sorted: &[u64], rate: &Rate) -> Option<f64> {
    let (first, last) = (sorted.first()?, sorted.last()?);
    let span_us = last - first;
    (span_us > 0).then(|| share(sorted.len() - 1, span_us, rate))
}

/// Share of `rate` used between the first arrival plus a second and the last minus a second.
pub fn steady_share(sorted: &[u64], rate: &Rate) -> Option<f64> {
    let from = sorted.first()? + EDGE_US;
    let to = sorted.last()?.checked_sub(EDGE_US)?;
    let span_us = to.checked_sub(from).filter(|&us| us >= EDGE_US)?;
    let inside = sorted.partition_point(|&at| at < to) - sorted.partition_point(|&at| at < from);
    Some(share(inside, span_us, rate))
}

fn share(calls: usize, span_us: u64, rate: &Rate) -> f64 {
    let allowed = f64::from(rate.calls) * span_us as f64 / rate.period.as_micros() as f64;
    calls as f64 / allowed
}

fn per_second(sorted: &[u64]) -> Vec<u32> {
    let Some(&first) = sorted.first() else {
        return Vec::new();
    };
    let mut counts = Vec::new();
    for at in sorted {
        let second = ((at - first) / 1_000_000) as usize;
        counts.resize(counts.len().max(second + 1), 0);
        counts[second] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(arrived_us: u64, cell: &str, verdict: Verdict) -> Call {
        Call {
            arrived_us,
            wall_us: 0,
            key: Some("a".into()),
            cell: Some(cell.into()),
            target: None,
            verdict,
            by: (verdict == Verdict::Refused).then(|| "rate 2/s".into()),
            attempt: 1,
            in_flight: 1,
            status: 200,
            duration_us: Some(1),
        }
    }

    #[test]
    fn it_counts_what_matters() {
        let calls = [
            call(0, "x", Verdict::Served),
            call(10, "x", Verdict::Served),
            call(20, "y", Verdict::Empty),
            call(30, "y", Verdict::Refused),
            call(40, "z", Verdict::Fault),
            call(2_000_000, "z", Verdict::Served),
        ];
        let report = Report::of(&calls, &Limits::per_second(2));
        assert_eq!((report.calls, report.served, report.empty), (6, 3, 1));
        assert_eq!((report.refused, report.repeated), (1, 1));
        assert_eq!((report.distinct_cells, report.answered_cells), (3, 3));
        assert_eq!(report.refused_by["rate 2/s"], 1);
        assert_eq!(report.rates[0].worst, 4);
        assert_eq!(report.per_second, [4, 0, 1]);
        assert_eq!(report.per_key["a"], 5);
    }

    #[test]
    fn an_even_stream_at_the_limit_uses_all_of_it() {
        let even: Vec<u64> = (0..500).map(|n| n * 20_000).collect();
        let rate = Rate::strict(50, Duration::from_secs(1));
        assert_eq!(worst_window(&even, rate.period), 50);
        assert!((used_share(&even, &rate).unwrap() - 1.0).abs() < 1e-9);
        assert!((steady_share(&even, &rate).unwrap() - 1.0).abs() < 0.005);
        assert_eq!(steady_share(&even[..100], &rate), None);
    }

    proptest! {
        #[test]
        fn the_worst_window_agrees_with_counting(
            steps in prop::collection::vec(0u64..400, 1..100),
            period_us in 1u64..1_000,
        ) {
            let times: Vec<u64> = steps.iter().scan(0, |t, s| { *t += s; Some(*t) }).collect();
            let naive = times.iter()
                .map(|&from| times.iter().filter(|&&t| t >= from && t - from < period_us).count())
                .max();
            prop_assert_eq!(Some(worst_window(&times, Duration::from_micros(period_us))), naive);
        }
    }
}
