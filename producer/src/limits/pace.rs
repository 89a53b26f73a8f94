//! How fast a run may go at most, and which limit says so.

use paceline_protocol::plan::Plan;
use paceline_protocol::spec::{Limit, LimitRule, Provider, details_of};

/// The fastest a run may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Calls a second over all providers.
    pub calls_per_second: f64,
    /// The limit that says so, as `provider/limit`.
    pub limit: String,
}

/// The pace of a run by its limits without `per`, of those that all its calls draw from; `None` when a provider has no
/// rate of its own.
pub fn pace(plan: &Plan) -> Option<Pace> {
    let providers = plan.providers.values();
    let paces: Option<Vec<Pace>> = providers.map(|p| provider_pace(plan, p)).collect();
    paces?.into_iter().reduce(|a, b| Pace {
        calls_per_second: a.calls_per_second + b.calls_per_second,
        limit: if a.calls_per_second <= b.calls_per_second {
            a.limit
        } else {
            b.limit
        },
    })
}

/// Whether every call of the run's cells at `provider` draws from `limit`: one with `endpoints:` holds for those alone.
fn holds_for_all(plan: &Plan, provider: &Provider, limit: &Limit) -> bool {
    let endpoint = plan.job.endpoint.as_deref().unwrap_or_default();
    let declared = provider.endpoints.get(endpoint);
    let details = declared.is_some_and(|endpoint| endpoint.detail.is_some());
    limit.holds_for(endpoint) && (!details || limit.holds_for(&details_of(endpoint)))
}

fn provider_pace(plan: &Plan, provider: &Provider) -> Option<Pace> {
    let mut slowest: Option<Pace> = None;
    let limits = provider.limits.iter();
    let limits = limits.filter(|limit| limit.per.is_none());
    for limit in limits.filter(|limit| holds_for_all(plan, provider, limit)) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paceline_protocol::spec::SpecFolder;

    use super::*;
    use crate::plan::{PlanRequest, plan_run};

    /// A plan of the job `j` at the endpoint `e` of a provider with these limits.
    fn plan(limits: &str, detail: &str) -> Plan {
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["jobs", "providers"] {
            std::fs::create_dir_all(dir.path().join(folder)).expect("writable");
        }
        let job =
            "job: j\nprovider: p\nendpoint: e\nsplit:\n  n: {range: [1, 9]}\noutputs: {s3: {}}\n";
        std::fs::write(dir.path().join("jobs/j.yaml"), job).expect("writable");
        let provider = format!(
            "provider: p\nbase_url: http://localhost\nlimits: [{limits}]\nendpoints:\n  e:\n    get: /e\n    records: $.r\n{detail}    fields: {{id: $.id}}\n  other: {{get: /o, records: $.r, fields: {{id: $.id}}}}\n"
        );
        std::fs::write(dir.path().join("providers/p.yaml"), provider).expect("writable");
        let job = SpecFolder::open(dir.path()).expect("opens").job("j");
        let request = PlanRequest::example();
        let env: BTreeMap<String, String> = BTreeMap::new();
        plan_run(&job.expect("loads"), &request, &env).expect("a plan")
    }

    fn binds(limits: &str, detail: &str) -> Option<String> {
        pace(&plan(limits, detail)).map(|pace| pace.limit)
    }

    #[test]
    fn a_limit_of_other_endpoints_binds_nobody() {
        let wide = "{name: wide, rate: 40/s}";
        let of = |endpoints: &str| {
            format!("{wide}, {{name: rare, rate: 2/s, endpoints: [{endpoints}]}}")
        };
        assert_eq!(binds(&of("other"), "").as_deref(), Some("p/wide"));
        assert_eq!(binds(&of("e"), "").as_deref(), Some("p/rare"));
        let detail = "    detail: {get: \"/d\", query: {ids: \"{{ ids }}\"}, batch: 9, ids: $.id, records: \"$.d[*]\", join: {left: $.id, right: $.id}}\n";
        assert_eq!(binds(&of("e.detail"), detail).as_deref(), Some("p/wide"));
        assert_eq!(binds(&of("e, e.detail"), detail).as_deref(), Some("p/rare"));
        let alone = "{name: rare, rate: 2/s, endpoints: [other]}";
        assert_eq!(binds(alone, ""), None);
    }
}
