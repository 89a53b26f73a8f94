//! Whether a run can go on at all: whether answers, or our own count of a quota, have closed every key of
//! its providers, and for how long.

use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::{Instance, PROVIDER, Rule};
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::{Closure, FleetLimiter, LimitNow};

use crate::limits::{limiter_name, of_keys, unscoped, used_up_until_us};
use crate::pool;
use crate::show;

/// How the reason ends of what our own count of a quota closes.
pub const USED_UP: &str = "used up";
/// From this long on, a closure stops whoever waits for the run.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Who has waited so long already waits for what opens this soon: the probe comes, and if it is refused the next
/// closure is longer, or the breaker pauses the run, whose reason says more than ours.
const SOON: Duration = Duration::from_secs(10);

/// Looks in a row that must agree that it is long: when the last key closes, the last answers are still being settled, and a
/// breaker has still to pause its run, whose reason says more than ours.
const LOOKS: u32 = 5;

/// What keeps every call of a provider from being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeProvider {
    /// How long from now.
    pub for_: Duration,
    /// Why.
    pub reason: String,
}

/// How many keys of a pool are how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolNow {
    /// They may be used.
    pub open: u64,
    /// Out until they open by themselves: a cooldown, a quota that is used up.
    pub closed: u64,
    /// Out until somebody looks.
    pub dead: u64,
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
        let Some(closed) = whole_provider(limiter, provider, env).await? else {
            return Ok(None);
        };
        first = Some(first.map_or(closed.for_, |first| first.min(closed.for_)));
    }
    Ok(first)
}

/// Whether every call of `provider` is kept back: by a closure or used up quota of the provider itself, or
/// of each key.
///
/// # Errors
/// When Redis does not answer.
pub async fn whole_provider(
    limiter: &FleetLimiter,
    provider: &Provider,
    env: &impl Environment,
) -> Result<Option<WholeProvider>> {
    Ok(provider_and_pool(limiter, provider, env).await?.0)
}

/// The same with how many keys of its pool are how; `None` where this process cannot see them.
///
/// # Errors
/// When Redis does not answer.
pub async fn provider_and_pool(
    limiter: &FleetLimiter,
    provider: &Provider,
    env: &impl Environment,
) -> Result<(Option<WholeProvider>, Option<PoolNow>)> {
    let keys = pool::names(provider, env);
    let mut closures = limiter.closures(&limiter_name(provider)).await?;
    closures.extend(used_up(limiter, provider, keys.as_deref().unwrap_or_default()).await?);
    let pool = keys.as_deref().map(|keys| pool_now(keys, &closures));
    Ok((all_closed(keys.as_deref(), &closures), pool))
}

fn pool_now(keys: &[String], closures: &[Closure]) -> PoolNow {
    let mut now = PoolNow::default();
    for key in keys {
        match longest(closures, Some(key)).map(|closure| closure.for_) {
            None | Some(Duration::ZERO) => now.open += 1,
            Some(for_) if show::opens_by_itself(for_) => now.closed += 1,
            Some(_) => now.dead += 1,
        }
    }
    now
}

/// The quotas that are used up by our own count, as if an answer had closed what they hold for.
async fn used_up(
    limiter: &FleetLimiter,
    provider: &Provider,
    keys: &[String],
) -> Result<Vec<Closure>> {
    let now = Timestamp::now();
    let whole = unscoped(provider, "", now).into_iter().map(|i| (None, i));
    let of_keys = of_keys(provider, keys, now).into_iter();
    let (whom, counters): (Vec<Option<String>>, Vec<Instance>) = whole
        .chain(of_keys.map(|(key, counter)| (Some(key), counter)))
        .filter(|(_, counter)| matches!(counter.rule, Rule::Quota { .. }))
        .unzip();
    if counters.is_empty() {
        return Ok(Vec::new());
    }
    let peeked = limiter.peek(&limiter_name(provider), &counters).await?;
    let closed = whom.into_iter().zip(&peeked);
    Ok(closed
        .filter_map(|(credential, quota)| spent(credential, quota, now.as_microsecond()))
        .collect())
}

fn spent(credential: Option<String>, quota: &LimitNow, now_us: i64) -> Option<Closure> {
    let left = u64::try_from(used_up_until_us(quota)? - now_us).ok()?;
    Some(Closure {
        name: credential.unwrap_or_else(|| PROVIDER.to_owned()),
        for_: Duration::from_micros(left),
        reason: format!("{} {USED_UP}", quota.instance.limit),
    })
}

fn all_closed(keys: Option<&[String]>, closures: &[Closure]) -> Option<WholeProvider> {
    let whole = longest(closures, None).map(|closure| WholeProvider {
        for_: closure.for_,
        reason: closure.reason.clone(),
    });
    let every_key = keys.and_then(|keys| first_key_to_open(keys, closures));
    [whole, every_key]
        .into_iter()
        .flatten()
        .max_by_key(|closed| closed.for_)
}

/// The key of a pool that opens first, when all of them are closed.
fn first_key_to_open(keys: &[String], closures: &[Closure]) -> Option<WholeProvider> {
    let each: Option<Vec<&Closure>> = keys
        .iter()
        .map(|key| longest(closures, Some(key)))
        .collect();
    let first = each?.into_iter().min_by_key(|closure| closure.for_)?;
    Some(WholeProvider {
        for_: first.for_,
        reason: format!("every key: {}", first.reason),
    })
}

fn longest<'a>(closures: &'a [Closure], credential: Option<&str>) -> Option<&'a Closure> {
    closures
        .iter()
        .filter(|closure| closure.part() == credential)
        .max_by_key(|closure| closure.for_)
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
        self.looks = match remaining > TOO_LONG {
            true => self.looks + 1,
            false => 0,
        };
        self.remaining = remaining;
        let passed = now.saturating_duration_since(since);
        self.looks >= LOOKS || (passed > TOO_LONG && remaining > SOON && self.looks == 0)
    }

    /// How long it was closed for when looked at last.
    pub fn remaining(&self) -> Duration {
        self.remaining
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use paceline_protocol::connector::cooldown;

    use super::*;

    fn closure(credential: Option<&str>, seconds: u64) -> Closure {
        Closure {
            name: credential.unwrap_or(PROVIDER).to_owned(),
            for_: Duration::from_secs(seconds),
            reason: "quota_exhausted".into(),
        }
    }

    fn keys(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_pool_is_closed_when_each_of_its_keys_is() {
        let closures = [
            closure(Some("0-aaaaaa"), 500),
            closure(Some("1-bbbbbb"), 90),
        ];
        let three = keys(&["0-aaaaaa", "1-bbbbbb", "2-cccccc"]);
        assert_eq!(all_closed(Some(&three), &closures), None);
        let closed = all_closed(Some(&three[..2]), &closures).expect("closed");
        assert_eq!(closed.for_, Duration::from_secs(90));
    }

    #[test]
    fn keys_are_open_closed_or_dead() {
        let dead = Closure {
            for_: cooldown::UNTIL_LOOKED_AT,
            ..closure(Some("1-bbbbbb"), 0)
        };
        let closures = [closure(Some("0-aaaaaa"), 90), dead, closure(None, 5)];
        let keys = keys(&["0-aaaaaa", "1-bbbbbb", "2-cccccc"]);
        let wanted = PoolNow {
            open: 1,
            closed: 1,
            dead: 1,
        };
        assert_eq!(pool_now(&keys, &closures), wanted);
    }

    #[test]
    fn a_key_is_closed_as_long_as_the_longest_of_its_closures() {
        let closures = [
            closure(Some("0-aaaaaa"), 5),
            closure(Some("0-aaaaaa"), 3_600),
            closure(Some("9-old"), 1),
        ];
        let closed = all_closed(Some(&keys(&["0-aaaaaa"])), &closures).expect("closed");
        assert_eq!(closed.for_, Duration::from_secs(3_600));
    }

    #[test]
    fn a_quota_is_used_up_until_its_reset() {
        let quota = |used| LimitNow {
            instance: Instance {
                limit: "day".into(),
                scope: "0-aaaaaa".into(),
                rule: Rule::Quota {
                    calls: 10,
                    opened_us: 0,
                    closes_us: 7_000_000,
                },
            },
            used,
            left: None,
            opens_us: None,
            learned: None,
            set: None,
            held_by: BTreeMap::new(),
        };
        assert_eq!(spent(None, &quota(9), 0), None);
        let closed = spent(Some("0-aaaaaa".into()), &quota(10), 2_000_000).expect("used up");
        assert_eq!(closed.for_, Duration::from_secs(5));
        assert_eq!(closed.reason, "day used up");
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
            assert!(!closed.note(start + Duration::from_secs(second), Duration::from_secs(20)));
        }
        assert!(closed.note(start + Duration::from_secs(61), Duration::from_secs(20)));
        closed.open();
        assert!(!closed.note(start + Duration::from_secs(62), Duration::from_secs(20)));
    }

    #[test]
    fn what_opens_soon_is_waited_for_however_long_it_was_closed() {
        let start = Instant::now();
        let mut closed = ClosedFor::default();
        for second in 0..=90 {
            assert!(!closed.note(start + Duration::from_secs(second), Duration::from_secs(2)));
        }
        let looks = (91..=95).map(|second| {
            closed.note(start + Duration::from_secs(second), Duration::from_secs(61))
        });
        assert_eq!(
            looks.collect::<Vec<_>>(),
            [false, false, false, false, true]
        );
    }

    #[test]
    fn a_breaker_after_short_closures_has_the_time_to_pause_its_run() {
        let start = Instant::now();
        let mut closed = ClosedFor::default();
        for second in 0..10 {
            assert!(!closed.note(start + Duration::from_secs(second), Duration::from_secs(3)));
        }
        let day = Duration::from_secs(86_400);
        assert!(!closed.note(start + Duration::from_secs(10), day));
        assert!(!closed.note(start + Duration::from_secs(11), day));
    }

    #[test]
    fn a_long_closure_stops_after_a_few_looks() {
        let start = Instant::now();
        let mut closed = ClosedFor::default();
        let stopped: Vec<bool> = (0..LOOKS)
            .map(|_| closed.note(start, Duration::from_secs(3_600)))
            .collect();
        let first = stopped.iter().position(|stopped| *stopped);
        assert_eq!(first, Some(LOOKS as usize - 1));
    }
}
