//! From a provider's file to the counters that the limiter knows by name without a cell.

use std::collections::BTreeSet;

use jiff::Timestamp;
use paceline_protocol::limit::{Instance, instance, tag_of};
use paceline_protocol::plan::Plan;
use paceline_protocol::spec::{Limit, LimitRule, Provider, template_names};
use paceline_protocol::stores::limiter::{FleetLimiter, Grants, LimiterError};
use paceline_protocol::template;

/// A provider as the limiter knows it.
pub fn limiter_name(provider: &Provider) -> String {
    provider.limiter_name()
}

/// The hash tags of a plan's providers, each once: grants are counted by them.
fn tags(plan: &Plan) -> BTreeSet<String> {
    let names = plan.providers.values().map(Provider::limiter_name);
    names.map(|name| tag_of(&name).to_owned()).collect()
}

/// Grants that the limits of all the plan's providers have given under the name `run`.
///
/// # Errors
/// When Redis does not answer.
pub async fn grants(
    limiter: &FleetLimiter,
    plan: &Plan,
    run: &str,
) -> Result<Grants, LimiterError> {
    let mut all = Grants::default();
    for tag in tags(plan) {
        all += limiter.grants(&tag, run).await?;
    }
    Ok(all)
}

/// The counters that a call to `endpoint` draws from and that need no cell and no credential to be named.
pub fn unscoped(provider: &Provider, endpoint: &str, now: Timestamp) -> Vec<Instance> {
    let holds = |limit: &&Limit| limit.per.is_none() && limit.holds_for(endpoint);
    provider
        .limits
        .iter()
        .filter(holds)
        .filter_map(|limit| instance(&provider.counted(limit), "", now.as_microsecond()).ok())
        .collect()
}

/// The counters that each of `keys` (public names) has for itself, with the key.
pub fn of_keys(provider: &Provider, keys: &[String], now: Timestamp) -> Vec<(String, Instance)> {
    let mut all = Vec::new();
    for limit in provider.limits.iter().filter(|l| is_by_credential(l)) {
        for key in keys {
            let counter = key_scope(limit, key).and_then(|scope| {
                instance(&provider.counted(limit), &scope, now.as_microsecond()).ok()
            });
            all.extend(counter.map(|counter| (key.clone(), counter)));
        }
    }
    all
}

/// Whether a limit has one budget for each credential, and nothing else in its scope.
pub fn is_by_credential(limit: &Limit) -> bool {
    let names = limit.per.as_deref().map(template_names);
    matches!(names, Some(Ok(names)) if !names.is_empty() && names.iter().all(|n| n == "credential"))
}

/// The scope of a key in a limit that is [`is_by_credential`].
pub fn key_scope(limit: &Limit, key: &str) -> Option<String> {
    let names = serde_json::json!({ "credential": key });
    let per = limit.per.as_deref()?;
    template::environment()
        .render_str(per, template::value_of(&names))
        .ok()
}

/// What is allowed, as the file says it: `50/s`, `100ms apart`, `64 in flight`, `25,000/day`.
pub fn period_text(rule: &LimitRule) -> String {
    use crate::show::{count, span};
    match rule {
        LimitRule::Rate {
            calls,
            period,
            burst,
        } => {
            let every = match period.0.as_secs() {
                1 => "s".into(),
                60 => "min".into(),
                3_600 => "h".into(),
                _ => span(period.0),
            };
            let burst = burst.map(|b| format!(", burst {b}")).unwrap_or_default();
            format!("{}/{every}{burst}", count(*calls))
        }
        LimitRule::Spacing { least } => format!("{} apart", span(least.0)),
        LimitRule::Concurrency { calls } => format!("{} in flight", count(*calls)),
        LimitRule::Quota { calls, window, .. } => {
            format!("{}/{}", count(*calls), format!("{window:?}").to_lowercase())
        }
        LimitRule::Cost {
            rate,
            period,
            burst,
            ..
        } => {
            let period = span(period.0);
            format!("{} points/{period}, burst {}", count(*rate), count(*burst))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per: Option<&str>) -> Limit {
        Limit {
            name: "day".into(),
            rule: LimitRule::Concurrency { calls: 1 },
            per: per.map(str::to_owned),
            endpoints: Vec::new(),
            shared: None,
            learn: None,
        }
    }

    #[test]
    fn a_key_has_a_scope_where_the_limit_names_nothing_but_the_credential() {
        let by_key = limit(Some("key-{{ credential }}"));
        assert!(is_by_credential(&by_key));
        assert_eq!(
            key_scope(&by_key, "0-3fa91c").as_deref(),
            Some("key-0-3fa91c")
        );
        assert!(!is_by_credential(&limit(None)));
        assert!(!is_by_credential(&limit(Some(
            "{{ credential }}/{{ endpoint }}"
        ))));
        assert!(!is_by_credential(&limit(Some("{{ seller }}"))));
    }
}
