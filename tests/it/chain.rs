//! Jobs on other jobs' records: `event-fares` unchanged, over runs of `events` that were written by hand.

use std::collections::{BTreeMap, BTreeSet};

use harness::checker::{Collected, Outputs};
use harness::{Bucket, Calendar, Checker, Parent, Shape};
use paceline_loadtest::simulator::Expected;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::Manifest;
use paceline_protocol::plan::Plan;
use serde_json::{Value, json};

const JOB: &str = "event-fares";
const NIGHTS: [i64; 3] = [2, 3, 4];
/// Destination, day out, day back.
type Trip = (String, String, String);

fn event(id: &str, place: (f64, f64), starts_at: &str, update_type: i64) -> Value {
    json!({
        "country": "KR", "category": "festivals", "id": id, "title": id, "starts_at": starts_at,
        "rank": 1, "lon": place.1, "lat": place.0, "updated_at": "2026-11-20T00:00:00Z",
        "update_type": update_type,
    })
}

const BUSAN: (f64, f64) = (35.18, 129.08);
const KYOTO: (f64, f64) = (35.01, 135.77);
const KOBE: (f64, f64) = (34.69, 135.19);
const SEOUL: (f64, f64) = (37.46, 126.44);
const NICE: (f64, f64) = (43.7, 7.26);

fn calendar(test: &str) -> Calendar {
    let calendar = Calendar::new(test, Shape::default()).expect("a calendar");
    let name = format!("{}-event-fares", calendar.fleet.name);
    let spec = &calendar.fleet.spec;
    spec.replace(
        "jobs/event-fares.yaml",
        "name: event-fares",
        &format!("name: {name}"),
    )
    .expect("replaced");
    calendar
}

fn layout(calendar: &Calendar, run: &str) -> RunLayout {
    calendar.fleet.layout(JOB, run)
}

async fn object<T: serde::de::DeserializeOwned>(calendar: &Calendar, key: &str) -> T {
    let object = Bucket::of(&calendar.fleet).get(key).await.expect(key);
    serde_json::from_slice(&object.body).expect(key)
}

fn enqueue(calendar: &Calendar, run: &str) {
    let arguments = [
        "enqueue",
        JOB,
        "--run-id",
        run,
        "--date",
        "2026-12-01",
        "--wait",
    ];
    let ended = calendar.producer(&arguments).expect("it ends");
    ended.expect_code(0);
}

/// The run has the cells of `towns` (destination and day out), each with what the provider has for it.
pub async fn has(calendar: &Calendar, run: &str, towns: &[(&str, &str)]) {
    let outputs = Outputs {
        index: None,
        ranking: None,
    };
    let checker = Checker::new(&calendar.fleet, JOB, run, outputs).expect("a run id");
    checker.check().await.expect("checked").assert_kept();
    let plan: Plan = object(calendar, &layout(calendar, run).plan()).await;
    let cells: BTreeSet<String> = (0..plan.cells())
        .map(|cell| Value::from(plan.matrix.cell(cell)).to_string())
        .collect();
    let wanted = towns.iter().flat_map(|(destination, depart)| {
        NIGHTS.map(|nights| json!([destination, depart, nights]).to_string())
    });
    assert_eq!(cells, wanted.collect());
    same_as_the_truth(calendar, run, towns).await;
}

async fn same_as_the_truth(calendar: &Calendar, run: &str, towns: &[(&str, &str)]) {
    let collected = Collected::read(&calendar.bucket(), &layout(calendar, run))
        .await
        .expect("parts");
    let mut found: BTreeMap<Trip, Vec<(String, String)>> = BTreeMap::new();
    for (row, _) in collected.rows() {
        let text = |name: &str| row[name].as_str().expect(name).to_owned();
        let trip = trip(
            &text("destination"),
            &text("depart"),
            row["nights"].as_i64(),
        );
        let price = row["price"].to_string();
        found
            .entry(trip)
            .or_default()
            .push((text("carrier"), price));
    }
    for (destination, depart) in towns {
        for nights in NIGHTS {
            let trip = trip(destination, depart, Some(nights));
            let truth = match calendar.provider.truth("ICN", &trip.0, &trip.1, &trip.2) {
                Expected::Records(offers) => offers
                    .iter()
                    .map(|offer| (offer.carrier.to_owned(), offer.price.clone()))
                    .collect(),
                _ => Vec::new(),
            };
            assert_eq!(found.remove(&trip).unwrap_or_default(), truth, "{trip:?}");
        }
    }
    assert_eq!(found, BTreeMap::new(), "records of no cell");
}

fn trip(destination: &str, depart: &str, nights: Option<i64>) -> Trip {
    let day: jiff::civil::Date = depart.parse().expect("a day");
    let nights = jiff::Span::new().days(nights.expect("nights"));
    let back = day.checked_add(nights).expect("a day").to_string();
    (destination.into(), depart.into(), back)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changed_events_cost_calls_and_a_failed_child_loses_none() {
    let calendar = calendar("chain");
    let _workers = [calendar.load(), calendar.collect()];
    let events = Parent {
        fleet: &calendar.fleet,
        job: "events",
    };
    let nobody = calendar.producer(&["plan", JOB]).expect("it ends");
    let nobody = nobody.expect_code(1);
    assert!(nobody.stderr.contains("no good run"), "{}", nobody.stderr);

    let first = vec![
        vec![
            event("busan", BUSAN, "2026-12-20T01:00:00Z", 3),
            event("kyoto", KYOTO, "2026-12-24T10:00:00Z", 3),
            event("same", NICE, "2026-12-26T10:00:00Z", 0),
        ],
        vec![event("gone", NICE, "2027-01-05T10:00:00Z", 1)],
    ];
    events
        .good_run("e1", "2026-11-20T00:00:00Z", &first)
        .await
        .expect("written");
    let second = vec![vec![
        event("busan", BUSAN, "2026-12-20T01:00:00Z", 0),
        // Moved, and near the airport of another one on the same day.
        event("kyoto", KOBE, "2026-12-24T23:00:00Z", 2),
        event("osaka", KOBE, "2026-12-24T02:00:00Z", 1),
        event("home", SEOUL, "2026-12-24T02:00:00Z", 3),
        event("past", BUSAN, "2026-12-01T02:00:00Z", 3),
        event("same", NICE, "2026-12-26T10:00:00Z", 0),
    ]];
    events
        .good_run("e2", "2026-11-21T00:00:00Z", &second)
        .await
        .expect("written");
    // Neither a failed run nor a narrowed one is read.
    let failed = [vec![event("bad", BUSAN, "2026-12-29T10:00:00Z", 3)]];
    events
        .run("e3", "2026-11-22T00:00:00Z", &failed)
        .await
        .expect("written");

    enqueue(&calendar, "c1");
    let towns = [
        ("PUS", "2026-12-19"),
        ("KIX", "2026-12-23"),
        ("NCE", "2027-01-04"),
    ];
    has(&calendar, "c1", &towns).await;
    let plan: Plan = object(&calendar, &layout(&calendar, "c1").plan()).await;
    let read: Vec<&str> = plan.inputs.runs.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(read, ["e2", "e1"]);
    assert_eq!(
        plan.inputs.parent.as_ref().map(|p| p.id.as_str()),
        Some("e2")
    );
    let manifest: Manifest = object(&calendar, &layout(&calendar, "c1").manifest()).await;
    assert_eq!(
        manifest.calls_saved,
        Some(7 * 3 - 9),
        "seven events are known"
    );

    let third = [vec![
        event("kyoto", KOBE, "2026-12-24T23:00:00Z", 0),
        event("paris", (48.85, 2.35), "2026-12-31T20:00:00Z", 1),
    ]];
    events
        .good_run("e4", "2026-11-23T00:00:00Z", &third)
        .await
        .expect("written");
    // The first run goes on with what its plan named, whatever there is by now.
    enqueue(&calendar, "c1");
    enqueue(&calendar, "c2");
    has(&calendar, "c2", &[("CDG", "2026-12-30")]).await;

    // A parent that was read is retried: what that brought is read with the next one, and nothing else of it again.
    let added = [event("lyon", NICE, "2027-01-10T10:00:00Z", 1)];
    events.retried("e4", 1, &added).await.expect("written");
    let fourth = [vec![event("busan", BUSAN, "2026-12-20T01:00:00Z", 0)]];
    events
        .good_run("e5", "2026-11-24T00:00:00Z", &fourth)
        .await
        .expect("written");
    enqueue(&calendar, "c3");
    has(&calendar, "c3", &[("NCE", "2027-01-09")]).await;
    let report = calendar.provider.report();
    assert_eq!((report.calls, report.repeated, report.refused), (15, 0, 0));
    let empty = [
        "enqueue",
        JOB,
        "--run-id",
        "c4",
        "--date",
        "2026-12-01",
        "--wait",
    ];
    let empty = calendar.producer(&empty).expect("it ends");
    empty.expect_code(0);
    has(&calendar, "c4", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_without_changes_makes_a_run_without_cells() {
    let calendar = calendar("chain-empty");
    let _loader = calendar.load();
    let events = Parent {
        fleet: &calendar.fleet,
        job: "events",
    };
    let same = [vec![event("same", NICE, "2026-12-26T10:00:00Z", 0)]];
    events
        .good_run("e1", "2026-11-20T00:00:00Z", &same)
        .await
        .expect("written");
    enqueue(&calendar, "c1");
    let manifest: Manifest = object(&calendar, &layout(&calendar, "c1").manifest()).await;
    assert_eq!((manifest.cells, manifest.calls_saved), (0, Some(3)));
    assert_eq!(calendar.provider.report().calls, 0);
}
