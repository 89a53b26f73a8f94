//! How fast a run may go at most, and which limit says so.

use paceline_protocol::plan::Plan;
use paceline_protocol::spec::{LimitRule, Provider};

/// The fastest a run may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Calls a second over all providers.
    pub calls_per_second: f64,
    /// The limit that says so, as `provider/limit`.
    pub limit: String,
}

/// The pace of a run by its limits without `per`; `None` when a provider has no rate of its own.
pub fn pace(plan: &Plan) -> Option<Pace> {
    let paces: Option<Vec<Pace>> = plan.providers.values().map(provider_pace).collect();
    paces?.into_iter().reduce(|a, b| Pace {
        calls_per_second: a.calls_per_second + b.calls_per_second,
        limit: if a.calls_per_second <= b.calls_per_second {
            a.limit
        } else {
            b.limit
        },
    })
}

fn provider_pace(provider: &Provider) -> Option<Pace> {
    let mut slowest: Option<Pace> = None;
    for limit in provider.limits.iter().filter(|limit| limit.per.is_none()) {
        let Some(calls_per_second) = speed(&limit.rule) else {
            continue;
        };
        if slowest
            .as_ref()
            .is_none_or(|s| calls_per_second < s.calls_per_second)
        {
            let limit = format!("{}/{}", provider.name, limit.name);
            slowest = Some(Pace {
                calls_per_second,
                limit,
            });
        }
    }
    slowest
}

/// Calls a second of a limit for one scope; `None` for one that does not pace.
pub fn speed(rule: &LimitRule) -> Option<f64> {
    match rule {
        LimitRule::Rate { calls, period, .. } => Some(*calls as f64 / period.0.as_secs_f64()),
        LimitRule::Spacing { least } => Some(1.0 / least.0.as_secs_f64()),
        LimitRule::Concurrency { .. } | LimitRule::Quota { .. } | LimitRule::Cost { .. } => None,
    }
}
