//! Runs that are compared with the last good one, and doubles within a run: what comes of them is held
//! against what the provider showed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use harness::{Bucket, Fleet};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::Manifest;
use paceline_protocol::plan::Plan;
use paceline_stack::Process;
use redis::AsyncCommands;
use serde_json::{Value, json};

/// Longer than a run of four cells takes, also when a finisher dies.
const LONGEST: Duration = Duration::from_secs(180);
/// The crash points of merging that the tests here die at, in order.
pub const MERGE: [(&str, u32); 5] = [
    ("merge-begun", 1),
    ("merge-before-doubles", 1),
    ("merge-before-state", 1),
    ("merge-before-data", 2),
    ("merge-before-done", 1),
];

const PROVIDER: &str = "
provider: board
base_url: ${BOARD_URL}
limits:
  - {name: second, rate: 100/s}
retry: {attempts: 2, backoff: {from: 50ms, to: 100ms}}
endpoints:
  things:
    get: /things
    query: {country: \"{{ country }}\", category: \"{{ category }}\"}
    records: $.things[*]
    fields:
      id: $.id
      lat: {path: $.lat, as: decimal}
      title: {path: $.title, optional: true}
      seen: $.seen
";

/// Cells by `<country>/<category>`; `None` refuses them.
type Cells = BTreeMap<&'static str, Option<Vec<Value>>>;

/// A provider that shows what a test puts up.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<Cells>>);

impl Board {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = listener.await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = Router::new().route("/things", get(answer));
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn show(&self, cells: Cells) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cells;
    }
}

async fn answer(
    State(board): State<Board>,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, StatusCode> {
    let cell = format!("{}/{}", asked["country"], asked["category"]);
    let cells = board.0.lock().unwrap_or_else(PoisonError::into_inner);
    match cells.get(cell.as_str()) {
        Some(None) => Err(StatusCode::BAD_REQUEST),
        Some(Some(things)) => Ok(Json(json!({ "things": things }))),
        None => Ok(Json(json!({ "things": [] }))),
    }
}

fn thing(id: u32, lat: &str, title: &str, seen: u32) -> Value {
    let lat: serde_json::Number = lat.parse().expect("a number");
    json!({ "id": id, "lat": lat, "title": title, "seen": seen })
}

/// A fleet with one job over four cells.
struct Things {
    fleet: Fleet,
    board: Board,
    _workers: Vec<Process>,
}

impl Things {
    async fn new(name: &str, more: &str, outputs: &str) -> Self {
        let mut fleet = Fleet::new(name).expect("a fleet");
        let board = Board::default();
        fleet.set("BOARD_URL", board.start().await);
        let job = format!(
            "job: things\nprovider: board\nendpoint: things\nsplit: {{country: [KR, JP], category: [a, b]}}\nshard: {{cells: 2, checkpoint: 1}}\ngate: {{cells: 0.7, records: 0.1}}\n{more}\noutputs:\n{}",
            outputs.replace("INDEX", &fleet.name)
        );
        fleet
            .spec
            .write("providers/board.yaml", PROVIDER)
            .expect("written");
        fleet.spec.write("jobs/things.yaml", &job).expect("written");
        Things {
            fleet,
            board,
            _workers: Vec::new(),
        }
    }

    /// A collector and two loaders, who both want to finish.
    fn start(&mut self) {
        for start in [Fleet::collect, Fleet::load, Fleet::load] {
            self._workers
                .push(start(&self.fleet, &[]).expect("it starts"));
        }
    }

    fn run(&self, run: &str, code: i32) {
        let arguments = ["enqueue", "things", "--run-id", run, "--wait"];
        let ended = self.fleet.producer(&arguments, LONGEST).expect("it ends");
        ended.expect_code(code);
    }

    fn layout(&self, run: &str) -> RunLayout {
        self.fleet.layout("things", run)
    }

    async fn manifest(&self, run: &str) -> Manifest {
        let object = Bucket::of(&self.fleet)
            .get(&self.layout(run).manifest())
            .await;
        serde_json::from_slice(&object.expect("a manifest").body).expect("it parses")
    }

    async fn base(&self, run: &str) -> Option<String> {
        let object = Bucket::of(&self.fleet).get(&self.layout(run).plan()).await;
        let plan: Plan = serde_json::from_slice(&object.expect("a plan").body).expect("it parses");
        plan.base.map(|base| base.to_string())
    }

    /// The records of the parts that the manifest names, which are all that lie in `data/`.
    async fn records(&self, run: &str) -> Vec<Value> {
        let bucket = Bucket::of(&self.fleet);
        let manifest = self.manifest(run).await;
        let named: BTreeSet<String> = manifest.parts.iter().map(|p| p.key.clone()).collect();
        let there = bucket.keys(&self.layout(run).data()).await.expect("a list");
        assert_eq!(named, there.into_iter().collect());
        let mut records = Vec::new();
        for part in &manifest.parts {
            let rows = bucket.get(&part.key).await.expect("a part").rows();
            let rows = rows.expect("NDJSON");
            assert_eq!(rows.len() as u64, part.records, "{}", part.key);
            records.extend(rows);
        }
        assert_eq!(records.len() as u64, manifest.records);
        let covered: u64 = manifest.parts.iter().map(|part| part.cells).sum();
        assert!(covered >= manifest.cells, "{covered}");
        records
    }

    /// `update_type` by id.
    async fn updates(&self, run: &str) -> BTreeMap<u64, u64> {
        let records = self.records(run).await;
        let count = records.len();
        let updates: BTreeMap<u64, u64> = records
            .iter()
            .map(|row| {
                let last = row.as_object().and_then(|row| row.keys().next_back());
                assert!(last.is_some() && row["update_type"].is_u64(), "{row}");
                let number = |name: &str| row[name].as_u64().expect(name);
                (number("id"), number("update_type"))
            })
            .collect();
        assert_eq!(updates.len(), count, "an id is there twice");
        updates
    }

    /// Documents by id.
    async fn documents(&self) -> BTreeMap<String, Value> {
        let url = self
            .fleet
            .value("ELASTICSEARCH_URL")
            .trim_end_matches('/')
            .to_owned();
        let client = reqwest::Client::new();
        let index = &self.fleet.name;
        let refreshed = client.post(format!("{url}/{index}/_refresh")).send().await;
        refreshed.expect("refreshed");
        let found = client
            .get(format!("{url}/{index}/_search?size=1000"))
            .send()
            .await;
        let text = found.expect("an answer").text().await.expect("a body");
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let hits = found["hits"]["hits"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let of = |hit: &Value| {
            (
                hit["_id"].as_str().expect("an id").to_owned(),
                hit["_source"].clone(),
            )
        };
        hits.iter().map(of).collect()
    }

    /// Members of a published set.
    async fn members(&self, set: &str) -> BTreeMap<String, f64> {
        let mut redis = self.fleet.redis().await;
        let members: Vec<(String, f64)> = redis.zrange_withscores(set, 0, -1).await.expect("a set");
        members.into_iter().collect()
    }
}

const CHANGES: &str = "changes: {id: \"{{ id }}\", ignore: [seen], moved: [lat]}";

fn changed_outputs(test: &str) -> String {
    format!(
        "  s3: {{format: ndjson, compress: zstd}}\n  rankings:\n    - {{key: \"{test}:{{{{ country }}}}\", member: \"{{{{ id }}}}\", score: \"{{{{ update_type }}}}\", keep: last}}\n  index: {{name: INDEX, mode: snapshot, id: \"{{{{ id }}}}\", mapping: {{update_type: byte}}}}\n"
    )
}

/// The first night: 1 is there twice, the same in both cells.
fn first() -> Cells {
    let kr_a = vec![
        thing(1, "1.50", "a", 1),
        thing(2, "2", "b", 1),
        thing(3, "3", "c", 1),
    ];
    Cells::from([
        ("KR/a", Some(kr_a)),
        (
            "KR/b",
            Some(vec![thing(4, "4", "d", 1), thing(5, "5", "e", 1)]),
        ),
        ("JP/a", Some(vec![thing(6, "6", "f", 1)])),
        (
            "JP/b",
            Some(vec![thing(7, "7", "g", 1), thing(1, "1.50", "a", 1)]),
        ),
    ])
}

/// The second: 2 has another title, 3 moved too, 4 is gone, 8 is new, and the cell of 7 fails.
fn second() -> Cells {
    let kr_a = vec![
        thing(1, "1.50", "a", 2),
        thing(2, "2", "B", 2),
        thing(3, "3.1", "C", 2),
    ];
    Cells::from([
        ("KR/a", Some(kr_a)),
        ("KR/b", Some(vec![thing(5, "5", "e", 2)])),
        (
            "JP/a",
            Some(vec![thing(6, "6", "f", 2), thing(8, "8", "h", 2)]),
        ),
        ("JP/b", None),
    ])
}

fn updates_of(pairs: &[(u64, u64)]) -> BTreeMap<u64, u64> {
    pairs.iter().copied().collect()
}

const SECOND: [(u64, u64); 6] = [(1, 0), (2, 1), (3, 2), (5, 0), (6, 0), (8, 3)];

#[tokio::test(flavor = "multi_thread")]
async fn each_night_is_compared_with_the_last_good_one() {
    let mut things = Things::new("changes", CHANGES, &changed_outputs("changes")).await;
    things.start();
    things.board.show(first());
    things.run("n1", 0);
    let all_new: BTreeMap<u64, u64> = (1..=7).map(|id| (id, 3)).collect();
    assert_eq!(things.updates("n1").await, all_new);
    assert_eq!(things.base("n1").await, None);

    things.board.show(second());
    things.run("n2", 0);
    assert_eq!(things.base("n2").await.as_deref(), Some("n1"));
    assert_eq!(things.updates("n2").await, updates_of(&SECOND));
    let manifest = things.manifest("n2").await;
    assert_eq!(
        (manifest.gone, manifest.failed, manifest.documents),
        (1, 1, 6)
    );
    let documents = things.documents().await;
    assert_eq!(documents.len(), 6);
    assert_eq!(documents["3"]["update_type"], json!(2));
    let korean = [("1", 0.0), ("2", 1.0), ("3", 2.0), ("5", 0.0)];
    let korean: BTreeMap<String, f64> = korean.iter().map(|(m, s)| ((*m).to_owned(), *s)).collect();
    assert_eq!(things.members("changes:KR").await, korean);

    // A bad night, which saw 9 for the first time, is no base.
    let nine = vec![
        thing(6, "6", "f", 3),
        thing(8, "8", "h", 3),
        thing(9, "9", "i", 3),
    ];
    things.board.show(Cells::from([
        ("KR/a", None),
        ("KR/b", None),
        ("JP/a", Some(nine.clone())),
    ]));
    things.run("n3", 4);
    assert_eq!(things.documents().await.len(), 6, "the good night stays");

    // 7 was in a failed cell: it is neither new nor gone. 5 is gone.
    let mut fourth = second();
    fourth.insert("KR/b", Some(vec![]));
    fourth.insert("JP/a", Some(nine));
    fourth.insert("JP/b", Some(vec![thing(7, "7", "g", 4)]));
    things.board.show(fourth.clone());
    things.run("n4", 0);
    assert_eq!(things.base("n4").await.as_deref(), Some("n2"));
    let updates = [(1, 0), (2, 0), (3, 0), (6, 0), (7, 0), (8, 0), (9, 3)];
    assert_eq!(things.updates("n4").await, updates_of(&updates));
    assert_eq!(things.manifest("n4").await.gone, 1);

    // A retry merges again: before it, 7 was in a failed cell; with it, it has changed.
    fourth.insert("JP/b", None);
    things.board.show(fourth.clone());
    things.run("n5", 0);
    assert_eq!(things.manifest("n5").await.gone, 0);
    fourth.insert("JP/b", Some(vec![thing(7, "7", "G", 5)]));
    things.board.show(fourth.clone());
    let retried = things.fleet.producer(&["retry", "n5", "--wait"], LONGEST);
    retried.expect("it ends").expect_code(0);
    let updates = [(1, 0), (2, 0), (3, 0), (6, 0), (7, 1), (8, 0), (9, 0)];
    assert_eq!(things.updates("n5").await, updates_of(&updates));
    assert_eq!(things.documents().await["7"]["update_type"], json!(1));

    // Narrowed, nothing is said of what was not asked for; and it is nobody's base.
    fourth.insert("KR/a", Some(vec![thing(1, "1.5", "a", 6)]));
    things.board.show(fourth.clone());
    let only = [
        "enqueue",
        "things",
        "--run-id",
        "n6",
        "--only",
        "country=KR",
        "--wait",
    ];
    things
        .fleet
        .producer(&only, LONGEST)
        .expect("it ends")
        .expect_code(0);
    assert_eq!(things.manifest("n6").await.gone, 0);
    things.run("n7", 0);
    assert_eq!(things.base("n7").await.as_deref(), Some("n5"));
    assert_eq!(things.manifest("n7").await.gone, 2);
}

/// A thing whose id is anything.
fn odd(id: &Value) -> Value {
    json!({ "id": id, "lat": 1, "title": "odd", "seen": 1 })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_id_holds_it_is_known_again() {
    let mut things = Things::new("changes-odd", CHANGES, &changed_outputs("changes-odd")).await;
    things.start();
    // Nothing at all is a base too.
    let empty = [
        "enqueue",
        "things",
        "--run-id",
        "n0",
        "--allow-shrink",
        "--wait",
    ];
    let ended = things.fleet.producer(&empty, LONGEST);
    ended.expect("it ends").expect_code(0);

    let long = "x".repeat(100_000);
    let ids = [
        json!("a\"b}"),
        json!("line\nfeed\r"),
        json!("\0"),
        json!("../\u{202e}é"),
        json!(long),
        json!(format!("{long}y")),
        json!(123_456_789_012_345_678_u64),
        json!(1),
    ];
    let show = |ids: &[Value], double: Value| {
        let (left, right) = ids.split_at(ids.len() / 2);
        let all = |ids: &[Value]| Some(ids.iter().map(odd).collect::<Vec<_>>());
        let mut last = all(right);
        last.iter_mut().for_each(|last| last.push(odd(&json!(""))));
        Cells::from([
            ("KR/a", all(left)),
            ("KR/b", all(right)),
            ("JP/a", last),
            ("JP/b", Some(vec![odd(&double)])),
        ])
    };
    // The same ids again in another shard: one record of each.
    things.board.show(show(&ids, json!(1)));
    things.run("n1", 0);
    assert_eq!(things.base("n1").await.as_deref(), Some("n0"));
    let updates = |records: &[Value]| -> Vec<u64> {
        let updates = records.iter().map(|row| row["update_type"].as_u64());
        updates.map(|update| update.expect("a number")).collect()
    };
    let first = things.records("n1").await;
    assert_eq!(updates(&first), [3; 9], "eight ids, and one without");
    let manifest = things.manifest("n1").await;
    assert_eq!((manifest.documents, manifest.rejected), (8, 1));
    assert!(
        manifest.notes.iter().any(|note| note.contains("no id")),
        "{:?}",
        manifest.notes
    );

    // A field that the provider's file learns and that nobody has changes nothing; one id is gone.
    let field = PROVIDER.replace(
        "seen: $.seen",
        "seen: $.seen\n      more: {path: $.more, optional: true}",
    );
    things
        .fleet
        .spec
        .write("providers/board.yaml", &field)
        .expect("written");
    things.board.show(show(&ids[1..], json!(1)));
    things.run("n2", 0);
    let mut second = updates(&things.records("n2").await);
    second.sort_unstable();
    assert_eq!(second, [0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(things.manifest("n2").await.gone, 1);

    // A state of which something is missing is none.
    let merged = things.layout("n2").merged();
    let bucket = Bucket::of(&things.fleet);
    let said = bucket.get(&merged).await.expect("it is there").body;
    let mut said: Value = serde_json::from_slice(&said).expect("JSON");
    said["state"] = json!(2);
    bucket
        .put(&merged, said.to_string().as_bytes())
        .await
        .expect("put");
    things.run("n3", 0);
    assert_eq!(
        things.base("n3").await.as_deref(),
        Some("n1"),
        "the one before it"
    );
}

/// A loader dies at `point`; the next one does the rest.
async fn dies(things: &mut Things, run: &str, (point, nth): (&str, u32)) {
    println!("dying at {point}@{nth}");
    let told = format!("{point}@{nth}");
    let env = [("PACELINE_CRASH_AT", told.as_str())];
    let victim = things.fleet.start_with(&env, "worker", &["load"]);
    let mut victim = victim.expect("it starts");
    let arguments = ["enqueue", "things", "--run-id", run];
    let enqueued = things.fleet.producer(&arguments, LONGEST).expect("it ends");
    enqueued.expect_code(0);
    let died = victim
        .wait_at_most(LONGEST)
        .expect("waited")
        .expect("it dies");
    let signal = std::os::unix::process::ExitStatusExt::signal(&died);
    assert_eq!(signal, Some(9), "{}", victim.last_words(20));
    let _next = things.fleet.load(&[]).expect("it starts");
    let watched = things.fleet.producer(&["watch", run], LONGEST);
    watched.expect("it ends").expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_dies_while_it_compares() {
    let mut things = Things::new("changes-crash", CHANGES, &changed_outputs("changes-crash")).await;
    let collector = things.fleet.collect(&[]).expect("it starts");
    things._workers.push(collector);
    things.board.show(first());
    let first_loader = things.fleet.load(&[]).expect("it starts");
    things.run("n1", 0);
    drop(first_loader);
    things.board.show(second());
    dies(&mut things, "n2", MERGE[3]).await;
    assert_eq!(things.updates("n2").await, updates_of(&SECOND));
    let manifest = things.manifest("n2").await;
    assert_eq!((manifest.gone, manifest.documents), (1, 6));
}

const DEDUPE: &str = "dedupe: {by: \"{{ id }}\", keep: last}";

fn deduped_outputs(test: &str) -> String {
    format!(
        "  s3: {{format: ndjson, compress: zstd}}\n  rankings:\n    - {{key: \"{test}:all\", member: all, score: \"{{{{ lat }}}}\", keep: sum}}\n  index: {{name: INDEX, mode: upsert, id: \"{{{{ id }}}}-{{{{ country }}}}\", mapping: {{country: keyword}}}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn doubles_are_neither_in_sets_nor_documents() {
    let mut things = Things::new("dedupe", DEDUPE, &deduped_outputs("dedupe")).await;
    let collector = things.fleet.collect(&[]).expect("it starts");
    things._workers.push(collector);
    let kr_a = vec![
        thing(1, "1", "a", 1),
        thing(1, "1.5", "later", 1),
        thing(2, "2", "b", 1),
    ];
    things.board.show(Cells::from([
        ("KR/a", Some(kr_a)),
        ("KR/b", Some(vec![thing(2, "4", "b", 1)])),
        (
            "JP/a",
            Some(vec![thing(2, "8", "b", 1), thing(3, "16", "c", 1)]),
        ),
    ]));
    dies(&mut things, "n1", MERGE[1]).await;
    let documents = things.documents().await;
    let ids: Vec<&str> = documents.keys().map(String::as_str).collect();
    assert_eq!(ids, ["1-KR", "2-JP", "3-JP"]);
    assert_eq!(documents["1-KR"]["title"], json!("later"));
    let sum = BTreeMap::from([("all".to_owned(), 25.5)]);
    assert_eq!(things.members("dedupe:all").await, sum);
    assert_eq!(things.records("n1").await.len(), 6, "the parts keep all");
    assert_eq!(things.manifest("n1").await.documents, 3);

    // The same again: the newest answer wins, and the sums do not grow.
    let _loaders = [things.fleet.load(&[]), things.fleet.load(&[])].map(|l| l.expect("it starts"));
    things.run("n2", 0);
    assert_eq!(things.documents().await, documents);
    assert_eq!(things.members("dedupe:all").await, sum);

    // A retry brings a later one of 3 and of 4, from another country: the documents that the run itself
    // had loaded of the others are none any more, and those of the runs before stay.
    let mut cells = Cells::from([
        (
            "KR/a",
            Some(vec![thing(3, "1", "c", 2), thing(4, "2", "d", 2)]),
        ),
        ("JP/a", None),
    ]);
    things.board.show(cells.clone());
    things.run("n3", 0);
    let before = things.documents().await;
    let ids: Vec<&str> = before.keys().map(String::as_str).collect();
    assert_eq!(ids, ["1-KR", "2-JP", "3-JP", "3-KR", "4-KR"]);
    cells.insert(
        "JP/a",
        Some(vec![thing(4, "8", "d", 3), thing(3, "4", "c", 3)]),
    );
    things.board.show(cells);
    let retried = things.fleet.producer(&["retry", "n3", "--wait"], LONGEST);
    retried.expect("it ends").expect_code(0);
    let after = things.documents().await;
    let ids: Vec<&str> = after.keys().map(String::as_str).collect();
    assert_eq!(ids, ["1-KR", "2-JP", "3-JP", "4-JP"]);
    assert_eq!(after["3-JP"]["lat"], json!(4));
    let sum = BTreeMap::from([("all".to_owned(), 12.0)]);
    assert_eq!(things.members("dedupe:all").await, sum);
    assert_eq!(things.manifest("n3").await.documents, 2);
}
