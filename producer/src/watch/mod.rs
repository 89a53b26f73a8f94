//! Watching a run until it ends: its state each second, its end from S3.

mod closed;
mod quota;
mod rate;
mod screen;
mod snapshot;
mod standstill;

use std::time::{Duration, Instant};

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::manifest::{Manifest, RunEnd};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::state::{STOPPED_BY_PROVIDER, State};

pub use self::quota::QuotaLeft;
pub use self::snapshot::{Counts, REFUSES_MORE_THAN, Snapshot, cells_by_value, snapshot};

use self::closed::{ClosedFor, USED_UP, open_again_in};
pub(crate) use self::closed::{PoolNow, provider_and_pool};
pub(crate) use self::quota::quotas_left;
pub(crate) use self::rate::RateMeter;
use self::screen::Screen;
use self::standstill::Standstill;
use crate::context::Context;
use crate::exit::Exit;
use crate::listen::Listening;
use crate::run::{RunFiles, StateWord};
use crate::show;
use crate::stores::Archive;

/// How often counters are read.
const TICK: Duration = Duration::from_secs(1);

/// How often S3 is asked at least, however healthy Redis looks.
const ASK_S3: Duration = Duration::from_secs(5);

/// What watching needs.
pub struct Watcher<'a> {
    /// Options and environment.
    pub context: &'a Context,
    /// S3.
    pub archive: &'a Archive,
    /// Progress.
    pub state: &'a State,
    /// Budgets.
    pub limiter: &'a FleetLimiter,
    /// Where others may look on, with `--listen`.
    pub listening: Option<&'a Listening>,
}

/// A run under watch: what was seen of it so far.
struct Watched {
    files: RunFiles,
    screen: Screen,
    meters: Meters,
    closed: ClosedFor,
    standstill: Standstill,
    outage: Outage,
    asked_s3: Instant,
}

impl Watched {
    fn new(context: &Context, files: RunFiles) -> Self {
        Watched {
            screen: Screen::new(context, files.plan.cells()),
            files,
            meters: Meters::default(),
            closed: ClosedFor::default(),
            standstill: Standstill::default(),
            outage: Outage::default(),
            asked_s3: Instant::now(),
        }
    }

    /// Whether S3 may know of an end by now.
    fn may_have_ended(&self, shot: &Snapshot, still_open: bool) -> bool {
        !still_open || shot.state == StateWord::Finishing || self.asked_s3.elapsed() >= ASK_S3
    }
}

impl Watcher<'_> {
    /// Shows the run's progress until it ends or every key is closed, and says how it ended.
    ///
    /// # Errors
    /// When S3 or Redis stays away for longer than a minute.
    pub async fn to_the_end(&self, run: &RunRef) -> Result<Exit> {
        self.context.farewell.set(format!(
            "the run goes on; `producer watch {run}` shows it again, `producer cancel {run}` ends it"
        ));
        let files = RunFiles::expect(self.archive, run).await?;
        let mut watched = Watched::new(self.context, files);
        loop {
            if let Some(exit) = self.step(run, &mut watched).await? {
                return Ok(exit);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Looks once; how to end, when it is time to.
    async fn step(&self, run: &RunRef, watched: &mut Watched) -> Result<Option<Exit>> {
        if let Some(exit) = self.ended(run, watched) {
            return Ok(Some(exit));
        }
        let look = self.look(&watched.files, &mut watched.meters).await;
        let Some((shot, open)) = watched.outage.survive(run, look)? else {
            self.tell_outage();
            return Ok(None);
        };
        let still_open = open.is_open;
        watched.screen.show(&shot, &watched.meters.text(&shot));
        self.tell(&watched.files, &shot).await;
        if let Some(reason) = open.stopped {
            watched.screen.end();
            crate::terminal::tell(format_args!("{run} is {reason}"));
            return Ok(Some(Exit::StoppedByProvider));
        }
        if self.stopped(&shot, watched).await? {
            watched.screen.end();
            return Ok(Some(self.say_stopped(run, &shot, watched)));
        }
        if watched.may_have_ended(&shot, still_open) {
            self.read_again(run, watched).await?;
        }
        Ok(self.ended(run, watched))
    }

    /// Says how the run ended, when it has.
    fn ended(&self, run: &RunRef, watched: &Watched) -> Option<Exit> {
        let manifest = watched.files.ended()?;
        watched.screen.end();
        Some(self.say_end(run, manifest))
    }

    /// Reads the run's objects again.
    async fn read_again(&self, run: &RunRef, watched: &mut Watched) -> Result<()> {
        watched.asked_s3 = Instant::now();
        let read = RunFiles::expect(self.archive, run).await;
        if let Some(files) = watched.outage.survive(run, read)? {
            watched.files = files;
        }
        Ok(())
    }

    /// Shows what was seen to whoever listens.
    async fn tell(&self, files: &RunFiles, shot: &Snapshot) {
        let Some(listening) = self.listening else {
            return;
        };
        match quotas_left(self.limiter, &files.plan, &self.context.env).await {
            Ok(quotas) => listening.show(shot, &quotas),
            // The next look notices, and survives, that Redis is away.
            Err(_) => listening.away(),
        }
    }

    fn tell_outage(&self) {
        if let Some(listening) = self.listening {
            listening.away();
        }
    }

    /// One look at Redis: the snapshot, and whether the registry still has the run.
    async fn look(&self, files: &RunFiles, meters: &mut Meters) -> Result<(Snapshot, Registered)> {
        let run = files.plan.run_ref();
        let registry = self.state.open_runs().await?;
        // A lost registry says nothing about the run.
        let entry = registry
            .as_ref()
            .and_then(|runs| runs.iter().find(|open| open.run == run));
        let open = Registered {
            is_open: registry.is_none() || entry.is_some(),
            stopped: entry
                .filter(|open| open.paused)
                .and_then(|open| open.reason.clone())
                .filter(|reason| reason.starts_with(STOPPED_BY_PROVIDER)),
        };
        let mut shot = snapshot(self.state, self.limiter, files, &self.context.env).await?;
        meters.note(&mut shot);
        Ok((shot, open))
    }

    /// Whether every key of every provider, or whatever the run's last cells draw from, has been, or will be, closed for
    /// too long.
    async fn stopped(&self, shot: &Snapshot, watched: &mut Watched) -> Result<bool> {
        if !matches!(shot.state, StateWord::Queued | StateWord::Running) {
            watched.closed.open();
            return Ok(false);
        }
        match self.opens_in(shot, watched).await {
            Ok(Some(wait)) => Ok(watched.closed.note(Instant::now(), wait)),
            Ok(None) => {
                watched.closed.open();
                Ok(false)
            }
            // An outage of Redis is noticed, and survived, where counters are read.
            Err(_) => Ok(false),
        }
    }

    /// When anything of the run can go on; `None`: now.
    async fn opens_in(&self, shot: &Snapshot, watched: &mut Watched) -> Result<Option<Duration>> {
        let plan = &watched.files.plan;
        let whole = open_again_in(self.limiter, plan, &self.context.env).await?;
        let stands = watched.standstill.note(Instant::now(), shot);
        if whole.is_some() || !stands {
            return Ok(whole);
        }
        let standstill = &mut watched.standstill;
        standstill.look(self.state, self.limiter, plan).await
    }

    fn say_end(&self, run: &RunRef, manifest: &Manifest) -> Exit {
        let word = match manifest.state {
            RunEnd::Completed => "completed",
            RunEnd::Failed => "finished outside its gate; nothing was published",
            RunEnd::Cancelled => "was cancelled",
        };
        self.context.say(format!(
            "{run} {word}: {} of {} cells succeeded, {} empty, {} failed; {} records, {} documents",
            show::count(manifest.succeeded),
            show::count(manifest.cells),
            show::count(manifest.empty),
            show::count(manifest.failed),
            show::count(manifest.records),
            show::count(manifest.documents),
        ));
        for note in &manifest.notes {
            self.context.say(format!("  {note}"));
        }
        if manifest.failed > 0 {
            self.context
                .say(format!("  `producer retry {run}` sends only what failed"));
        }
        manifest.state.into()
    }

    fn say_stopped(&self, run: &RunRef, shot: &Snapshot, watched: &Watched) -> Exit {
        let left = watched.closed.remaining();
        let what = match &watched.standstill.waits_for {
            Some(name) => format!("what is left waits for {name}, which"),
            None => "every key".to_owned(),
        };
        let then = if show::opens_by_itself(left) {
            let opens = jiff::Timestamp::now() + left;
            format!(
                "{what} is closed for {} more, until {opens:.0}. The run stays open and goes on by itself then",
                show::span(left)
            )
        } else {
            format!("{what} is closed until somebody looks. The run stays open")
        };
        // What our own count says is used up stays so, whoever resumes.
        let binds = shot.binds.as_deref().unwrap_or_default();
        let sooner = match binds.contains(USED_UP) {
            true => format!(
                "{binds}: another key, or `producer limits set` where the provider allows more, lets it go on sooner"
            ),
            false => format!("`producer resume {run}` tries again at once"),
        };
        crate::terminal::tell(format_args!(
            "{run} is stopped by its provider: {then}; {sooner}, `producer watch {run}` shows it"
        ));
        Exit::StoppedByProvider
    }
}

/// What the registry says of a run.
struct Registered {
    is_open: bool,
    /// Why its provider stopped it.
    stopped: Option<String>,
}

/// How fast cells end and calls are granted.
#[derive(Default)]
struct Meters {
    started: Option<Instant>,
    cells: RateMeter,
    calls: RateMeter,
}

impl Meters {
    /// Notes a snapshot's counters and gives it an ETA by what was measured.
    fn note(&mut self, shot: &mut Snapshot) {
        let now = self.started.get_or_insert_with(Instant::now).elapsed();
        self.cells.note(now, shot.cells.saturating_sub(shot.left));
        self.calls.note(now, shot.calls);
        if let Some(rate) = self.cells.per_second().filter(|rate| *rate > 0.0) {
            shot.expect(Some(rate));
        }
    }

    fn text(&self, shot: &Snapshot) -> String {
        let used = self.calls.per_second().unwrap_or(0.0);
        match shot.allowed_per_s {
            Some(allowed) => format!("{} of {}", show::rate(used), show::rate(allowed)),
            None => show::rate(used),
        }
    }
}

/// Servers may go away for a while: the run does not need us, so we wait with it.
#[derive(Default)]
struct Outage(Option<Instant>);

impl Outage {
    /// How long a server may be away before watching ends.
    const LONGEST: Duration = Duration::from_secs(60);

    fn survive<T>(&mut self, run: &RunRef, look: Result<T>) -> Result<Option<T>> {
        match look {
            Ok(seen) => {
                self.0 = None;
                Ok(Some(seen))
            }
            Err(error) => {
                let since = *self.0.get_or_insert_with(|| {
                    crate::terminal::tell(format_args!(
                        "waiting up to {} s: {error:#}",
                        Self::LONGEST.as_secs()
                    ));
                    Instant::now()
                });
                if since.elapsed() > Self::LONGEST {
                    Err(error.context(format!(
                        "not watched any longer, though the run itself goes on (`producer watch {run}` shows it again)"
                    )))
                } else {
                    Ok(None)
                }
            }
        }
    }
}
