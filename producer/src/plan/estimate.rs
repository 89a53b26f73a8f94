//! What a run will cost, told before anything is sent: cells, calls, shards, the time at the allowed
//! rate, and its share of each quota.

use std::fmt::Write as _;

use paceline_protocol::plan::{Matrix, Plan};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{
    CalendarWindow, Endpoint, Limit, LimitRule, Provider, template_names,
};
use serde::Serialize;

use super::fit::{self, Misfit};
use super::past::Expected;
use serde_json::{Map, Value};

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
    /// Calls over what all scopes allow in a window; above 1 the run waits for a reset.
    pub share: f64,
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
    let per_cell = expected.as_ref().map(|e| e.calls_per_cell);
    let mut estimate = first_estimate(plan, env, per_cell);
    estimate.at_least &= expected.is_none();
    estimate.expected = expected;
    estimate.misfits = fit::misfits(plan, &estimate, plan.planned_at);
    estimate
}

fn first_estimate(
    plan: &Plan,
    env: &(impl Environment + ?Sized),
    per_cell: Option<f64>,
) -> Estimate {
    let lanes: Vec<LaneEstimate> = plan
        .lanes()
        .into_iter()
        .filter_map(|lane| lane_estimate(plan, lane, env, per_cell))
        .collect();
    let slowest = lanes.iter().filter(|l| l.seconds.is_some()).max_by(|a, b| {
        a.seconds
            .partial_cmp(&b.seconds)
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let cells = plan.cells();
    Estimate {
        job: plan.job.name.clone(),
        run: plan.run.to_string(),
        cells,
        calls: if plan.job.source.is_some() {
            0
        } else {
            plan.providers
                .keys()
                .map(|name| calls_at(plan, name, per_cell))
                .sum()
        },
        calls_saved: plan.inputs.calls_saved(cells),
        at_least: has_more_calls(plan),
        shards: plan.shards(),
        seconds: slowest.and_then(|l| l.seconds),
        binds: slowest.and_then(|l| l.binds.clone()),
        quotas: quotas(plan, env, per_cell),
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

fn calls_of(plan: &Plan, is_it: impl Fn(&paceline_protocol::plan::Segment) -> bool) -> u64 {
    plan.segments
        .iter()
        .filter(|s| is_it(s))
        .map(|s| s.cells)
        .sum()
}

fn endpoint_of<'p>(plan: &Plan, provider: &'p Provider) -> Option<&'p Endpoint> {
    provider.endpoints.get(plan.job.endpoint.as_deref()?)
}

/// Calls that a cell needs at least.
fn calls_of_cell(plan: &Plan, provider: &Provider) -> u64 {
    endpoint_of(plan, provider).map_or(1, |e| (e.each.len() as u64).max(1))
}

fn calls_at(plan: &Plan, provider: &str, per_cell: Option<f64>) -> u64 {
    let cells = calls_of(plan, |s| s.provider == provider);
    let of_cell = plan.providers.get(provider);
    calls_for(
        cells,
        of_cell.map_or(1, |p| calls_of_cell(plan, p)),
        per_cell,
    )
}

/// Calls for so many cells: as a past run tells, never fewer than each of them needs.
fn calls_for(cells: u64, of_cell: u64, per_cell: Option<f64>) -> u64 {
    let least = cells * of_cell;
    let told = per_cell.map_or(0.0, |calls| (cells as f64 * calls).round());
    least.max(told as u64)
}

/// Whether answers decide how many calls a cell needs.
fn has_more_calls(plan: &Plan) -> bool {
    let endpoints = plan.providers.values().filter_map(|p| endpoint_of(plan, p));
    let mut more =
        endpoints.map(|e| e.page.is_some() || e.detail.is_some() || e.split_on.is_some());
    more.any(|more| more)
}

fn lane_estimate(
    plan: &Plan,
    lane: &str,
    env: &(impl Environment + ?Sized),
    per_cell: Option<f64>,
) -> Option<LaneEstimate> {
    let segment = plan.segments.iter().find(|s| s.lane == lane)?;
    let provider = plan.providers.get(&segment.provider)?;
    let cells = calls_of(plan, |s| s.lane == lane);
    let calls = calls_for(cells, calls_of_cell(plan, provider), per_cell);
    let slowest = provider
        .limits
        .iter()
        .filter(|limit| holds(plan, limit))
        .filter_map(|limit| {
            Some((
                seconds(limit, calls, scopes(plan, provider, limit, env))?,
                &limit.name,
            ))
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Some(LaneEstimate {
        lane: lane.to_owned(),
        calls,
        seconds: slowest.map(|(seconds, _)| seconds),
        binds: slowest.map(|(_, name)| format!("{}/{name}", provider.name)),
    })
}

/// Whether the job's own calls draw from `limit`.
fn holds(plan: &Plan, limit: &Limit) -> bool {
    limit.holds_for(plan.job.endpoint.as_deref().unwrap_or_default())
}

/// Seconds that `calls` take under `limit` when they spread evenly over its scopes; a quota counts the
/// windows that have to be waited for.
fn seconds(limit: &Limit, calls: u64, scopes: u64) -> Option<f64> {
    let each = calls.div_ceil(scopes.max(1)) as f64;
    Some(match &limit.rule {
        LimitRule::Rate {
            calls,
            period,
            burst,
        } => (each - burst.unwrap_or(0) as f64).max(0.0) * period.0.as_secs_f64() / *calls as f64,
        LimitRule::Spacing { least } => (each - 1.0).max(0.0) * least.0.as_secs_f64(),
        LimitRule::Quota { calls, window, .. } => {
            ((each / *calls as f64).ceil() - 1.0).max(0.0) * window_seconds(*window)
        }
        LimitRule::Cost {
            points,
            rate,
            period,
            burst,
            ..
        } => {
            // Points that differ from cell to cell are not known before.
            let points: f64 = points.trim().parse().ok()?;
            (each * points - *burst as f64).max(0.0) * period.0.as_secs_f64() / *rate as f64
        }
        LimitRule::Concurrency { .. } => return None,
    })
}

fn window_seconds(window: CalendarWindow) -> f64 {
    match window {
        CalendarWindow::Minute => 60.0,
        CalendarWindow::Hour => 3600.0,
        CalendarWindow::Day => 86_400.0,
        CalendarWindow::Month => 30.0 * 86_400.0,
    }
}

/// How many scopes of `limit` the run uses: keys of the pool times values of the dimensions in `per:`.
pub(crate) fn scopes(
    plan: &Plan,
    provider: &Provider,
    limit: &Limit,
    env: &(impl Environment + ?Sized),
) -> u64 {
    let names = limit
        .per
        .as_deref()
        .and_then(|per| template_names(per).ok())
        .unwrap_or_default();
    let of_pool = names.iter().any(|n| n.starts_with("credential"));
    let pool = if of_pool {
        pool_size(provider, env).unwrap_or(1)
    } else {
        1
    };
    let used = |d: &&paceline_protocol::plan::PlannedDimension| {
        d.names.iter().any(|n| names.iter().any(|u| u == &**n))
    };
    let values = plan
        .matrix
        .dimensions
        .iter()
        .filter(used)
        .map(|d| d.values.len().max(1));
    values.fold(pool.max(1), u64::saturating_mul)
}

/// How many keys the provider's pool has, where the environment holds them.
pub fn pool_size(provider: &Provider, env: &(impl Environment + ?Sized)) -> Option<u64> {
    crate::pool::names(provider, env).map(|keys| keys.len() as u64)
}

fn quotas(
    plan: &Plan,
    env: &(impl Environment + ?Sized),
    per_cell: Option<f64>,
) -> Vec<QuotaShare> {
    let all = plan
        .providers
        .values()
        .flat_map(|p| p.limits.iter().map(move |l| (p, l)));
    all.filter(|(_, limit)| holds(plan, limit))
        .filter_map(|(provider, limit)| quota_share(plan, provider, limit, env, per_cell))
        .collect()
}

fn quota_share(
    plan: &Plan,
    provider: &Provider,
    limit: &Limit,
    env: &(impl Environment + ?Sized),
    per_cell: Option<f64>,
) -> Option<QuotaShare> {
    let LimitRule::Quota { calls: allowed, .. } = limit.rule else {
        return None;
    };
    let scopes = scopes(plan, provider, limit, env);
    let calls = calls_at(plan, &provider.name, per_cell);
    let of_pool = limit
        .per
        .as_deref()
        .is_some_and(|per| per.contains("credential"));
    Some(QuotaShare {
        provider: provider.name.clone(),
        limit: limit.name.clone(),
        allowed,
        scopes,
        pool: if of_pool {
            pool_size(provider, env)
        } else {
            None
        },
        share: calls as f64 / (allowed as f64 * scopes as f64),
    })
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
        let more = if self.share > 1.0 {
            ", so the run waits for a reset"
        } else {
            ""
        };
        format!(
            "{:.1} % of {}{scopes}{more}",
            self.share * 100.0,
            grouped(self.allowed)
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
