//! `producer schedule`

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::load::{self, Asked};
use crate::cli::{Narrowing, ScheduleArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::plan::estimate::estimate;
use crate::serve::calendar::{Calendar, run_id};
use crate::show;

/// How many starts are shown of a job.
const SHOWN: usize = 3;

#[derive(Serialize)]
struct Start {
    job: String,
    planned: Timestamp,
    run: String,
    ends: Option<Timestamp>,
    fits: Option<bool>,
}

/// Prints the next planned starts of every job with a schedule.
///
/// # Errors
/// When the spec folder cannot be read, or the job is unknown or wrong.
pub async fn run(context: &Context, args: &ScheduleArgs) -> Result<Exit> {
    let folder = load::folder(context)?;
    let names: Vec<String> = match &args.job {
        Some(name) => vec![name.clone()],
        None => folder.job_names().into_iter().map(str::to_owned).collect(),
    };
    let mut starts = Vec::new();
    for name in names {
        let job = folder
            .job(&name)
            .map_err(|error| load::refused(context, &error))?;
        let Some(schedule) = &job.job.schedule else {
            continue;
        };
        let calendar = Calendar::new(&job.job.name, schedule)
            .map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
        let narrowing = Narrowing::default();
        let asked = Asked {
            narrowing: &narrowing,
            known: None,
            parent: None,
            archive: None,
            allow_shrink: false,
            force: false,
        };
        // What cannot be planned here and now still has its times.
        let planned = load::plan(context, &job, load::new_run_id(), &asked)
            .await
            .ok();
        let seconds = planned.and_then(|plan| estimate(&plan, &context.env).seconds);
        let mut last = Timestamp::now();
        for _ in 0..SHOWN {
            let Some(next) = calendar.next(last) else {
                break;
            };
            let length = seconds.map(|s| std::time::Duration::from_secs_f64(s.clamp(0.0, 1e9)));
            let ends = length.map(|length| calendar.start(next) + length);
            starts.push(Start {
                job: job.job.name.clone(),
                planned: next,
                run: run_id(next).to_string(),
                ends,
                fits: ends
                    .zip(calendar.next(next))
                    .map(|(ends, after)| ends <= after),
            });
            last = next;
        }
    }
    starts.sort_by_key(|start| start.planned);
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&starts)?);
    } else {
        print(&starts);
    }
    Ok(Exit::Done)
}

fn print(starts: &[Start]) {
    let mut table = show::table(&["planned", "job", "run", "ends about", ""]);
    for start in starts {
        let word = match start.fits {
            Some(true) => "before the next start",
            Some(false) => "AFTER the next start",
            None => "",
        };
        table.add_row([
            format!("{:.0}", start.planned),
            start.job.clone(),
            start.run.clone(),
            start.ends.map(|at| format!("{at:.0}")).unwrap_or_default(),
            word.to_owned(),
        ]);
    }
    show::print(&table);
}
