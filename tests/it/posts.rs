//! `posts` as the examples have it: a job without calls that filters and cleans another job's records, keeps
//! of each link the first, and writes Parquet.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::checker::Collected;
use harness::{Bucket, Fleet, Parent};
use paceline_protocol::manifest::Manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(180);
const DATE: &str = "2026-11-27";
const RUN: &str = "p1";

fn found(engine: &str, title: &str, link: &str, posted_on: &str) -> Value {
    json!({ "engine": engine, "keyword": "제주", "title": title, "link": link, "posted_on": posted_on })
}

/// What two engines found, part by part: the same links again in one part, in others, at the other engine,
/// and the first time too long ago.
fn search() -> Vec<Vec<Value>> {
    let today = "2026-11-27";
    let many = (0..40).map(|n| {
        found(
            "naver",
            &format!(" post {n} "),
            &format!("https://blog.test/{n}"),
            today,
        )
    });
    vec![
        many.collect(),
        vec![
            found("naver", "\tagain\n", "https://blog.test/3", today),
            found(
                "naver",
                "x",
                "https://blog.test/x?a=1&b=\"2\"",
                "2026-10-28",
            ),
            found("naver", "y", "https://blog.test/x?a=1&b=\"2\"", today),
        ],
        vec![],
        vec![
            found("kakao", "old", "https://blog.test/old", "2026-10-27"),
            found("kakao", "kakao 39", "https://blog.test/39", today),
            found("kakao", "  새 글  ", "https://블로그.test/1", today),
            found(
                "kakao",
                "young again",
                "https://blog.test/old",
                "2026-10-28",
            ),
        ],
        vec![found("kakao", "last", "https://블로그.test/1", today)],
    ]
}

/// Of each link the first record that is young enough, cleaned.
fn truth() -> BTreeMap<String, Value> {
    let mut first = BTreeMap::new();
    for row in search().into_iter().flatten() {
        let text = |name: &str| row[name].as_str().expect("text").trim().to_owned();
        if text("posted_on").as_str() >= "2026-10-28" {
            let kept = json!({
                "link": text("link"), "engine": text("engine"), "title": text("title"), "posted_on": text("posted_on"),
            });
            first.entry(text("link")).or_insert(kept);
        }
    }
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_are_the_newest_search_without_doubles() {
    let mut fleet = Fleet::new("posts-job").expect("a fleet");
    fleet.set("FARE_SEARCH_URL", "http://127.0.0.1:9");
    fleet.set("FARE_SEARCH_KEYS", "key");
    let index = format!("{}-posts", fleet.name);
    // All tests share one Elasticsearch.
    let spec = &fleet.spec;
    spec.replace("jobs/posts.yaml", "name: posts", &format!("name: {index}"))
        .expect("replaced");
    let parent = Parent {
        fleet: &fleet,
        job: "search",
    };
    parent
        .good_run("s1", "2026-11-26T00:00:00Z", &[])
        .await
        .expect("written");
    parent
        .good_run("s2", "2026-11-27T00:00:00Z", &search())
        .await
        .expect("written");
    let _workers = [fleet.collect(&[]), fleet.load(&[])];
    let enqueue = [
        "enqueue", "posts", "--run-id", RUN, "--date", DATE, "--wait",
    ];
    fleet
        .producer(&enqueue, PATIENCE)
        .expect("it ends")
        .expect_code(0);

    let truth = truth();
    let documents = documents(&fleet, &index).await;
    for (link, wanted) in &truth {
        let id = Sha256::digest(link)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert_eq!(documents.get(&id), Some(wanted), "{link}");
    }
    assert_eq!(documents.len(), truth.len());

    // The parts keep all that are young enough.
    let posts = Parent {
        fleet: &fleet,
        job: "posts",
    };
    let layout = posts.layout(RUN);
    let bucket = Bucket::of(&fleet);
    let kept = Collected::read(&bucket, &layout).await.expect("parts");
    let young = search().into_iter().flatten();
    let young = young.filter(|row| row["posted_on"].as_str() >= Some("2026-10-28"));
    assert_eq!(kept.records(), young.count() as u64);
    let object = bucket.get(&layout.manifest()).await.expect("a manifest");
    let manifest: Manifest = serde_json::from_slice(&object.body).expect("it parses");
    assert_eq!((manifest.cells, manifest.empty, manifest.failed), (5, 1, 0));
    assert_eq!(manifest.documents, truth.len() as u64);
    assert!(
        manifest
            .parts
            .iter()
            .all(|part| part.key.ends_with(".parquet"))
    );
    looked_up(&fleet, &bucket, &index).await;
}

/// What a query finds in that index, and the newest list that somebody put into S3, are another job's cells.
async fn looked_up(fleet: &Fleet, bucket: &Bucket, index: &str) {
    let job = format!(
        r#"job: again
provider: fare-search
endpoint: fares
params: {{origin: ICN}}
split:
  post:
    documents: {{index: {index}, query: {{terms: {{link: ["https://blog.test/old", "https://blog.test/3", "{{{{ params.origin }}}}"]}}}}, columns: [link, title]}}
    where: "title != 'post 3'"
  town:
    object: {{key: "lists/{{{{ today | date('%Y') }}}}-*.csv", columns: [destination, depart]}}
  nights: [1, 2]
outputs: {{s3: {{format: ndjson}}}}
"#
    );
    fleet.spec.write("jobs/again.yaml", &job).expect("written");
    let nothing = fleet.producer(&["plan", "again", "--date", DATE], PATIENCE);
    let nothing = nothing.expect("it ends").expect_code(1);
    assert!(nothing.stderr.contains("no object lists/2026-*.csv"));
    let old = b"depart,destination\n2026-12-01,NRT\n";
    bucket.put("lists/2026-1.csv", old).await.expect("put");
    let new = b"depart,destination\n2026-12-02,KIX\n2026-12-03,FUK\n";
    bucket.put("lists/2026-2.csv", new).await.expect("put");
    let planned = fleet.producer(&["plan", "again", "--date", DATE, "--json"], PATIENCE);
    let planned = planned.expect("it ends").expect_code(0);
    let plan: Value = serde_json::from_str(&planned.stdout).expect("JSON");
    assert_eq!(plan["cells"], 4);
    let first = json!({
        "link": "https://blog.test/old", "title": "young again", "destination": "KIX", "depart": "2026-12-02", "nights": 1,
    });
    assert_eq!(plan["first_cell"], first);
}

/// Behind the alias, by id.
async fn documents(fleet: &Fleet, index: &str) -> BTreeMap<String, Value> {
    let url = fleet
        .value("ELASTICSEARCH_URL")
        .trim_end_matches('/')
        .to_owned();
    let found = reqwest::get(format!("{url}/{index}/_search?size=1000")).await;
    let text = found.expect("an answer").text().await.expect("a body");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let hits = found["hits"]["hits"].as_array().expect("hits");
    let id = |hit: &Value| hit["_id"].as_str().expect("an id").to_owned();
    hits.iter()
        .map(|hit| (id(hit), hit["_source"].clone()))
        .collect()
}
