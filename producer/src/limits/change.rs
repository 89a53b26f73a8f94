//! Changing a provider's limits while runs go on: kept in S3 first, then in force in Redis at once, then told to the
//! fleet so that nobody waits for what was closed.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::{Hold, Numbers};
use paceline_protocol::message::Control;
use paceline_protocol::spec::{Limit, Provider, choose, limit_numbers};
use paceline_protocol::stores::kept_limits::{Change, KeptLimits};

use super::{limiter_name, period_text, with_numbers};
use crate::exit::Refusal;
use crate::stores::Stores;

/// The longest hold: `producer pause` is for runs that should not go on at all.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 86_400);

/// What was changed, as it is said and announced.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// The provider.
    pub provider: String,
    /// The limit, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What holds from now on.
    pub now: String,
    /// What the file says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Sets a limit's numbers: `50/s`, `100ms`, `64`, `25000/day`, as its file would say them.
///
/// # Errors
/// Usage when there is no such limit or the value is none of its kind; else when a server is away.
pub async fn set(
    stores: &Stores,
    provider: &Provider,
    limit: &str,
    value: &str,
    reason: Option<String>,
) -> Result<Changed> {
    let declared = declared(provider, limit)?;
    let numbers = numbers(declared, value)?;
    let name = limiter_name(provider);
    let kept = kept(stores, &name);
    let change = Change {
        at: Timestamp::now(),
        reason: reason.clone(),
    };
    let counter = provider.counter_name(declared);
    kept.set(&stores.limiter, &counter, numbers, change).await?;
    let changed = Changed {
        provider: provider.name.clone(),
        limit: Some(limit.to_owned()),
        now: period_text(&with_numbers(&declared.rule, numbers)),
        file: Some(period_text(&declared.rule)),
        reason,
    };
    announce(stores, provider, "set", &changed).await?;
    Ok(changed)
}

/// Takes back what was set of a limit, or of all of them and the hold.
///
/// # Errors
/// Usage when there is no such limit; else when a server is away.
pub async fn reset(
    stores: &Stores,
    provider: &Provider,
    limit: Option<&str>,
    reason: Option<String>,
) -> Result<Changed> {
    let file = limit
        .map(|limit| declared(provider, limit).map(|l| period_text(&l.rule)))
        .transpose()?;
    let name = limiter_name(provider);
    let kept = kept(stores, &name);
    let of = provider.limits.iter();
    let of = of.filter(|l| limit.is_none_or(|name| name == l.name));
    let counters: Vec<String> = of.map(|l| provider.counter_name(l)).collect();
    kept.reset(&stores.limiter, &counters).await?;
    if limit.is_none() {
        kept.end_hold(&stores.limiter).await?;
    }
    let changed = Changed {
        provider: provider.name.clone(),
        limit: limit.map(str::to_owned),
        now: "as its file says and its answers tell".into(),
        file,
        reason,
    };
    announce(stores, provider, "reset", &changed).await?;
    Ok(changed)
}

/// Lets nothing start for a while; zero ends a hold.
///
/// # Errors
/// Usage when it is too long; else when a server is away.
pub async fn hold(
    stores: &Stores,
    provider: &Provider,
    for_: Duration,
    reason: Option<String>,
) -> Result<Changed> {
    if for_ > LONGEST_HOLD {
        return Err(Refusal::usage(
            "a provider is held for at most 30 days (30d); `producer pause` stops a run for as long as you like",
        ));
    }
    let name = limiter_name(provider);
    let (limiter, kept) = (&stores.limiter, kept(stores, &name));
    let now = if for_.is_zero() {
        kept.end_hold(limiter).await?;
        "not held".to_owned()
    } else {
        let now_us = limiter.kept(&name).await?.now_us;
        let for_us = i64::try_from(for_.as_micros()).unwrap_or(i64::MAX / 4);
        let hold = Hold {
            until_us: now_us + for_us,
            reason: reason
                .clone()
                .unwrap_or_else(|| "producer limits hold".into()),
        };
        let change = Change {
            at: Timestamp::now(),
            reason: reason.clone(),
        };
        let until = Timestamp::from_microsecond(hold.until_us).unwrap_or(Timestamp::MAX);
        kept.hold(limiter, hold, change).await?;
        format!("held until {until:.0}")
    };
    let changed = Changed {
        provider: provider.name.clone(),
        limit: None,
        now,
        file: None,
        reason,
    };
    announce(stores, provider, "hold", &changed).await?;
    Ok(changed)
}

fn kept<'s>(stores: &'s Stores, provider: &'s str) -> KeptLimits<'s> {
    KeptLimits {
        objects: stores.objects(),
        prefix: stores.prefix(),
        provider,
    }
}

fn declared<'p>(provider: &'p Provider, limit: &str) -> Result<&'p Limit> {
    let found = provider.limits.iter().find(|known| known.name == limit);
    found.ok_or_else(|| {
        let names: Vec<&str> = provider.limits.iter().map(|l| l.name.as_str()).collect();
        let hint = choose(limit, &names, "limits");
        Refusal::usage(format!(
            "provider {} has no limit `{limit}`; {hint}",
            provider.name
        ))
    })
}

fn numbers(limit: &Limit, value: &str) -> Result<Numbers> {
    limit_numbers(&limit.rule, value).map_err(|right| {
        Refusal::usage(format!(
            "`{value}` is no value of limit `{}` ({}); {right}",
            limit.name,
            period_text(&limit.rule)
        ))
    })
}

/// Tells the fleet, and whoever listens.
async fn announce(
    stores: &Stores,
    provider: &Provider,
    what: &str,
    changed: &Changed,
) -> Result<()> {
    tell_the_fleet(stores, &provider.name).await?;
    tracing::info!(
        provider.name = changed.provider,
        limit.name = changed.limit,
        change = what,
        now = changed.now,
        reason = changed.reason,
        "limits were changed"
    );
    let body = serde_json::json!({"event": "limits.changed", "change": what, "what": changed});
    if let Err(error) = stores.publisher.event("limits.changed", &body).await {
        tracing::debug!(error = %error, "an event was not announced");
    }
    Ok(())
}

/// Tells the fleet that a provider's limits are others: nobody waits any longer for what was closed.
///
/// # Errors
/// When RabbitMQ is away.
pub async fn tell_the_fleet(stores: &Stores, provider: &str) -> Result<()> {
    let provider = provider.to_owned();
    let control = Control::LimitsChanged { provider };
    stores.publisher.control(&control).await?;
    // They come by themselves when their delay is over.
    if let Err(error) = stores.publisher.end_waits().await {
        tracing::warn!(%error, "shards that were handed back wait for up to ten minutes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::spec::{CalendarWindow, LimitRule, Span};

    fn limit(rule: LimitRule) -> Limit {
        Limit {
            name: "l".into(),
            rule,
            per: None,
            endpoints: Vec::new(),
            shared: None,
            learn: None,
        }
    }

    #[test]
    fn values_are_those_of_the_file() {
        let rate = limit(LimitRule::Rate {
            calls: 50,
            period: Span::secs(1),
            burst: Some(5),
        });
        let ok = |limit: &Limit, value: &str| numbers(limit, value).expect(value).to_string();
        assert_eq!(ok(&rate, "20/s"), "rate 20 1000000 5");
        assert_eq!(ok(&rate, "600/min burst 10"), "rate 600 60000000 10");
        let spacing = limit(LimitRule::Spacing {
            least: Span::millis(100),
        });
        assert_eq!(ok(&spacing, "250ms"), "spacing 250000");
        let flight = limit(LimitRule::Concurrency { calls: 64 });
        assert_eq!(ok(&flight, "8"), "calls 8");
        let day = limit(LimitRule::Quota {
            calls: 25_000,
            window: CalendarWindow::Day,
            resets_at: 0,
            zone: "UTC".into(),
        });
        assert_eq!(ok(&day, "20000/day"), "calls 20000");
        assert_eq!(ok(&day, "20000"), "calls 20000");
        for (limit, value) in [
            (&rate, "0/s"),
            (&rate, "fast"),
            (&rate, "20/s burst 0"),
            (&rate, "100ms"),
            (&rate, "-5/s"),
            (&spacing, "5/s"),
            (&spacing, "0ms"),
            (&flight, "0"),
            (&flight, "8/s"),
            (&day, "20000/month"),
            (&day, "0"),
        ] {
            let error = numbers(limit, value).expect_err(value).to_string();
            assert!(error.contains("; "), "what would be right: {error}");
        }
    }
}
