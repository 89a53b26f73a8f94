//! Whether a provider's answers have closed every key of a run, and for how long.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::{Closure, FleetLimiter, LimitNow};

use crate::limits::{limiter_name, unscoped};
use crate::pool;

/// From this long on, a closure stops whoever waits for the run.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Looks in a row that must agree: the last answers are still being settled when the last key closes.
const LOOKS: u32 = 3;

/// What keeps every call of a provider from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeProvider {
    /// How long from now.
    pub for_: Duration,
    /// Why.
    pub reason: String,
}

/// When the first provider of the run opens again; `None` while one of them is open.
///
/// # Errors
/// When Redis does not answer.
pub async fn open_again_in(
    limiter: &FleetLimiter,
    plan: &Plan,
    env: &impl Environment,
) -> Result<Option<Duration>> {
    let mut first: Option<Duration> = None;
    for provider in plan.providers.values() {
        let closures = limiter.closures(limiter_name(provider)).await?;
        let by_answer = whole_provider(provider, &closures, env).map(|closed| closed.for_);
        let Some(closed) = by_answer.max(by_quota(limiter, provider).await?) else {
            return Ok(None);
        };
        first = Some(first.map_or(closed, |first| first.min(closed)));
    }
    Ok(first)
}

/// How long a quota of the whole provider is used up by our own count.
async fn by_quota(limiter: &FleetLimiter, provider: &Provider) -> Result<Option<Duration>> {
    let now = jiff::Timestamp::now();
    let limits = unscoped(provider, "", now);
    let peeked = limiter.peek(limiter_name(provider), &limits).await?;
    let closed = peeked
        .iter()
        .filter_map(|limit| used_up(limit, now.as_microsecond()));
    Ok(closed.max())
}

fn used_up(limit: &LimitNow, now_us: i64) -> Option<Duration> {
    use paceline_protocol::limit::Rule::Quota;
    let Quota {
        calls, closes_us, ..
    } = limit.instance.rule
    else {
        return None;
    };
    let left = u64::try_from(closes_us - now_us).ok()?;
    (limit.used >= calls).then(|| Duration::from_micros(left))
}

/// Whether closures keep every call of `provider` back: one of the provider itself, or one of each key.
pub fn whole_provider(
    provider: &Provider,
    closures: &[Closure],
    env: &impl Environment,
) -> Option<WholeProvider> {
    all_closed(pool::size(provider, env), closures)
}

fn all_closed(pool: Option<usize>, closures: &[Closure]) -> Option<WholeProvider> {
    let whole = closures
        .iter()
        .filter(|closure| closure.credential.is_none());
    let longest = whole
        .max_by_key(|closure| closure.for_)
        .map(|closure| WholeProvider {
            for_: closure.for_,
            reason: closure.reason.clone(),
        });
    let keys = pool.and_then(|size| first_key_to_open(size, closures));
    [longest, keys]
        .into_iter()
        .flatten()
        .max_by_key(|closed| closed.for_)
}

/// The key of a pool that opens first, when all of them are closed.
fn first_key_to_open(size: usize, closures: &[Closure]) -> Option<WholeProvider> {
    let mut by_place: BTreeMap<usize, &Closure> = BTreeMap::new();
    for closure in closures {
        let place = closure.credential.as_deref().and_then(pool::place);
        let Some(place) = place.filter(|place| *place < size) else {
            continue;
        };
        let kept = by_place.entry(place).or_insert(closure);
        if closure.for_ > kept.for_ {
            *kept = closure;
        }
    }
    let first = by_place.values().min_by_key(|closure| closure.for_)?;
    (by_place.len() == size).then(|| WholeProvider {
        for_: first.for_,
        reason: format!("every key: {}", first.reason),
    })
}

/// How long everything has been closed, look by look.
#[derive(Debug, Default)]
pub struct ClosedFor {
    since: Option<Instant>,
    looks: u32,
    remaining: Duration,
}

impl ClosedFor {
    /// Something is open.
    pub fn open(&mut self) {
        *self = Self::default();
    }

    /// Everything is closed for `remaining` more; whether that is too long to wait.
    pub fn note(&mut self, now: Instant, remaining: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        self.looks += 1;
        self.remaining = remaining;
        let passed = now.saturating_duration_since(since);
        self.looks >= LOOKS && (remaining > TOO_LONG || passed > TOO_LONG)
    }

    /// How long it was closed for when looked at last.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(credential: Option<&str>, seconds: u64) -> Closure {
        Closure {
            credential: credential.map(str::to_owned),
            for_: Duration::from_secs(seconds),
            reason: "quota_exhausted".into(),
        }
    }

    #[test]
    fn a_pool_is_closed_when_each_of_its_keys_is() {
        let keys = [
            closure(Some("0-aaaaaa"), 500),
            closure(Some("1-bbbbbb"), 90),
        ];
        assert_eq!(all_closed(Some(3), &keys), None);
        let closed = all_closed(Some(2), &keys).expect("closed");
        assert_eq!(closed.for_, Duration::from_secs(90));
    }

    #[test]
    fn a_closed_provider_needs_no_count_of_keys() {
        let closed = all_closed(None, &[closure(None, 70)]).expect("closed");
        assert_eq!(closed.for_, Duration::from_secs(70));
        assert_eq!(all_closed(None, &[closure(Some("0-aaaaaa"), 70)]), None);
    }

    #[test]
    fn a_short_cooldown_stops_nobody_until_it_never_ends() {
        let start = Instant::now();
        let mut closed = ClosedFor::default();
        for second in 0..=60 {
            assert!(!closed.note(start + Duration::from_secs(second), Duration::from_secs(5)));
        }
        assert!(closed.note(start + Duration::from_secs(61), Duration::from_secs(5)));
        closed.open();
        assert!(!closed.note(start + Duration::from_secs(62), Duration::from_secs(5)));
    }

    #[test]
    fn a_long_closure_stops_after_a_few_looks() {
        let start = Instant::now();
        let mut closed = ClosedFor::default();
        let stopped: Vec<bool> = (0..3)
            .map(|_| closed.note(start, Duration::from_secs(3_600)))
            .collect();
        assert_eq!(stopped, [false, false, true]);
    }
}
