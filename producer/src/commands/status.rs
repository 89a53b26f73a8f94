//! `producer status`

use anyhow::Result;

use crate::cli::RunArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::run::{RunFiles, find};
use crate::show;
use crate::stores::Archive;
use crate::watch::{Snapshot, snapshot};

/// Prints what a run is doing.
///
/// # Errors
/// When the run is unknown or a server is away.
pub async fn run(context: &Context, args: &RunArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let run = find(&archive, &args.run).await?;
    let files = RunFiles::expect(&archive, &run).await?;
    let state = archive.state(&context.env).await?;
    let limiter = archive.limiter(&context.env).await?;
    let shot = snapshot(&state, &limiter, &files, &context.env).await?;
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&shot)?);
    } else {
        print(&shot, &files);
    }
    Ok(Exit::Done)
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
        table.add_row(["finished", &manifest.finished_at.to_string()]);
        for (reason, cells) in &manifest.reasons {
            table.add_row([format!("failed: {reason}"), show::count(*cells)]);
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
