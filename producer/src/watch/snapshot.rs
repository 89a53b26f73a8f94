//! A run at one moment, as `status` shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use paceline_protocol::lanes::{is_taken, taker_of};
use paceline_protocol::limit::{PROVIDER, Rule};
use paceline_protocol::manifest::Manifest;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::stores::limiter::{FleetLimiter, LimitNow};
use paceline_protocol::stores::state::{Progress, QUEUE_GONE, State};
use serde::Serialize;

use super::closed;
use crate::limits::{grants, limiter_name, pace, unscoped};
use crate::run::{RunFiles, StateWord, is_left};
use crate::show;

/// A run at one moment; the names of its JSON are a contract.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The run's id.
    pub run: String,
    /// Its job.
    pub job: String,
    /// Its state.
    pub state: StateWord,
    /// All cells.
    pub cells: u64,
    /// With records.
    pub succeeded: u64,
    /// Without, rightly.
    pub empty: u64,
    /// With a reason.
    pub failed: u64,
    /// All shards.
    pub shards: u64,
    /// Seconds to its end, as far as can be told.
    pub eta_s: Option<u64>,
    /// The limit that binds, or what is closed; once all cells have ended, what the loader waits for.
    pub binds: Option<String>,
    /// By the value of `progress_by`.
    pub progress: BTreeMap<String, Counts>,
    /// Cells that have still to end.
    #[serde(skip)]
    pub left: u64,
    /// Shards whose results are loaded.
    #[serde(skip)]
    pub shards_loaded: u64,
    /// Calls that were made so far, or have their grant.
    #[serde(skip)]
    pub calls: u64,
    /// Calls a second that the limits allow.
    #[serde(skip)]
    pub allowed_per_s: Option<f64>,
    /// Seconds for which everything that is left is closed or held.
    #[serde(skip)]
    pub closed_s: u64,
    /// Seconds for which one of several providers is: the run does not end before.
    #[serde(skip)]
    pub part_closed_s: u64,
    /// Calls that workers have told of, and how many milliseconds they took together.
    #[serde(skip)]
    pub told: (u64, u64),
}

/// Cells by end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub cells: u64,
    /// With records.
    pub succeeded: u64,
    /// Without, rightly.
    pub empty: u64,
    /// With a reason.
    pub failed: u64,
}

impl Snapshot {
    /// Cells that have ended.
    pub fn done(&self) -> u64 {
        self.succeeded + self.empty + self.failed
    }

    /// A run of 200 cells that goes.
    #[cfg(test)]
    pub fn example() -> Self {
        Snapshot {
            run: "x".into(),
            job: "fares".into(),
            state: StateWord::Running,
            cells: 200,
            succeeded: 40,
            empty: 9,
            failed: 1,
            shards: 4,
            eta_s: Some(12),
            binds: None,
            progress: BTreeMap::new(),
            left: 150,
            shards_loaded: 1,
            calls: 51,
            closed_s: 0,
            part_closed_s: 0,
            allowed_per_s: None,
            told: (0, 0),
        }
    }
}

/// Takes a snapshot of a run.
///
/// # Errors
/// When Redis does not answer and the run goes.
pub async fn snapshot(
    state: &State,
    limiter: &FleetLimiter,
    files: &RunFiles,
    env: &impl Environment,
) -> Result<Snapshot> {
    let plan = &files.plan;
    let progress = match state.progress(&plan.run_ref()).await {
        Ok(progress) => progress,
        // What an ended run came to is known without Redis.
        Err(_) if files.ended().is_some() => Progress::default(),
        Err(error) => return Err(error.into()),
    };
    let mut shot = of_counters(files, &progress);
    if let Some(manifest) = files.ended() {
        shot.count_as(manifest);
        return Ok(shot);
    }
    shot.calls = grants(limiter, plan, &plan.run_ref().to_string())
        .await?
        .used();
    let first_round = files.open.as_ref().is_some_and(|open| open.round == 0);
    if shot.state == StateWord::Queued && first_round && shot.calls > 0 {
        // Cells are counted block by block, so the first calls come long before the first count.
        shot.state = StateWord::Running;
    }
    if shot.left == 0 {
        let why = state.loader_waits(&plan.run_ref()).await?;
        shot.binds = why.map(|why| format!("the loader, which waits: {why}"));
    } else {
        let binding = binds(limiter, plan, env).await?;
        shot.binds = binding.what;
        shot.closed_s = binding.closed.as_secs();
        shot.part_closed_s = binding.part_closed.as_secs();
    }
    shot.expect(allowed_pace(plan));
    if let Some(why) = lacks_workers(state, files, &shot).await? {
        shot.binds = Some(why);
        shot.eta_s = None;
    }
    Ok(shot)
}

/// Why nothing of the run is collected, where that is for want of workers: nobody takes its lanes, or who does cannot
/// serve it.
async fn lacks_workers(state: &State, files: &RunFiles, shot: &Snapshot) -> Result<Option<String>> {
    let lanes = files.open.iter().flat_map(|open| &open.lanes);
    let lanes: Vec<&String> = lanes.collect();
    let waits = matches!(shot.state, StateWord::Queued | StateWord::Running) && shot.left > 0;
    if lanes.is_empty() || !waits {
        return Ok(None);
    }
    let run = files.plan.run_ref();
    if is_left(state, &run).await.unwrap_or(false) {
        return Ok(Some(format!(
            "a start that was cut off: not all of it is published; `producer resume {run}` goes on"
        )));
    }
    let takers = state.takers().await?;
    let untaken = lanes.iter().filter(|lane| !is_taken(lane, &takers));
    let untaken: Vec<&&String> = untaken.collect();
    // A lane may be through while others go on.
    let stands = shot.state == StateWord::Queued || untaken.len() == lanes.len();
    if let Some(lane) = untaken.first().filter(|_| stands) {
        let start = taker_of(lane);
        return Ok(Some(format!(
            "no running worker takes {lane}: start `{start}`"
        )));
    }
    let why = state.unserved(&run).await?;
    Ok(match why {
        Some(why) if why.starts_with(QUEUE_GONE) => Some(why),
        // Others may serve what is called.
        Some(why) if shot.calls == 0 => Some(format!("a worker cannot serve it: {why}")),
        _ => None,
    })
}

fn allowed_pace(plan: &Plan) -> Option<f64> {
    pace(plan).map(|pace| pace.calls_per_second)
}

impl Snapshot {
    /// Expects the end by a pace of cells a second, after what is closed or held has opened again.
    pub fn expect(&mut self, per_second: Option<f64>) {
        let closed = if self.left > 0 { self.closed_s } else { 0 };
        let opens = show::opens_by_itself(Duration::from_secs(closed.max(self.part_closed_s)));
        let per_second = per_second.filter(|_| opens);
        let called = |rate: f64| closed + (self.left as f64 / rate).ceil() as u64;
        self.eta_s = per_second.map(|rate| called(rate).max(self.part_closed_s));
    }

    /// An ended run's counters come from its manifest: Redis may have forgotten them.
    fn count_as(&mut self, manifest: &Manifest) {
        self.succeeded = manifest.succeeded;
        self.empty = manifest.empty;
        self.failed = manifest.failed;
        self.eta_s = None;
    }
}

fn of_counters(files: &RunFiles, progress: &Progress) -> Snapshot {
    let plan = &files.plan;
    let allowed = allowed_pace(plan);
    let left = left(files, progress);
    let mut shot = Snapshot {
        run: plan.run.to_string(),
        job: plan.job.name.clone(),
        state: files.state(progress),
        cells: plan.cells(),
        succeeded: progress.succeeded,
        empty: progress.empty,
        failed: progress.failed,
        shards: plan.shards(),
        eta_s: None,
        binds: None,
        progress: by_value(plan, progress),
        left,
        shards_loaded: progress.shards_loaded,
        calls: 0,
        closed_s: 0,
        part_closed_s: 0,
        allowed_per_s: allowed,
        told: (progress.calls, progress.busy_ms),
    };
    shot.expect(allowed);
    shot
}

/// Cells that have still to end: in a retry those that failed before, too.
fn left(files: &RunFiles, progress: &Progress) -> u64 {
    let done = progress.succeeded + progress.empty + progress.failed;
    let left = files.plan.cells().saturating_sub(done);
    let is_retry = files.open.as_ref().is_some_and(|open| open.round > 0);
    left + if is_retry { progress.failed } else { 0 }
}

/// What holds a run back, and for how long nothing of it can go on.
#[derive(Default)]
struct Binding {
    what: Option<String>,
    closed: Duration,
    /// Of one of several providers.
    part_closed: Duration,
}

impl Binding {
    fn closed(plan: &Plan, what: String, for_: Duration) -> Self {
        // With a second provider the rest goes on meanwhile.
        let (closed, part_closed) = match plan.providers.len() {
            1 => (for_, Duration::ZERO),
            _ => (Duration::ZERO, for_),
        };
        Binding {
            what: Some(what),
            closed,
            part_closed,
        }
    }

    fn of(what: Option<String>) -> Self {
        Binding {
            what,
            ..Binding::default()
        }
    }
}

/// How it reads that a provider serves less than its limits allow, between its name and the pace that is tried.
pub const REFUSES_MORE_THAN: &str = "refuses more than about";

/// What holds the run back: what is closed, a pace below what was refused, else a full limit of calls in flight, else the slowest rate.
async fn binds(limiter: &FleetLimiter, plan: &Plan, env: &impl Environment) -> Result<Binding> {
    for provider in plan.providers.values() {
        let kept = limiter.kept(&limiter_name(provider)).await?;
        if let Some(hold) = kept.hold {
            let left = hold.until_us - jiff::Timestamp::now().as_microsecond();
            let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
            return Ok(Binding::closed(
                plan,
                format!("{} held", provider.name),
                left,
            ));
        }
        if let Some(closed) = closed::whole_provider(limiter, provider, env).await? {
            let what = format!("{} closed ({})", provider.name, closed.reason);
            return Ok(Binding::closed(plan, what, closed.for_));
        }
        if let Some(slowed) = kept.slowed.iter().find(|slowed| slowed.name == PROVIDER) {
            let (name, pace) = (&provider.name, slowed.below_per_s);
            let what = format!("{name} {REFUSES_MORE_THAN} {pace:.1}/s");
            return Ok(Binding::of(Some(what)));
        }
        let limits = unscoped(provider, "", jiff::Timestamp::now());
        let now = limiter.peek(&limiter_name(provider), &limits).await?;
        if let Some(full) = now.iter().find(|limit| is_full(limit)) {
            let what = format!("{}/{}", provider.name, full.instance.limit);
            return Ok(Binding::of(Some(what)));
        }
    }
    Ok(Binding::of(match pace(plan) {
        Some(pace) => Some(pace.limit),
        None => closed_part(limiter, plan).await?,
    }))
}

/// The scope or key that is closed for longest; the others go on meanwhile.
async fn closed_part(limiter: &FleetLimiter, plan: &Plan) -> Result<Option<String>> {
    let mut longest: Option<(Duration, String)> = None;
    for provider in plan.providers.values() {
        for closure in limiter.closures(&limiter_name(provider)).await? {
            if longest
                .as_ref()
                .is_none_or(|(for_, _)| closure.for_ > *for_)
            {
                let (name, reason) = (&closure.name, &closure.reason);
                let what = format!("{} {name} closed ({reason})", provider.name);
                longest = Some((closure.for_, what));
            }
        }
    }
    Ok(longest
        .filter(|(for_, _)| !for_.is_zero())
        .map(|(_, what)| what))
}

fn is_full(limit: &LimitNow) -> bool {
    match limit.instance.rule {
        Rule::Concurrency { calls } | Rule::Quota { calls, .. } => limit.used >= calls,
        Rule::Rate { .. } | Rule::Spacing { .. } | Rule::Cost { .. } => false,
    }
}

/// Counters by the value of `progress_by`, values without a finished cell among them.
fn by_value(plan: &Plan, progress: &Progress) -> BTreeMap<String, Counts> {
    let Some(name) = &plan.job.progress_by else {
        return BTreeMap::new();
    };
    let mut counts = cells_by_value(plan, name);
    for (value, (succeeded, empty, failed)) in &progress.by {
        let counted = counts.entry(value.clone()).or_default();
        (counted.succeeded, counted.empty, counted.failed) = (*succeeded, *empty, *failed);
    }
    counts
}

/// How many cells each value of the dimension `name` has.
pub fn cells_by_value(plan: &Plan, name: &str) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    let holds =
        |d: &&paceline_protocol::plan::PlannedDimension| d.names.iter().any(|n| &**n == name);
    let Some(dimension) = plan.matrix.dimensions.iter().find(holds) else {
        return counts;
    };
    let column = dimension
        .names
        .iter()
        .position(|n| &**n == name)
        .unwrap_or(0);
    let places = dimension.values.len();
    // The dimension alone is a small matrix: its cells are its values, in the same types.
    let alone = paceline_protocol::plan::Matrix {
        dimensions: vec![dimension.clone()],
    };
    for place in 0..places {
        let value = match &alone.cell(place)[column] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        counts.entry(value).or_default().cells += plan.cells() / places;
    }
    counts
}
