//! Views of what is live: the heat map of a job that has one, else its rankings; and one cell of the map with its
//! records and how it stood in the last runs.

use std::collections::BTreeMap;

use anyhow::Result as Anyhow;
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use paceline_protocol::ids::{RunRef, is_name};
use paceline_protocol::manifest::Live;
use paceline_protocol::spec::Job;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::cells;
use super::heat::{Heat, draw, exact};
use super::html::{Head, Trouble, moment, page};
use super::live::{Heatmap, live, lowest_first};
use super::runs::head;
use super::{Page, Shared, Who};
use crate::run::StateWord;
use crate::serve::Server;
use crate::serve::views::View;

/// Runs of a trend.
const RUNS: usize = 7;
/// Sets that are named.
const SETS: usize = 500;
/// Sets that are shown side by side.
const SIDE_BY_SIDE: usize = 12;
/// Members of a set that is shown alone, and of one among others.
const MEMBERS: [usize; 2] = [200, 10];
/// Records of a cell.
const RECORDS: usize = 20;

/// A job in the list of views.
struct Named {
    job: String,
    what: &'static str,
}

#[derive(Template)]
#[template(path = "views.html")]
struct Views {
    head: Head,
    jobs: Vec<Named>,
}

/// The jobs that have something to look at.
pub(super) async fn list(State(shared): Shared, Extension(who): Extension<Who>) -> Response {
    let jobs = shared.server.spec.jobs();
    let jobs = jobs.values().filter_map(|loaded| {
        let what = if Heatmap::of(&loaded.job).is_some() {
            "calendar"
        } else if !loaded.job.outputs.rankings.is_empty() {
            "ranking"
        } else {
            return None;
        };
        Some(Named {
            job: loaded.job.name.clone(),
            what,
        })
    });
    let template = Views {
        jobs: jobs.collect(),
        head: head("views", &who, &shared.board.seen()),
    };
    page(StatusCode::OK, &template)
}

/// What is looked at.
#[derive(Deserialize)]
pub(super) struct Where {
    of: Option<String>,
    x: Option<String>,
    y: Option<String>,
    set: Option<String>,
}

/// A run as a trend shows it.
struct Point {
    run: String,
    planned: String,
    value: String,
    /// Of the highest of all, in hundredths.
    share: String,
    /// Against the run before it.
    change: String,
}

/// A cell that is looked at.
struct Cell {
    x: String,
    y: String,
    columns: Vec<String>,
    records: Vec<Vec<String>>,
    trend: Vec<Point>,
    /// Why there is nothing.
    instead: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "heatmap.html")]
struct Calendar {
    head: Head,
    job: String,
    run: String,
    planned: String,
    names: [String; 4],
    highest: bool,
    of: String,
    all: Vec<String>,
    heat: Heat,
    cell: Option<Cell>,
}

/// A member of a ranking.
struct Member {
    place: usize,
    name: String,
    score: String,
    /// Of the highest, in hundredths.
    share: String,
}

/// A set with its members.
struct Ranked {
    set: String,
    members: Vec<Member>,
}

#[derive(Template)]
#[template(path = "ranking.html")]
struct Rankings {
    head: Head,
    job: String,
    run: String,
    planned: String,
    sets: Vec<String>,
    chosen: String,
    shown: Vec<Ranked>,
}

/// One job's view.
pub(super) async fn one(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path(job): Path<String>,
    Query(at): Query<Where>,
) -> Result<Response, Trouble> {
    if !is_name(&job) {
        return Err(Trouble::bad(format!("`{job}` is no job's name")));
    }
    let loaded = shared.server.spec.job(&job);
    let loaded = loaded.ok_or_else(|| Trouble::missing(format!("there is no job `{job}`")))?;
    let Some(live) = live(&shared.server, &job).await? else {
        return Err(Trouble::missing(format!(
            "no run of {job} has published anything yet"
        )));
    };
    let head = head("views", &who, &shared.board.seen());
    match Heatmap::of(&loaded.job) {
        Some(map) => heatmap(&shared, head, &loaded.job, &map, &live, &at).await,
        None => rankings(&shared, head, &loaded.job, &live, &at).await,
    }
}

async fn heatmap(
    shared: &Page,
    head: Head,
    job: &Job,
    map: &Heatmap,
    live: &Live,
    at: &Where,
) -> Result<Response, Trouble> {
    let all: Vec<String> = map.live(live).into_iter().collect();
    let of = at
        .of
        .clone()
        .or_else(|| all.first().cloned())
        .unwrap_or_default();
    let cells = match map.cells(&shared.server, &of).await {
        Ok(cells) => cells,
        // The sets are out of reach; the parts of the live run say the same.
        Err(error) => match of_parts(&shared.server, job, map, &of).await? {
            Some(cells) => cells,
            None => return Err(error.into()),
        },
    };
    let cell = match (&at.x, &at.y) {
        (Some(x), Some(y)) => Some(cell(shared, job, map, &of, x, y).await?),
        _ => None,
    };
    let template = Calendar {
        head,
        job: job.name.clone(),
        run: live.run.to_string(),
        planned: moment(live.planned_at),
        names: [
            map.of.clone(),
            map.x.clone(),
            map.y.clone(),
            map.value.clone(),
        ],
        highest: map.highest,
        of,
        all,
        heat: draw(&cells, map.highest),
        cell,
    };
    Ok(page(StatusCode::OK, &template))
}

/// The map as the live run's parts have it.
async fn of_parts(
    server: &Server,
    job: &Job,
    map: &Heatmap,
    of: &str,
) -> Anyhow<Option<Vec<(String, String, f64)>>> {
    let Some(view) = &job.view else {
        return Ok(None);
    };
    let archive = &server.stores.archive;
    let shown = server
        .views
        .show(archive, &job.name, view, Some(of))
        .await?;
    let View::Here(body, _) = shown else {
        return Ok(None);
    };
    let shown: Value = serde_json::from_slice(&body)?;
    let all = shown["cells"].as_array().into_iter().flatten();
    let cell = |cell: &Value| {
        let (x, y) = (cell.get(&map.x)?, cell.get(&map.y)?);
        let value = cell.get(&map.value)?.as_f64()?;
        Some((cells::text(x), cells::text(y), value))
    };
    Ok(Some(all.filter_map(cell).collect()))
}

/// The cell's records in the newest good run, and its best value in the last ones.
async fn cell(
    shared: &Page,
    job: &Job,
    map: &Heatmap,
    of: &str,
    x: &str,
    y: &str,
) -> Result<Cell, Trouble> {
    let values = BTreeMap::from([
        (map.of.as_str(), of),
        (map.x.as_str(), x),
        (map.y.as_str(), y),
    ]);
    let seen = shared.board.seen();
    let mut runs: Vec<_> = seen
        .ended
        .values()
        .filter(|ended| ended.run.job == job.name && ended.state == StateWord::Completed)
        .collect();
    runs.sort_by_key(|ended| std::cmp::Reverse(ended.planned_at));
    let mut shown = Cell {
        x: x.to_owned(),
        y: y.to_owned(),
        columns: Vec::new(),
        records: Vec::new(),
        trend: Vec::new(),
        instead: None,
    };
    let mut points: Vec<(RunRef, String, f64)> = Vec::new();
    for (place, ended) in runs.into_iter().take(RUNS).enumerate() {
        let found = cells::records(&shared.server, &ended.run, &values).await?;
        let Some(found) = found else { continue };
        if place == 0 {
            shown.take(&found);
        }
        let numbers = found
            .iter()
            .filter_map(|row| cells::text(row.get(&map.value)?).parse::<f64>().ok());
        let best = numbers.reduce(|a, b| if map.highest { a.max(b) } else { a.min(b) });
        points.extend(best.map(|best| (ended.run.clone(), moment(ended.planned_at), best)));
    }
    if shown.records.is_empty() {
        shown.instead = Some("the newest good run has no record of this cell");
    }
    shown.trend = trend(&points);
    Ok(shown)
}

impl Cell {
    fn take(&mut self, records: &[Map<String, Value>]) {
        let Some(first) = records.first() else { return };
        self.columns = first.keys().cloned().collect();
        let row = |record: &Map<String, Value>| {
            let columns = self.columns.iter();
            columns
                .map(|column| record.get(column).map(cells::text).unwrap_or_default())
                .collect()
        };
        self.records = records.iter().take(RECORDS).map(row).collect();
    }
}

/// The newest first.
fn trend(points: &[(RunRef, String, f64)]) -> Vec<Point> {
    let most = points
        .iter()
        .map(|(_, _, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let each = points
        .iter()
        .enumerate()
        .map(|(place, (run, planned, value))| {
            let before = points
                .get(place + 1)
                .map(|(_, _, before)| *before)
                .filter(|before| *before != 0.0);
            let change = before.map(|before| {
                let share = (value - before) / before * 100.0;
                match share {
                    share if share.abs() < 0.05 => "= same".to_owned(),
                    share if share > 0.0 => format!("\u{2191} {share:.1} %"),
                    share => format!("\u{2193} {:.1} %", -share),
                }
            });
            Point {
                run: run.run.to_string(),
                planned: planned.clone(),
                value: exact(*value),
                share: format!("{:.1}", (value / most * 100.0).clamp(0.0, 100.0)),
                change: change.unwrap_or_default(),
            }
        });
    each.collect()
}

async fn rankings(
    shared: &Page,
    head: Head,
    job: &Job,
    live: &Live,
    at: &Where,
) -> Result<Response, Trouble> {
    let sets: Vec<String> = live.sets.iter().take(SETS).cloned().collect();
    let chosen = at.set.clone().filter(|set| live.sets.contains(set));
    let (names, members) = match &chosen {
        Some(set) => (vec![set.clone()], MEMBERS[0]),
        None if sets.len() == 1 => (sets.clone(), MEMBERS[0]),
        None => (
            sets.iter().take(SIDE_BY_SIDE).cloned().collect(),
            MEMBERS[1],
        ),
    };
    let mut shown = Vec::new();
    for set in names {
        let highest_first = !lowest_first(job, &set);
        let found = shared
            .server
            .stores
            .state
            .published_set(&set, highest_first, members)
            .await;
        let found = found.map_err(anyhow::Error::from)?;
        let most = found
            .iter()
            .map(|(_, score)| score.abs())
            .fold(f64::MIN_POSITIVE, f64::max);
        let members = found
            .into_iter()
            .zip(1..)
            .map(|((name, score), place)| Member {
                place,
                name,
                score: exact(score),
                share: format!("{:.1}", score.abs() / most * 100.0),
            });
        shown.push(Ranked {
            set,
            members: members.collect(),
        });
    }
    let template = Rankings {
        head,
        job: job.name.clone(),
        run: live.run.to_string(),
        planned: moment(live.planned_at),
        sets,
        chosen: chosen.unwrap_or_default(),
        shown,
    };
    Ok(page(StatusCode::OK, &template))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_says_how_each_run_stands_to_the_one_before() {
        let point = |run: &str, value: f64| {
            let run = RunRef {
                job: "fares".into(),
                run: run.parse().expect("a run id"),
            };
            (run, String::new(), value)
        };
        let trend = trend(&[point("c", 110.0), point("b", 100.0), point("a", 100.0)]);
        let changes: Vec<&str> = trend.iter().map(|point| point.change.as_str()).collect();
        assert_eq!(changes, ["\u{2191} 10.0 %", "= same", ""]);
        assert_eq!(trend[0].share, "100.0");
    }
}
