//! Sources beside HTTP: jobs without calls on another job's records, and a region's sorted set in Redis. Each
//! worker dies once in the middle.

use std::collections::BTreeSet;

use harness::checker::{Collected, Outputs, Row};
use harness::{Checker, Fleet, Parent};
use redis::AsyncCommands;
use serde_json::{Value, json};

const RUN: &str = "2026-11-27";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// Its first collector dies as by kill -9 at `point`; another one goes on.
async fn ends_well(fleet: &Fleet, job: &str, point: &str, outputs: Outputs) -> Vec<Row> {
    let _loader = fleet.load(&[]).expect("started");
    let crash = [("PACELINE_CRASH_AT", point)];
    let mut doomed = fleet
        .start_with(&crash, "worker", &["collect"])
        .expect("started");
    let enqueue = ["enqueue", job, "--run-id", RUN, "--date", "2026-11-27"];
    let ended = fleet.producer(&enqueue, PATIENCE).expect("it ends");
    ended.expect_code(0);
    let died = doomed.wait_at_most(PATIENCE).expect("its status");
    assert!(
        died.is_some(),
        "no crash at {point}: {}",
        doomed.last_words(20)
    );
    let _collector = fleet.collect(&[]).expect("started");
    let ended = fleet.producer(&["watch", RUN], PATIENCE).expect("it ends");
    ended.expect_code(0);
    let checker = Checker::new(fleet, job, RUN, outputs).expect("a run id");
    checker.check().await.expect("checked").assert_kept();
    rows(fleet, job).await
}

fn by_link(index: &str) -> Outputs {
    Outputs {
        index: Some((
            index.to_owned(),
            Box::new(|row| row["link"].as_str().unwrap_or_default().to_owned()),
        )),
        ranking: None,
    }
}

async fn rows(fleet: &Fleet, job: &str) -> Vec<Row> {
    let layout = fleet.layout(job, RUN);
    let collected = Collected::read(&harness::Bucket::of(fleet), &layout).await;
    let collected = collected.expect("parts");
    collected.rows().map(|(row, _)| row.clone()).collect()
}

fn post(number: u32) -> Value {
    json!({
        "engine": "naver", "keyword": "제주 여행", "title": format!("  post {number} "),
        "link": format!("https://blog.test/{number}"),
        "posted_on": format!("2026-11-{:02}", number % 28 + 1),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_calls_makes_records_of_anothers() {
    let fleet = Fleet::new("posts").expect("a fleet");
    let index = format!("{}-kept", fleet.name);
    let job = format!(
        "job: kept\nafter: search\n\
         source: {{records_of: {{job: search, where: \"posted_on >= today | plus_days(-10)\"}}}}\n\
         fields: {{link: \"{{{{ link }}}}\", title: \"{{{{ title | trim }}}}\", day: \"{{{{ posted_on }}}} in {{{{ parent.id }}}}\"}}\n\
         shard: {{cells: 3, checkpoint: 2}}\n\
         outputs:\n  s3: {{format: ndjson}}\n  index: {{name: {index}, mode: snapshot, id: \"{{{{ link }}}}\", mapping: {{title: text}}}}\n"
    );
    fleet.spec.write("jobs/kept.yaml", &job).expect("written");
    let parts: Vec<Vec<Value>> = (0..7u32)
        .map(|part| match part {
            // One part without records, one of which none stays.
            3 => vec![],
            4 => vec![post(0), post(2)],
            _ => (1..40).map(|n| post(part * 100 + n)).collect(),
        })
        .collect();
    let search = Parent {
        fleet: &fleet,
        job: "search",
    };
    let planned_at = "2026-11-26T00:00:00Z";
    search
        .good_run("s1", planned_at, &parts)
        .await
        .expect("written");

    let found = ends_well(&fleet, "kept", "read-after@4", by_link(&index)).await;
    let wanted = parts.iter().flatten().filter(|post| {
        let day = post["posted_on"].as_str().expect("a day");
        day >= "2026-11-17"
    });
    let wanted: BTreeSet<String> = wanted
        .map(|post| {
            let title = post["title"].as_str().expect("a title").trim().to_owned();
            let day = format!("{} in s1", post["posted_on"].as_str().expect("a day"));
            json!({"link": post["link"], "title": title, "day": day}).to_string()
        })
        .collect();
    let found: Vec<String> = found
        .into_iter()
        .map(|row| Value::Object(row).to_string())
        .collect();
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regions_sorted_set_becomes_records() {
    let mut fleet = Fleet::new("votes").expect("a fleet");
    let url = fleet.value("REDIS_URL").to_owned();
    fleet.set("REGION", "jp");
    let spec = &fleet.spec;
    let csv = "format: csv, columns: [kseq, score], key: \"data/{{ params.event }}/{{ region }}-{{ run.started_at | date('%Y%m%d%H%M') }}.csv\", bucket: \"${VOTES_BUCKET}\"";
    spec.replace("jobs/votes-push.yaml", csv, "format: ndjson")
        .expect("replaced");
    fleet.set("REGION_REDIS_URL", &url);
    let mut redis = harness::redis_at(&url).await;
    let mut votes: Vec<(i64, String)> =
        (0..2_500).map(|n| (n * 7 % 911, format!("k{n}"))).collect();
    for chunk in votes.chunks(500) {
        let _: i64 = redis
            .zadd_multiple("votes:104", chunk)
            .await
            .expect("added");
    }
    let found = ends_well(&fleet, "votes-push", "read-after", Outputs::default()).await;
    votes.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let wanted: Vec<String> = votes
        .into_iter()
        .map(|(score, member)| json!({"region": "jp", "kseq": member, "score": score}).to_string())
        .collect();
    let found: Vec<String> = found
        .into_iter()
        .map(|row| Value::Object(row).to_string())
        .collect();
    assert_eq!(found, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_regions_newest_object_counts_and_a_region_without_one_is_named() {
    let mut fleet = Fleet::new("regions").expect("a fleet");
    let bucket = fleet.value("PACELINE_BUCKET").to_owned();
    fleet.set("VOTES_BUCKET", bucket);
    let spec = &fleet.spec;
    let merged = "format: csv, columns: [candidate, score], merged: \"data/{{ params.event }}/result-global.csv\"";
    spec.replace("jobs/votes.yaml", merged, "format: ndjson")
        .expect("replaced");
    let normalise = "      normalise: {by: share, within: \"{{ region }}\"}\n";
    spec.replace("jobs/votes.yaml", normalise, "")
        .expect("replaced");
    let objects = harness::Bucket::of(&fleet);
    let put = async |region: &str, minute: u32, text: &str| {
        let key = format!("data/104/{region}-2026112706{minute:02}.csv");
        objects.put(&key, text.as_bytes()).await.expect("put");
    };
    for region in ["jp", "tw", "kr"] {
        put(region, 0, "kseq,score\nold,1\n").await;
        put(region, 30, &format!("kseq,score\n{region}1,30\nboth,12\n")).await;
    }
    put("na", 0, "").await;
    let _workers = [fleet.load(&[]), fleet.collect(&[])];
    let enqueue = ["enqueue", "votes", "--run-id", RUN, "--wait"];
    let ended = fleet.producer(&enqueue, PATIENCE).expect("it ends");
    ended.expect_code(4);
    let found: BTreeSet<String> = rows(&fleet, "votes")
        .await
        .into_iter()
        .map(|row| format!("{} {} {}", row["region"], row["candidate"], row["votes"]))
        .collect();
    let wanted = ["jp", "tw", "kr"].into_iter().flat_map(|region| {
        let first = format!("\"{region}\" \"{region}1\" 30");
        [first, format!("\"{region}\" \"both\" 12")]
    });
    assert_eq!(found, wanted.collect());
    // With something of every region it is a good run.
    put("na", 30, "kseq,score\nna1,5\n").await;
    let again = ["enqueue", "votes", "--run-id", "again", "--wait"];
    fleet
        .producer(&again, PATIENCE)
        .expect("it ends")
        .expect_code(0);
    // A newest one that is no good does not count where the provider says how old another one may be, and is named.
    let provider = "providers/regional-votes.yaml";
    spec.replace(provider, "pick: newest", "pick: newest, max_age: 1h")
        .expect("replaced");
    put("jp", 45, "").await;
    let older = ["enqueue", "votes", "--run-id", "older", "--wait"];
    let ended = fleet.producer(&older, PATIENCE).expect("it ends");
    let ended = ended.expect_code(0);
    let named =
        "data/104/jp-202611270645.csv is empty: data/104/jp-202611270630.csv counts instead";
    assert!(ended.stderr.contains(named), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_pushes_its_votes_with_the_example_as_it_stands() {
    let mut fleet = Fleet::new("push").expect("a fleet");
    let bucket = fleet.value("PACELINE_BUCKET").to_owned();
    let region = fleet.value("REDIS_URL").to_owned();
    fleet.set("REGION", "jp");
    fleet.set("VOTES_BUCKET", bucket);
    fleet.set("REGION_REDIS_URL", &region);
    let mut redis = harness::redis_at(&region).await;
    let votes = [(12_345, "후보, \"A\""), (7, "k1"), (7, "k2")];
    let _: i64 = redis
        .zadd_multiple("votes:104", &votes)
        .await
        .expect("added");
    let _workers = [fleet.load(&[]), fleet.collect(&[])];
    let enqueue = ["enqueue", "votes-push", "--run-id", RUN, "--wait"];
    let ended = fleet.producer(&enqueue, PATIENCE).expect("it ends");
    ended.expect_code(0);
    let objects = harness::Bucket::of(&fleet);
    let pushed = objects.keys("data/104/").await.expect("a list");
    let [key] = &pushed[..] else {
        panic!("one object: {pushed:?}");
    };
    let minute = key
        .strip_prefix("data/104/jp-")
        .and_then(|rest| rest.strip_suffix(".csv"));
    let minute = minute.expect("the key that the job gives");
    assert!(minute.len() == 12 && minute.bytes().all(|b| b.is_ascii_digit()));
    let object = objects.get(key).await.expect("an object");
    let text = String::from_utf8(object.body.to_vec()).expect("UTF-8");
    let wanted = "kseq,score\n\"후보, \"\"A\"\"\",12345\nk1,7\nk2,7\n";
    assert_eq!(text.replace("\r\n", "\n"), wanted);
}

fn event(id: &str, title: &str, update_type: u8) -> Value {
    json!({ "country": "KR", "category": "expos", "id": id, "title": title, "update_type": update_type })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_runs_of_its_parent_a_job_without_calls_reads_the_newest_record_of_each_id() {
    let mut fleet = Fleet::new("since").expect("a fleet");
    fleet.set("WORLD_EVENTS_URL", "http://127.0.0.1:9");
    fleet.set("WORLD_EVENTS_TOKENS", "key");
    let (set, index) = (
        format!("{}:all", fleet.name),
        format!("{}-kinds", fleet.name),
    );
    let job = format!(
        r#"job: copy
after: events
source: {{records_of: {{job: events, where: "update_type >= 1"}}}}
fields: {{id: "{{{{ id }}}}", title: "{{{{ title }}}}", kind: "{{{{ update_type }}}}"}}
outputs:
  s3: {{format: csv, compress: none, key: "{index}/{{{{ parent.id }}}}.csv", merged: "{index}/{{{{ parent.date }}}}-all.csv"}}
  rankings: [{{key: "{set}", member: all, score: "{{{{ kind }}}}", keep: sum}}]
  index: {{name: {index}, mode: upsert, id: "kind-{{{{ kind }}}}", mapping: {{id: keyword}}}}
"#
    );
    fleet.spec.write("jobs/copy.yaml", &job).expect("written");
    let parent = Parent {
        fleet: &fleet,
        job: "events",
    };
    // No run of the child was ever good, so all of them count.
    let nights = [
        vec![
            event("a", "first", 3),
            event("b", "first", 3),
            event("gone", "first", 3),
        ],
        vec![event("a", "moved", 2), event("b", "first", 0)],
        vec![
            event("b", "first", 0),
            event("a", "third", 1),
            event("c", "third", 3),
        ],
    ];
    for (night, rows) in (1..).zip(nights) {
        let planned_at = format!("2026-11-2{night}T00:00:00Z");
        let (run, parts) = (format!("e{night}"), [rows, vec![]]);
        let written = parent.good_run(&run, &planned_at, &parts).await;
        written.expect("written");
    }
    let name = set.clone();
    let outputs = Outputs {
        index: None,
        ranking: Some((
            Box::new(move |_| name.clone()),
            Box::new(|_| "all".to_owned()),
            Box::new(|_| 12.0),
        )),
    };
    let rows = ends_well(&fleet, "copy", "settle-before-part", outputs).await;
    let read: BTreeSet<(&str, &str, u64)> = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().expect("text");
            let kind = row["kind"].to_string().replace('"', "").parse();
            (text("id"), text("title"), kind.expect("a number"))
        })
        .collect();
    let wanted = [
        ("a", "third", 3),
        ("b", "first", 3),
        ("c", "third", 3),
        ("gone", "first", 3),
    ];
    assert_eq!((read, rows.len()), (wanted.into(), 4));
    let bucket = harness::Bucket::of(&fleet);
    for key in ["e3.csv", "2026-11-23-all.csv"] {
        let key = format!("{index}/{key}");
        bucket
            .get_as_it_is(&key)
            .await
            .expect("named by its parent");
    }
    let sum: f64 = fleet.redis().await.zscore(&set, "all").await.expect("it");
    assert_eq!(sum, 12.0);
    // Documents as they are in the index, whatever the number of records.
    let manifest = bucket.get(&fleet.layout("copy", RUN).manifest()).await;
    let manifest: Value =
        serde_json::from_slice(&manifest.expect("a manifest").body).expect("JSON");
    assert_eq!(
        (&manifest["records"], &manifest["documents"]),
        (&json!(4), &json!(1))
    );
}
