//! `producer clean`

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::runs::known_job;
use crate::clean::{
    Ask, Fate, Known, Removal, Why, Work, choose, lost_documents, take_away, work_out,
};
use crate::cli::CleanArgs;
use crate::context::Context;
use crate::exit::{Exit, Refusal};
use crate::show;
use crate::stores::{Archive, index};

/// What `clean --json` says.
#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    runs: Vec<Line<'a>>,
    kept: Vec<KeptLine>,
    sets: Vec<&'a String>,
    objects: usize,
    bytes: u64,
    /// By index, the documents that could not be made again any more.
    not_rebuildable: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    job: &'a str,
    run: &'a str,
    objects: usize,
    bytes: u64,
    index: Option<&'a String>,
    keeps_ledger: bool,
}

#[derive(Serialize)]
struct KeptLine {
    job: String,
    run: String,
    why: String,
}

/// Takes old runs away, or says what would go.
///
/// # Errors
/// When a server is away; with [`Exit::Usage`] when nobody says how old is old, or documents would be lost for good.
pub async fn run(context: &Context, args: &CleanArgs) -> Result<Exit> {
    let archive = Archive::connect(&context.env).await?;
    let state = archive.state(&context.env).await?;
    let known = Known::read(&archive).await?;
    if args.older_than.is_none() && known.seen.iter().all(|seen| seen.retention.is_none()) {
        return Err(Refusal::usage(
            "how old is old? say --older-than 30d, or `retention: 30d` in a job's file",
        ));
    }
    let ask = Ask {
        now: Timestamp::now(),
        older_than: args.older_than.map(|span| span.0),
        ledgers: known.ledgers(),
        live: &known.live,
    };
    let mut chosen = choose(&known.seen, &ask);
    if let Some(job) = &args.job {
        if known.seen.iter().all(|seen| seen.run.job != *job) {
            known_job(context, job)?;
        }
        for (seen, fate) in known.seen.iter().zip(&mut chosen) {
            if seen.run.job != *job {
                *fate = Fate::Kept(Why::Young);
            }
        }
    }
    let needs_index = known
        .found
        .iter()
        .zip(&chosen)
        .any(|(found, fate)| !matches!(fate, Fate::Kept(_)) && found.has_documents());
    let index = match needs_index {
        true => Some(index(&context.env).await?),
        false => None,
    };
    let work = work_out(&archive, index.as_ref(), &known, &chosen).await?;
    let lost = match &index {
        Some(index) => lost_documents(&archive, index, &work.runs).await?,
        None => BTreeMap::new(),
    };
    let kept = kept(&known, &chosen);
    if !args.dry_run {
        refuse_loss(&lost, args.yes)?;
        take_away(&archive, index.as_ref(), &state, &work).await?;
    }
    tell(context, args.dry_run, &work, kept, &lost)?;
    Ok(Exit::Done)
}

/// Nothing is lost for good unless somebody says so.
fn refuse_loss(lost: &BTreeMap<String, u64>, yes: bool) -> Result<()> {
    if lost.is_empty() || yes {
        return Ok(());
    }
    Err(Refusal::usage(format!(
        "{}; nothing was removed, --yes does it all the same",
        of_loss(lost)
    )))
}

fn of_loss(lost: &BTreeMap<String, u64>) -> String {
    let of = |(name, count): (&String, &u64)| {
        format!(
            "{} documents of {name} could not be made again any more",
            show::count(*count)
        )
    };
    let all: Vec<String> = lost.iter().map(of).collect();
    all.join("; ")
}

/// The runs that are old enough and stay for another reason.
fn kept(known: &Known, chosen: &[Fate]) -> Vec<KeptLine> {
    let line = |(seen, fate): (&crate::clean::Seen, &Fate)| match fate {
        Fate::Kept(why) if *why != Why::Young => Some(KeptLine {
            job: seen.run.job.clone(),
            run: seen.run.run.to_string(),
            why: why.to_string(),
        }),
        _ => None,
    };
    known.seen.iter().zip(chosen).filter_map(line).collect()
}

fn tell(
    context: &Context,
    dry_run: bool,
    work: &Work,
    kept: Vec<KeptLine>,
    lost: &BTreeMap<String, u64>,
) -> Result<()> {
    let report = Report {
        dry_run,
        runs: work.runs.iter().map(line).collect(),
        kept,
        sets: work.sets.iter().collect(),
        objects: work.runs.iter().map(|run| run.keys.len()).sum(),
        bytes: work.runs.iter().map(|run| run.bytes).sum(),
        not_rebuildable: lost,
    };
    if context.json {
        crate::terminal::data(serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    print(&report);
    for kept in &report.kept {
        context.say(format!("{}/{} stays: {}", kept.job, kept.run, kept.why));
    }
    if !lost.is_empty() {
        context.say(of_loss(lost));
    }
    let done = if dry_run { "would be" } else { "were" };
    context.say(format!(
        "{} objects ({:.1} MB) of {} runs, {} indices and {} sorted sets {done} removed",
        show::count(report.objects as u64),
        report.bytes as f64 / 1e6,
        show::count(report.runs.len() as u64),
        report.runs.iter().filter(|run| run.index.is_some()).count(),
        report.sets.len(),
    ));
    Ok(())
}

fn line(removal: &Removal) -> Line<'_> {
    Line {
        job: &removal.found.run.job,
        run: removal.found.run.run.as_str(),
        objects: removal.keys.len(),
        bytes: removal.bytes,
        index: removal.index.as_ref(),
        keeps_ledger: removal.keeps_ledger,
    }
}

fn print(report: &Report<'_>) {
    if report.runs.is_empty() {
        return;
    }
    let mut table = show::table(&["job", "run", "objects", "bytes", "index", "stays"]);
    show::right(&mut table, &[2, 3]);
    for line in &report.runs {
        table.add_row([
            line.job.to_owned(),
            line.run.to_owned(),
            show::count(line.objects as u64),
            show::count(line.bytes),
            line.index.cloned().unwrap_or_default(),
            if line.keeps_ledger { "ledger" } else { "" }.to_owned(),
        ]);
    }
    show::print(&table);
}
