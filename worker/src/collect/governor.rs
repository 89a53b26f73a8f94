//! The process' own limiter below the fleet's grants: it would only ever refuse if grants were wrong.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use paceline_protocol::limit::LATEST_US;
use paceline_protocol::spec::{Limit, LimitRule, Provider};

/// The local limiters of one run at one provider.
#[derive(Debug)]
pub struct Governor {
    limiters: Vec<DefaultDirectRateLimiter>,
}

impl Governor {
    /// One limiter for every rate that holds for all calls of `provider`.
    pub fn new(provider: &Provider) -> Self {
        Governor {
            limiters: provider.limits.iter().filter_map(limiter).collect(),
        }
    }

    /// Whether this process alone is still within every rate.
    pub fn allows(&self) -> bool {
        self.limiters.iter().all(|limiter| limiter.check().is_ok())
    }
}

/// A bucket with room for the jitter that grants allow.
fn limiter(limit: &Limit) -> Option<DefaultDirectRateLimiter> {
    let LimitRule::Rate {
        calls,
        period,
        burst,
    } = &limit.rule
    else {
        return None;
    };
    if limit.per.is_some() || !limit.endpoints.is_empty() {
        return None;
    }
    let interval = period
        .0
        .checked_div(u32::try_from(*calls).ok()?)
        .filter(|i| !i.is_zero())?;
    let jitter = u128::try_from(LATEST_US)
        .unwrap_or(0)
        .div_ceil(interval.as_micros().max(1));
    let room = u128::from(burst.unwrap_or(1)) + jitter + 1;
    let burst = NonZeroU32::new(u32::try_from(room).unwrap_or(u32::MAX))?;
    Some(RateLimiter::direct(
        Quota::with_period(interval)?.allow_burst(burst),
    ))
}
