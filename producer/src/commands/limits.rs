//! `producer limits`: the budgets now, and changing them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::FleetLimiter;

use super::load;
use crate::cli::{LimitsArgs, LimitsChange};
use crate::context::Context;
use crate::exit::Exit;
use crate::limits::{Budget, Budgets, budgets, change};
use crate::run::{RunFiles, open_runs};
use crate::show;
use crate::stores::{Archive, Stores};

/// How often `--watch` looks again.
const LOOK: Duration = Duration::from_secs(1);

/// Prints the budgets of the open runs' providers, or of one provider; or changes a provider's.
///
/// # Errors
/// When the provider is unknown, a value is nonsense, or a server is away.
pub async fn run(context: &Context, args: &LimitsArgs) -> Result<Exit> {
    if let Some(change) = &args.change {
        return self::change(context, change).await;
    }
    let archive = Archive::connect(&context.env).await?;
    let limiter = archive.limiter(&context.env).await?;
    loop {
        let providers = providers(context, &archive, args.provider.as_deref()).await?;
        let all = all(context, &limiter, &providers).await?;
        if args.watch && context.lively {
            // A table that stays where it is.
            crate::terminal::text("\x1b[H\x1b[2J");
        }
        show_all(context, &all)?;
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn all(
    context: &Context,
    limiter: &FleetLimiter,
    providers: &[Provider],
) -> Result<Vec<Budgets>> {
    let mut all = Vec::new();
    for provider in providers {
        all.push(budgets(limiter, provider, &context.env).await?);
    }
    Ok(all)
}

fn show_all(context: &Context, all: &[Budgets]) -> Result<()> {
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(all)?);
    } else if all.is_empty() {
        context
            .say("no run is open; `producer limits PROVIDER` shows a provider of the spec folder");
    } else {
        print(all);
    }
    Ok(())
}

async fn change(context: &Context, change: &LimitsChange) -> Result<Exit> {
    let stores = Stores::connect(&context.env).await?;
    let of = |name: &str| {
        let name = name.to_owned();
        let archive = stores.archive.clone();
        async move { provider(context, &archive, &name).await }
    };
    let changed = match change {
        LimitsChange::Set {
            provider,
            limit,
            value,
            reason,
        } => change::set(&stores, &of(provider).await?, limit, value, reason.clone()).await?,
        LimitsChange::Reset {
            provider,
            limit,
            reason,
        } => {
            let reason = reason.clone();
            change::reset(&stores, &of(provider).await?, limit.as_deref(), reason).await?
        }
        LimitsChange::Hold {
            provider,
            for_,
            reason,
        } => change::hold(&stores, &of(provider).await?, for_.0, reason.clone()).await?,
    };
    stores.close().await;
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&changed)?);
        return Ok(Exit::Done);
    }
    let of = changed.limit.map_or_else(String::new, |l| format!("/{l}"));
    let file = changed
        .file
        .map_or_else(String::new, |file| format!(" (its file: {file})"));
    context.say(format!("{}{of}: {}{file}", changed.provider, changed.now));
    Ok(Exit::Done)
}

/// One provider, as the newest open run's plan or the spec folder has it.
async fn provider(context: &Context, archive: &Archive, name: &str) -> Result<Provider> {
    let found = providers(context, archive, Some(name)).await?;
    Ok(found.into_iter().next().expect("one was asked for"))
}

/// The providers as the open runs' plans have them, else as the spec folder has it.
///
/// # Errors
/// When S3 does not answer, or there is no such provider.
pub async fn providers(
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

/// What holds, and who says so if it is not the file.
fn allowed(budget: &Budget) -> String {
    match (&budget.set, &budget.learned) {
        (Some(set), _) => format!("{set} (set)"),
        (None, Some(learned)) => format!("{learned} (learned)"),
        (None, None) => budget.allowed.clone(),
    }
}

/// So many workers are named in a table.
const NAMED: usize = 3;

/// `w-0f3a2b4c5d (3), w-9e8d7c6b5a (1)`, or how many there are.
fn held_by(limit: &Budget) -> String {
    let holders = &limit.held_by;
    match holders.len() {
        0 => String::new(),
        1..=NAMED => {
            let each = holders
                .iter()
                .map(|(name, calls)| format!("{name} ({calls})"));
            each.collect::<Vec<_>>().join(", ")
        }
        n => format!("{n} workers"),
    }
}

fn print(all: &[Budgets]) {
    let header = [
        "provider",
        "limit",
        "scope",
        "allowed",
        "file",
        "used",
        "remaining",
        "opens at",
        "held by",
    ];
    let mut table = show::table(&header);
    show::right(&mut table, &[5, 6]);
    let number = |n: Option<u64>| n.map_or_else(|| "-".into(), show::count);
    for budgets in all {
        for limit in &budgets.limits {
            table.add_row([
                budgets.provider.clone(),
                limit.limit.clone(),
                limit.scope.clone(),
                allowed(limit),
                limit.file.clone(),
                number(limit.used),
                number(limit.remaining),
                limit
                    .opens_at
                    .map_or_else(|| "-".into(), |at| format!("{at:.3}")),
                held_by(limit),
            ]);
        }
    }
    show::print(&table);
    for budgets in all {
        if let Some(held) = &budgets.held {
            crate::terminal::data(format_args!(
                "{}: held until {:.0} ({})",
                budgets.provider, held.until, held.reason
            ));
        }
        for closed in &budgets.closed {
            let whom = closed.name.as_deref().unwrap_or("every call");
            let length = show::closed(std::time::Duration::from_secs(closed.for_s));
            crate::terminal::data(format_args!(
                "{}: {whom} is closed {length} ({})",
                budgets.provider, closed.reason
            ));
        }
        for slowed in &budgets.slowed {
            crate::terminal::data(format_args!("{}: {}", budgets.provider, slowed.told()));
        }
    }
}
