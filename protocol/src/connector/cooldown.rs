//! What a provider's answer closes: the narrowest thing that it concerns.
//!
//! * `throttled`: of the rates, spacings and leases that the call drew from, the narrowest one that is not for
//!   every call of the provider, in the call's own scope (a seller, a key, an endpoint); without any, the provider.
//! * `quota_exhausted`: the credential, until the reset of its quota (or the quota's own narrower scope); without a
//!   credential, the narrowest quota in the call's scope; without any, the provider.
//! * `auth_expired`: the credential; without any, the provider.
//! * `maintenance`: the provider.
//! * a token or session that cannot be had: the credential.

use std::time::Duration;

use super::ScopeTemplate;
use crate::limit::{Instance, PROVIDER, Rule};
use crate::outcome::Outcome;

/// A credential that is not accepted stays out until somebody looks, never by time alone (as long as a closure can).
pub const UNTIL_LOOKED_AT: Duration = Duration::from_secs(400 * 86_400);
/// A quota that nobody declared: nobody knows its reset.
const WITHOUT_RESET: Duration = Duration::from_secs(3600);

/// One limit that a call drew from.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnLimit {
    /// The limit in the call's scope.
    pub instance: Instance,
    /// What it takes of a bucket of points.
    pub points: u64,
    /// How few calls it holds for.
    pub narrow: Narrow,
}

impl DrawnLimit {
    /// Whether it is a bucket of points.
    pub fn is_points(&self) -> bool {
        matches!(self.instance.rule, Rule::Cost { .. })
    }
}

/// How few calls a limit holds for; the greater the fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Narrow {
    /// Names in its `per:`.
    pub names: usize,
    /// It holds for some endpoints only.
    pub of_endpoints: bool,
    /// Its scope is the credential, and nothing else.
    pub is_key: bool,
}

impl Narrow {
    /// Of a limit as its connector knows it.
    pub fn of(template: &ScopeTemplate) -> Self {
        let of_endpoints = !template.limit.endpoints.is_empty();
        Narrow {
            names: template.names,
            of_endpoints,
            is_key: template.by_credential && template.names == 1 && !of_endpoints,
        }
    }

    fn is_for_all(self) -> bool {
        self.names == 0 && !self.of_endpoints
    }
}

/// The name of what an answer closes, and, for a quota, when its window ends on the fleet's clock.
pub fn closes(
    outcome: Outcome,
    drawn: &[DrawnLimit],
    credential: Option<&str>,
) -> (String, Option<i64>) {
    let key = || credential.unwrap_or(PROVIDER).to_owned();
    match outcome {
        Outcome::Throttled => {
            let limit = narrowest(drawn, |rule| !matches!(rule, Rule::Quota { .. }));
            (name_of(limit, credential), None)
        }
        Outcome::QuotaExhausted => {
            let quota = narrowest(drawn, |rule| matches!(rule, Rule::Quota { .. }));
            let any = drawn.iter().filter_map(|d| closes_us(&d.instance)).max();
            let resets = quota.and_then(|d| closes_us(&d.instance)).or(any);
            match quota {
                Some(quota) if credential.is_none() || quota.narrow.names > 1 => {
                    (name_of(Some(quota), credential), resets)
                }
                _ => (key(), resets),
            }
        }
        Outcome::AuthExpired | Outcome::Retryable => (key(), None),
        _ => (PROVIDER.to_owned(), None),
    }
}

/// Why something is closed, in one word.
pub fn reason(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Retryable => "no_token",
        outcome => outcome.as_str(),
    }
}

/// How long a closure lasts: what the answer or rule says, else until the reset of the quota.
pub fn length(wait: Option<Duration>, resets_us: Option<i64>, now_us: i64) -> Duration {
    let until_reset = || match resets_us {
        Some(us) => Duration::from_micros(u64::try_from(us - now_us).unwrap_or(0)),
        None => WITHOUT_RESET,
    };
    wait.unwrap_or_else(until_reset)
}

/// The names under which a call's closures stand.
pub fn names<'a>(drawn: &'a [DrawnLimit], credential: Option<&str>) -> Vec<String> {
    let limits = drawn.iter().map(|d: &'a DrawnLimit| d.instance.id());
    let wide = [PROVIDER.to_owned()].into_iter();
    wide.chain(credential.map(str::to_owned))
        .chain(limits)
        .collect()
}

fn narrowest(drawn: &[DrawnLimit], fits: impl Fn(&Rule) -> bool) -> Option<&DrawnLimit> {
    let fitting = drawn.iter().filter(|d| fits(&d.instance.rule));
    let scoped = fitting.filter(|d| !d.narrow.is_for_all());
    // Among equals the first of the file.
    scoped.rev().max_by_key(|d| d.narrow)
}

/// A limit that is the credential's alone goes by the credential's name, so that all of its calls stop.
fn name_of(limit: Option<&DrawnLimit>, credential: Option<&str>) -> String {
    match (limit, credential) {
        (Some(limit), Some(credential)) if limit.narrow.is_key => credential.to_owned(),
        (Some(limit), _) => limit.instance.id(),
        (None, _) => PROVIDER.to_owned(),
    }
}

fn closes_us(instance: &Instance) -> Option<i64> {
    match instance.rule {
        Rule::Quota { closes_us, .. } => Some(closes_us),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Rule = Rule::Rate {
        calls: 9,
        period_us: 1_000_000,
        burst: None,
    };
    const DAY: Rule = Rule::Quota {
        calls: 9,
        opened_us: 0,
        closes_us: 77,
    };

    fn limit(name: &str, scope: &str, rule: Rule, narrow: (usize, bool, bool)) -> DrawnLimit {
        DrawnLimit {
            points: 1,
            instance: Instance {
                limit: name.into(),
                scope: scope.into(),
                rule,
            },
            narrow: Narrow {
                names: narrow.0,
                of_endpoints: narrow.1,
                is_key: narrow.2,
            },
        }
    }

    #[test]
    fn a_429_closes_the_narrowest_scope_that_it_may_concern() {
        let all = limit("second", "", SECOND, (0, false, false));
        let seller = limit("vendor", "s1", SECOND, (1, false, false));
        let api = limit("api", "s1/orders", SECOND, (2, false, false));
        let key = limit("key", "0-aa", SECOND, (1, false, true));
        let day = limit("day", "0-aa", DAY, (1, false, true));
        let name = |drawn: &[DrawnLimit]| closes(Outcome::Throttled, drawn, Some("0-aa")).0;
        assert_eq!(name(&[all.clone(), day.clone()]), "*", "a quota is no pace");
        assert_eq!(name(&[all.clone(), seller.clone()]), "vendor:s1");
        assert_eq!(name(&[seller, api]), "api:s1/orders");
        assert_eq!(name(&[key]), "0-aa");
        assert_eq!(name(&[]), "*");
    }

    #[test]
    fn a_quota_closes_its_key_until_its_reset() {
        let day = limit("day", "0-aa", DAY, (1, false, true));
        let whole = limit("month", "", DAY, (0, false, false));
        let fine = limit("day", "0-aa/orders", DAY, (2, false, false));
        let closes = |drawn: &[DrawnLimit], key| closes(Outcome::QuotaExhausted, drawn, key);
        assert_eq!(
            closes(std::slice::from_ref(&day), Some("0-aa")),
            ("0-aa".into(), Some(77))
        );
        assert_eq!(
            closes(std::slice::from_ref(&whole), None),
            ("*".into(), Some(77))
        );
        assert_eq!(
            closes(&[fine], Some("0-aa")),
            ("day:0-aa/orders".into(), Some(77))
        );
        assert_eq!(closes(&[], Some("0-aa")), ("0-aa".into(), None));
    }

    #[test]
    fn maintenance_closes_all_and_a_bad_key_itself() {
        let seller = limit("vendor", "s1", SECOND, (1, false, false));
        let of = |outcome| closes(outcome, std::slice::from_ref(&seller), Some("0-aa")).0;
        assert_eq!(of(Outcome::Maintenance), "*");
        assert_eq!(of(Outcome::AuthExpired), "0-aa");
    }
}
