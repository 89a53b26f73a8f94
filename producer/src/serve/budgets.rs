//! The budgets of a provider as metrics show them: each limit over all its scopes that can be named without a
//! cell, which are the limits of everybody and those of each key.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::{Instance, Rule};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::{FleetLimiter, LimitNow};

use crate::limits::{limiter_name, of_keys, unscoped};
use crate::pool;

/// One limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Budget {
    /// Calls charged: in the last period, in flight, in the window.
    pub(super) used: u64,
    /// What is allowed.
    pub(super) allowed: u64,
    /// The end of a quota's window, in microseconds since 1970.
    pub(super) resets_us: Option<i64>,
    /// Whether it has one counter for all, and what its rule says.
    pub(super) rule: Option<Rule>,
}

/// The limits of `provider` by name.
///
/// # Errors
/// When Redis does not answer.
pub(super) async fn budgets(
    limiter: &FleetLimiter,
    provider: &Provider,
    env: &impl Environment,
) -> Result<BTreeMap<String, Budget>> {
    let keys = pool::names(provider, env).unwrap_or_default();
    let now = Timestamp::now();
    let of_keys = of_keys(provider, &keys, now).into_iter();
    let counters: Vec<Instance> = unscoped(provider, "", now)
        .into_iter()
        .chain(of_keys.map(|(_, counter)| counter))
        .collect();
    if counters.is_empty() {
        return Ok(BTreeMap::new());
    }
    let peeked = limiter.peek(&limiter_name(provider), &counters).await?;
    Ok(together(&peeked))
}

fn together(limits: &[LimitNow]) -> BTreeMap<String, Budget> {
    let mut budgets: BTreeMap<String, Budget> = BTreeMap::new();
    for now in limits {
        let (allowed, resets_us) = match now.instance.rule {
            Rule::Rate { calls, .. } | Rule::Concurrency { calls } => (calls, None),
            Rule::Quota {
                calls, closes_us, ..
            } => (calls, Some(closes_us)),
            Rule::Cost { burst, .. } => (burst, None),
            // A time between two calls is used or not: no share says anything.
            Rule::Spacing { .. } => (0, None),
        };
        let budget = budgets.entry(now.instance.limit.clone()).or_default();
        budget.used += now.used;
        budget.allowed += allowed;
        budget.resets_us = resets_us;
        if now.instance.scope.is_empty() {
            budget.rule = Some(now.instance.rule);
        }
    }
    budgets
}

impl Budget {
    /// The share that is used; `None` where that says nothing.
    pub(super) fn share(&self) -> Option<f64> {
        (self.allowed > 0).then(|| self.used as f64 / self.allowed as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(scope: &str, used: u64) -> LimitNow {
        LimitNow {
            instance: Instance {
                limit: "day".into(),
                scope: scope.into(),
                rule: Rule::Quota {
                    calls: 100,
                    opened_us: 0,
                    closes_us: 9,
                },
            },
            used,
            left: None,
            opens_us: None,
            learned: None,
            set: None,
            held_by: BTreeMap::new(),
        }
    }

    #[test]
    fn a_limit_of_each_key_is_one_budget() {
        let all = together(&[quota("0-aaaaaa", 100), quota("1-bbbbbb", 20)]);
        let day = &all["day"];
        assert_eq!((day.used, day.allowed, day.resets_us), (120, 200, Some(9)));
        assert_eq!(day.share(), Some(0.6));
        assert_eq!(day.rule, None);
    }
}
