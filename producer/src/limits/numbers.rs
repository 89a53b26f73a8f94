//! A limit of a file with other numbers.

use std::time::Duration;

use paceline_protocol::limit::Numbers;
use paceline_protocol::spec::{LimitRule, Span};

/// `rule` with these numbers; as it is where they are of another kind.
pub fn with_numbers(rule: &LimitRule, numbers: Numbers) -> LimitRule {
    let mut rule = rule.clone();
    let span = |us: u64| Span(Duration::from_micros(us));
    match (&mut rule, numbers) {
        (
            LimitRule::Rate { .. } | LimitRule::Spacing { .. },
            Numbers::Rate {
                calls,
                period_us,
                burst,
            },
        ) => {
            rule = LimitRule::Rate {
                calls,
                period: span(period_us),
                burst,
            };
        }
        (LimitRule::Rate { .. } | LimitRule::Spacing { .. }, Numbers::Spacing { least_us }) => {
            rule = LimitRule::Spacing {
                least: span(least_us),
            };
        }
        (
            LimitRule::Concurrency { calls } | LimitRule::Quota { calls, .. },
            Numbers::Calls(told),
        ) => *calls = told,
        (
            LimitRule::Cost {
                rate,
                period,
                burst,
                ..
            },
            Numbers::Points {
                points,
                period_us,
                burst: size,
            },
        ) => (*rate, *period, *burst) = (points, span(period_us), size),
        _ => {}
    }
    rule
}
