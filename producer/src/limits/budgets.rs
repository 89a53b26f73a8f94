//! The budgets of a provider now: what is allowed and by whom, what is used, when it opens, what is closed or held.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::{Instance, Numbers, PROVIDER, Rule, instance};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Limit, LimitRule, Provider};
use paceline_protocol::stores::limiter::{self, Closure, FleetLimiter, LimitNow};
use serde::Serialize;

use super::{limiter_name, of_keys, period_text, unscoped, with_numbers};
use crate::pool;

/// A provider's budgets now; the names of its JSON are a contract.
#[derive(Clone, Debug, Serialize)]
pub struct Budgets {
    /// The provider.
    pub provider: String,
    /// Every limit and scope that something is known of.
    pub limits: Vec<Budget>,
    /// What answers closed.
    pub closed: Vec<Closed>,
    /// What is called more slowly than its limits allow, because its provider refused that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slowed: Vec<Slowed>,
    /// An operator holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// One limit in one scope.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    /// Its name.
    pub limit: String,
    /// Its scope; a template where no scope is known yet.
    pub scope: String,
    /// What holds now.
    pub allowed: String,
    /// What the file says.
    pub file: String,
    /// What answers told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learned: Option<String>,
    /// What an operator set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Calls (points, of a cost) in the last period, in flight, or in the window.
    pub used: Option<u64>,
    /// What is left of it: of a bucket, what it holds.
    pub remaining: Option<u64>,
    /// When the next call may start.
    pub opens_at: Option<Timestamp>,
    /// Workers with calls in flight, of a limit on those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders: Option<usize>,
    /// Which ones, and how many calls each has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held_by: BTreeMap<String, u64>,
}

/// What an answer closed.
#[derive(Clone, Debug, Serialize)]
pub struct Closed {
    /// The credential, or a limit in one scope; nothing: every call.
    pub name: Option<String>,
    /// Why.
    pub reason: String,
    /// For how long from now.
    pub for_s: u64,
}

/// What opened again, and is kept below the pace that was refused.
#[derive(Clone, Debug, Serialize)]
pub struct Slowed {
    /// The credential, or a limit in one scope; nothing: every call.
    pub name: Option<String>,
    /// Calls a second that are tried now.
    pub below_per_s: f64,
}

impl Slowed {
    /// In a sentence after the provider's name.
    pub fn told(&self) -> String {
        format!(
            "{} was refused at a pace that its limits allow; kept below {:.1}/s, and raised slowly",
            self.name.as_deref().unwrap_or("every call"),
            self.below_per_s
        )
    }
}

/// A hold.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// Reads the budgets of `provider`.
///
/// # Errors
/// When Redis does not answer.
pub async fn budgets(
    limiter: &FleetLimiter,
    provider: &Provider,
    env: &impl Environment,
) -> Result<Budgets> {
    let name = &limiter_name(provider);
    let keys = pool::names(provider, env).unwrap_or_default();
    let mut counters = counters(provider, &keys, Timestamp::now());
    for scope in limiter.scopes(name).await? {
        let known = |c: &Instance| c.limit == scope.limit && c.scope == scope.scope;
        if counters.iter().any(known) {
            continue;
        }
        let is_it = |l: &&Limit| provider.counter_name(l) == scope.limit;
        let declared = provider.limits.iter().find(is_it);
        // Without `per` there is one scope alone, which is known.
        if let Some(limit) = declared.filter(|limit| limit.per.is_some()) {
            let now_us = Timestamp::now().as_microsecond();
            let counter = instance(&provider.counted(limit), &scope.scope, now_us);
            counters.extend(counter.ok());
        }
    }
    let now = limiter.peek(name, &counters).await?;
    let kept = limiter.kept(name).await?;
    let limits = provider.limits.iter();
    Ok(Budgets {
        provider: provider.name.clone(),
        limits: limits
            .flat_map(|limit| budgets_of(limit, &provider.counter_name(limit), &now, &kept.set))
            .collect(),
        closed: kept.closures.iter().map(closed).collect(),
        slowed: kept.slowed.iter().map(slowed).collect(),
        held: kept.hold.map(|hold| Held {
            until: Timestamp::from_microsecond(hold.until_us).unwrap_or(Timestamp::MAX),
            reason: hold.reason,
        }),
    })
}

/// Every counter of a provider that can be named here: those of all calls, and those of each key.
fn counters(provider: &Provider, keys: &[String], now: Timestamp) -> Vec<Instance> {
    let mut counters = unscoped(provider, "", now);
    for endpoint in provider.endpoints.keys() {
        for counter in unscoped(provider, endpoint, now) {
            if !counters.iter().any(|known| known.limit == counter.limit) {
                counters.push(counter);
            }
        }
    }
    counters.extend(of_keys(provider, keys, now).into_iter().map(|(_, key)| key));
    counters
}

/// The budgets of a limit. One whose scopes nobody has used yet stands there with its template.
fn budgets_of(
    limit: &Limit,
    counter: &str,
    now: &[LimitNow],
    set: &BTreeMap<String, Numbers>,
) -> Vec<Budget> {
    let mut found: Vec<Budget> = now
        .iter()
        .filter(|now| now.instance.limit == counter)
        .map(|now| budget(limit, now))
        .collect();
    found.sort_by(|a, b| a.scope.cmp(&b.scope));
    if !found.is_empty() {
        return found;
    }
    let set = set.get(counter);
    let in_force = set.map_or_else(
        || limit.rule.clone(),
        |numbers| with_numbers(&limit.rule, *numbers),
    );
    vec![Budget {
        limit: limit.name.clone(),
        scope: limit.per.clone().unwrap_or_default(),
        allowed: period_text(&in_force),
        file: period_text(&limit.rule),
        learned: None,
        set: set.map(|_| period_text(&in_force)),
        used: None,
        remaining: None,
        opens_at: None,
        holders: None,
        held_by: BTreeMap::new(),
    }]
}

fn budget(limit: &Limit, now: &LimitNow) -> Budget {
    let text = |numbers: Numbers| period_text(&with_numbers(&limit.rule, numbers));
    let in_force = now.set.or(now.learned);
    let opens_at = opens_us(now).map(Timestamp::from_microsecond);
    Budget {
        limit: limit.name.clone(),
        scope: now.instance.scope.clone(),
        allowed: in_force.map_or_else(|| period_text(&limit.rule), text),
        file: period_text(&limit.rule),
        learned: now.learned.map(text),
        set: now.set.map(text),
        used: Some(now.used),
        remaining: now.left,
        opens_at: opens_at.and_then(Result::ok),
        holders: matches!(limit.rule, LimitRule::Concurrency { .. }).then_some(now.held_by.len()),
        held_by: now.held_by.clone(),
    }
}

/// When the next call may start: of a quota that is used up, at its reset.
fn opens_us(now: &LimitNow) -> Option<i64> {
    used_up_until_us(now).or(now.opens_us)
}

/// The reset of a quota that is used up.
pub(crate) fn used_up_until_us(now: &LimitNow) -> Option<i64> {
    match now.instance.rule {
        Rule::Quota {
            calls, closes_us, ..
        } if now.used >= calls => Some(closes_us),
        _ => None,
    }
}

fn slowed(slowed: &limiter::Slowed) -> Slowed {
    Slowed {
        name: (slowed.name != PROVIDER).then(|| slowed.name.clone()),
        below_per_s: slowed.below_per_s,
    }
}

fn closed(closure: &Closure) -> Closed {
    Closed {
        name: closure.part().map(str::to_owned),
        reason: closure.reason.clone(),
        for_s: closure.for_.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_is_used_up_opens_at_its_reset() {
        let quota = |used| LimitNow {
            instance: Instance {
                limit: "day".into(),
                scope: String::new(),
                rule: Rule::Quota {
                    calls: 10,
                    opened_us: 0,
                    closes_us: 7_000_000,
                },
            },
            used,
            left: None,
            opens_us: None,
            learned: None,
            set: None,
            held_by: BTreeMap::new(),
        };
        assert_eq!(opens_us(&quota(9)), None);
        assert_eq!(opens_us(&quota(10)), Some(7_000_000));
    }
}
