//! Limits that several providers share: one counter for all of them, and one hash tag for all of their counters.
//!
//! Providers that share a limit have the limiter's state under the shared name. A shared limit is the same where
//! name, kind and period are; the others are told apart by their provider.

use super::diagnostic::Diagnostic;
use super::model::{Limit, LimitRule, Provider};
use super::source::Sourced;
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

/// Limits that a file shares with another one under other numbers: nobody could say which of them hold.
pub(super) fn differing(file: &Sourced<Provider>, all: &[Sourced<Provider>]) -> Vec<Diagnostic> {
    let Some(provider) = &file.model else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (place, limit) in provider.limits.iter().enumerate() {
        if limit.shared.is_none() {
            continue;
        }
        let counter = provider.counter_name(limit);
        let others = all
            .iter()
            .filter_map(|other| Some((other, other.model.as_ref()?)));
        for (other, theirs) in others.filter(|(_, theirs)| theirs.name < provider.name) {
            let same = |l: &&Limit| l.shared.is_some() && theirs.counter_name(l) == counter;
            let differs = |l: &&Limit| numbers(&l.rule) != numbers(&limit.rule);
            if theirs.limits.iter().filter(same).any(|l| differs(&l)) {
                let path = format!("limits[{place}].shared");
                let what = format!(
                    "limit `{}` is shared with {} under other numbers",
                    limit.name, other.source.file
                );
                found.push(
                    file.source
                        .fault(&path, what)
                        .hint("one limit has the same numbers in every file that shares it"),
                );
            }
        }
    }
    found
}

/// What a limit allows; what one call takes of it may differ.
fn numbers(rule: &LimitRule) -> LimitRule {
    let mut rule = rule.clone();
    if let LimitRule::Cost { points, actual, .. } = &mut rule {
        points.clear();
        *actual = None;
    }
    rule
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
