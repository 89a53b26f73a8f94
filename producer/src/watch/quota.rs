//! What is left of a run's quotas, over all keys that can be seen.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::{Instance, Rule};
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::FleetLimiter;

use crate::limits::{limiter_name, of_keys, unscoped};
use crate::pool;

/// What is left of one quota in its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaLeft {
    /// The provider.
    pub provider: String,
    /// The limit.
    pub limit: String,
    /// Calls, over all keys.
    pub remaining: u64,
}

/// What is left of the quotas of all the plan's providers.
///
/// # Errors
/// When Redis does not answer.
pub async fn quotas_left(
    limiter: &FleetLimiter,
    plan: &Plan,
    env: &impl Environment,
) -> Result<Vec<QuotaLeft>> {
    let mut left = Vec::new();
    for provider in plan.providers.values() {
        let counters = quotas(provider, &pool::names(provider, env).unwrap_or_default());
        if counters.is_empty() {
            continue;
        }
        let mut by_limit: BTreeMap<String, u64> = BTreeMap::new();
        for now in limiter.peek(&limiter_name(provider), &counters).await? {
            if let Rule::Quota { calls, .. } = now.instance.rule {
                let remaining = calls.saturating_sub(now.used);
                *by_limit.entry(now.instance.limit).or_default() += remaining;
            }
        }
        left.extend(by_limit.into_iter().map(|(limit, remaining)| QuotaLeft {
            provider: provider.name.clone(),
            limit,
            remaining,
        }));
    }
    Ok(left)
}

fn quotas(provider: &Provider, keys: &[String]) -> Vec<Instance> {
    let now = Timestamp::now();
    let of_keys = of_keys(provider, keys, now).into_iter();
    unscoped(provider, "", now)
        .into_iter()
        .chain(of_keys.map(|(_, counter)| counter))
        .filter(|counter| matches!(counter.rule, Rule::Quota { .. }))
        .collect()
}
