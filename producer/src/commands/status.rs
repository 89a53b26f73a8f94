//! `producer status`

use std::collections::BTreeMap;

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::spec::choose;
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::state::State;

use crate::cli::StatusArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::run::{PartsFound, RunFiles, counts_by, find};
use crate::show;
use crate::stores::{Archive, Stores};
use crate::watch::{Counts, Snapshot, snapshot};

/// Prints what a run is doing.
///
/// # Errors
/// When the run is unknown or a server is away.
pub async fn run(context: &Context, args: &StatusArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let run = find(&archive, &args.run).await?;
    let files = RunFiles::expect(&archive, &run).await?;
    let state = archive.state(&context.env).await?;
    let limiter = archive.limiter(&context.env).await?;
    let mut shot = snapshot(&state, &limiter, &files, &context.env).await?;
    let counted = files.plan.job.progress_by.as_ref();
    match args.by.as_ref().or(counted) {
        Some(name) if Some(name) != counted || is_lost(&shot, &files) => {
            shot.progress = by(&archive, &files, name).await?;
        }
        _ => {}
    }
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&shot)?);
    } else {
        print(&shot, &files);
    }
    Ok(Exit::Done)
}

/// What a command that changed a run says with `--json`: what `status` says of it now. `done` passes through.
///
/// # Errors
/// Those of `done`; or the run cannot be looked at.
pub async fn and_status(
    context: &Context,
    stores: &Stores,
    run: &RunRef,
    done: Result<Exit>,
) -> Result<Exit> {
    let exit = done?;
    let Stores {
        archive,
        state,
        limiter,
        ..
    } = stores;
    say_as_json(context, archive, state, limiter, run).await?;
    Ok(exit)
}

/// With `--json`, what `status` says of a run.
///
/// # Errors
/// When the run cannot be looked at.
pub async fn say_as_json(
    context: &Context,
    archive: &Archive,
    state: &State,
    limiter: &FleetLimiter,
    run: &RunRef,
) -> Result<()> {
    if context.json {
        let files = RunFiles::expect(archive, run).await?;
        let shot = snapshot(state, limiter, &files, &context.env).await?;
        crate::terminal::data(serde_json::to_string_pretty(&shot)?);
    }
    Ok(())
}

/// Whether Redis lost some of what it counted of a run that has ended: then the parts know better.
fn is_lost(shot: &Snapshot, files: &RunFiles) -> bool {
    let counted = shot.progress.values();
    let counted: u64 = counted.map(|n| n.succeeded + n.empty + n.failed).sum();
    files.ended().is_some() && counted != shot.succeeded + shot.empty + shot.failed
}

/// Counts by a dimension out of the parts that are there.
async fn by(archive: &Archive, files: &RunFiles, name: &str) -> Result<BTreeMap<String, Counts>> {
    let plan = &files.plan;
    let names: Vec<&str> = plan.matrix.names().map(|n| &**n).collect();
    if !names.contains(&name) {
        return Err(Refusal::usage(format!(
            "job {} has no dimension `{name}`; {}",
            plan.job.name,
            choose(name, &names, "dimensions")
        )));
    }
    let layout = RunLayout::new(&archive.fleet.prefix, &plan.run_ref());
    let found = PartsFound::list(&archive.objects, &layout).await?;
    counts_by(&archive.objects, plan, &layout, &found, name).await
}

fn print(shot: &Snapshot, files: &RunFiles) {
    let mut table = show::table(&["run", &format!("{}/{}", shot.job, shot.run)]);
    table.add_row(["state", shot.state.as_str()]);
    if let Some(reason) = files.open.as_ref().and_then(|open| open.reason.as_deref()) {
        table.add_row(["because", reason]);
    }
    table.add_row(["cells".into(), show::count(shot.cells)]);
    table.add_row(["succeeded".into(), show::count(shot.succeeded)]);
    table.add_row(["empty".into(), show::count(shot.empty)]);
    table.add_row(["failed".into(), show::count(shot.failed)]);
    table.add_row(["shards".into(), show::count(shot.shards)]);
    if let Some(eta) = shot.eta_s {
        let eta = show::span(std::time::Duration::from_secs(eta));
        table.add_row(["ETA".into(), format!("{eta} at the allowed rate")]);
    }
    if let Some(binds) = &shot.binds {
        table.add_row(["binds", binds]);
    }
    if let Some(manifest) = files.ended() {
        table.add_row(["finished", &format!("{:.0}", manifest.finished_at)]);
        for (reason, cells) in &manifest.reasons {
            let cells = show::count(*cells);
            table.add_row(["because".into(), format!("{cells} failed: {reason}")]);
        }
        for note in &manifest.notes {
            table.add_row(["note", note]);
        }
    }
    show::print(&table);
    print_progress(shot);
}

fn print_progress(shot: &Snapshot) {
    if shot.progress.is_empty() {
        return;
    }
    let mut table = show::table(&["", "cells", "succeeded", "empty", "failed"]);
    show::right(&mut table, &[1, 2, 3, 4]);
    for (value, counts) in &shot.progress {
        let numbers = [counts.cells, counts.succeeded, counts.empty, counts.failed];
        let row = std::iter::once(value.clone()).chain(numbers.map(show::count));
        table.add_row(row);
    }
    crate::terminal::data("");
    show::print(&table);
}
