//! The search job as it stands in the examples: two engines side by side, pages of each, compared with
//! what the engines have, link by link; drained and killed in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet};
use paceline_loadtest::providers::search::{self, Posts};
use paceline_loadtest::providers::{Seen, Server};
use paceline_protocol::manifest::Manifest;

const RUN: &str = "2026-11-21";
const NAVER_KEY: &str = "canary-id:canary-71c0aa";
const KAKAO_KEY: &str = "canary-93be02";
/// One cell asks for 51 pages, one after the other, at ten a second where the machine has time for each.
const PATIENCE: Duration = Duration::from_secs(400);

struct Engines {
    fleet: Fleet,
    naver: Server,
    kakao: Server,
    naver_posts: Posts,
    kakao_posts: Posts,
}

fn posts(of: &[(&str, usize)]) -> Posts {
    of.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect()
}

impl Engines {
    fn new(test: &str) -> Self {
        let mut fleet = Fleet::new(test).expect("a fleet");
        let naver_posts = posts(&[("부산", 0), ("seoul cafe", 1001), ("a&b=c", 130)]);
        let kakao_posts = posts(&[("부산", 2501), ("seoul cafe", 50), ("a&b=c", 51)]);
        let naver = search::naver(naver_posts.clone(), NAVER_KEY).expect("it listens");
        let kakao = search::kakao(kakao_posts.clone(), KAKAO_KEY).expect("it listens");
        fleet.set("NAVER_SEARCH_URL", naver.url());
        fleet.set("NAVER_SEARCH_KEYS", NAVER_KEY);
        fleet.set("KAKAO_SEARCH_URL", kakao.url());
        fleet.set("KAKAO_SEARCH_KEYS", KAKAO_KEY);
        let keywords: String = naver_posts.keys().map(|k| format!("{k}\n")).collect();
        let list = format!("keyword\n{keywords}");
        fleet
            .spec
            .write("jobs/keywords.csv", &list)
            .expect("written");
        let index = format!("name: {}", fleet.name);
        let job = "jobs/search.yaml";
        fleet
            .spec
            .replace(job, "name: search", &index)
            .expect("it is there");
        Engines {
            fleet,
            naver,
            kakao,
            naver_posts,
            kakao_posts,
        }
    }

    fn enqueue(&self) {
        let arguments = ["enqueue", "search", "--run-id", RUN];
        let ended = self.fleet.producer(&arguments, PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    fn watch(&self) {
        let run = format!("search/{RUN}");
        let ended = self.fleet.producer(&["watch", &run], PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    fn calls(&self) -> Vec<Seen> {
        [self.naver.seen(), self.kakao.seen()].concat()
    }

    async fn until_calls(&self, calls: usize) {
        let until = Instant::now() + PATIENCE;
        while self.calls().len() < calls {
            assert!(Instant::now() < until, "no {calls} calls");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Calls that had a good answer and were made again.
    fn repeated(&self) -> usize {
        let again = |server: &Server| {
            let calls: Vec<String> = server.seen().into_iter().map(|seen| seen.call).collect();
            let distinct: BTreeSet<&String> = calls.iter().collect();
            calls.len() - distinct.len()
        };
        again(&self.naver) + again(&self.kakao)
    }

    /// The output holds exactly what the engines have, once and in order.
    async fn compare_with_the_truth(&self) {
        let bucket = Bucket::of(&self.fleet);
        let layout = self.fleet.layout("search", RUN);
        let mut found: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        let plan = layout.plan();
        let data = plan.replace("plan.json", "data/");
        for key in bucket.keys(&data).await.expect("a list") {
            for row in bucket
                .get(&key)
                .await
                .expect("a part")
                .rows()
                .expect("NDJSON")
            {
                let text = |name: &str| row[name].as_str().expect("text").to_owned();
                assert_eq!(text("posted_on"), "2026-11-21");
                let title = text("title");
                assert!(
                    title.starts_with(&format!("{} & ", text("keyword"))),
                    "{title}"
                );
                let cell = (text("engine"), text("keyword"));
                found.entry(cell).or_default().push(text("link"));
            }
        }
        for keyword in self.naver_posts.keys() {
            let of = |engine: &str| {
                let cell = (engine.to_owned(), keyword.clone());
                found.get(&cell).cloned().unwrap_or_default()
            };
            let naver = search::naver_links(&self.naver_posts, keyword);
            let kakao = search::kakao_links(&self.kakao_posts, keyword);
            assert_eq!(of("naver"), naver, "{keyword}");
            assert_eq!(of("kakao"), kakao, "{keyword}");
        }
        let manifest = bucket.get(&layout.manifest()).await.expect("a manifest");
        let manifest: Manifest = serde_json::from_slice(&manifest.body).expect("it parses");
        assert_eq!((manifest.cells, manifest.empty, manifest.failed), (6, 1, 0));
        assert_eq!(manifest.truncated, 2, "one cell of each engine");
        let told = |note: &String| note.starts_with("2 of the cells that succeeded");
        assert!(manifest.notes.iter().any(told), "{:?}", manifest.notes);
        let outputs = Outputs {
            index: None,
            ranking: None,
        };
        let checker = Checker::new(&self.fleet, "search", RUN, outputs).expect("a run id");
        let checker = checker.secret("canary-71c0aa").secret(KAKAO_KEY);
        checker.check().await.expect("checked").assert_kept();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_in_the_middle_of_pages_repeat_no_call() {
    let engines = Engines::new("search");
    let _loader = engines.fleet.load(&[]).expect("started");
    engines.enqueue();
    for calls in [5, 20, 45] {
        let mut collector = engines.fleet.collect(&[]).expect("started");
        engines.until_calls(calls).await;
        let status = collector.terminate(PATIENCE).expect("drained");
        assert_eq!(status.code(), Some(0), "{}", collector.last_words(20));
    }
    let _last = engines.fleet.collect(&[]).expect("started");
    engines.watch();
    engines.compare_with_the_truth().await;
    assert_eq!(engines.repeated(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_pages_loses_nothing() {
    let engines = Engines::new("searchkill");
    let _loader = engines.fleet.load(&[]).expect("started");
    engines.enqueue();
    let mut collector = engines.fleet.collect(&[]).expect("started");
    engines.until_calls(20).await;
    collector.kill().expect("killed");
    let _next = engines.fleet.collect(&[]).expect("started");
    engines.watch();
    engines.compare_with_the_truth().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_engine_that_never_gets_ready_leaves_a_run_whose_id_is_printed() {
    let engines = Engines::new("searchunready");
    let spec = &engines.fleet.spec;
    let unready = "ready: {get: /nothing-is-here, for: 1s}";
    spec.replace(
        "providers/kakao-search.yaml",
        "ready: {get: /health}",
        unready,
    )
    .expect("it is there");
    let _loader = engines.fleet.load(&[]).expect("started");
    let _collector = engines.fleet.collect(&[]).expect("started");
    let ended = engines.fleet.producer(&["enqueue", "search"], PATIENCE);
    let ended = ended.expect("it ends").expect_code(5);
    let run = ended.stdout.trim().to_owned();
    assert!(!run.is_empty(), "the run's id: {}", ended.stderr);
    let ready = engines.naver_posts.len();
    let until = Instant::now() + PATIENCE;
    loop {
        let status = engines
            .fleet
            .producer(&["status", &run, "--json"], PATIENCE);
        let status = status.expect("it ends").expect_code(0);
        let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
        let done =
            status["succeeded"].as_u64().unwrap_or(0) + status["empty"].as_u64().unwrap_or(0);
        if done == ready as u64 {
            break;
        }
        assert!(Instant::now() < until, "the ready engine's lane: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(engines.kakao.seen().is_empty(), "nobody was ready for that");
    // The same id asks again, and calls nobody who is not ready.
    let again = ["enqueue", "search", "--run-id", &run];
    let again = engines.fleet.producer(&again, PATIENCE);
    again.expect("it ends").expect_code(5);
    assert!(engines.kakao.seen().is_empty(), "nobody was ready for that");
}

/// A question that is signed is answered as the calls are, and draws from the same key's quota.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_question_is_a_call_with_a_key() {
    let engines = Engines::new("searchready");
    let file = "providers/kakao-search.yaml";
    let signed = "ready: {get: \"/v2/search/blog?query=ready&page=1&size=1\", auth: true}";
    let replaced = engines
        .fleet
        .spec
        .replace(file, "ready: {get: /health}", signed);
    replaced.expect("it is there");
    engines.enqueue();
    let asked = engines.kakao.seen();
    let answers: Vec<(&str, u16)> = asked.iter().map(|s| (&*s.call, s.status)).collect();
    assert_eq!(answers, [("ready 1", 200)]);
    let limits = engines
        .fleet
        .producer(&["limits", "kakao", "--json"], PATIENCE);
    let limits = limits.expect("it ends").expect_code(0).stdout;
    let limits: serde_json::Value = serde_json::from_str(&limits).expect("JSON");
    let all = limits[0]["limits"].as_array().expect("a list");
    let day = all.iter().find(|limit| limit["limit"] == "day");
    // A grant that came too late for its call is charged too.
    let used = day.and_then(|limit| limit["used"].as_u64());
    assert!(used.is_some_and(|used| used >= 1), "{limits}");
    let _loader = engines.fleet.load(&[]).expect("started");
    let _collector = engines.fleet.collect(&[]).expect("started");
    engines.watch();
    engines.compare_with_the_truth().await;
}
