//! What must outlive Redis: put back when its state is lost, and kept when an answer closed something for long.

use std::time::Instant;

use paceline_protocol::limit::{Answer, BREAKER, BREAKER_US, Why};
use paceline_protocol::stores::kept_limits::{KEPT_FROM_US, KeptLimits};
use paceline_protocol::stores::limiter::Closure;

use super::{Event, Lane, LaneContext};

impl Lane {
    /// Puts back what operators said before anything is granted.
    pub(super) fn put_back(&mut self, answer: &Answer) {
        let unset = answer.refusals.iter().any(|r| r.why == Why::Unset);
        if !unset || self.putting_back {
            return;
        }
        self.putting_back = true;
        let context = self.context.clone();
        let (provider, events) = (self.budgets.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            put_back(&context, &provider).await;
            drop(events.send(Event::PutBack));
        });
    }

    pub(super) fn on_put_back(&mut self) {
        self.putting_back = false;
        self.ask_at = Instant::now();
    }
}

/// Puts back what operators said and long closures into a Redis that knows nothing of the provider. Whether it is
/// there now.
pub async fn put_back(context: &LaneContext, provider: &str) -> bool {
    let kept = KeptLimits {
        objects: &context.parting.stores.objects,
        prefix: &context.prefix,
        provider,
    };
    match kept.put_back(&context.limiter).await {
        Ok(true) => {
            tracing::info!(
                provider.name = provider,
                "Redis knew nothing of the provider; what operators set and long closures are put back from S3"
            );
            true
        }
        Ok(false) => true,
        Err(error) => {
            tracing::warn!(provider.name = provider, error = %error, "what operators set could not be put back; nothing is called before");
            false
        }
    }
}

/// Keeps a closure of more than a minute, so that it outlives Redis.
pub async fn keep(
    context: &LaneContext,
    provider: &str,
    closure: &Closure,
    strikes: u32,
    now_us: i64,
) {
    let for_us = i64::try_from(closure.for_.as_micros()).unwrap_or(i64::MAX);
    let mut closure = closure.clone();
    if strikes >= BREAKER {
        let breaker = u64::try_from(BREAKER_US).unwrap_or(0);
        closure.for_ = closure.for_.max(std::time::Duration::from_micros(breaker));
        closure.reason = format!("breaker:{}", closure.reason);
    } else if for_us <= KEPT_FROM_US {
        return;
    }
    let kept = KeptLimits {
        objects: &context.parting.stores.objects,
        prefix: &context.prefix,
        provider,
    };
    if let Err(error) = kept.ban(&closure, strikes, now_us).await {
        tracing::warn!(provider.name = provider, closes = closure.name, error = %error, "a closure is not kept in S3: it would not outlive Redis");
    }
}
