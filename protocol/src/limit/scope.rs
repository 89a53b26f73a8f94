//! From a limit as the file declares it to the [`Instance`] that a call draws from.

use super::window::{BadZone, quota_window};
use super::{Instance, Rule};
use crate::spec::{Limit, LimitRule, Span};

/// Why a declared limit has no counter.
#[derive(Debug, thiserror::Error)]
pub enum NotALimit {
    /// Its calendar cannot be read.
    #[error("limit `{limit}`: {source}")]
    Calendar {
        /// The limit's name.
        limit: String,
        /// Why.
        source: BadZone,
    },
}

/// The counter of `limit` for `scope` at `now_us` of the fleet's clock. `scope` is the rendered `per:`,
/// in which a credential stands under its public name; empty without.
///
/// # Errors
/// When the zone of a quota does not exist.
pub fn instance(limit: &Limit, scope: &str, now_us: i64) -> Result<Instance, NotALimit> {
    let rule =
        match &limit.rule {
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
                let (opened_us, closes_us) = quota_window(*window, *resets_at, zone, now_us)
                    .map_err(|source| NotALimit::Calendar {
                        limit: limit.name.clone(),
                        source,
                    })?;
                Rule::Quota {
                    calls: *calls,
                    opened_us,
                    closes_us,
                }
            }
            LimitRule::Cost {
                rate,
                period,
                burst,
                ..
            } => Rule::Cost {
                points: *rate,
                period_us: micros(*period),
                burst: *burst,
            },
        };
    Ok(Instance {
        limit: limit.name.clone(),
        scope: scope.to_owned(),
        rule,
    })
}

fn micros(span: Span) -> u64 {
    u64::try_from(span.0.as_micros()).unwrap_or(u64::MAX)
}
