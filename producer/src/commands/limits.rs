//! `producer limits`

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::{Instance, Rule};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Limit, Provider};
use paceline_protocol::stores::limiter::{Closure, FleetLimiter, LimitNow};
use serde::Serialize;

use super::load;
use crate::cli::LimitsArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::limits::{limiter_name, of_keys, period_text, unscoped};
use crate::pool;
use crate::run::{RunFiles, open_runs};
use crate::show;
use crate::stores::Archive;

/// A provider's budgets now.
#[derive(Serialize)]
struct Budgets {
    provider: String,
    limits: Vec<Budget>,
    closed: Vec<Closed>,
}

#[derive(Serialize)]
struct Budget {
    limit: String,
    scope: String,
    allowed: String,
    used: Option<u64>,
    remaining: Option<u64>,
    opens_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Closed {
    /// The credential, or a limit in one scope; nothing: every call.
    name: Option<String>,
    reason: String,
    for_s: u64,
}

/// Prints the budgets of the open runs' providers, or of one provider.
///
/// # Errors
/// When the provider is unknown or a server is away.
pub async fn run(context: &Context, args: &LimitsArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let limiter = archive.limiter(&context.env).await?;
    let providers = providers(context, &archive, args.provider.as_deref()).await?;
    let mut all = Vec::new();
    for provider in &providers {
        all.push(budgets(&limiter, provider, &context.env).await?);
    }
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&all)?);
    } else if all.is_empty() {
        context
            .say("no run is open; `producer limits PROVIDER` shows a provider of the spec folder");
    } else {
        print(&all);
    }
    Ok(Exit::Done)
}

/// The providers as the open runs' plans have them, else as the spec folder has it.
async fn providers(
    context: &Context,
    archive: &Archive,
    only: Option<&str>,
) -> Result<Vec<Provider>> {
    let mut by_name: BTreeMap<String, Provider> = BTreeMap::new();
    for run in open_runs(archive).await? {
        if let Some(files) = RunFiles::read(archive, &run).await? {
            by_name.extend(files.plan.providers);
        }
    }
    let Some(only) = only else {
        return Ok(by_name.into_values().collect());
    };
    match by_name.remove(only) {
        Some(provider) => Ok(vec![provider]),
        None => Ok(vec![
            load::folder(context)?
                .provider(only)
                .map_err(|error| load::refused(context, &error))?,
        ]),
    }
}

async fn budgets(
    limiter: &FleetLimiter,
    provider: &Provider,
    env: &impl Environment,
) -> Result<Budgets> {
    let name = limiter_name(provider);
    let keys = pool::names(provider, env).unwrap_or_default();
    let counters = counters(provider, &keys, Timestamp::now());
    let now = limiter.peek(name, &counters).await?;
    let closures = limiter.closures(name).await?;
    let limits = provider.limits.iter();
    Ok(Budgets {
        provider: provider.name.clone(),
        limits: limits.flat_map(|limit| budgets_of(limit, &now)).collect(),
        closed: closures.iter().map(closed).collect(),
    })
}

/// Every counter of a provider that can be named here: those of all calls, and those of each key.
fn counters(provider: &Provider, keys: &[String], now: Timestamp) -> Vec<Instance> {
    let mut counters = unscoped(provider, "", now);
    for endpoint in provider.endpoints.keys() {
        for counter in unscoped(provider, endpoint, now) {
            if !counters.iter().any(|known| known.limit == counter.limit) {
                counters.push(counter);
            }
        }
    }
    counters.extend(of_keys(provider, keys, now).into_iter().map(|(_, key)| key));
    counters
}

/// The budgets of a limit. One whose scope depends on the cell has a budget for each value of it, which
/// only the workers can name: it stands there with its template.
fn budgets_of(limit: &Limit, now: &[LimitNow]) -> Vec<Budget> {
    let found: Vec<Budget> = now
        .iter()
        .filter(|now| now.instance.limit == limit.name)
        .map(|now| Budget {
            limit: limit.name.clone(),
            scope: now.instance.scope.clone(),
            allowed: period_text(&limit.rule),
            used: Some(now.used),
            remaining: remaining(now),
            opens_at: now
                .opens_us
                .and_then(|at| Timestamp::from_microsecond(at).ok()),
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    vec![Budget {
        limit: limit.name.clone(),
        scope: limit.per.clone().unwrap_or_default(),
        allowed: period_text(&limit.rule),
        used: None,
        remaining: None,
        opens_at: None,
    }]
}

fn remaining(now: &LimitNow) -> Option<u64> {
    match now.instance.rule {
        Rule::Rate { calls, .. } | Rule::Concurrency { calls } | Rule::Quota { calls, .. } => {
            Some(calls.saturating_sub(now.used))
        }
        Rule::Spacing { .. } => None,
    }
}

fn closed(closure: &Closure) -> Closed {
    Closed {
        name: closure.part().map(str::to_owned),
        reason: closure.reason.clone(),
        for_s: closure.for_.as_secs(),
    }
}

fn print(all: &[Budgets]) {
    let header = [
        "provider",
        "limit",
        "scope",
        "allowed",
        "used",
        "remaining",
        "opens at",
    ];
    let mut table = show::table(&header);
    show::right(&mut table, &[4, 5]);
    let number = |n: Option<u64>| n.map_or_else(|| "-".into(), show::count);
    for budgets in all {
        for limit in &budgets.limits {
            table.add_row([
                budgets.provider.clone(),
                limit.limit.clone(),
                limit.scope.clone(),
                limit.allowed.clone(),
                number(limit.used),
                number(limit.remaining),
                limit
                    .opens_at
                    .map_or_else(|| "-".into(), |at| format!("{at:.3}")),
            ]);
        }
    }
    show::print(&table);
    for budgets in all {
        for closed in &budgets.closed {
            let whom = closed.name.as_deref().unwrap_or("every call");
            let length = show::span(std::time::Duration::from_secs(closed.for_s));
            crate::terminal::data(format_args!(
                "{}: {whom} is closed for {length} ({})",
                budgets.provider, closed.reason
            ));
        }
    }
}
