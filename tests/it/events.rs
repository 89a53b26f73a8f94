//! World events as the examples have them, night by night: each record and its `update_type` is held against
//! what the catalogue showed, and so are the jobs that follow, which call for changed events alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use harness::checker::Collected;
use harness::{Bucket, Calendar, Shape};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use paceline_loadtest::providers::world_events::{Event, World, WorldEvents, places};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::Manifest;
use redis::AsyncCommands;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(240);
/// The date of the nights: a few days ahead, so that what follows them by the real clock sees them in the future.
static TODAY: LazyLock<Date> = LazyLock::new(|| {
    let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    now.date() + 4.days()
});
const COUNTRIES: [&str; 5] = ["KR", "JP", "US", "FR", "TH"];
const CATEGORIES: [&str; 4] = ["festivals", "concerts", "expos", "sports"];
const TOKENS: [&str; 2] = ["canary-world-1", "canary-world-2"];
/// Results of a question that may be paged: fewer than Korea has festivals.
const REACH: usize = 60;
/// Festivals in Korea.
const MANY: i64 = 75;

fn instant(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// So many days after the nights' date, at a time of day.
fn days_later(days: i64, time: &str) -> Timestamp {
    instant(&format!("{}T{time}Z", *TODAY + days.days()))
}

fn event(cell: (&str, &str), n: i64) -> Event {
    const TITLES: [&str; 4] = [
        "서울 \"겨울\" 축제, 2026",
        "=SUM(A1)",
        " two\nlines ",
        "Fête",
    ];
    let first = days_later(2, "22:30:00");
    let place = COUNTRIES
        .iter()
        .position(|country| *country == cell.0)
        .unwrap_or(0);
    Event {
        id: format!("{}-{}-{n:03}", cell.0, cell.1),
        country: cell.0.into(),
        category: cell.1.into(),
        title: format!("{} {n}", TITLES[(n % 4) as usize]),
        start: first + jiff::SignedDuration::from_hours(24 * (n * 7 % 90)),
        days: 1 + n % 3,
        rank: (n as u32 * 13) % 100,
        lat: [35.125, 34.75, 40.75, 48.75, 13.75][place] + n as f64 / 64.0,
        lon: [129.0, 135.5, -73.75, 2.25, 100.5][place],
        updated: instant("2026-11-20T00:00:00Z"),
    }
}

/// The first night: of one cell more than may be paged, of one two pages, of one nothing; what is over.
fn first_night() -> Vec<Event> {
    let mut events = Vec::new();
    for country in COUNTRIES {
        for category in CATEGORIES {
            let count = match (country, category) {
                ("KR", "festivals") => MANY,
                ("JP", "concerts") => 55,
                ("TH", "sports") => 0,
                _ => 2,
            };
            events.extend((0..count).map(|n| event((country, category), n)));
        }
    }
    // Over since yesterday, and still on today.
    for (id, days) in [("over", 3), ("lasting", 4)] {
        events.push(Event {
            id: id.into(),
            start: days_later(-3, "12:00:00"),
            days,
            ..event(("FR", "expos"), 9)
        });
    }
    events
}

/// What must be known of an event beside its `update_type`, as the columns of the CSV.
fn row(event: &Event) -> Vec<String> {
    vec![
        event.country.clone(),
        event.category.clone(),
        event.id.clone(),
        event.title.clone(),
        event.start.to_string(),
        event.rank.to_string(),
        format!("{:?}", event.lon),
        format!("{:?}", event.lat),
        event.updated.to_string(),
    ]
}

const HEADER: [&str; 10] = [
    "country",
    "category",
    "id",
    "title",
    "starts_at",
    "rank",
    "lon",
    "lat",
    "updated_at",
    "update_type",
];

/// Rows by id, each with its `update_type` at the end.
type Rows = BTreeMap<String, Vec<String>>;

/// What a night must give, since the last good one.
fn truth(before: &[Event], now: &[Event]) -> Rows {
    let before: BTreeMap<&str, &Event> = before.iter().map(|e| (e.id.as_str(), e)).collect();
    let on = now.iter().filter(|event| event.id != "over");
    on.map(|event| {
        let update = match before.get(event.id.as_str()) {
            None => 3,
            Some(was) if (was.lat, was.lon) != (event.lat, event.lon) => 2,
            Some(was) if row(was)[..8] != row(event)[..8] => 1,
            Some(_) => 0,
        };
        let mut row = row(event);
        row.push(update.to_string());
        (event.id.clone(), row)
    })
    .collect()
}

/// The catalogue beside a fare search, and a fleet for both.
struct Nights {
    calendar: Calendar,
    catalogue: WorldEvents,
}

impl Nights {
    fn new(test: &str, events: Vec<Event>) -> Self {
        let mut calendar = Calendar::new(test, Shape::default()).expect("a calendar");
        let world = World {
            events,
            refused: Vec::new(),
            reach: REACH,
        };
        let catalogue = WorldEvents::start(world, &TOKENS).expect("a catalogue");
        let fleet = &mut calendar.fleet;
        fleet.set("WORLD_EVENTS_URL", catalogue.server().url());
        fleet.set("WORLD_EVENTS_TOKENS", TOKENS.join(","));
        fleet.tells_nobody();
        // All tests share one Elasticsearch.
        for job in ["events", "nearby", "event-fares"] {
            let name = format!("name: {}-{job}", fleet.name);
            let file = format!("jobs/{job}.yaml");
            fleet
                .spec
                .replace(&file, &format!("name: {job}"), &name)
                .expect("replaced");
        }
        Nights {
            calendar,
            catalogue,
        }
    }

    fn run(&self, job: &str, run: &str, code: i32) {
        let date = TODAY.to_string();
        let arguments = ["enqueue", job, "--run-id", run, "--date", &date, "--wait"];
        let ended = self.calendar.fleet.producer(&arguments, PATIENCE);
        ended.expect("it ends").expect_code(code);
    }

    fn layout(&self, job: &str, run: &str) -> RunLayout {
        self.calendar.fleet.layout(job, run)
    }

    async fn manifest(&self, job: &str, run: &str) -> Manifest {
        let key = self.layout(job, run).manifest();
        let object = Bucket::of(&self.calendar.fleet).get(&key).await;
        serde_json::from_slice(&object.expect("a manifest").body).expect("it parses")
    }

    /// The rows of the parts that the manifest names, as another program reads CSV.
    async fn rows(&self, run: &str) -> Rows {
        let bucket = Bucket::of(&self.calendar.fleet);
        let mut rows = Rows::new();
        for part in self.manifest("events", run).await.parts {
            assert!(part.key.ends_with(".csv"), "{}", part.key);
            let body = bucket.get(&part.key).await.expect("a part").body;
            let mut reader = csv::Reader::from_reader(body.as_slice());
            let header: Vec<String> = reader
                .headers()
                .expect("a header")
                .iter()
                .map(str::to_owned)
                .collect();
            assert_eq!(header, HEADER);
            for found in reader.records() {
                let row: Vec<String> = found.expect("a row").iter().map(str::to_owned).collect();
                let before = rows.insert(row[2].clone(), row);
                assert_eq!(before, None, "an event is there twice");
            }
        }
        rows
    }

    /// A night gives the truth in every place: parts, documents and sets.
    async fn gives(&self, run: &str, truth: &Rows, gone: u64) {
        let rows = self.rows(run).await;
        for (id, row) in truth {
            assert_eq!(rows.get(id), Some(row));
        }
        assert_eq!(rows.len(), truth.len());
        let manifest = self.manifest("events", run).await;
        let counts = (
            manifest.cells,
            manifest.failed,
            manifest.gone,
            manifest.documents,
        );
        assert_eq!(counts, (20, 0, gone, truth.len() as u64));
        let documents = self.documents("events").await;
        let updates: BTreeMap<String, String> = truth
            .iter()
            .map(|(id, row)| (id.clone(), row[9].clone()))
            .collect();
        let found: BTreeMap<String, String> = documents
            .iter()
            .map(|(id, source)| (id.clone(), source["update_type"].to_string()))
            .collect();
        assert_eq!(found, updates);
        for country in COUNTRIES {
            let members: BTreeMap<String, f64> = truth
                .values()
                .filter(|row| row[0] == country)
                .map(|row| (row[2].clone(), row[5].parse().expect("a rank")))
                .collect();
            assert_eq!(self.members(&format!("events:{country}")).await, members);
        }
    }

    /// Documents behind a job's alias or in its index, by id.
    async fn documents(&self, job: &str) -> BTreeMap<String, Value> {
        let fleet = &self.calendar.fleet;
        let url = fleet
            .value("ELASTICSEARCH_URL")
            .trim_end_matches('/')
            .to_owned();
        let url = format!("{url}/{}-{job}", fleet.name);
        let client = reqwest::Client::new();
        let refreshed = client.post(format!("{url}/_refresh")).send().await;
        refreshed.expect("refreshed");
        let found = client.get(format!("{url}/_search?size=10000")).send().await;
        let text = found.expect("an answer").text().await.expect("a body");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let hits = found["hits"]["hits"].as_array().expect("hits");
        let id = |hit: &Value| hit["_id"].as_str().expect("an id").to_owned();
        hits.iter()
            .map(|hit| (id(hit), hit["_source"].clone()))
            .collect()
    }

    async fn members(&self, set: &str) -> BTreeMap<String, f64> {
        let mut redis = self.calendar.fleet.redis().await;
        let members: Vec<(String, f64)> = redis.zrange_withscores(set, 0, -1).await.expect("a set");
        members.into_iter().collect()
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.catalogue.world());
    }

    fn events(&self) -> Vec<Event> {
        self.catalogue.world().events.clone()
    }

    /// Calls so far whose path begins so.
    fn calls(&self, path: &str) -> usize {
        let seen = self.catalogue.server().seen();
        seen.iter()
            .filter(|seen| seen.call.starts_with(path))
            .count()
    }
}

/// What happens before the second night.
fn second_night(world: &mut World) {
    let ended = ["JP-concerts-001", "US-expos-001"];
    world
        .events
        .retain(|event| !ended.contains(&event.id.as_str()));
    for event in &mut world.events {
        // Who looks at `updated` alone takes all of them for changed.
        event.updated = instant("2026-11-30T00:00:00Z");
        match event.id.as_str() {
            "KR-festivals-001" => event.title.push('!'),
            "KR-festivals-000" => event.start += jiff::SignedDuration::from_hours(24),
            "FR-concerts-000" => event.lon += 0.25,
            "FR-concerts-001" => (event.lat, event.rank) = (48.5, 99),
            _ => {}
        }
    }
    world.events.push(event(("TH", "sports"), 5));
}

/// The `update_type`s of the second night that are not 0.
const CHANGED: [(&str, &str); 5] = [
    ("FR-concerts-000", "2"),
    ("FR-concerts-001", "2"),
    ("KR-festivals-000", "1"),
    ("KR-festivals-001", "1"),
    ("TH-sports-005", "3"),
];

fn changed(truth: &Rows) -> Vec<(&str, &str)> {
    let changed = truth.values().filter(|row| row[9] != "0");
    changed
        .map(|row| (row[2].as_str(), row[9].as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_compared_with_the_last_good_night() {
    let nights = Nights::new("events", first_night());
    let _workers = [nights.calendar.load(), nights.calendar.collect()];
    nights.run("events", "n1", 0);
    let first = nights.events();
    nights.gives("n1", &truth(&[], &first), 0).await;
    // Twenty cells, one of which has a second page; one is bisected.
    assert!(nights.calls("/v1/events/") > 22, "nothing was bisected");

    // A night without one cell is not good, and no base.
    nights.change(second_night);
    nights.change(|world| world.refused.push("FR/concerts".into()));
    nights.run("events", "n2", 4);
    nights.change(|world| world.refused.clear());
    nights.run("events", "n3", 0);
    let third = truth(&first, &nights.events());
    assert_eq!(changed(&third), CHANGED);
    nights.gives("n3", &third, 2).await;
    nights.was_refused("FR");
}

/// A few events of each cell but the last.
fn few() -> Vec<Event> {
    let few = first_night().into_iter();
    few.filter(|event| event.id.ends_with("-000") || event.id.ends_with("-001"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_behind_events_call_for_what_changed_alone() {
    let nights = Nights::new("events-chain", few());
    // The limit is a matter of the other test.
    let spec = &nights.calendar.fleet.spec;
    spec.replace(
        "providers/world-events.yaml",
        "300/min, burst: 5",
        "6000/min, burst: 50",
    )
    .expect("replaced");
    nights.catalogue.allow(100.0, 50.0);
    spec.replace(
        "jobs/events.yaml",
        "schedule: {cron: \"0 4 * * *\", timezone: Asia/Seoul, overlap: skip}\n",
        "",
    )
    .expect("replaced");
    let _workers = [nights.calendar.load(), nights.calendar.collect()];
    let (_serve, _) = crate::serve::serve(&nights.calendar.fleet);
    nights.run("events", "n1", 0);
    let first = nights.events();
    nights.until_completed("nearby", "n1-nearby").await;
    nights
        .has_what_is_near("n1-nearby", &first, first.len() as u64)
        .await;
    let before = nights.calls("/v1/places");
    assert_eq!(before, first.len() * 2);
    nights
        .until_completed("event-fares", "n1-event-fares")
        .await;
    nights.has_fares_to("n1-event-fares", &first).await;

    nights.change(second_night);
    nights.run("events", "n2", 0);
    let second = nights.events();
    let rows = truth(&first, &second);
    assert_eq!(changed(&rows), CHANGED);
    nights.gives("n2", &rows, 2).await;
    let ids: BTreeSet<&str> = CHANGED.iter().map(|(id, _)| *id).collect();
    let changed: Vec<Event> = second
        .iter()
        .filter(|e| ids.contains(e.id.as_str()))
        .cloned()
        .collect();
    nights.until_completed("nearby", "n2-nearby").await;
    nights
        .has_what_is_near("n2-nearby", &changed, second.len() as u64)
        .await;
    assert_eq!(nights.calls("/v1/places") - before, CHANGED.len() * 2);
    nights
        .until_completed("event-fares", "n2-event-fares")
        .await;
    nights.has_fares_to("n2-event-fares", &changed).await;
    nights.was_refused("nothing");
}

impl Nights {
    /// The run made two calls for each of `events`, and gives exactly what is near them.
    async fn has_what_is_near(&self, run: &str, events: &[Event], all: u64) {
        let manifest = self.manifest("nearby", run).await;
        let cells = events.len() as u64 * 2;
        assert_eq!((manifest.cells, manifest.failed), (cells, 0));
        assert_eq!(manifest.calls_saved, Some(all * 2 - cells));
        let layout = self.layout("nearby", run);
        let collected = Collected::read(&self.calendar.bucket(), &layout)
            .await
            .expect("parts");
        let found: Vec<String> = collected
            .rows()
            .map(|(row, _)| Value::Object(row.clone()).to_string())
            .collect();
        let mut wanted = BTreeSet::new();
        for event in events {
            for kind in ["hotel", "restaurant"] {
                for place in places(&format!("{:?},{:?}", event.lat, event.lon), kind) {
                    let row = serde_json::json!({
                        "id": event.id, "lat": event.lat, "lon": event.lon, "kind": kind, "place_id": place.id,
                        "name": place.name, "distance_m": place.distance, "rating": place.rating,
                    });
                    wanted.insert(row.to_string());
                }
            }
        }
        assert_eq!(found.len(), wanted.len());
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    }

    async fn has_fares_to(&self, run: &str, events: &[Event]) {
        let towns = self.towns(events);
        let towns: Vec<(&str, &str)> = towns
            .iter()
            .map(|(to, on)| (to.as_str(), on.as_str()))
            .collect();
        assert!(towns.len() > 2, "{towns:?}");
        crate::chain::has(&self.calendar, run, &towns).await;
    }

    async fn until_completed(&self, job: &str, run: &str) {
        let until = Instant::now() + PATIENCE;
        let state = || {
            let runs = crate::serve::runs(&self.calendar.fleet, job).into_iter();
            let mut states = runs
                .filter(|line| line["run"] == run)
                .map(|line| line["state"].clone());
            states.next()
        };
        while state() != Some("completed".into()) {
            assert!(Instant::now() < until, "{run}: {:?}", state());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Where to fly and when: the airport nearest to each event, the day before it starts.
    fn towns(&self, events: &[Event]) -> BTreeSet<(String, String)> {
        let path = self.calendar.fleet.spec.path().join("jobs/airports.csv");
        let mut reader = csv::Reader::from_path(path).expect("airports");
        let airports: Vec<(String, f64, f64)> = reader
            .deserialize()
            .map(|row| {
                let row: BTreeMap<String, String> = row.expect("a row");
                let number = |name: &str| row[name].parse().expect("a number");
                (row["iata"].clone(), number("lat"), number("lon"))
            })
            .collect();
        let town = |event: &Event| {
            let far =
                |(_, lat, lon): &&(String, f64, f64)| metres((*lat, *lon), (event.lat, event.lon));
            let nearest = airports.iter().min_by(|a, b| far(a).total_cmp(&far(b)));
            (
                nearest.expect("an airport").0.clone(),
                event.first_day() - 1.day(),
            )
        };
        let towns = events.iter().map(town);
        let abroad = towns.filter(|(to, _)| to != "ICN");
        abroad.map(|(to, on)| (to, on.to_string())).collect()
    }

    /// The catalogue refused no call but those of a country.
    fn was_refused(&self, country: &str) {
        let seen = self.catalogue.server().seen();
        let refused = seen.iter().filter(|seen| seen.status != 200);
        for seen in refused {
            let is_told = seen.status == 400 && seen.call.contains(&format!("country={country}"));
            assert!(is_told, "{seen:?}");
        }
    }
}

/// By the spherical law of cosines.
fn metres(a: (f64, f64), b: (f64, f64)) -> f64 {
    let (from, to) = (a.0.to_radians(), b.0.to_radians());
    let between = from.sin() * to.sin() + from.cos() * to.cos() * (b.1 - a.1).to_radians().cos();
    between.clamp(-1.0, 1.0).acos() * 6_371_000.0
}
