//! Follows the schedules: each second, whoever leads looks what is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::spec::LoadedJob;
use tokio::task::JoinSet;

use super::Server;
use super::agenda::{Agenda, Step};
use super::calendar::{Calendar, planned_in, run_id};
use super::starting::{Ask, hopeless};
use crate::commands::cancel::cancel;
use crate::run::{all_runs, open_runs};

/// How often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// What came of a start.
struct Outcome {
    job: String,
    planned: Timestamp,
    /// Nothing more is to be done for it.
    settled: bool,
}

/// What is remembered between two looks.
#[derive(Default)]
struct Following {
    agendas: BTreeMap<String, Agenda>,
    fence: u64,
    /// Jobs whose start is under way in this process.
    starting: BTreeSet<String>,
    starts: JoinSet<Outcome>,
}

/// Starts what is due until the process stops.
pub(super) async fn follow(server: Arc<Server>) {
    let mut following = Following::default();
    let mut told = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = server.stop.cancelled() => break,
        }
        let Some(fence) = *server.leading.borrow() else {
            continue;
        };
        if following.fence != fence {
            following.agendas.clear(); // Somebody else may have led meanwhile.
            following.fence = fence;
        }
        match following.look(&server).await {
            Ok(()) => told = false,
            Err(error) if !told => {
                tracing::warn!("schedules wait: {error:#}");
                told = true;
            }
            Err(_) => {}
        }
    }
    // What is under way ends, within the grace.
    while following.starts.join_next().await.is_some() {}
}

impl Following {
    async fn look(&mut self, server: &Arc<Server>) -> Result<()> {
        self.settle(server).await?;
        let jobs = server.spec.jobs();
        let scheduled: Vec<_> = jobs
            .values()
            .filter(|job| job.job.schedule.is_some())
            .collect();
        self.rest(server, &scheduled).await?;
        let mut open: Option<Vec<RunRef>> = None;
        for job in scheduled {
            let Ok(calendar) = calendar(job) else {
                continue;
            };
            let name = &job.job.name;
            let mut agenda = match self.agendas.get(name) {
                Some(agenda) => agenda.clone(),
                None => remembered(server, name).await?,
            };
            let now = server.clock.now();
            if agenda.follow(&calendar, now) {
                // Noted at once: whoever comes after a pause knows from when on starts were missed.
                self.remember(server, name, agenda.clone()).await?;
            }
            let due = calendar
                .next(agenda.seen)
                .is_some_and(|p| calendar.start(p) <= now);
            if !due && agenda.waiting.is_empty() {
                self.agendas.insert(name.clone(), agenda);
                continue;
            }
            if self.starting.contains(name) {
                continue;
            }
            if open.is_none() {
                open = Some(open_runs(&server.stores.archive).await?);
            }
            let of_job = open.iter().flatten().filter(|run| run.job == *name);
            let of_job: BTreeSet<RunId> = of_job.map(|run| run.run.clone()).collect();
            self.act(server, job, &calendar, agenda, now, &of_job)
                .await?;
        }
        Ok(())
    }

    /// A job whose schedule was taken away asks for nothing of that time when it gets one again.
    async fn rest(&mut self, server: &Server, scheduled: &[&Arc<LoadedJob>]) -> Result<()> {
        let followed = |name: &String| scheduled.iter().any(|job| job.job.name == *name);
        let gone = self.agendas.keys().filter(|name| !followed(name));
        let gone: Vec<String> = gone.cloned().collect();
        for name in gone {
            if let Some(mut agenda) = self.agendas.get(&name).cloned()
                && agenda.rest()
            {
                self.remember(server, &name, agenda).await?;
            }
        }
        Ok(())
    }

    async fn act(
        &mut self,
        server: &Arc<Server>,
        job: &Arc<LoadedJob>,
        calendar: &Calendar,
        mut agenda: Agenda,
        now: Timestamp,
        open: &BTreeSet<RunId>,
    ) -> Result<()> {
        let name = &job.job.name;
        let steps = agenda.step(calendar, now, open);
        self.remember(server, name, agenda).await?;
        tell_missed(server, name, &steps);
        for step in steps {
            match step {
                Step::Start(planned) => {
                    self.starting.insert(name.clone());
                    let ask = Ask {
                        job: name.clone(),
                        run: Some(run_id(planned)),
                        date: Some(calendar.date(planned)),
                        ..Ask::default()
                    };
                    self.starts.spawn(start(server.clone(), ask, planned));
                }
                Step::Cancel => {
                    for run in open {
                        let run = RunRef {
                            job: name.clone(),
                            run: run.clone(),
                        };
                        tracing::warn!(run.id = %run, "cancelled, since the next one is due (overlap: cancel)");
                        cancel(&server.context, &server.stores, &run).await?;
                    }
                }
                Step::Skipped(planned) => {
                    tracing::warn!(job = name, %planned, "not started, since the last run is still going (overlap: skip)");
                    server.gauges.start(name, "skipped");
                }
                Step::Missed(_) => server.gauges.start(name, "missed"),
            }
        }
        Ok(())
    }

    /// Takes what was started off the agendas.
    async fn settle(&mut self, server: &Arc<Server>) -> Result<()> {
        while let Some(done) = self.starts.try_join_next() {
            let Ok(done) = done else {
                self.starting.clear();
                continue;
            };
            self.starting.remove(&done.job);
            if let (true, Some(mut agenda)) = (done.settled, self.agendas.get(&done.job).cloned()) {
                agenda.done(done.planned);
                self.remember(server, &done.job, agenda).await?;
            }
        }
        Ok(())
    }

    async fn remember(&mut self, server: &Server, job: &str, agenda: Agenda) -> Result<()> {
        let note = serde_json::to_string(&agenda)?;
        let state = &server.stores.state;
        if state
            .put_serve_note(self.fence, &format!("agenda/{job}"), &note)
            .await?
        {
            self.agendas.insert(job.to_owned(), agenda);
            return Ok(());
        }
        self.agendas.clear();
        anyhow::bail!("another replica leads by now");
    }
}

/// One line, however many starts were missed.
fn tell_missed(server: &Server, job: &str, steps: &[Step]) {
    let missed = steps.iter().filter_map(|step| match step {
        Step::Missed(planned) => Some(planned),
        _ => None,
    });
    let missed: Vec<&Timestamp> = missed.collect();
    let catches_up = server.spec.job(job).is_some_and(|job| {
        let schedule = job.job.schedule.as_ref();
        schedule.is_some_and(|schedule| schedule.catch_up)
    });
    let why = if catches_up {
        "missed: too many starts wait to be made up for"
    } else {
        "missed: nobody was there to start it (catch_up: true would)"
    };
    match missed[..] {
        [] => {}
        [planned] => tracing::warn!(job, %planned, "{why}"),
        [first, .., last] => {
            tracing::warn!(job, starts = missed.len(), %first, %last, "{why}");
        }
    }
}

/// The last starts of each job that nobody was there for, newest last. Whoever looks is not kept waiting.
///
/// # Errors
/// When Redis does not answer soon.
pub(super) async fn missed(server: &Server) -> Result<BTreeMap<String, Vec<Timestamp>>> {
    let asked = server.stores.state.serve_notes();
    let notes = tokio::time::timeout(TICK, asked).await??;
    let missed = notes.iter().filter_map(|(name, note)| {
        let agenda: Agenda = serde_json::from_str(note).ok()?;
        Some((name.strip_prefix("agenda/")?.to_owned(), agenda.missed))
    });
    Ok(missed.collect())
}

async fn noted(server: &Server, job: &str) -> Result<Option<Agenda>> {
    let state = &server.stores.state;
    let noted = state.serve_note(&format!("agenda/{job}")).await?;
    Ok(noted.and_then(|note| serde_json::from_str(&note).ok()))
}

async fn start(server: Arc<Server>, ask: Ask, planned: Timestamp) -> Outcome {
    let job = ask.job.clone();
    let settled = match server.start_run(ask).await {
        Ok(_) => {
            server.gauges.start(&job, "started");
            true
        }
        Err(error) => {
            tracing::error!(job, %planned, "not started: {error:#}");
            server.gauges.start(&job, "failed");
            if !hopeless(&error) {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            hopeless(&error)
        }
    };
    Outcome {
        job,
        planned,
        settled,
    }
}

/// The agenda as it was noted; after a loss of Redis from the newest run that a schedule started; else new.
async fn remembered(server: &Server, job: &str) -> Result<Agenda> {
    if let Some(agenda) = noted(server, job).await? {
        return Ok(agenda);
    }
    let runs = all_runs(&server.stores.archive, Some(job)).await?;
    let newest = runs.iter().filter_map(|run| planned_in(&run.run)).max();
    Ok(Agenda::new(newest.unwrap_or_else(|| server.clock.now())))
}

/// The calendar of a job that has a schedule.
pub(super) fn calendar(job: &LoadedJob) -> Result<Calendar, String> {
    let schedule = job.job.schedule.as_ref().ok_or("it has no schedule")?;
    Calendar::new(&job.job.name, schedule)
}
