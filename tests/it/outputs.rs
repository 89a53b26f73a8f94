//! What a run leaves beside its index: parts in every format, the objects that a job names, sets whose scores
//! are normalised.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::checker::Row;
use harness::{Calendar, Shape};
use paceline_stack::Process;
use redis::AsyncCommands;

const RUN: &str = "night";
const JOB: &str = "jobs/fares.yaml";
const S3: &str = "  s3: {format: ndjson, compress: zstd}";

/// Long enough to be caught in the middle.
fn slow() -> Shape {
    Shape {
        rate: 40,
        ..Shape::default()
    }
}

fn with_output(test: &str, shape: Shape, output: &str) -> Calendar {
    let calendar = Calendar::new(test, shape).expect("a calendar");
    let spec = &calendar.fleet.spec;
    spec.replace(JOB, S3, output).expect("replaced");
    calendar
}

/// A collector dies in the middle and another one goes on.
async fn survives_a_kill(calendar: &Calendar, suffix: &str) {
    let _loader = calendar.load().expect("started");
    let mut first = calendar.collect().expect("started");
    calendar.enqueue(RUN).expect("it ends").expect_code(0);
    calendar.until_answered(20).await.expect("it works");
    first.kill().expect("killed");
    let _second = calendar.collect().expect("started");
    calendar.watch(RUN).expect("it ends").expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    let compared = calendar.compare_with_the_truth(RUN).await;
    assert_eq!(compared.expect("the truth"), calendar.cells());
    let manifest = calendar.manifest(RUN).await.expect("a manifest");
    let named = |key: &String| key.ends_with(suffix);
    assert!(manifest.parts.iter().map(|part| &part.key).all(named));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_as_csv_keep_the_promise_over_a_kill() {
    let output = "  s3: {format: csv, compress: gzip}";
    let calendar = with_output("csv", slow(), output);
    survives_a_kill(&calendar, ".csv.gz").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_as_parquet_keep_the_promise_over_a_kill() {
    let calendar = with_output("parquet", slow(), "  s3: {format: parquet}");
    survives_a_kill(&calendar, ".parquet").await;
    others_read_the_same(&calendar).await;
}

/// pyarrow and DuckDB read what we read, when this machine has them.
async fn others_read_the_same(calendar: &Calendar) {
    let folder = tempfile::tempdir().expect("a folder");
    let layout = calendar.layout(RUN);
    let bucket = calendar.bucket();
    for key in bucket.keys(&layout.data()).await.expect("a list") {
        let body = bucket.get_as_it_is(&key).await.expect("a part").body;
        let name = key.replace('/', "_");
        std::fs::write(folder.path().join(name), body).expect("written");
    }
    let Some(read) = by_others(folder.path()) else {
        return;
    };
    let collected = calendar.collected(RUN).await.expect("the parts");
    let field = |row: &Row, name: &str| match &row[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let names = ["destination", "depart", "nights", "carrier", "price"];
    let mut ours: Vec<String> = collected
        .rows()
        .map(|(row, _)| names.map(|name| field(row, name)).join("|"))
        .collect();
    ours.sort();
    let mut theirs: Vec<&str> = read.lines().collect();
    theirs.sort();
    assert_eq!(theirs, ours);
}

/// A loader that is stopped in the middle of a finish wakes up when a newer run is live.
#[tokio::test(flavor = "multi_thread")]
async fn a_loader_that_wakes_up_puts_nothing_over_what_a_newer_run_published() {
    let output = r#"  s3: {format: ndjson, key: "woken/{{ destination }}-{{ depart }}-{{ nights }}.ndjson"}"#;
    let calendar = with_output("woken", Shape::default(), output);
    let _collector = calendar.collect().expect("started");
    let point = "finish-before-objects";
    let env = [("PACELINE_STOP_AT", point)];
    let sleeper = calendar.fleet.start_with(&env, "worker", &["load"]);
    let mut sleeper = sleeper.expect("started");
    calendar.enqueue("older").expect("it ends").expect_code(0);
    said(&sleeper, &format!("crash point {point}")).await;
    let _loader = calendar.load().expect("started");
    calendar.watch("older").expect("it ends").expect_code(0);
    let spec = &calendar.fleet.spec;
    let (key, chosen) = ("key: \"woken", "columns: [carrier], key: \"woken");
    spec.replace(JOB, key, chosen).expect("replaced");
    calendar
        .enqueue_and_wait("newer")
        .expect("it ends")
        .expect_code(0);
    let before = published(&calendar).await;
    sleeper.resume().expect("signalled");
    said(&sleeper, "the lease of finishing the run was lost").await;
    sleeper.terminate(Duration::from_secs(30)).expect("it ends");
    assert_eq!(published(&calendar).await, before);
    calendar
        .check("newer")
        .await
        .expect("checked")
        .assert_kept();
}

async fn said(process: &Process, words: &str) {
    let heard = async {
        while !process.said().contains(words) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
    heard.unwrap_or_else(|_| panic!("{words:?} in {}", process.last_words(20)));
}

/// What the runs publish in S3: the objects that the job names, what is live, the manifests.
async fn published(calendar: &Calendar) -> BTreeMap<String, Vec<u8>> {
    let bucket = calendar.bucket();
    let manifest = calendar.layout("older").manifest();
    let (job, _) = manifest.split_once("older").expect("a run's folder");
    let mut keys = bucket.keys("woken/").await.expect("a list");
    let of_job = bucket.keys(job).await.expect("a list").into_iter();
    keys.extend(of_job.filter(|key| key.ends_with(".json")));
    let mut found = BTreeMap::new();
    for key in keys {
        let object = bucket.get(&key).await.expect("an object");
        found.insert(key, object.body);
    }
    found
}

fn by_others(folder: &Path) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("parquet/read.sh");
    let ended = Command::new(script).arg(folder).output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    if ended.status.code() == Some(77) {
        eprintln!("skipped: {said}");
        return None;
    }
    assert!(ended.status.success(), "{said}");
    Some(String::from_utf8(ended.stdout).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn named_objects_and_normalised_sets_come_from_the_parts() {
    let output = r#"  s3: {format: csv, columns: [carrier, price], key: "out/{{ params.origin }}/{{ destination }}/{{ depart | date('%Y%m%d') }}-{{ nights }}.csv"}"#;
    let shape = Shape {
        destinations: &["NRT", "BKK"],
        days: 10,
        ..Shape::default()
    };
    let calendar = with_output("named", shape, output);
    let _workers = [calendar.load(), calendar.collect()].map(|w| w.expect("started"));
    calendar
        .enqueue_and_wait(RUN)
        .expect("it ends")
        .expect_code(0);
    calendar.check(RUN).await.expect("checked").assert_kept();
    check_objects(&calendar).await;

    merge_by_carrier(&calendar);
    calendar
        .enqueue_and_wait("merged")
        .expect("it ends")
        .expect_code(0);
    check_merged(&calendar).await;

    // Narrowed, a run replaces nothing.
    let narrowed = [
        "enqueue",
        "fares",
        "--run-id",
        "narrow",
        "--only",
        "destination=NRT",
        "--wait",
    ];
    calendar
        .producer(&narrowed)
        .expect("it ends")
        .expect_code(0);
    assert!(
        calendar.bucket().get("out/narrow.csv").await.is_err(),
        "a narrowed run wrote its merged object"
    );
}

/// Every cell has its object, also those without records, and its parts hold every field.
async fn check_objects(calendar: &Calendar) {
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let (bucket, layout) = (calendar.bucket(), calendar.layout(RUN));
    let plan = bucket.get(&layout.plan()).await.expect("a plan");
    let plan: paceline_protocol::plan::Plan = serde_json::from_slice(&plan.body).expect("a plan");
    let key = |text: &dyn Fn(&str) -> String| {
        let day = text("depart").replace('-', "");
        format!(
            "out/ICN/{}/{day}-{}.csv",
            text("destination"),
            text("nights")
        )
    };
    let plain = |value: &serde_json::Value| value.to_string().trim_matches('"').to_owned();
    for cell in 0..plan.cells() {
        let values = plan.matrix.cell(cell);
        let text = |name: &str| {
            let place = plan.matrix.names().position(|n| &**n == name);
            plain(&values[place.expect("a dimension")])
        };
        expected.insert(key(&text), "carrier,price\n".to_owned());
    }
    let collected = calendar.collected(RUN).await.expect("the parts");
    for (row, _) in collected.rows() {
        assert!(row.contains_key("currency"));
        let text = |name: &str| plain(&row[name]);
        let object = expected.get_mut(&key(&text)).expect("a cell");
        object.push_str(&format!("{},{}\n", text("carrier"), row["price"]));
    }
    let mut found = BTreeMap::new();
    for key in bucket.keys("out/").await.expect("a list") {
        let body = bucket.get(&key).await.expect("an object").body;
        found.insert(key, String::from_utf8(body).expect("text"));
    }
    assert_eq!(found, expected);
}

/// The job's first ranking becomes the carriers' shares of each destination's prices.
fn merge_by_carrier(calendar: &Calendar) {
    let spec = &calendar.fleet.spec;
    let replace = |from: &str, to: &str| spec.replace(JOB, from, to).expect("replaced");
    replace(
        r#"columns: [carrier, price], key: "out/{{ params.origin }}/{{ destination }}/{{ depart | date('%Y%m%d') }}-{{ nights }}.csv""#,
        r#"columns: [carrier, score], merged: "out/{{ run.id }}.csv""#,
    );
    replace(
        r#"key: "fares:{{ destination }}""#,
        r#"key: "shares:{{ params.origin }}""#,
    );
    replace(r#""{{ depart }}/{{ nights }}""#, r#""{{ carrier }}""#);
    replace(
        "keep: min\n",
        "keep: sum\n      normalise: {by: share, within: \"{{ destination }}\", weights: {BKK: 2}}\n",
    );
}

async fn check_merged(calendar: &Calendar) {
    let collected = calendar.collected("merged").await.expect("the parts");
    let price = |row: &Row| row["price"].to_string().parse::<f64>().expect("a number");
    let text = |row: &Row, name: &str| row[name].as_str().expect("text").to_owned();
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for (row, _) in collected.rows() {
        *sums.entry(text(row, "destination")).or_default() += price(row);
    }
    let mut shares: BTreeMap<String, f64> = BTreeMap::new();
    for (row, _) in collected.rows() {
        let destination = text(row, "destination");
        let weight = if destination == "BKK" { 2.0 } else { 1.0 };
        *shares.entry(text(row, "carrier")).or_default() +=
            price(row) / sums[&destination] * weight;
    }
    let object = calendar.bucket().get("out/merged.csv").await;
    let object = String::from_utf8(object.expect("the merged object").body).expect("text");
    let mut rows = object.lines();
    assert_eq!(rows.next(), Some("carrier,score"));
    let rows: Vec<(String, f64)> = rows
        .map(|row| row.split_once(',').expect("two fields"))
        .map(|(carrier, score)| (carrier.to_owned(), score.parse().expect("a number")))
        .collect();
    assert!(rows.is_sorted_by(|a, b| a.1 >= b.1), "{rows:?}");
    assert_eq!(rows.len(), shares.len());
    for (carrier, score) in &rows {
        assert!((score - shares[carrier]).abs() < 1e-9, "{carrier} {score}");
    }

    let mut redis = calendar.fleet.redis().await;
    let mut published: Vec<(String, f64)> = redis
        .zrevrange_withscores("shares:ICN", 0, -1)
        .await
        .expect("the set");
    published.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    assert_eq!(published, rows);
    // What the run before published, and this one does not, is gone.
    let before: u64 = redis.zcard("fares:NRT").await.expect("an answer");
    assert_eq!(before, 0);
}

/// Fleets that share servers may give a run the same name on the same day.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_namespace_is_left_alone() {
    let theirs = Calendar::new("theirs", Shape::default()).expect("a calendar");
    let ours = Calendar::new("ours", Shape::default()).expect("a calendar");
    let spec = &ours.fleet.spec;
    spec.replace(JOB, &ours.index, &theirs.index)
        .expect("replaced");
    let alias = &theirs.index;
    for calendar in [&theirs, &ours] {
        let _loader = calendar.load().expect("started");
        let _worker = calendar.collect().expect("started");
        let ended = calendar.enqueue_and_wait(RUN).expect("it ends");
        ended.expect_code(0);
    }
    let elasticsearch = theirs.fleet.value("ELASTICSEARCH_URL");
    let ask = async |path: &str| {
        let answer = reqwest::get(format!("{elasticsearch}/{path}")).await;
        let answer = answer.expect("an answer").json::<serde_json::Value>().await;
        answer.expect("JSON")
    };
    let live = ask(&format!("_alias/{alias}")).await;
    let live: Vec<String> = live.as_object().expect("a list").keys().cloned().collect();
    assert_eq!(live.len(), 1, "{live:?}");
    let first = format!("{alias}-{RUN}");
    assert!(live[0].starts_with(&format!("{first}-")), "{live:?}");
    let (before, after) = (
        ask(&format!("{first}/_count")).await,
        ask(&format!("{}/_count", live[0])).await,
    );
    assert!(before["count"].as_u64() > Some(0), "{before}");
    assert_eq!(before["count"], after["count"]);
}
