//! `producer limits`

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::limit::Rule;
use paceline_protocol::spec::{Limit, Provider};
use paceline_protocol::stores::limiter::{Closure, FleetLimiter, LimitNow};
use serde::Serialize;

use super::load;
use crate::cli::LimitsArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::limits::{limiter_name, period_text, unscoped};
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
    credential: Option<String>,
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
        all.push(budgets(&limiter, provider).await?);
    }
    if context.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
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

async fn budgets(limiter: &FleetLimiter, provider: &Provider) -> Result<Budgets> {
    let name = limiter_name(provider);
    let endpoints: Vec<&str> = provider.endpoints.keys().map(String::as_str).collect();
    let mut instances = unscoped(provider, "", Timestamp::now());
    for endpoint in endpoints {
        let more = unscoped(provider, endpoint, Timestamp::now());
        instances.extend(
            more.into_iter()
                .filter(|i| !instances.iter().any(|j| j.limit == i.limit))
                .collect::<Vec<_>>(),
        );
    }
    let now = limiter.peek(name, &instances).await?;
    let closures = limiter.closures(name).await?;
    Ok(Budgets {
        provider: provider.name.clone(),
        limits: provider
            .limits
            .iter()
            .map(|limit| budget(limit, &now))
            .collect(),
        closed: closures.iter().map(closed).collect(),
    })
}

/// A limit with a scope has one budget for each value of it, which only the workers can name.
fn budget(limit: &Limit, now: &[LimitNow]) -> Budget {
    let found = now.iter().find(|now| now.instance.limit == limit.name);
    Budget {
        limit: limit.name.clone(),
        scope: limit.per.clone().unwrap_or_default(),
        allowed: period_text(&limit.rule),
        used: found.map(|now| now.used),
        remaining: found.and_then(remaining),
        opens_at: found.and_then(|now| Timestamp::from_microsecond(now.opens_us?).ok()),
    }
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
        credential: closure.credential.clone(),
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
            let whom = closed.credential.as_deref().unwrap_or("every call");
            let length = show::span(std::time::Duration::from_secs(closed.for_s));
            println!(
                "{}: {whom} is closed for {length} ({})",
                budgets.provider, closed.reason
            );
        }
    }
}
