//! `producer runs`

use anyhow::Result;
use paceline_protocol::spec::SpecFolder;
use paceline_protocol::stores::state::State;
use serde::Serialize;

use crate::cli::RunsArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::limits::pace;
use crate::run::{RunFiles, StateWord, all_runs};
use crate::show;
use crate::stores::Archive;

/// One run in the list.
#[derive(Serialize)]
struct Line {
    job: String,
    run: String,
    state: StateWord,
    planned_at: jiff::Timestamp,
    cells: u64,
    succeeded: u64,
    empty: u64,
    failed: u64,
    eta_s: Option<u64>,
    binds: Option<String>,
}

/// Lists the runs, newest first.
///
/// # Errors
/// When S3 or Redis is away.
pub async fn run(context: &Context, args: &RunsArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let state = archive.state(&context.env).await?;
    let mut lines = Vec::new();
    for run in all_runs(&archive, args.job.as_deref()).await? {
        if let Some(files) = RunFiles::read(&archive, &run).await? {
            lines.push(line(&state, &files).await?);
        }
    }
    if let Some(job) = args.job.as_deref().filter(|_| lines.is_empty()) {
        known_job(context, job)?;
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.planned_at));
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&lines)?);
    } else {
        print(context, &lines);
    }
    Ok(Exit::Done)
}

/// A job without runs is one of the spec folder, where there is one.
///
/// # Errors
/// When it is not.
pub(super) fn known_job(context: &Context, job: &str) -> Result<()> {
    let Ok(folder) = SpecFolder::open(&context.spec) else {
        return Ok(());
    };
    if folder.job_names().contains(&job) {
        return Ok(());
    }
    Err(Refusal::usage(format!(
        "there is no job {job}, and no run of it; jobs here: {}",
        folder.job_names().join(", ")
    )))
}

async fn line(state: &State, files: &RunFiles) -> Result<Line> {
    let plan = &files.plan;
    let progress = match files.ended() {
        Some(_) => paceline_protocol::stores::state::Progress::default(),
        None => state.progress(&plan.run_ref()).await?,
    };
    let (succeeded, empty, failed) = match files.ended() {
        Some(manifest) => (manifest.succeeded, manifest.empty, manifest.failed),
        None => (progress.succeeded, progress.empty, progress.failed),
    };
    let left = plan.cells().saturating_sub(succeeded + empty + failed);
    let pace = pace(plan).filter(|_| files.ended().is_none());
    Ok(Line {
        job: plan.job.name.clone(),
        run: plan.run.to_string(),
        state: files.state(&progress),
        planned_at: plan.planned_at,
        cells: plan.cells(),
        succeeded,
        empty,
        failed,
        eta_s: pace
            .as_ref()
            .map(|pace| (left as f64 / pace.calls_per_second).ceil() as u64),
        binds: pace.map(|pace| pace.limit),
    })
}

fn print(context: &Context, lines: &[Line]) {
    if lines.is_empty() {
        context.say("there are no runs yet; `producer enqueue JOB` starts one");
        return;
    }
    let header = [
        "job",
        "run",
        "state",
        "planned",
        "cells",
        "succeeded",
        "empty",
        "failed",
        "ETA",
        "binds",
    ];
    let mut table = show::table(&header);
    show::right(&mut table, &[4, 5, 6, 7, 8]);
    for line in lines {
        let eta = line
            .eta_s
            .map(|s| show::span(std::time::Duration::from_secs(s)));
        table.add_row([
            line.job.clone(),
            line.run.clone(),
            line.state.as_str().to_owned(),
            format!("{:.0}", line.planned_at),
            show::count(line.cells),
            show::count(line.succeeded),
            show::count(line.empty),
            show::count(line.failed),
            eta.unwrap_or_default(),
            line.binds.clone().unwrap_or_default(),
        ]);
    }
    show::print(&table);
}
