//! One scenario: a fleet, a provider, something that breaks, and what the provider saw.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use paceline_loadtest::bench::{BenchJob, Fleet, Programs, Servers};
use paceline_loadtest::simulator::{
    Call, Latency, Limits, Rate, Simulator, SimulatorConfig, SimulatorHandle,
};
use paceline_stack::Stack;

/// Calls start within this, or never.
const START: Duration = Duration::from_secs(60);

/// What is played.
pub struct Scenario {
    /// How it is called.
    pub name: String,
    /// Its limits as a person says them.
    pub told: String,
    /// Calls a second over all that can be used at most.
    pub rate: f64,
    /// What the simulator refuses.
    pub strict: Vec<Rate>,
    /// A limit that the simulator does not know: so many calls a second for each of these.
    pub each: Option<Each>,
    /// The provider file.
    pub job: BenchJob,
    /// How long the provider takes.
    pub latency: Latency,
    /// How many workers begin.
    pub processes: usize,
    /// How long it is watched.
    pub length: Duration,
    /// A library that every worker loads (a wrong clock).
    pub preload: Option<std::path::PathBuf>,
    /// What breaks.
    pub breaks: Break,
}

/// A limit by part of the cell.
#[derive(Clone, Copy)]
pub struct Each {
    /// Calls in a second.
    pub calls: usize,
    /// Which one a cell belongs to.
    pub of: fn(&str) -> String,
}

/// Breaks something as long as the scenario goes on.
pub type Break = fn(&mut Play<'_>) -> anyhow::Result<()>;

/// A scenario under way.
pub struct Play<'s> {
    /// The servers.
    pub stack: &'s Stack,
    /// The workers.
    pub fleet: Fleet,
    /// Where the fleet finds Redis.
    pub relay: paceline_loadtest::bench::Relay,
    ends: Instant,
    blind: Vec<(i64, i64)>,
    /// What a row says beside the numbers.
    pub note: String,
}

impl Play<'_> {
    /// Waits; false when the time is over.
    pub fn wait(&mut self, span: Duration) -> bool {
        let left = self.ends.saturating_duration_since(Instant::now());
        std::thread::sleep(span.min(left));
        span < left
    }

    /// Waits until the end.
    pub fn wait_to_the_end(&mut self) {
        self.wait(Duration::MAX);
    }

    /// From now on for `span` the fleet cannot know what it may do.
    pub fn blind_for(&mut self, span: Duration) {
        let now = wall_us();
        self.blind.push((now, now + span.as_micros() as i64));
    }

    /// The private Redis.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn redis(&self) -> anyhow::Result<&paceline_stack::Server> {
        self.stack.redis().context("a private Redis")
    }
}

/// What came of it.
pub struct Seen {
    used: f64,
    outside: f64,
    blind_s: f64,
    worst: usize,
    /// Windows that held too many.
    pub over: u64,
    note: String,
}

impl Seen {
    /// A row of the table.
    pub fn row(&self, scenario: &Scenario) -> String {
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.note)
        };
        format!(
            "| {}{note} | {} | {:.1} % | {:.1} % | {:.1} s | {} | {} |",
            scenario.name,
            scenario.told,
            self.used * 100.0,
            self.outside * 100.0,
            self.blind_s,
            self.worst,
            self.over,
        )
    }
}

/// Plays it.
///
/// # Errors
/// When something does not start.
pub fn play(programs: &Programs, stack: &Stack, scenario: &Scenario) -> anyhow::Result<Seen> {
    let url = stack.value("REDIS_URL").context("a Redis")?;
    let host = url.trim_start_matches("redis://").trim_end_matches('/');
    let relay = paceline_loadtest::bench::Relay::before(host.parse()?)?;
    let mut servers = stack.env();
    servers.retain(|(name, _)| name != "REDIS_URL");
    servers.push(("REDIS_URL".into(), format!("redis://{}/", relay.address())));
    if let Some(library) = &scenario.preload {
        servers.push(("LD_PRELOAD".into(), library.display().to_string()));
    }
    let simulator = Simulator::start(SimulatorConfig {
        limits: Limits {
            rates: scenario.strict.clone(),
            ..Limits::default()
        },
        latency: scenario.latency,
        prefer: true,
        ..SimulatorConfig::default()
    })?;
    let servers = Servers::of(servers);
    let fleet = Fleet::start(
        programs,
        &servers,
        &scenario.job,
        &simulator.url(),
        scenario.processes,
    )?;
    fleet.enqueue()?;
    until_begun(&simulator)?;
    // The first seconds are those of a start, not of a fault.
    std::thread::sleep(Duration::from_secs(3));
    let from = wall_us();
    let mut play = Play {
        stack,
        fleet,
        relay,
        ends: Instant::now() + scenario.length,
        blind: Vec::new(),
        note: String::new(),
    };
    (scenario.breaks)(&mut play)?;
    let to = wall_us();
    let log = simulator.log();
    play.fleet.kill();
    let refused = simulator.report().refused;
    Ok(judge(scenario, &log, (from, to), &play, refused))
}

fn until_begun(simulator: &SimulatorHandle) -> anyhow::Result<()> {
    let until = Instant::now() + START;
    while simulator.report().calls < 20 {
        ensure!(Instant::now() < until, "no calls within {START:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn judge(
    scenario: &Scenario,
    log: &[Call],
    (from, to): (i64, i64),
    play: &Play<'_>,
    refused: u64,
) -> Seen {
    let searches = log.iter().filter(|call| call.cell.is_some());
    let at: Vec<i64> = searches.clone().map(|call| call.wall_us).collect();
    let blind = joined(&play.blind, from, to);
    let is_blind = |at: &&i64| blind.iter().any(|(from, to)| (*from..*to).contains(*at));
    let inside = at.iter().filter(|at| (from..to).contains(*at));
    let all = inside.clone().count() as f64;
    let seeing = inside.filter(|at| !is_blind(at)).count() as f64;
    let blind_us: i64 = blind.iter().map(|(from, to)| to - from).sum();
    let allowed = |us: i64| (us as f64 / 1e6 * scenario.rate).max(1.0);
    let mut over = refused;
    let mut worst = most_in_a_second(at);
    if let Some(each) = scenario.each {
        let mut by: HashMap<String, Vec<i64>> = HashMap::new();
        for call in searches {
            let cell = call.cell.as_deref().unwrap_or_default();
            by.entry((each.of)(cell)).or_default().push(call.wall_us);
        }
        let fullest: Vec<usize> = by.into_values().map(most_in_a_second).collect();
        over += fullest.iter().filter(|most| **most > each.calls).count() as u64;
        worst = fullest.into_iter().max().unwrap_or(0);
    }
    Seen {
        used: all / allowed(to - from),
        outside: seeing / allowed(to - from - blind_us),
        blind_s: blind_us as f64 / 1e6,
        worst,
        over,
        note: play.note.clone(),
    }
}

/// Spans that overlap count once.
fn joined(spans: &[(i64, i64)], from: i64, to: i64) -> Vec<(i64, i64)> {
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (start, end) in spans {
        let (start, end) = ((*start).max(from), (*end).min(to));
        match joined.last_mut() {
            Some((_, last)) if *last >= start => *last = (*last).max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

fn most_in_a_second(mut at: Vec<i64>) -> usize {
    at.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, now) in at.iter().enumerate() {
        while now - at[first] >= 1_000_000 {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_micros() as i64
}
