//! What a run will cost, told before anything is sent: cells, calls, shards, the time at the allowed
//! rate, and its share of each quota.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};
use paceline_protocol::plan::{Matrix, Plan};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Limit, Provider};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::allowance::{Known, endpoint_of};
use super::fit::{self, Misfit};
use super::past::Expected;
use super::scopes::spread;
use crate::serve::calendar::Calendar;

/// The estimate of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The job.
    pub job: String,
    /// The run.
    pub run: String,
    /// Cells in all.
    pub cells: u64,
    /// Calls at least: one for each cell and item of `each`, without further pages, details and retries.
    pub calls: u64,
    /// Calls that are saved by reading only some of another job's records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_saved: Option<u64>,
    /// What a past run tells; its calls are those of `calls`, pages, details and retries among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// Cells may need more calls: pages or details, whose number only the answers say.
    pub at_least: bool,
    /// Shards, each one message.
    pub shards: u64,
    /// Seconds at the allowed rate, lanes side by side; `None` when no limit paces the run.
    pub seconds: Option<f64>,
    /// When it would start: the schedule's next start, else now.
    #[serde(serialize_with = "instant")]
    pub starts: Zoned,
    /// When it would end then, where a limit paces it.
    #[serde(serialize_with = "instant_if_any")]
    pub ends: Option<Zoned>,
    /// The start after that one, of a job with a schedule.
    #[serde(serialize_with = "instant_if_any")]
    pub next_start: Option<Zoned>,
    /// The limit that binds, as `provider/limit`.
    pub binds: Option<String>,
    /// One for each lane.
    pub lanes: Vec<LaneEstimate>,
    /// One for each quota.
    pub quotas: Vec<QuotaShare>,
    /// What the run does not fit into, and what would make it fit; empty when it fits.
    pub misfits: Vec<Misfit>,
    /// The first cell's values, by name.
    pub first_cell: Option<Map<String, Value>>,
    /// The last cell's.
    pub last_cell: Option<Map<String, Value>>,
    /// The dimensions' names, outermost first.
    #[serde(skip)]
    pub names: Vec<String>,
}

/// Programs read instants in UTC (RFC 3339), people in the zone of the schedule or quota.
fn instant<S: Serializer>(at: &Zoned, to: S) -> Result<S::Ok, S::Error> {
    at.timestamp().serialize(to)
}

fn instant_if_any<S: Serializer>(at: &Option<Zoned>, to: S) -> Result<S::Ok, S::Error> {
    at.as_ref().map(Zoned::timestamp).serialize(to)
}

/// What one lane has to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaneEstimate {
    /// The lane.
    pub lane: String,
    /// Its calls.
    pub calls: u64,
    /// Seconds at the allowed rate.
    pub seconds: Option<f64>,
    /// The limit that binds.
    pub binds: Option<String>,
}

/// How much of a quota a run takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuotaShare {
    /// The provider.
    pub provider: String,
    /// The limit.
    pub limit: String,
    /// Calls of a window, for one scope.
    pub allowed: u64,
    /// Scopes that share the calls: keys of the pool, or values of `per:`.
    pub scopes: u64,
    /// Size of the pool, where it can be counted and the quota is per credential.
    pub pool: Option<u64>,
    /// Calls over what a window allows, in the fullest scope; above 1 the run waits for a reset.
    pub share: f64,
    /// The first reset after the start, in the quota's zone.
    #[serde(serialize_with = "instant_if_any")]
    pub resets: Option<Zoned>,
    /// The window is so short that waiting for its reset is a pace as any other.
    #[serde(skip)]
    pub is_pace: bool,
}

/// Estimates `plan`; a pool is counted where `env` holds it.
pub fn estimate(plan: &Plan, env: &(impl Environment + ?Sized)) -> Estimate {
    estimate_with(plan, env, None)
}

/// As [`estimate`], with what a past run tells of calls for each cell.
pub fn estimate_with(
    plan: &Plan,
    env: &(impl Environment + ?Sized),
    expected: Option<Expected>,
) -> Estimate {
    let calendar = plan.job.schedule.as_ref();
    let calendar = calendar.and_then(|s| Calendar::new(&plan.job.name, s).ok());
    let planned = calendar.as_ref().and_then(|c| c.next(plan.planned_at));
    let starts = match (&calendar, planned) {
        (Some(calendar), Some(planned)) => calendar.start(planned),
        _ => plan.planned_at,
    };
    let known = Known {
        plan,
        env,
        expected: expected.as_ref(),
        starts,
    };
    let mut estimate = first_estimate(&known);
    let zone = calendar
        .as_ref()
        .map_or(TimeZone::UTC, |c| c.zone().clone());
    let next = calendar
        .zip(planned)
        .and_then(|(c, planned)| c.next(planned));
    estimate.next_start = next.map(|at| at.to_zoned(zone.clone()));
    estimate.starts = starts.to_zoned(zone);
    estimate.ends = estimate.seconds.and_then(|seconds| {
        let length = SignedDuration::try_from_secs_f64(seconds).ok()?;
        estimate.starts.checked_add(length).ok()
    });
    estimate.at_least &= expected.is_none();
    estimate.expected = expected;
    estimate.misfits = fit::misfits(plan, &estimate, plan.planned_at);
    estimate
}

fn first_estimate<E: Environment + ?Sized>(known: &Known<E>) -> Estimate {
    let plan = known.plan;
    let lanes = known.lanes();
    let paced = lanes.iter().filter_map(|l| Some((l.seconds?, l)));
    let slowest = paced.max_by(|a, b| a.0.total_cmp(&b.0));
    let cells = plan.cells();
    Estimate {
        job: plan.job.name.clone(),
        run: plan.run.to_string(),
        cells,
        calls: match plan.job.source {
            Some(_) => 0,
            None => known.calls(),
        },
        calls_saved: plan.inputs.calls_saved(cells),
        at_least: has_more_calls(plan),
        shards: plan.shards(),
        seconds: slowest.map(|(seconds, _)| seconds),
        binds: slowest.and_then(|(_, lane)| lane.binds.clone()),
        starts: known.starts.to_zoned(TimeZone::UTC),
        ends: None,
        next_start: None,
        quotas: known.quotas(),
        expected: None,
        misfits: Vec::new(),
        first_cell: (cells > 0).then(|| cell(&plan.matrix, 0)),
        names: plan.matrix.names().map(ToString::to_string).collect(),
        last_cell: (cells > 0).then(|| cell(&plan.matrix, cells - 1)),
        lanes,
    }
}

fn cell(matrix: &Matrix, index: u64) -> Map<String, Value> {
    matrix
        .names()
        .map(|n| n.to_string())
        .zip(matrix.cell(index))
        .collect()
}

/// Whether answers decide how many calls a cell needs.
fn has_more_calls(plan: &Plan) -> bool {
    let endpoints = plan.providers.values().filter_map(|p| endpoint_of(plan, p));
    let mut more =
        endpoints.map(|e| e.page.is_some() || e.detail.is_some() || e.split_on.is_some());
    more.any(|more| more)
}

/// How many scopes of `limit` the run uses: keys of the pool times values of the dimensions in `per:`.
pub(crate) fn scopes(
    plan: &Plan,
    provider: &Provider,
    limit: &Limit,
    env: &(impl Environment + ?Sized),
) -> u64 {
    spread(plan, provider, limit, None, env).map_or(1, |spread| spread.scopes)
}

impl Estimate {
    /// Aligned lines for a person.
    pub fn to_text(&self) -> String {
        let mut lines: Vec<(String, String)> = vec![
            ("job".into(), self.job.clone()),
            ("cells".into(), grouped(self.cells)),
            ("calls".into(), self.calls_text()),
            ("shards".into(), grouped(self.shards)),
            ("time".into(), self.time_text()),
        ];
        lines.extend(self.ends_text().map(|text| ("ends".into(), text)));
        if let Some(saved) = self.calls_saved {
            let saved = format!("{} against all records", grouped(saved));
            lines.push(("calls saved".into(), saved));
        }
        if self.lanes.len() > 1 {
            lines.extend(
                self.lanes
                    .iter()
                    .map(|l| (format!("lane {}", l.lane), lane_text(l))),
            );
        }
        lines.extend(
            self.quotas
                .iter()
                .map(|q| (format!("quota {}/{}", q.provider, q.limit), q.text())),
        );
        for (name, cell) in [
            ("first cell", &self.first_cell),
            ("last cell", &self.last_cell),
        ] {
            lines.extend(
                cell.as_ref()
                    .map(|cell| (name.to_owned(), self.cell_text(cell))),
            );
        }
        for misfit in &self.misfits {
            lines.push(("does not fit".into(), misfit.what.clone()));
            lines.push(("it would with".into(), misfit.remedy.clone()));
        }
        let width = lines
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        lines.iter().fold(String::new(), |mut text, (name, value)| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{name:width$}  {value}");
            text
        })
    }

    /// In the order of the dimensions.
    fn cell_text(&self, cell: &Map<String, Value>) -> String {
        let values = self
            .names
            .iter()
            .filter_map(|name| Some((name, cell.get(name)?)));
        let pairs: Vec<String> = values
            .map(|(name, value)| format!("{name}={}", super::only::shown(value)))
            .collect();
        pairs.join(" ")
    }

    fn calls_text(&self) -> String {
        let calls = grouped(self.calls);
        if let Some(expected) = &self.expected {
            return format!(
                "about {calls} ({:.2} for each cell in run {})",
                expected.calls_per_cell, expected.run
            );
        }
        match (self.at_least, self.calls == self.cells) {
            (true, _) => format!("at least {calls} (first pages alone, without retries)"),
            (false, true) => format!("{calls} (one for each cell, without retries)"),
            (false, false) => format!("{calls} (one for each item, without retries)"),
        }
    }

    /// `2026-11-28 03:04 [Asia/Seoul], started at 03:00; 23h 55m before the next start`
    fn ends_text(&self) -> Option<String> {
        let ends = self.ends.as_ref()?;
        let at = |at: &Zoned| at.strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
        let mut text = format!("{}, started {}", at(ends), at(&self.starts));
        if let Some(next) = &self.next_start {
            let room = next.timestamp().duration_since(ends.timestamp());
            let word = if room.is_negative() {
                "AFTER"
            } else {
                "before"
            };
            let room = crate::show::span(room.unsigned_abs());
            // Writing into a string cannot fail.
            let _ = write!(text, "; {room} {word} the next start");
        }
        Some(text)
    }

    fn time_text(&self) -> String {
        match (self.seconds, &self.binds) {
            (Some(seconds), Some(binds)) => format!(
                "at least {} at the allowed rate ({binds} binds)",
                duration(seconds)
            ),
            _ => "no limit paces it".to_owned(),
        }
    }
}

impl QuotaShare {
    fn text(&self) -> String {
        let scopes = match self.pool {
            Some(pool) => format!(" x {pool} keys"),
            None if self.scopes > 1 => format!(" x {} scopes", self.scopes),
            None => String::new(),
        };
        let resets = self.resets.as_ref();
        let resets = resets.map(|at| at.strftime(", resets %Y-%m-%d %H:%M %Z").to_string());
        let more = match self.share > 1.0 {
            true => ", so the run waits for a reset",
            false => "",
        };
        format!(
            "{:.1} % of {}{scopes}{more}{}",
            self.share * 100.0,
            grouped(self.allowed),
            resets.unwrap_or_default()
        )
    }
}

fn lane_text(lane: &LaneEstimate) -> String {
    let time = lane
        .seconds
        .map_or_else(|| "not paced".to_owned(), duration);
    format!("{} calls, {time}", grouped(lane.calls))
}

/// `1,400`
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `84 s`, `12 min 30 s`, `2 h 5 min`, `3 d 4 h`
fn duration(seconds: f64) -> String {
    let whole = seconds.ceil() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole % 86_400 / 3600, whole % 3600 / 60);
    match (days, hours, minutes) {
        (0, 0, 0..=1) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
