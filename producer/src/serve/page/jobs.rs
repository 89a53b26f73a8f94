//! Jobs: when they start next, how they ended lately, what a run would cost; and starting one.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use paceline_protocol::spec::LoadedJob;

use super::board::{Ended, Seen};
use super::html::{Head, Trouble, moment, page};
use super::runs::{head, sign};
use super::{Shared, Who};
use crate::cli::Narrowing;
use crate::commands::load;
use crate::plan::estimate::{Estimate, estimate};
use crate::serve::schedules::{calendar, missed};
use crate::serve::starting::Ask;
use crate::show;

/// Ends that are shown of a job.
const ENDS: usize = 10;
/// Starts that are shown of a job.
const STARTS: usize = 5;

/// How one run ended.
struct End {
    run: String,
    state: &'static str,
    sign: &'static str,
    planned: String,
}

/// A job in the list.
struct Line {
    job: String,
    how: String,
    /// What starts it by itself.
    by: String,
    next: String,
    within: String,
    /// Starts that nobody was there for.
    missed: Vec<String>,
    ends: Vec<End>,
    going: usize,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct Jobs {
    head: Head,
    lines: Vec<Line>,
    faults: Vec<String>,
}

/// All jobs of the spec folder.
pub(super) async fn list(State(shared): Shared, Extension(who): Extension<Who>) -> Response {
    let seen = shared.board.seen();
    let now = Timestamp::now();
    let jobs = shared.server.spec.jobs();
    let missed = missed(&shared.server).await.unwrap_or_default();
    let lines = jobs.values().map(|loaded| {
        let missed = missed.get(&loaded.job.name).map_or(&[][..], Vec::as_slice);
        line(loaded, missed, &seen, now)
    });
    let template = Jobs {
        lines: lines.collect(),
        faults: shared.server.spec.faults(),
        head: head("jobs", &who, &seen),
    };
    page(StatusCode::OK, &template)
}

/// Missed starts are shown for a week.
fn lately(missed: &[Timestamp], now: Timestamp) -> Vec<String> {
    let since = now - jiff::SignedDuration::from_hours(7 * 24);
    let late = missed.iter().filter(|planned| **planned > since);
    late.map(|planned| moment(*planned)).collect()
}

fn line(loaded: &LoadedJob, missed: &[Timestamp], seen: &Seen, now: Timestamp) -> Line {
    let name = &loaded.job.name;
    let next = starts(loaded, now, 1).pop();
    Line {
        job: name.clone(),
        how: how(loaded),
        by: by(loaded),
        next: next
            .as_ref()
            .map(|start| start.planned.clone())
            .unwrap_or_default(),
        within: next.map(|start| start.within).unwrap_or_default(),
        missed: lately(missed, now),
        ends: ends(seen, name),
        going: seen
            .going
            .iter()
            .filter(|going| going.shot.job == *name)
            .count(),
    }
}

fn how(loaded: &LoadedJob) -> String {
    let job = &loaded.job;
    match (&job.provider, &job.endpoint, &job.source) {
        (Some(provider), Some(endpoint), _) => format!("{provider}/{endpoint}"),
        (Some(provider), None, _) => provider.clone(),
        (None, _, Some(_)) => "records of other jobs".to_owned(),
        (None, _, None) => String::new(),
    }
}

/// What starts a job by itself.
fn by(loaded: &LoadedJob) -> String {
    let job = &loaded.job;
    let mut causes = Vec::new();
    if let Some(schedule) = &job.schedule {
        causes.push(format!("{} {}", schedule.cron, schedule.timezone));
    }
    if let Some(after) = &job.after {
        let also = if after.on_failure {
            ", failed or not"
        } else {
            ""
        };
        causes.push(format!("after {}{also}", after.job));
    }
    if let Some(trigger) = &job.trigger {
        causes.push(format!(
            "new objects, looked for every {}",
            show::span(trigger.every.0)
        ));
    }
    causes.join("; ")
}

fn ends(seen: &Seen, job: &str) -> Vec<End> {
    let mut ended: Vec<&Arc<Ended>> = seen
        .ended
        .values()
        .filter(|ended| ended.run.job == job)
        .collect();
    ended.sort_by_key(|ended| std::cmp::Reverse(ended.planned_at));
    let each = ended.into_iter().take(ENDS).map(|ended| End {
        run: ended.run.run.to_string(),
        state: ended.state.as_str(),
        sign: sign(ended.state),
        planned: moment(ended.planned_at),
    });
    each.collect()
}

/// A planned start.
struct Start {
    planned: String,
    within: String,
    date: String,
}

fn starts(loaded: &LoadedJob, now: Timestamp, most: usize) -> Vec<Start> {
    let Ok(calendar) = calendar(loaded) else {
        return Vec::new();
    };
    let mut last = now;
    let mut starts = Vec::new();
    while starts.len() < most {
        let Some(planned) = calendar.next(last) else {
            break;
        };
        let within = Duration::try_from(planned.duration_since(now)).unwrap_or_default();
        starts.push(Start {
            planned: moment(planned),
            within: show::span(Duration::from_secs(within.as_secs())),
            date: calendar.date(planned).to_string(),
        });
        last = planned;
    }
    starts
}

/// What a run would cost.
struct Cost {
    cells: String,
    calls: String,
    shards: String,
    time: String,
    binds: String,
    quotas: Vec<(String, String)>,
    first: String,
    last: String,
}

impl Cost {
    fn new(estimate: &Estimate) -> Self {
        let cell = |cell: &Option<serde_json::Map<String, serde_json::Value>>| {
            let pairs = cell.iter().flatten();
            let pairs: Vec<String> = pairs
                .map(|(name, value)| format!("{name}={}", super::cells::text(value)))
                .collect();
            pairs.join(" ")
        };
        let quota = |share: &crate::plan::estimate::QuotaShare| {
            let name = format!("{}/{}", share.provider, share.limit);
            (
                name,
                format!(
                    "{} of {} x {}",
                    show::share(share.share),
                    show::count(share.scopes),
                    show::count(share.allowed)
                ),
            )
        };
        let at_least = if estimate.at_least { "at least " } else { "" };
        let time = |seconds: f64| {
            show::span(Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default())
        };
        Cost {
            cells: show::count(estimate.cells),
            calls: format!("{at_least}{}", show::count(estimate.calls)),
            shards: show::count(estimate.shards),
            time: estimate.seconds.map(time).unwrap_or_default(),
            binds: estimate.binds.clone().unwrap_or_default(),
            quotas: estimate.quotas.iter().map(quota).collect(),
            first: cell(&estimate.first_cell),
            last: cell(&estimate.last_cell),
        }
    }
}

#[derive(Template)]
#[template(path = "job.html")]
struct One {
    head: Head,
    job: String,
    how: String,
    by: String,
    overlap: String,
    missed: Vec<String>,
    starts: Vec<Start>,
    ends: Vec<End>,
    params: Vec<(String, String)>,
    cost: Option<Cost>,
    /// Why it cannot be planned now.
    instead: String,
    may_run: bool,
    has_view: bool,
}

/// One job.
pub(super) async fn one(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path(job): Path<String>,
) -> Result<Response, Trouble> {
    let loaded = shared.server.spec.job(&job);
    let loaded = loaded.ok_or_else(|| Trouble::missing(format!("there is no job `{job}`")))?;
    let seen = shared.board.seen();
    let (context, stores) = (&shared.server.context, &shared.server.stores);
    let planned = load::for_look(context, stores, &loaded, &Narrowing::default()).await;
    let (cost, instead) = match planned {
        Ok(plan) => (
            Some(Cost::new(&estimate(&plan, &context.env))),
            String::new(),
        ),
        Err(error) => (None, format!("{error:#}")),
    };
    let params = loaded.job.params.iter();
    let missed = missed(&shared.server).await.unwrap_or_default();
    let missed = missed.get(&job).map_or(&[][..], Vec::as_slice);
    let template = One {
        missed: lately(missed, Timestamp::now()),
        how: how(&loaded),
        by: by(&loaded),
        overlap: loaded
            .job
            .schedule
            .as_ref()
            .map(|s| format!("{:?}", s.overlap).to_lowercase())
            .unwrap_or_default(),
        starts: starts(&loaded, Timestamp::now(), STARTS),
        ends: ends(&seen, &job),
        params: params
            .map(|(name, value)| (name.clone(), super::cells::text(value)))
            .collect(),
        cost,
        instead,
        may_run: who.may_run(),
        has_view: !loaded.job.outputs.rankings.is_empty(),
        job,
        head: head("jobs", &who, &seen),
    };
    Ok(page(StatusCode::OK, &template))
}

/// Starts a run.
pub(super) async fn start(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path(job): Path<String>,
    body: Bytes,
) -> Result<Response, Trouble> {
    let ask = asked(&job, &body).map_err(Trouble::bad)?;
    let server = shared.server.clone();
    // A browser that goes away does not leave a run half published.
    let starting = tokio::spawn(async move { server.start_run(ask).await });
    let started = starting.await.map_err(anyhow::Error::from)??;
    tracing::info!(run.id = %started.run, who = who.name, "started by the page");
    let run = &started.run;
    Ok(Redirect::to(&format!("/runs/{}/{}?did=start", run.job, run.run)).into_response())
}

/// Reads the form: `run`, `date`, and `param.<name>` for each param. What is empty stays as the file says.
fn asked(job: &str, body: &[u8]) -> Result<Ask, String> {
    let mut ask = Ask {
        job: job.to_owned(),
        ..Ask::default()
    };
    for (name, value) in url::form_urlencoded::parse(body) {
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        match &*name {
            "run" => ask.run = Some(value.parse().map_err(|error| format!("{error}"))?),
            "date" => {
                ask.date = Some(
                    value
                        .parse()
                        .map_err(|_| format!("`{value}` is no date like 2026-11-27"))?,
                )
            }
            _ => {
                if let Some(param) = name.strip_prefix("param.") {
                    ask.params.push((param.to_owned(), value.to_owned()));
                }
            }
        }
    }
    Ok(ask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_an_ask() {
        let ask = asked("fares", b"run=r1&date=&param.origin=PUS&param.x=").expect("an ask");
        assert_eq!(ask.run.expect("an id").as_str(), "r1");
        assert_eq!(ask.params, [("origin".to_owned(), "PUS".to_owned())]);
        assert!(ask.date.is_none());
        assert!(asked("fares", b"run=..%2Fx").is_err());
        assert!(asked("fares", b"date=tomorrow").is_err());
    }
}
