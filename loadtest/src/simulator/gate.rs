//! Whether a call is let in: all limits at once, all or nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Arrival;
use super::limits::{Limits, Rate};
use super::window::{Bucket, TrailingWindow};

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The limit, as in the log: `rate 50/s`, `spacing`, `concurrency`, `quota`.
    pub by: Arc<str>,
    /// Whether it is the key's quota, which has an error code of its own.
    pub is_quota: bool,
    /// How long until it would be let in, when that is known.
    pub wait: Option<Duration>,
}

/// The counters behind the limits.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    rates: Vec<RateState>,
    quota_used: HashMap<Arc<str>, (i64, u64)>,
    in_flight: u32,
}

impl Gate {
    /// A gate that has seen no call.
    pub fn new(limits: Limits) -> Self {
        let spacing = limits.spacing.map(|least| Rate::strict(1, least));
        let named = spacing.into_iter().map(|rate| ("spacing".into(), rate));
        let rates = limits
            .rates
            .iter()
            .map(|r| (format!("rate {r}").into(), r.clone()));
        Self {
            rates: named
                .chain(rates)
                .map(|(name, rate)| RateState::new(name, rate))
                .collect(),
            limits,
            quota_used: HashMap::new(),
            in_flight: 0,
        }
    }

    /// What the gate enforces.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Calls let in that have not left.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Lets a call in or refuses it. `key` is none for calls without one; they draw from what is shared.
    ///
    /// # Errors
    /// The limit that refuses; nothing was drawn from any.
    pub fn enter(&mut self, at: Arrival, key: Option<&Arc<str>>) -> Result<(), Refusal> {
        self.check_concurrency()?;
        self.check_quota(at, key)?;
        for rate in &self.rates {
            rate.check(at, key)?;
        }
        for rate in &mut self.rates {
            rate.take(at.us, key);
        }
        self.take_quota(at, key);
        self.in_flight += 1;
        Ok(())
    }

    /// What answers tell of the first rate at `at`: its number, the bucket's size, what is left, seconds to the reset.
    pub fn told(&self, at: Arrival) -> Vec<(&'static str, String)> {
        let rate = self.rates.iter().find(|rate| !rate.rate.per_key);
        let Some(state) = rate.filter(|_| self.limits.tell) else {
            return Vec::new();
        };
        let mut told = vec![("x-ratelimit-limit", state.rate.calls.to_string())];
        told.extend(
            state
                .rate
                .burst
                .map(|n| ("x-ratelimit-burst", n.to_string())),
        );
        match &state.shared {
            Counter::Window(window) => {
                let (left, reset_us) = window.left(at.us);
                told.push(("x-ratelimit-remaining", left.to_string()));
                let seconds = reset_us.div_ceil(1_000_000);
                told.push(("x-ratelimit-reset", seconds.to_string()));
            }
            Counter::Bucket(bucket) => {
                let left = bucket.left(at.us);
                told.push(("x-ratelimit-remaining", left.to_string()));
            }
        }
        told
    }

    /// Lets a call in that draws from no limit; it leaves like the others.
    pub fn enter_freely(&mut self) {
        self.in_flight += 1;
    }

    /// A call that was let in is over.
    pub fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call let in by an earlier gate: it counts here too, so that new limits do not start forgetful.
    pub fn remember(&mut self, at: Arrival, key: Option<&Arc<str>>) {
        for rate in &mut self.rates {
            rate.take(at.us, key);
        }
        self.take_quota(at, key);
    }

    /// Takes over the calls that are in flight.
    pub fn set_in_flight(&mut self, calls: u32) {
        self.in_flight = calls;
    }

    fn check_concurrency(&self) -> Result<(), Refusal> {
        match self.limits.concurrency {
            Some(most) if self.in_flight >= most => Err(Refusal {
                by: "concurrency".into(),
                is_quota: false,
                wait: None,
            }),
            _ => Ok(()),
        }
    }

    fn check_quota(&self, at: Arrival, key: Option<&Arc<str>>) -> Result<(), Refusal> {
        let (Some(quota), Some(key)) = (&self.limits.quota, key) else {
            return Ok(());
        };
        let window = quota.window(at.wall_us);
        match self.quota_used.get(key) {
            Some(&(of, used)) if of == window && used >= quota.calls => Err(Refusal {
                by: "quota".into(),
                is_quota: true,
                wait: Some(quota.resets_in(at.wall_us)),
            }),
            None if quota.calls == 0 => Err(Refusal {
                by: "quota".into(),
                is_quota: true,
                wait: None,
            }),
            _ => Ok(()),
        }
    }

    fn take_quota(&mut self, at: Arrival, key: Option<&Arc<str>>) {
        let (Some(quota), Some(key)) = (&self.limits.quota, key) else {
            return;
        };
        let window = quota.window(at.wall_us);
        let entry = self.quota_used.entry(key.clone()).or_insert((window, 0));
        if entry.0 != window {
            *entry = (window, 0);
        }
        entry.1 += 1;
    }
}

/// One rate with its counter, or a counter for each key.
#[derive(Debug)]
struct RateState {
    name: Arc<str>,
    rate: Rate,
    shared: Counter,
    by_key: HashMap<Arc<str>, Counter>,
}

impl RateState {
    fn new(name: Arc<str>, rate: Rate) -> Self {
        let shared = Counter::new(&rate);
        Self {
            name,
            rate,
            shared,
            by_key: HashMap::new(),
        }
    }

    fn check(&self, at: Arrival, key: Option<&Arc<str>>) -> Result<(), Refusal> {
        let counter = match (self.rate.per_key, key) {
            (false, _) => &self.shared,
            (true, None) => return Ok(()),
            (true, Some(key)) => match self.by_key.get(key) {
                Some(counter) => counter,
                None => return Ok(()),
            },
        };
        counter.check(at.us).map_err(|opens_us| Refusal {
            by: self.name.clone(),
            is_quota: false,
            wait: Some(Duration::from_micros(opens_us.saturating_sub(at.us))),
        })
    }

    fn take(&mut self, at_us: u64, key: Option<&Arc<str>>) {
        match (self.rate.per_key, key) {
            (false, _) => self.shared.take(at_us),
            (true, None) => {}
            (true, Some(key)) => self
                .by_key
                .entry(key.clone())
                .or_insert_with(|| Counter::new(&self.rate))
                .take(at_us),
        }
    }
}

#[derive(Debug)]
enum Counter {
    Window(TrailingWindow),
    Bucket(Bucket),
}

impl Counter {
    fn new(rate: &Rate) -> Self {
        let period_us = rate.period.as_micros() as u64;
        match rate.burst {
            None => Self::Window(TrailingWindow::new(rate.calls, period_us)),
            Some(burst) => Self::Bucket(Bucket::new(rate.calls, period_us, burst)),
        }
    }

    fn check(&self, at_us: u64) -> Result<(), u64> {
        match self {
            Self::Window(window) => window.check(at_us),
            Self::Bucket(bucket) => bucket.check(at_us),
        }
    }

    fn take(&mut self, at_us: u64) {
        match self {
            Self::Window(window) => window.take(at_us),
            Self::Bucket(bucket) => bucket.take(at_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Quota;
    use super::*;

    fn at(us: u64) -> Arrival {
        Arrival {
            us,
            wall_us: us as i64,
        }
    }

    fn key(name: &str) -> Option<Arc<str>> {
        Some(name.into())
    }

    fn refused_by(result: Result<(), Refusal>) -> String {
        result.unwrap_err().by.to_string()
    }

    #[test]
    fn a_refused_call_draws_from_nothing() {
        let mut gate = Gate::new(Limits {
            rates: vec!["2/s".parse().unwrap(), "1/s,per=key".parse().unwrap()],
            ..Limits::default()
        });
        let (a, b) = (key("a"), key("b"));
        gate.enter(at(0), a.as_ref()).unwrap();
        for us in 1..10 {
            assert_eq!(
                refused_by(gate.enter(at(us), a.as_ref())),
                "rate 1/s,per=key"
            );
        }
        gate.enter(at(20), b.as_ref()).unwrap();
        assert_eq!(
            refused_by(gate.enter(at(30), key("c").as_ref())),
            "rate 2/s"
        );
    }

    #[test]
    fn a_quota_is_each_keys_own_and_comes_back() {
        let mut gate = Gate::new(Limits {
            quota: Some(Quota {
                calls: 2,
                every: Duration::from_secs(10),
                utc_offset_s: 0,
            }),
            ..Limits::default()
        });
        let (a, b) = (key("a"), key("b"));
        for us in [0, 1] {
            gate.enter(at(us), a.as_ref()).unwrap();
        }
        let refusal = gate.enter(at(2), a.as_ref()).unwrap_err();
        assert!(refusal.is_quota);
        assert_eq!(refusal.wait, Some(Duration::from_micros(9_999_998)));
        gate.enter(at(3), b.as_ref()).unwrap();
        gate.enter(at(10_000_000), a.as_ref()).unwrap();
    }

    #[test]
    fn spacing_and_concurrency_hold() {
        let mut gate = Gate::new(Limits {
            spacing: Some(Duration::from_millis(100)),
            concurrency: Some(2),
            ..Limits::default()
        });
        gate.enter(at(0), None).unwrap();
        assert_eq!(refused_by(gate.enter(at(99_999), None)), "spacing");
        gate.enter(at(100_000), None).unwrap();
        assert_eq!(refused_by(gate.enter(at(300_000), None)), "concurrency");
        gate.leave();
        gate.enter(at(300_000), None).unwrap();
    }
}
