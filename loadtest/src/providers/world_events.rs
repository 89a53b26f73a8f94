//! An event catalogue: a bearer token, offset pages with a next URL, and a flag that says "more than you may
//! page"; and the places near a point.
//!
//! `GET /v1/events/` with `country`, `category`, `active.gte`, `active.lte` (days in UTC, both included),
//! `limit` (at most 50) and `offset`: of the events that are on at some time of these days, in the order of
//! their beginning, no more than the catalogue lets page. `GET /v1/places` with `near` and `kind`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::server::{Log, Server};
use crate::chance;

/// Most results of a page.
const PAGE: usize = 50;

/// An event as the catalogue holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `id`
    pub id: String,
    /// Where it is listed.
    pub country: String,
    /// What it is listed under.
    pub category: String,
    /// `title`
    pub title: String,
    /// `start`
    pub start: Timestamp,
    /// How many days it lasts, from 1.
    pub days: i64,
    /// `rank`
    pub rank: u32,
    /// `location`, which names the longitude first.
    pub lat: f64,
    /// See `lat`.
    pub lon: f64,
    /// `updated`
    pub updated: Timestamp,
}

impl Event {
    /// Its first day.
    pub fn first_day(&self) -> Date {
        self.start.to_zoned(TimeZone::UTC).date()
    }

    fn last_day(&self) -> Date {
        let more = jiff::Span::new().days(self.days - 1);
        self.first_day().saturating_add(more)
    }

    fn shown(&self) -> Value {
        json!({
            "id": self.id, "title": self.title, "category": self.category, "country": self.country,
            "start": self.start.to_string(), "rank": self.rank, "location": [self.lon, self.lat],
            "updated": self.updated.to_string(), "labels": [self.category],
        })
    }
}

/// A place near a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// `id`
    pub id: String,
    /// `name`
    pub name: String,
    /// `distance`, in metres.
    pub distance: u64,
    /// `rating`
    pub rating: f64,
}

/// The places of a kind near a point as it was asked for: none at one point of seven.
pub fn places(near: &str, kind: &str) -> Vec<Place> {
    let draw = |words: &[&str]| chance::hash(41, &[&[near, kind], words].concat());
    let place = |n: u64| {
        let text = n.to_string();
        Place {
            id: format!("{kind}-{:08x}-{n}", draw(&["id"]) >> 32),
            name: format!("{kind} \"{n}\", 역 앞"),
            distance: draw(&["distance", &text]) % 3_000,
            rating: (draw(&["rating", &text]) % 51) as f64 / 10.0,
        }
    };
    (0..draw(&["count"]) % 7).map(place).collect()
}

/// What the catalogue holds; a test changes it between runs.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All events.
    pub events: Vec<Event>,
    /// Cells (`<country>/<category>`) that are refused with 400.
    pub refused: Vec<String>,
    /// So many results of a question may be paged.
    pub reach: usize,
}

impl World {
    /// The events of a question, in order.
    fn find(&self, asked: &BTreeMap<String, String>) -> Option<Vec<&Event>> {
        let day = |name: &str| asked.get(name).map(|day| day.parse::<Date>()).transpose();
        let (from, to) = (day("active.gte").ok()?, day("active.lte").ok()?);
        let is = |name: &str, value: &String| asked.get(name).is_none_or(|asked| asked == value);
        let fits = |event: &&Event| {
            is("country", &event.country)
                && is("category", &event.category)
                && from.is_none_or(|from| event.last_day() >= from)
                && to.is_none_or(|to| event.first_day() <= to)
        };
        let mut found: Vec<&Event> = self.events.iter().filter(fits).collect();
        found.sort_by_key(|event| (event.start, &event.id));
        Some(found)
    }
}

/// A running catalogue.
pub struct WorldEvents {
    server: Server,
    world: Arc<Mutex<World>>,
    bucket: Arc<Mutex<Bucket>>,
}

impl WorldEvents {
    /// Starts one that accepts these tokens.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(world: World, tokens: &[&str]) -> anyhow::Result<Self> {
        let world = Arc::new(Mutex::new(world));
        let bucket = Arc::new(Mutex::new(Bucket::new(5.0, 5.0)));
        let server = Server::start(|log| {
            let desk = Desk {
                world: world.clone(),
                log,
                tokens: tokens
                    .iter()
                    .map(|token| format!("Bearer {token}"))
                    .collect(),
                bucket: bucket.clone(),
            };
            Router::new()
                .route("/v1/events/", get(events))
                .route("/v1/places", get(near))
                .with_state(desk)
        })?;
        Ok(WorldEvents {
            server,
            world,
            bucket,
        })
    }

    /// Allows so many calls a second, and so many at once, from now on: instead of the 300 a minute and 5.
    pub fn allow(&self, rate: f64, burst: f64) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        *bucket = Bucket::new(rate, burst);
    }

    /// The server, with its log.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What it holds, to look at or to change.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Desk {
    world: Arc<Mutex<World>>,
    log: Log,
    tokens: Vec<String>,
    bucket: Arc<Mutex<Bucket>>,
}

/// What may be called. A busy machine reads calls later than they arrived, and then several together: they
/// may have waited for a second.
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    since: Instant,
}

impl Bucket {
    fn new(rate: f64, burst: f64) -> Self {
        Bucket {
            rate,
            most: burst + rate,
            left: burst + rate,
            since: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let more = self.since.elapsed().as_secs_f64() * self.rate;
        (self.left, self.since) = (self.most.min(self.left + more), Instant::now());
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }
}

type Answer = (StatusCode, Json<Value>);
type Asked = Query<BTreeMap<String, String>>;

impl Desk {
    fn answer(&self, call: String, status: StatusCode, body: Value) -> Answer {
        self.log.note(call, status.as_u16());
        (status, Json(body))
    }

    /// Why a call is refused before it is looked at.
    fn refusal(&self, headers: &HeaderMap) -> Option<StatusCode> {
        let token = headers
            .get("authorization")
            .and_then(|token| token.to_str().ok());
        if !self.tokens.iter().any(|known| token == Some(known)) {
            return Some(StatusCode::UNAUTHORIZED);
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        (!bucket.take()).then_some(StatusCode::TOO_MANY_REQUESTS)
    }
}

fn number(asked: &BTreeMap<String, String>, name: &str) -> Option<usize> {
    asked.get(name).map_or(Some(0), |n| n.parse().ok())
}

async fn events(State(desk): State<Desk>, Query(asked): Asked, headers: HeaderMap) -> Answer {
    let call = format!("/v1/events/?{}", query(&asked));
    if let Some(status) = desk.refusal(&headers) {
        return desk.answer(call, status, json!({ "error": "refused" }));
    }
    let (status, body) = {
        let world = desk.world.lock().unwrap_or_else(PoisonError::into_inner);
        let host = headers.get("host").and_then(|host| host.to_str().ok());
        page(&world, &asked, host.unwrap_or_default())
    };
    desk.answer(call, status, body)
}

fn page(world: &World, asked: &BTreeMap<String, String>, host: &str) -> (StatusCode, Value) {
    let wrong = |what: &str| (StatusCode::BAD_REQUEST, json!({ "error": what }));
    let text = |name: &str| asked.get(name).map_or("", String::as_str);
    let cell = format!("{}/{}", text("country"), text("category"));
    if world.refused.contains(&cell) {
        return wrong("this category is closed");
    }
    let (Some(offset), Some(limit)) = (number(asked, "offset"), number(asked, "limit")) else {
        return wrong("no number");
    };
    let Some(found) = world.find(asked) else {
        return wrong("no day");
    };
    if !(1..=PAGE).contains(&limit) || offset >= world.reach {
        return wrong("not so many");
    }
    let there = found.len().min(world.reach);
    let end = (offset + limit).min(there);
    let next = (end < there).then(|| {
        let mut next = asked.clone();
        next.insert("offset".into(), end.to_string());
        format!("http://{host}/v1/events/?{}", query(&next))
    });
    let results: Vec<Value> = found
        .iter()
        .take(end)
        .skip(offset)
        .map(|event| event.shown())
        .collect();
    let body = json!({
        "count": there, "overflow": found.len() > world.reach, "next": next, "previous": null,
        "results": results,
    });
    (StatusCode::OK, body)
}

async fn near(State(desk): State<Desk>, Query(asked): Asked, headers: HeaderMap) -> Answer {
    let call = format!("/v1/places?{}", query(&asked));
    if let Some(status) = desk.refusal(&headers) {
        return desk.answer(call, status, json!({ "error": "refused" }));
    }
    let text = |name: &str| asked.get(name).map_or("", String::as_str);
    let found: Vec<Value> = places(text("near"), text("kind"))
        .into_iter()
        .map(|place| {
            json!({ "id": place.id, "name": place.name, "distance": place.distance, "rating": place.rating })
        })
        .collect();
    desk.answer(call, StatusCode::OK, json!({ "results": found }))
}

/// What was asked, names in order.
fn query(asked: &BTreeMap<String, String>) -> String {
    let pairs = asked.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: i64, days: i64) -> Event {
        let first: Timestamp = "2026-12-01T10:00:00Z".parse().expect("an instant");
        Event {
            id: format!("e{n:03}"),
            country: "KR".into(),
            category: "expos".into(),
            title: String::new(),
            start: first + jiff::SignedDuration::from_hours(24 * n),
            days,
            rank: 1,
            lat: 0.0,
            lon: 0.0,
            updated: first,
        }
    }

    fn ask(world: &World, more: &[(&str, &str)]) -> Value {
        let mut asked = BTreeMap::from([("limit".to_owned(), "50".to_owned())]);
        asked.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let (status, body) = page(world, &asked, "host");
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    #[test]
    fn more_than_may_be_paged_is_said_and_days_narrow_it() {
        let world = World {
            events: (0..130).map(|n| event(n, 1)).collect(),
            refused: Vec::new(),
            reach: 100,
        };
        let all = ask(&world, &[]);
        assert_eq!(
            (&all["overflow"], &all["count"]),
            (&json!(true), &json!(100))
        );
        assert_eq!(
            all["next"],
            json!("http://host/v1/events/?limit=50&offset=50")
        );
        let last = ask(&world, &[("offset", "50")]);
        assert_eq!(last["next"], Value::Null);
        let half = ask(
            &world,
            &[("active.gte", "2026-12-03"), ("active.lte", "2026-12-05")],
        );
        assert_eq!(
            (&half["overflow"], &half["count"]),
            (&json!(false), &json!(3))
        );
    }

    #[test]
    fn what_lasts_is_on_from_its_first_day_to_its_last() {
        let world = World {
            events: vec![event(0, 3)],
            refused: Vec::new(),
            reach: 100,
        };
        for (from, to, on) in [
            ("2026-12-03", "2026-12-09", 1),
            ("2026-12-04", "2026-12-09", 0),
            ("2026-11-01", "2026-12-01", 1),
            ("2026-11-01", "2026-11-30", 0),
        ] {
            let found = ask(&world, &[("active.gte", from), ("active.lte", to)]);
            assert_eq!(found["count"], json!(on), "{from} to {to}");
        }
    }
}
