//! What an open run asks of workers: its lanes with their budgets and what is left of their work.

use std::collections::BTreeMap;

use anyhow::Result;
use paceline_protocol::limit::Rule;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Limit, LimitRule, Provider};

use super::budgets::Budget;
use super::useful::LaneNow;
use crate::limits::speed;
use crate::plan::estimate::scopes;
use crate::stores::Stores;
use crate::watch::PoolNow;

/// What is known of a provider: whether it takes calls, its pool where this process can see it, and its budgets by the
/// limits' names.
pub(super) struct ProviderNow {
    pub(super) open: bool,
    pub(super) pool: Option<PoolNow>,
    pub(super) budgets: BTreeMap<String, Budget>,
}

/// The lanes of a run with `cells` left, whose calls take `call_s`.
///
/// # Errors
/// When RabbitMQ does not answer.
pub(super) async fn lanes(
    stores: &Stores,
    plan: &Plan,
    cells: u64,
    call_s: f64,
    providers: &BTreeMap<String, ProviderNow>,
    env: &impl Environment,
) -> Result<Vec<LaneNow>> {
    let left = cells.div_ceil(u64::from(plan.job.shard.cells));
    let waiting = waiting(stores, plan).await?;
    let of_lane = |lane: &str| {
        let segments = plan.segments.iter().filter(|s| s.lane == lane);
        let all: u64 = segments
            .map(|s| s.cells.div_ceil(u64::from(plan.job.shard.cells)))
            .sum();
        let elsewhere = waiting.iter().filter(|(other, _)| *other != lane);
        all.min(left.saturating_sub(elsewhere.map(|(_, shards)| shards).sum()))
    };
    let mut lanes = Vec::new();
    for name in plan.lanes() {
        let segment = plan.segments.iter().find(|s| s.lane == name);
        let Some(provider) = segment.and_then(|s| plan.providers.get(&s.provider)) else {
            continue;
        };
        let now = providers.get(&provider.name);
        let none = BTreeMap::new();
        let budgets = now.map_or(&none, |now| &now.budgets);
        lanes.push(LaneNow {
            provider: provider.name.clone(),
            egress: egress(name).to_owned(),
            open: now.is_none_or(|now| now.open),
            calls_per_second: calls_per_second(plan, provider, budgets, env),
            in_flight: in_flight(plan, provider, budgets, env),
            call_s,
            shards: of_lane(name),
        });
    }
    Ok(lanes)
}

/// Shards that wait in the queues of a run with several lanes: what is not in hand of one lane may be of another.
async fn waiting<'p>(stores: &Stores, plan: &'p Plan) -> Result<Vec<(&'p str, u64)>> {
    let lanes = plan.lanes();
    let mut waiting = Vec::new();
    if lanes.len() > 1 {
        for lane in lanes {
            let depth = stores.publisher.depth(lane, &plan.run_ref()).await?;
            waiting.push((lane, u64::from(depth.unwrap_or(0))));
        }
    }
    Ok(waiting)
}

/// The label behind the `@` of a lane; empty without one.
pub(super) fn egress(lane: &str) -> &str {
    lane.split_once('@').map_or("", |(_, egress)| egress)
}

fn holding<'p>(plan: &Plan, provider: &'p Provider) -> impl Iterator<Item = &'p Limit> {
    let endpoint = plan.job.endpoint.clone().unwrap_or_default();
    let limits = provider.limits.iter();
    limits.filter(move |limit| limit.holds_for(&endpoint))
}

/// What the slowest limit gives, over all its scopes. A limit with one counter goes by its number of now.
fn calls_per_second(
    plan: &Plan,
    provider: &Provider,
    budgets: &BTreeMap<String, Budget>,
    env: &impl Environment,
) -> Option<f64> {
    let rates = holding(plan, provider).filter_map(|limit| {
        let now = budgets.get(&limit.name).and_then(|budget| budget.rule);
        match now {
            Some(Rule::Rate {
                calls, period_us, ..
            }) => Some(calls as f64 * 1e6 / period_us as f64),
            Some(Rule::Spacing { least_us }) => Some(1e6 / least_us.max(1) as f64),
            _ => Some(speed(&limit.rule)? * scopes(plan, provider, limit, env) as f64),
        }
    });
    rates.reduce(f64::min)
}

fn in_flight(
    plan: &Plan,
    provider: &Provider,
    budgets: &BTreeMap<String, Budget>,
    env: &impl Environment,
) -> Option<u64> {
    let leases = holding(plan, provider).filter_map(|limit| {
        let now = budgets.get(&limit.name).and_then(|budget| budget.rule);
        match (now, &limit.rule) {
            (Some(Rule::Concurrency { calls }), _) => Some(calls),
            (_, LimitRule::Concurrency { calls }) => {
                Some(calls.saturating_mul(scopes(plan, provider, limit, env)))
            }
            _ => None,
        }
    });
    leases.min()
}
