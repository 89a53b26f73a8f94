//! From a provider's file to the instances that the limiter knows.

use jiff::Timestamp;
use paceline_protocol::limit::{Instance, Rule};
use paceline_protocol::spec::{Limit, LimitRule, Provider, Span};

use super::calendar::window_at;

/// The name under which a provider's budgets lie in Redis: its shared limit's, else its own.
pub fn limiter_name(provider: &Provider) -> &str {
    let shared = provider
        .limits
        .iter()
        .find_map(|limit| limit.shared.as_deref());
    shared.unwrap_or(&provider.name)
}

/// The instances that a call to `endpoint` draws from and that need no cell and no credential to be named.
pub fn unscoped(provider: &Provider, endpoint: &str, now: Timestamp) -> Vec<Instance> {
    let holds = |limit: &&Limit| {
        limit.per.is_none()
            && (limit.endpoints.is_empty() || limit.endpoints.iter().any(|e| e == endpoint))
    };
    provider
        .limits
        .iter()
        .filter(holds)
        .filter_map(|limit| {
            Some(Instance {
                limit: limit.name.clone(),
                scope: String::new(),
                rule: rule_at(&limit.rule, now)?,
            })
        })
        .collect()
}

/// The numbers of a limit at `now`; `None` for a kind that the limiter does not know (cost).
pub fn rule_at(rule: &LimitRule, now: Timestamp) -> Option<Rule> {
    Some(match rule {
        LimitRule::Rate {
            calls,
            period,
            burst,
        } => Rule::Rate {
            calls: *calls,
            period_us: micros(*period),
            burst: *burst,
        },
        LimitRule::Spacing { least } => Rule::Spacing {
            least_us: micros(*least),
        },
        LimitRule::Concurrency { calls } => Rule::Concurrency { calls: *calls },
        LimitRule::Quota {
            calls,
            window,
            resets_at,
            zone,
        } => {
            let (opened_us, closes_us) = window_at(*window, *resets_at, zone, now);
            Rule::Quota {
                calls: *calls,
                opened_us,
                closes_us,
            }
        }
        LimitRule::Cost { .. } => return None,
    })
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
        LimitRule::Cost { rate, period, .. } => {
            format!("{} points/{}", count(*rate), span(period.0))
        }
    }
}

fn micros(span: Span) -> u64 {
    u64::try_from(span.0.as_micros()).unwrap_or(u64::MAX)
}
