//! Plans of small jobs, and properties of every plan.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use paceline_protocol::spec::{Auth, LoadedJob, Span, SpecFolder};
use proptest::prelude::*;

use super::estimate::{Estimate, estimate, estimate_with};
use super::past::Expected;
use super::*;

fn examples() -> SpecFolder {
    SpecFolder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec"))
        .expect("the example files")
}

fn env() -> BTreeMap<String, String> {
    BTreeMap::from([
        (
            "FARE_SEARCH_URL".to_owned(),
            "http://127.0.0.1:1".to_owned(),
        ),
        ("FARE_SEARCH_KEYS".to_owned(), "one,two".to_owned()),
    ])
}

fn fares(change: impl FnOnce(&mut PlanRequest)) -> Result<Plan, PlanError> {
    let mut request = PlanRequest::example();
    change(&mut request);
    plan_run(&examples().job("fares").expect("loads"), &request, &env())
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A job on two providers `a` and `b@static`, loaded from files of its own.
fn load(split: &str, provider: &str, cells: u32) -> LoadedJob {
    load_with("limits: [{name: s, rate: 10/s}]\n", split, provider, cells)
}

fn load_with(limits: &str, split: &str, provider: &str, cells: u32) -> LoadedJob {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(dir.path().join("jobs")).expect("writable");
    std::fs::create_dir_all(dir.path().join("providers")).expect("writable");
    let job = format!(
        "job: j\nprovider: \"{provider}\"\nendpoint: e\nparams: {{home: ICN}}\nsplit:\n{split}shard: {{cells: {cells}, checkpoint: 1}}\noutputs: {{s3: {{}}}}\n"
    );
    std::fs::write(dir.path().join("jobs/j.yaml"), job).expect("writable");
    std::fs::write(
        dir.path().join("jobs/rows.csv"),
        "market,seller\na,1\nb,2\na,3\n",
    )
    .expect("writable");
    for (name, egress) in [("a", ""), ("b", "egress: static\n")] {
        let text = format!(
            "provider: {name}\nbase_url: http://localhost\n{egress}{limits}endpoints: {{e: {{get: /e, records: $.r, fields: {{id: $.id}}}}}}\n"
        );
        std::fs::write(dir.path().join(format!("providers/{name}.yaml")), text).expect("writable");
    }
    let loaded = SpecFolder::open(dir.path())
        .expect("readable")
        .job("j")
        .unwrap_or_else(|e| panic!("{e:?}"));
    // The lists are read when the run is planned, so the folder stays until the test's process ends.
    std::mem::forget(dir);
    loaded
}

#[test]
fn the_fare_calendar_is_planned() {
    let plan = fares(|_| {}).expect("plans");
    assert_eq!((plan.cells(), plan.shards()), (14_000, 100));
    assert_eq!(
        plan.date.to_string(),
        "2026-11-21",
        "three at night in Seoul"
    );
    assert_eq!(plan.matrix.cell(0)[1], Value::from("2026-11-22"));
    assert_eq!(
        plan.providers["fare-search"].base_url.as_deref(),
        Some("http://127.0.0.1:1")
    );
    assert_eq!(
        plan.job.notify[0].webhook, "${RUN_WEBHOOK_URL}",
        "not expanded when planned"
    );
    let text = serde_json::to_string(&plan).expect("serialises");
    assert_eq!(
        serde_json::from_str::<Plan>(&text).expect("reads back"),
        plan
    );
}

#[test]
fn the_estimate_tells_time_and_quota() {
    let told = estimate(&fares(|_| {}).expect("plans"), &env());
    assert_eq!((told.calls, told.seconds), (14_000, Some(280.0)));
    assert_eq!(told.binds.as_deref(), Some("fare-search/second"));
    assert_eq!((told.quotas[0].pool, told.quotas[0].share), (Some(2), 0.28));
    let text = told.to_text();
    assert!(
        text.contains("4 min 40 s") && text.contains("28.0 % of 25,000 x 2 keys"),
        "{text}"
    );
    assert!(
        text.contains("destination=NRT depart=2026-11-22 nights=1"),
        "{text}"
    );
}

#[test]
fn a_cost_is_estimated_by_what_calls_really_cost() {
    let points = "limits: [{name: points, cost: '60', rate: 100/s, burst: 100, actual: $.cost}]\n";
    let job = load_with(points, "  n: {range: [1, 1000]}\n", "a", 10);
    let plan = plan_run(&job, &PlanRequest::example(), &env()).expect("plans");
    let seconds = |told: &Estimate| told.seconds.map(f64::round);
    assert_eq!(seconds(&estimate(&plan, &env())), Some(599.0));
    let told = Expected {
        calls_per_cell: 1.0,
        by_endpoint: [("e".to_owned(), 1.0)].into(),
        points_per_call: [("a/points".to_owned(), 20.0)].into(),
        call_s: None,
        run: "last".into(),
    };
    let told = estimate_with(&plan, &env(), Some(told));
    assert_eq!(seconds(&told), Some(199.0));
}

#[test]
fn params_are_typed_and_known() {
    let plan = fares(|r| r.params = vec![pair("origin", "007")]).expect("plans");
    assert_eq!(plan.job.params["origin"], Value::from("007"));
    let mut loaded = load("  trip: {range: [1, 2]}\n", "a", 10);
    loaded.job.params.insert("home".into(), Value::from(1));
    let mut asked = PlanRequest::example();
    asked.params = vec![pair("home", "12")];
    let plan = plan_run(&loaded, &asked, &env()).expect("plans");
    assert_eq!(plan.job.params["home"], Value::from(12));
    let typed = |known: Value, text: &str| {
        let mut loaded = load("  trip: {range: [1, 2]}\n", "a", 10);
        loaded.job.params.insert("home".into(), known);
        let mut asked = PlanRequest::example();
        asked.params = vec![pair("home", text)];
        let plan = plan_run(&loaded, &asked, &env());
        plan.map(|plan| plan.job.params["home"].clone())
    };
    let list = Value::from(vec![2, 3]);
    for text in ["[2, 3]", "2,3"] {
        assert_eq!(typed(Value::from(vec![1]), text).expect("a list"), list);
    }
    for (known, text) in [(Value::from(1), "abc"), (Value::from(true), "3")] {
        let error = typed(known, text).expect_err("another kind");
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    let error = fares(|r| r.params = vec![pair("orign", "GMP")]).expect_err("unknown");
    assert!(
        error.to_string().contains("did you mean `origin`?"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn only_narrows_and_names_what_is_right() {
    let only = vec![
        pair("destination", "NRT"),
        pair("nights", "3"),
        pair("destination", "CDG"),
    ];
    let plan = fares(|r| r.only = only).expect("plans");
    assert_eq!(plan.cells(), 200);
    assert_eq!(plan.only["destination"], ["CDG", "NRT"]);
    for (name, value, near) in [
        ("destinatoin", "NRT", "`destination`"),
        ("destination", "NRR", "`NRT`"),
        ("nights", "15", "1, 2, 3"),
    ] {
        let error = fares(|r| r.only = vec![pair(name, value)]).expect_err("not there");
        assert!(error.to_string().contains(near), "{error}");
    }
}

#[test]
fn a_missing_environment_is_named() {
    let error = plan_run(
        &examples().job("fares").expect("loads"),
        &PlanRequest::example(),
        &BTreeMap::new(),
    )
    .expect_err("no URL");
    assert!(error.to_string().contains("FARE_SEARCH_URL"), "{error}");
}

#[test]
fn what_is_not_built_is_refused() {
    let mut loaded = load("  trip: {range: [1, 6]}\n", "a", 10);
    let provider = loaded.providers.get_mut("a").expect("it is there");
    provider.auth.push(Auth::Oauth2 {
        grant: "client_credentials".into(),
        token: "/token".into(),
        basic: None,
        form: indexmap::IndexMap::new(),
        refresh_before: Span::secs(60),
        header: Auth::authorization(),
        value: Auth::bearer(),
    });
    let error = plan_run(&loaded, &PlanRequest::example(), &env()).expect_err("not yet");
    assert!(error.to_string().contains("token request"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn columns_are_added_filtered_and_made_distinct() {
    let split = "  trip:\n    range: [1, 6]\n    add: {half: \"{{ (trip / 2) | int }}\", to: \"{{ params.home }}-{{ today }}\"}\n    where: \"half != '0'\"\n    distinct: [half, to]\n";
    let plan = plan_run(&load(split, "a", 10), &PlanRequest::example(), &env()).expect("plans");
    let halves: Vec<Value> = (0..plan.cells())
        .map(|c| plan.matrix.cell(c)[0].clone())
        .collect();
    assert_eq!(halves, ["1", "2", "3"].map(Value::from));
    assert_eq!(plan.matrix.cell(0)[1], Value::from("ICN-2026-11-20"));
}

#[test]
fn a_day_of_each_week_begins_a_window() {
    let split = "  week:\n    dates: {from: today-14, days: 15, every: 7}\n    add: {to: \"{{ week | plus_days(7) }}\"}\n";
    let plan = plan_run(&load(split, "a", 10), &PlanRequest::example(), &env()).expect("plans");
    let cells = (0..plan.cells()).map(|cell| plan.matrix.cell(cell));
    let cells: Vec<String> = cells
        .map(|c| {
            format!(
                "{} {}",
                c[0].as_str().unwrap_or_default(),
                c[1].as_str().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(
        cells,
        [
            "2026-11-06 2026-11-13",
            "2026-11-13 2026-11-20",
            "2026-11-20 2026-11-27"
        ]
    );
}

#[test]
fn the_environments_values_are_no_templates() {
    let split = "  trip:\n    range: [1, 2]\n    add: {to: \"${FARE_SEARCH_KEYS}-{{ trip }}\"}\n    where: \"to != '${FARE_SEARCH_KEYS}-2'\"\n";
    let mut loaded = load(split, "a", 10);
    loaded.job.outputs.s3.key = Some("${FARE_SEARCH_KEYS}/{{ trip }}".into());
    let env = |value: &str| BTreeMap::from([("FARE_SEARCH_KEYS".to_owned(), value.to_owned())]);
    let plan = plan_run(&loaded, &PlanRequest::example(), &env("{{ 7 }}'")).expect("plans");
    assert_eq!(plan.cells(), 1);
    assert_eq!(plan.matrix.cell(0)[1], Value::from("{{ 7 }}'-1"));
    let key = plan.job.outputs.s3.key.as_deref();
    assert_eq!(key, Some("{{ \"{{ 7 }}'\" }}/{{ trip }}"));
    let plan = plan_run(&loaded, &PlanRequest::example(), &env("sales")).expect("plans");
    assert_eq!(plan.job.outputs.s3.key.as_deref(), Some("sales/{{ trip }}"));
}

#[test]
fn lanes_follow_the_rendered_provider() {
    let plan = plan_run(
        &load(
            "  account: {rows: {file: rows.csv}}\n  n: {range: [1, 5]}\n",
            "{{ market }}",
            4,
        ),
        &PlanRequest::example(),
        &env(),
    )
    .expect("plans");
    let lanes: Vec<(&str, u64, u64)> = plan
        .segments
        .iter()
        .map(|s| (s.lane.as_str(), s.first_cell, s.cells))
        .collect();
    assert_eq!(lanes, [("a", 0, 5), ("b@static", 5, 5), ("a", 10, 5)]);
    assert_eq!(plan.shards(), 6);
}

#[test]
fn ten_million_cells_stay_short() {
    let split =
        "  a: {range: [1, 1000]}\n  b: {dates: {from: today, days: 100}}\n  c: {range: [1, 100]}\n";
    let plan = plan_run(&load(split, "a", 100), &PlanRequest::example(), &env()).expect("plans");
    assert_eq!((plan.cells(), plan.segments.len()), (10_000_000, 1));
    let bytes = serde_json::to_string(&plan).expect("serialises").len();
    assert!(bytes < 5_000, "{bytes} bytes");
}

/// A job over one to three dimensions, the provider picked by one of them.
fn jobs() -> impl Strategy<Value = (Vec<u64>, Option<usize>, u32)> {
    (
        proptest::collection::vec(1u64..6, 1..4),
        proptest::option::of(0usize..3),
        1u32..9,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_cell_is_in_one_shard_and_no_shard_spans_lanes((radices, picked, size) in jobs()) {
        let mut split = String::new();
        for (i, n) in radices.iter().enumerate() {
            writeln!(split, "  d{i}: {{range: [0, {}]}}", n - 1).expect("into a string");
        }
        let picked = picked.filter(|d| *d < radices.len());
        let provider = picked.map_or("a".to_owned(), |d| format!("{{{{ 'ab'[d{d} % 2] }}}}"));
        let plan = plan_run(&load(&split, &provider, size), &PlanRequest::example(), &env()).expect("plans");
        let mut next = 0;
        for shard in plan.all_shards() {
            prop_assert_eq!(shard.first_cell, next);
            prop_assert!(shard.cells >= 1 && shard.cells <= size);
            next += u64::from(shard.cells);
            for cell in shard.first_cell..next {
                let digit = picked.map_or(0, |d| plan.matrix.cell(cell)[d].as_u64().expect("a range"));
                prop_assert_eq!(shard.provider, if digit % 2 == 0 { "a" } else { "b" });
            }
        }
        prop_assert_eq!(next, radices.iter().product::<u64>());
        prop_assert_eq!(plan.cells(), next);
    }
}

#[test]
fn a_name_that_the_environment_lacks_is_said_once() {
    let missing = MissingNames(vec!["FARE_SEARCH_URL".into()]);
    let error = anyhow::Error::from(PlanError::from(missing));
    assert_eq!(format!("{error:#}").matches("FARE_SEARCH_URL").count(), 1);
}
