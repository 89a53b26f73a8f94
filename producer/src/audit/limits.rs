//! Which limits a row drew from, and how full each of them was.

use std::collections::BTreeMap;

use jiff::Timestamp;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::limit::quota_window;
use paceline_protocol::plan::Plan;
use paceline_protocol::spec::{Limit, LimitRule, Span};
use serde::Serialize;

use super::window::{Bucket, Calendar, InFlight, Trailing, Worst};
use crate::limits::{is_by_credential, key_scope, with_numbers};

/// One limit for one scope, as `audit --json` shows it; the names are a contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audited {
    /// The provider (or the name under which several share the limit).
    pub provider: String,
    /// The limit.
    pub limit: String,
    /// Its scope, empty without.
    pub scope: String,
    /// The window's length; 0 for calls in flight.
    pub window_s: f64,
    /// Calls that a window may hold.
    pub allowed: u64,
    /// Calls that the fullest one held.
    pub worst: u64,
    /// Share of the allowance that was used from the first to the last call.
    pub used_share: f64,
    /// When the fullest window was: its last call; nothing where no call drew from the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_at: Option<Timestamp>,
}

impl Audited {
    /// More calls than allowed.
    pub fn passed(&self) -> bool {
        self.worst > self.allowed
    }
}

/// The meters of all limits and scopes.
pub struct Meters<'a> {
    plan: &'a Plan,
    by_limit: BTreeMap<Metered, Meter>,
    /// What each quota's window holds by provider, limit and scope, whatever numbers held for its calls.
    windows: BTreeMap<(String, String, String), Calendar>,
}

/// Provider, limit and scope; and the numbers that held, if they were not the file's: calls under each are judged by
/// their own.
type Metered = (String, String, String, String);

struct Meter {
    window: Window,
    length_us: i64,
    allowed: u64,
    calls: u64,
    first_us: i64,
    last_us: i64,
}

enum Window {
    Trailing { trailing: Trailing, calls: u64 },
    Bucket { bucket: Bucket, calls: u64 },
    InFlight(InFlight),
    Calendar(Worst),
}

impl<'a> Meters<'a> {
    /// None yet.
    pub fn new(plan: &'a Plan) -> Self {
        Meters {
            plan,
            by_limit: BTreeMap::new(),
            windows: BTreeMap::new(),
        }
    }

    /// Notes a row in every limit that it drew from. Rows come in the order of their sending.
    pub fn call(&mut self, row: &LedgerRow) {
        let Some(provider) = self.plan.providers.get(&row.provider) else {
            return;
        };
        for limit in &provider.limits {
            let counter = provider.counter_name(limit);
            let Some(scope) = scope(limit, &counter, row) else {
                continue;
            };
            let owner = limit.shared.as_ref().unwrap_or(&provider.name).clone();
            let allowed = of_limit(&row.allowed, &counter).unwrap_or_default();
            let name = self.name_of(limit, &counter);
            let key = (owner, name, scope, allowed.to_owned());
            let points = of_limit(&row.points, &counter).and_then(|n| n.parse().ok());
            let points: u64 = points.unwrap_or(1);
            let in_window = self.in_window(&key, &limit.rule, row.sent_us);
            if let Some(meter) = self.by_limit.get_mut(&key) {
                meter.call(row, points, in_window);
            } else if let Some(mut meter) = Meter::new(&in_force(&limit.rule, allowed), row.sent_us)
            {
                meter.call(row, points, in_window);
                self.by_limit.insert(key, meter);
            }
        }
    }

    /// How many calls the quota's window holds with one more at `at_us`.
    fn in_window(&mut self, key: &Metered, rule: &LimitRule, at_us: i64) -> u64 {
        if !matches!(rule, LimitRule::Quota { .. }) {
            return 0;
        }
        let (owner, name, scope, _) = key;
        let window = (owner.clone(), name.clone(), scope.clone());
        let window = self.windows.entry(window).or_default();
        if window.is_over(at_us) {
            window.start(calendar_window(rule, at_us).1);
        }
        window.call()
    }

    /// What all of them came to; a limit that no call drew from is there too, unused.
    pub fn audited(&self) -> Vec<Audited> {
        let met = self.by_limit.iter();
        let mut audited: Vec<Audited> = met.map(|(key, meter)| meter.audited(key)).collect();
        for (owner, limit) in self.limits() {
            let is_it = |a: &Audited| {
                a.provider == owner && (a.limit == limit.name || limit.shared.is_some())
            };
            if !audited.iter().any(is_it)
                && let Some(meter) = Meter::new(&limit.rule, 0)
            {
                let key = (
                    owner.to_owned(),
                    limit.name.clone(),
                    String::new(),
                    String::new(),
                );
                audited.push(meter.audited(&key));
            }
        }
        audited.sort_by(|a, b| {
            (&a.provider, &a.limit, &a.scope).cmp(&(&b.provider, &b.limit, &b.scope))
        });
        audited
    }

    /// A shared limit goes by its name at the first of the run's providers that share it.
    fn name_of(&self, limit: &Limit, counter: &str) -> String {
        if limit.shared.is_none() {
            return limit.name.clone();
        }
        let all = self.plan.providers.values();
        let mut same = all.flat_map(|p| p.limits.iter().filter(|l| p.counter_name(l) == counter));
        same.next().unwrap_or(limit).name.clone()
    }

    /// Every limit of the run's providers with its owner.
    fn limits(&self) -> impl Iterator<Item = (&str, &Limit)> {
        self.plan.providers.values().flat_map(|provider| {
            let owned = move |limit: &'a Limit| {
                let owner = limit.shared.as_deref().unwrap_or(&provider.name);
                (owner, limit)
            };
            provider.limits.iter().map(owned)
        })
    }
}

/// The scope in which a row drew from a limit; `None` when it did not.
fn scope(limit: &Limit, counter: &str, row: &LedgerRow) -> Option<String> {
    if !limit.holds_for(&row.endpoint) {
        return None;
    }
    if limit.per.is_none() {
        return Some(String::new());
    }
    let named = of_limit(&row.scopes, counter).map(str::to_owned);
    let of_key = || {
        let key = row
            .credential
            .as_deref()
            .filter(|_| is_by_credential(limit))?;
        key_scope(limit, key)
    };
    named.or_else(of_key)
}

/// What a row says of a limit: `limit=text`.
fn of_limit<'r>(texts: &'r [String], limit: &str) -> Option<&'r str> {
    let mut of_it = texts
        .iter()
        .filter_map(|text| text.strip_prefix(limit)?.strip_prefix('='));
    of_it.next()
}

/// The rule of the file with the numbers that held for a row.
fn in_force(rule: &LimitRule, allowed: &str) -> LimitRule {
    match allowed.parse() {
        Ok(numbers) => with_numbers(rule, numbers),
        Err(_) => rule.clone(),
    }
}

impl Meter {
    /// `None` for a kind that is not counted.
    fn new(rule: &LimitRule, first_us: i64) -> Option<Self> {
        let (window, length_us, allowed) = match rule {
            LimitRule::Rate {
                calls,
                period,
                burst: None,
            } => {
                let length = micros(*period);
                (
                    Window::Trailing {
                        trailing: Trailing::new(length),
                        calls: *calls,
                    },
                    length,
                    *calls,
                )
            }
            LimitRule::Rate {
                calls,
                period,
                burst: Some(burst),
            } => {
                let length = micros(*period);
                (
                    Window::Bucket {
                        bucket: Bucket::new(*calls, length),
                        calls: *calls,
                    },
                    length,
                    *burst,
                )
            }
            LimitRule::Spacing { least } => {
                let length = micros(*least);
                (
                    Window::Trailing {
                        trailing: Trailing::new(length),
                        calls: 1,
                    },
                    length,
                    1,
                )
            }
            LimitRule::Concurrency { calls } => (Window::InFlight(InFlight::default()), 0, *calls),
            LimitRule::Quota { calls, .. } => {
                let (opened, closes) = calendar_window(rule, first_us);
                (Window::Calendar(Worst::default()), closes - opened, *calls)
            }
            LimitRule::Cost {
                rate,
                period,
                burst,
                ..
            } => {
                let length = micros(*period);
                (
                    Window::Bucket {
                        bucket: Bucket::new(*rate, length),
                        calls: *rate,
                    },
                    length,
                    *burst,
                )
            }
        };
        Some(Meter {
            window,
            length_us,
            allowed,
            calls: 0,
            first_us,
            last_us: first_us,
        })
    }

    fn call(&mut self, row: &LedgerRow, points: u64, in_window: u64) {
        self.calls += points;
        self.last_us = row.sent_us;
        match &mut self.window {
            Window::Trailing { trailing, .. } => trailing.call(row.sent_us),
            Window::Bucket { bucket, .. } => bucket.call(row.sent_us, points),
            Window::InFlight(flight) => flight.call(row.sent_us, row.duration_us),
            Window::Calendar(worst) => worst.see(in_window, row.sent_us),
        }
    }

    fn worst(&self) -> Worst {
        match &self.window {
            Window::Trailing { trailing, .. } => trailing.worst(),
            Window::Bucket { bucket, .. } => bucket.worst(),
            Window::InFlight(flight) => flight.worst(),
            Window::Calendar(worst) => *worst,
        }
    }

    /// Of a rate: the calls beside those that fit between the first and the last one.
    fn used_share(&self) -> f64 {
        let span_us = (self.last_us - self.first_us) as f64;
        match &self.window {
            Window::Trailing { calls, .. } | Window::Bucket { calls, .. } => {
                let fitted = 1.0 + span_us * *calls as f64 / self.length_us as f64;
                (self.calls as f64 / fitted).min(1.0)
            }
            Window::InFlight(_) if span_us == 0.0 => {
                self.worst().calls as f64 / self.allowed as f64
            }
            Window::InFlight(flight) => {
                (flight.busy_us as f64 / (span_us * self.allowed as f64)).min(1.0)
            }
            Window::Calendar(_) => self.worst().calls as f64 / self.allowed as f64,
        }
    }

    fn audited(&self, (provider, limit, scope, _): &Metered) -> Audited {
        let worst = self.worst();
        Audited {
            provider: provider.clone(),
            limit: limit.clone(),
            scope: scope.clone(),
            window_s: self.length_us as f64 / 1e6,
            allowed: self.allowed,
            worst: worst.calls,
            used_share: self.used_share(),
            worst_at: (worst.calls > 0).then_some(worst.at_us).and_then(instant),
        }
    }
}

fn instant(at_us: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(at_us).ok()
}

/// The window of a quota around `at_us`. A zone that does not exist was refused with its file.
fn calendar_window(rule: &LimitRule, at_us: i64) -> (i64, i64) {
    let window = match rule {
        LimitRule::Quota {
            window,
            resets_at,
            zone,
            ..
        } => quota_window(*window, *resets_at, zone, at_us).ok(),
        _ => None,
    };
    window.unwrap_or((at_us, i64::MAX))
}

fn micros(span: Span) -> i64 {
    i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::row;

    fn limit(per: Option<&str>, endpoints: &[&str]) -> Limit {
        Limit {
            name: "day".into(),
            rule: LimitRule::Concurrency { calls: 1 },
            per: per.map(str::to_owned),
            endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
            shared: None,
            learn: None,
        }
    }

    #[test]
    fn a_row_draws_from_the_scopes_that_it_names() {
        let mut row = row(0);
        row.scopes = vec!["days=no".into(), "day=0-3fa91c".into()];
        assert_eq!(
            scope(&limit(Some("{{ credential }}"), &[]), "day", &row),
            Some("0-3fa91c".into())
        );
        assert_eq!(scope(&limit(None, &[]), "day", &row), Some(String::new()));
        assert_eq!(scope(&limit(None, &["token"]), "day", &row), None);
        row.scopes.clear();
        assert_eq!(
            scope(&limit(Some("{{ credential }}"), &[]), "day", &row),
            None
        );
        row.credential = Some("1-0c0ffe".into());
        assert_eq!(
            scope(&limit(Some("{{ credential }}"), &[]), "day", &row),
            Some("1-0c0ffe".into())
        );
        assert_eq!(scope(&limit(Some("{{ seller }}"), &[]), "day", &row), None);
    }

    #[test]
    fn a_full_pace_uses_all_of_the_allowance() {
        let rule = LimitRule::Rate {
            calls: 50,
            period: Span::secs(1),
            burst: None,
        };
        let mut meter = Meter::new(&rule, 0).expect("counted");
        (0..500).for_each(|n| meter.call(&row(n * 20_000), 1, 0));
        let audited = meter.audited(&Default::default());
        assert_eq!(
            (audited.worst, audited.used_share, audited.passed()),
            (50, 1.0, false)
        );
        meter.call(&row(499 * 20_000 + 1), 1, 0);
        assert!(meter.audited(&Default::default()).passed());
    }

    #[test]
    fn calls_are_judged_by_the_numbers_that_held() {
        let mut file = limit(None, &[]);
        file.rule = LimitRule::Rate {
            calls: 2,
            period: Span::secs(1),
            burst: None,
        };
        let held = in_force(&file.rule, "rate 5 1000000 10");
        let rate = LimitRule::Rate {
            calls: 5,
            period: Span::secs(1),
            burst: Some(10),
        };
        assert_eq!(held, rate);
        assert_eq!(in_force(&file.rule, ""), file.rule);
        assert_eq!(in_force(&file.rule, "calls 7"), file.rule);
    }

    /// Rows at the seconds `at`, each with what its numbers were, under a quota of two a minute.
    fn quota_of_two(rows: &[(i64, &str)]) -> Vec<(u64, u64)> {
        let spec = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
        let folder = paceline_protocol::spec::SpecFolder::open(&spec).expect("readable");
        let env = ["FARE_SEARCH_URL", "FARE_SEARCH_KEYS", "RUN_WEBHOOK_URL"];
        let env: BTreeMap<String, String> = env
            .map(|name| (name.to_owned(), "http://h".to_owned()))
            .into();
        let job = folder.job("fares").expect("loads");
        let request = crate::plan::PlanRequest::example();
        let mut plan = crate::plan::plan_run(&job, &request, &env).expect("plans");
        let provider = plan.providers.get_mut("fare-search").expect("its provider");
        provider.limits = vec![Limit {
            rule: LimitRule::Quota {
                calls: 2,
                window: paceline_protocol::spec::CalendarWindow::Minute,
                resets_at: 0,
                zone: "UTC".into(),
            },
            ..limit(None, &[])
        }];
        let mut meters = Meters::new(&plan);
        for (at, allowed) in rows {
            let allowed = allowed.split_terminator(',');
            meters.call(&LedgerRow {
                allowed: allowed.map(str::to_owned).collect(),
                ..row(at * 1_000_000)
            });
        }
        let audited = meters.audited();
        audited.iter().map(|a| (a.allowed, a.worst)).collect()
    }

    #[test]
    fn a_quota_is_counted_from_reset_to_reset() {
        let four = [(58, ""), (59, ""), (60, ""), (61, "")];
        assert_eq!(quota_of_two(&four), [(2, 2)]);
        assert_eq!(quota_of_two(&[&four[..], &[(62, "")]].concat()), [(2, 3)]);
    }

    #[test]
    fn a_quota_that_was_raised_counts_what_its_window_held_before() {
        let raised = "day=calls 4";
        let rows = [(1, ""), (2, ""), (3, raised), (4, raised)];
        assert_eq!(quota_of_two(&rows), [(2, 2), (4, 4)]);
        let over = [&rows[..], &[(5, raised)]].concat();
        assert_eq!(quota_of_two(&over), [(2, 2), (4, 5)]);
    }
}
