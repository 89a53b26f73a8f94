//! The first page: what runs, how fast against what is allowed, what keeps it from being faster; below, what
//! has ended.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::board::{Ended, Going, Seen};
use super::html::{Head, moment, page};
use super::{Shared, Who};
use crate::run::StateWord;
use crate::show;

/// Ended runs on one page.
const ROWS: usize = 30;

/// A bar in hundredths, as SVG takes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bar {
    pub(super) succeeded: String,
    pub(super) empty_at: String,
    pub(super) empty: String,
    pub(super) failed_at: String,
    pub(super) failed: String,
}

impl Bar {
    pub(super) fn new(cells: u64, succeeded: u64, empty: u64, failed: u64) -> Self {
        let share = |n: u64| 100.0 * n as f64 / cells.max(1) as f64;
        let (good, none, bad) = (share(succeeded), share(empty), share(failed));
        // A single failure among a million is seen.
        let bad = if failed > 0 { bad.max(0.6) } else { 0.0 };
        Bar {
            succeeded: format!("{good:.2}"),
            empty_at: format!("{good:.2}"),
            empty: format!("{none:.2}"),
            failed_at: format!("{:.2}", (good + none).min(100.0 - bad)),
            failed: format!("{bad:.2}"),
        }
    }
}

/// An open run as its card shows it.
pub(super) struct Card {
    pub(super) job: String,
    pub(super) run: String,
    pub(super) state: &'static str,
    pub(super) done: String,
    pub(super) cells: String,
    pub(super) percent: String,
    pub(super) bar: Bar,
    pub(super) succeeded: String,
    pub(super) empty: String,
    pub(super) failed: u64,
    pub(super) speed: String,
    pub(super) allowed: Option<String>,
    /// Speed as a share of what is allowed, at most 100.
    pub(super) used: Option<u32>,
    pub(super) eta: Option<String>,
    pub(super) by: &'static str,
    pub(super) sign: &'static str,
    pub(super) because: String,
    pub(super) calls: String,
    pub(super) cells_speed: String,
    pub(super) cause: String,
    pub(super) planned: String,
    pub(super) is_retry: bool,
}

impl Card {
    pub(super) fn new(going: &Going) -> Self {
        let shot = &going.shot;
        let plan = &going.files.plan;
        let used = shot.allowed_per_s.zip(going.speed).map(|(allowed, speed)| {
            let share = 100.0 * speed / allowed;
            share.round().clamp(0.0, 100.0) as u32
        });
        Card {
            job: shot.job.clone(),
            run: shot.run.clone(),
            state: shot.state.as_str(),
            done: show::count(shot.done()),
            cells: show::count(shot.cells),
            percent: percent(shot.done(), shot.cells),
            bar: Bar::new(shot.cells, shot.succeeded, shot.empty, shot.failed),
            succeeded: show::count(shot.succeeded),
            empty: show::count(shot.empty),
            failed: shot.failed,
            speed: show::rate(going.speed.unwrap_or(0.0)),
            allowed: shot.allowed_per_s.map(show::rate),
            used,
            eta: eta(going),
            by: going.by.word(),
            sign: going.by.sign(),
            because: going.because.clone(),
            calls: show::count(shot.calls),
            cells_speed: show::rate(going.cells_per_s.unwrap_or(0.0)),
            cause: super::cause::cause(plan),
            planned: moment(plan.planned_at),
            is_retry: going.files.open.as_ref().is_some_and(|open| open.round > 0),
        }
    }
}

fn eta(going: &Going) -> Option<String> {
    let moving = matches!(going.shot.state, StateWord::Running | StateWord::Queued);
    let seconds = going.shot.eta_s.filter(|_| moving)?;
    Some(show::span(Duration::from_secs(seconds)))
}

/// Never 100 before the end.
pub(super) fn percent(done: u64, of: u64) -> String {
    let share = done as f64 / of.max(1) as f64 * 100.0;
    let share = if done < of { share.min(99.9) } else { share };
    format!("{share:.1}")
}

/// An ended run as its row shows it.
struct Row {
    job: String,
    run: String,
    state: &'static str,
    sign: &'static str,
    planned: String,
    took: String,
    cells: String,
    good: String,
    failed: u64,
    records: String,
    cause: String,
    note: String,
}

impl Row {
    fn new(ended: &Ended) -> Self {
        let took = ended.finished_at.map(|at| {
            let took = Duration::try_from(at.duration_since(ended.planned_at));
            show::span(took.unwrap_or_default())
        });
        Row {
            job: ended.run.job.clone(),
            run: ended.run.run.to_string(),
            state: ended.state.as_str(),
            sign: sign(ended.state),
            planned: moment(ended.planned_at),
            took: took.unwrap_or_default(),
            cells: show::count(ended.cells),
            good: show::share((ended.succeeded + ended.empty) as f64 / ended.cells.max(1) as f64),
            failed: ended.failed,
            records: show::count(ended.records),
            cause: ended.cause.clone(),
            note: ended.note.clone().unwrap_or_default(),
        }
    }
}

/// A sign that needs no colour.
pub(super) fn sign(state: StateWord) -> &'static str {
    match state {
        StateWord::Completed => "\u{2713}",
        StateWord::Failed => "\u{2717}",
        StateWord::Cancelled => "\u{25a0}",
        StateWord::Planned => "\u{25cc}",
        StateWord::Queued => "\u{25cb}",
        StateWord::Running => "\u{25b6}",
        StateWord::Paused => "\u{2016}",
        StateWord::Finishing => "\u{25d4}",
    }
}

#[derive(Template)]
#[template(path = "runs.html")]
struct Runs {
    head: Head,
    cards: Vec<Card>,
    rows: Vec<Row>,
    /// Whether the list of ended runs is still being read.
    reading: bool,
    job: String,
    newer: Option<usize>,
    older: Option<usize>,
    total: String,
}

#[derive(Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    job: String,
    #[serde(default)]
    from: usize,
}

/// All runs.
pub(super) async fn list(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Query(which): Query<Which>,
) -> Response {
    let seen = shared.board.seen();
    let of_job = |job: &str| which.job.is_empty() || which.job == job;
    let cards = seen.going.iter().filter(|going| of_job(&going.shot.job));
    let cards: Vec<Card> = cards.map(|going| Card::new(going)).collect();
    let mut ended: Vec<&Arc<Ended>> = seen
        .ended
        .values()
        .filter(|ended| of_job(&ended.run.job))
        .collect();
    ended.sort_by_key(|ended| std::cmp::Reverse(ended.planned_at));
    let rows = ended
        .iter()
        .skip(which.from)
        .take(ROWS)
        .map(|ended| Row::new(ended));
    let template = Runs {
        rows: rows.collect(),
        cards,
        reading: !seen.listed,
        newer: (which.from > 0).then(|| which.from.saturating_sub(ROWS)),
        older: (which.from + ROWS < ended.len()).then_some(which.from + ROWS),
        total: show::count(ended.len() as u64),
        job: which.job,
        head: head("runs", &who, &seen),
    };
    page(StatusCode::OK, &template)
}

/// The head of a page that shows the board.
pub(super) fn head(here: &'static str, who: &Who, seen: &Seen) -> Head {
    Head {
        here,
        who: who.name.clone(),
        can_leave: who.can_leave,
        seen: seen.at.map(moment).unwrap_or_default(),
        away: seen.away().map(str::to_owned),
        told: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_a_single_failure_and_never_overflows() {
        let bar = Bar::new(1_000_000, 999_999, 0, 1);
        let end: f64 = bar.failed_at.parse::<f64>().expect("a number")
            + bar.failed.parse::<f64>().expect("a number");
        assert!(end <= 100.001 && bar.failed != "0.00", "{bar:?}");
        assert_eq!(percent(999_999, 1_000_000), "99.9");
        assert_eq!(percent(0, 0), "0.0");
    }
}
