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
    /// Points are not counted yet.
    #[error("limit `{limit}`: `cost` is not counted yet, so no call may be made under it")]
    Cost {
        /// The limit's name.
        limit: String,
    },
}

/// The counter of `limit` for `scope` at `now_us` of the fleet's clock. `scope` is the rendered `per:`,
/// in which a credential stands under its public name; empty without.
///
/// # Errors
/// When the zone of a quota does not exist, or the kind is not counted yet.
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
            LimitRule::Cost { .. } => {
                return Err(NotALimit::Cost {
                    limit: limit.name.clone(),
                });
            }
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
