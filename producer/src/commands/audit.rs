//! `producer audit`

use anyhow::{Context as _, Result};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::limiter::Grants;

use crate::audit::{Audited, Report, audit};
use crate::calling::asks_for;
use crate::cli::AuditArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::limits::{grants, pace};
use crate::run::{RunFiles, find};
use crate::show;
use crate::stores::Archive;

/// Audits a run's calls; ends with 6 when a limit was passed.
///
/// # Errors
/// When the run is unknown or S3 is away. Without Redis only the grants are missing.
pub async fn run(context: &Context, args: &AuditArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let run = find(&archive, &args.run).await?;
    let files = RunFiles::expect(&archive, &run).await?;
    let layout = RunLayout::new(&archive.fleet.prefix, &run);
    let mut report = audit(&archive.objects, &layout, &files.plan).await?;
    match granted(context, &archive, &files.plan).await {
        Ok(granted) => report.note_grants(granted),
        Err(error) => context.say(format!("the grants are not known: {error:#}")),
    }
    if let Some(file) = &args.svg {
        let allowed = pace(&files.plan).map(|pace| pace.calls_per_second);
        let picture = report.timeline.svg(&run.to_string(), allowed);
        std::fs::write(file, picture)
            .with_context(|| format!("the picture cannot be written to {}", file.display()))?;
    }
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    if files.open.is_some() {
        context.say(format!(
            "{run} is still going: this holds for the calls written so far"
        ));
    }
    Ok(if report.passed() {
        Exit::LimitPassed
    } else {
        Exit::Done
    })
}

async fn granted(context: &Context, archive: &Archive, plan: &Plan) -> Result<Grants> {
    let limiter = archive.limiter(&context.env).await?;
    let run = plan.run_ref().to_string();
    let mut all = grants(&limiter, plan, &run).await?;
    all += grants(&limiter, plan, &asks_for(&run)).await?;
    Ok(all)
}

fn print(report: &Report) {
    let mut table = show::table(&["calls", &show::count(report.calls)]);
    let granted = report.granted.map_or_else(
        || "not known (Redis has forgotten the run)".into(),
        |granted| match report.granted_is_least {
            true => format!("{} or more (Redis lost its count)", show::count(granted)),
            false => show::count(granted),
        },
    );
    table.add_row(["granted".into(), granted]);
    if report.dropped > 0 {
        table.add_row(["dropped".into(), show::count(report.dropped)]);
    }
    table.add_row(["refused".into(), show::count(report.refused)]);
    table.add_row(["repeated".into(), show::count(report.repeated)]);
    let without: u64 = report.wasted.values().sum();
    if without > 0 {
        table.add_row(["without a result".into(), show::count(without)]);
    }
    show::right(&mut table, &[1]);
    show::print(&table);
    // Reasons can be long: they would push the numbers out of sight.
    for (reason, calls) in &report.wasted {
        crate::terminal::data(format_args!("   {}  {reason}", show::count(*calls)));
    }
    crate::terminal::data("");
    print_limits(&report.limits);
}

fn print_limits(limits: &[Audited]) {
    let header = [
        "provider", "limit", "scope", "window", "allowed", "worst", "at", "used", "",
    ];
    let mut table = show::table(&header);
    show::right(&mut table, &[3, 4, 5, 7]);
    for limit in limits {
        let window = match limit.window_s {
            0.0 => "in flight".into(),
            seconds => show::span(std::time::Duration::from_secs_f64(seconds)),
        };
        let verdict = if limit.passed() { "PASSED" } else { "kept" };
        table.add_row([
            limit.provider.clone(),
            limit.limit.clone(),
            limit.scope.clone(),
            window,
            show::count(limit.allowed),
            show::count(limit.worst),
            limit
                .worst_at
                .map_or_else(|| "-".into(), |at| format!("{at:.3}")),
            show::share(limit.used_share),
            verdict.into(),
        ]);
    }
    show::print(&table);
}
