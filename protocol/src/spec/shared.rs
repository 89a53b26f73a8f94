//! Limits that several providers share: one counter for all of them, and one hash tag for all of their counters.
//!
//! Providers that share a limit have the limiter's state under the shared name. A shared limit is the same where
//! name, kind and period are; the others are told apart by their provider.

use super::model::{Limit, LimitRule, Provider};
use crate::limit::PROVIDER;

impl Provider {
    /// As the limiter knows it: by its name, and of one that shares a limit `<shared name>*<provider>`.
    pub fn limiter_name(&self) -> String {
        match self.shared_name() {
            Some(shared) => format!("{shared}{PROVIDER}{}", self.name),
            None => self.name.clone(),
        }
    }

    fn shared_name(&self) -> Option<&str> {
        self.limits.iter().find_map(|limit| limit.shared.as_deref())
    }

    /// The name of a limit's counter.
    pub fn counter_name(&self, limit: &Limit) -> String {
        match (&limit.shared, self.shared_name()) {
            (Some(shared), _) => format!("{shared}.{}", kind(&limit.rule)),
            (None, Some(_)) => format!("{}.{}", self.name, limit.name),
            (None, None) => limit.name.clone(),
        }
    }

    /// A limit under its counter's name.
    pub fn counted(&self, limit: &Limit) -> Limit {
        Limit {
            name: self.counter_name(limit),
            ..limit.clone()
        }
    }
}

/// Two shared limits of one name that differ in this are two.
fn kind(rule: &LimitRule) -> String {
    match rule {
        LimitRule::Rate { period, .. } => format!("rate-{}ms", period.0.as_millis()),
        LimitRule::Spacing { .. } => "spacing".into(),
        LimitRule::Concurrency { .. } => "concurrency".into(),
        LimitRule::Quota { window, .. } => format!("quota-{window:?}").to_lowercase(),
        LimitRule::Cost { period, .. } => format!("cost-{}ms", period.0.as_millis()),
    }
}
