//! What a run published is made again from S3 alone: Redis and Elasticsearch are wiped, and what is there
//! afterwards is compared with what was there before, set by set and document by document.

use std::collections::BTreeMap;

use harness::{Calendar, Shape};
use paceline_stack::Process;
use redis::AsyncCommands;
use serde_json::{Value, json};

/// Everything that readers see of a calendar.
#[derive(Debug, PartialEq)]
struct Published {
    /// Members and scores by set.
    sets: BTreeMap<String, BTreeMap<String, f64>>,
    /// The index behind the alias.
    live: Option<String>,
    /// Version and document by id.
    documents: BTreeMap<String, (i64, Value)>,
}

/// A calendar with a run inside its gate, and the processes that made it.
struct Made {
    calendar: Calendar,
    workers: Vec<Process>,
}

impl Made {
    fn new(test: &str) -> Self {
        let calendar = Calendar::new(test, Shape::default()).expect("a calendar");
        let workers = vec![
            calendar.load().expect("started"),
            calendar.collect().expect("started"),
        ];
        Made { calendar, workers }
    }

    fn run(&self, run: &str) {
        let ended = self.calendar.enqueue_and_wait(run).expect("it ends");
        ended.expect_code(0);
    }

    #[track_caller]
    fn rebuild(&self, arguments: &[&str], code: i32) -> String {
        let rebuilt = self.calendar.producer(&[&["rebuild"], arguments].concat());
        rebuilt.expect("it ends").expect_code(code).stderr
    }

    /// What there is of it in index `name`, and in Redis under the job's names.
    async fn published(&self, name: &str) -> Published {
        let mut redis = self.calendar.fleet.redis().await;
        let names: Vec<String> = redis.keys("fares:*").await.expect("keys");
        let mut sets = BTreeMap::new();
        for name in names {
            let members: Vec<(String, f64)> =
                redis.zrange_withscores(&name, 0, -1).await.expect("a set");
            sets.insert(name, members.into_iter().collect());
        }
        Published {
            sets,
            live: self.calendar.live_index().await.expect("an answer"),
            documents: self.documents(name).await,
        }
    }

    async fn documents(&self, name: &str) -> BTreeMap<String, (i64, Value)> {
        let url = self.calendar.fleet.value("ELASTICSEARCH_URL");
        let client = reqwest::Client::new();
        let refreshed = client.post(format!("{url}/{name}/_refresh")).send().await;
        refreshed
            .expect("an answer")
            .error_for_status()
            .expect(name);
        let asked = json!({ "version": true, "size": 10_000 });
        let found = client.post(format!("{url}/{name}/_search")).json(&asked);
        let found = found.send().await.expect("an answer");
        let found: Value = found.json().await.expect("JSON");
        let hits = found["hits"]["hits"].as_array().expect("hits").iter();
        hits.map(|hit| {
            let id = hit["_id"].as_str().expect("an id").to_owned();
            let version = hit["_version"].as_i64().expect("a version");
            (id, (version, hit["_source"].clone()))
        })
        .collect()
    }

    /// Everything in Redis, and these indices.
    async fn wipe(&self, indices: &[&str]) {
        let mut redis = self.calendar.fleet.redis().await;
        let flushed = redis::cmd("FLUSHDB").query_async::<()>(&mut redis).await;
        flushed.expect("flushed");
        self.wipe_indices(indices).await;
    }

    async fn wipe_indices(&self, indices: &[&str]) {
        let url = self.calendar.fleet.value("ELASTICSEARCH_URL");
        for name in indices {
            let deleted = reqwest::Client::new().delete(format!("{url}/{name}"));
            let deleted = deleted.send().await.expect("an answer");
            deleted.error_for_status().expect(name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_snapshot_is_made_again_as_it_was() {
    let mut made = Made::new("rebuild");
    made.run("n1");
    let index = made.calendar.index_of("n1");
    let before = made.published(&index).await;
    let manifest = made.calendar.manifest("n1").await.expect("a manifest");
    let calls = made.calendar.provider.log().len();
    assert_eq!(before.documents.len() as u64, manifest.documents);
    assert_eq!(before.sets.len(), 1);

    // By the loader that knows the run from before.
    made.wipe(&[&index]).await;
    let said = made.rebuild(&["n1"], 0);
    assert!(said.contains("was made again"), "{said}");
    assert_eq!(made.published(&index).await, before);

    // With nothing lost, and nobody who takes receipts.
    made.workers.clear();
    let said = made.rebuild(&["fares/n1"], 0);
    assert!(said.contains("a `worker load` is started"), "{said}");
    assert_eq!(made.published(&index).await, before);

    // The documents alone.
    made.wipe_indices(&[&index]).await;
    made.rebuild(&["n1"], 0);
    assert_eq!(made.published(&index).await, before);

    let after = made.calendar.manifest("n1").await.expect("a manifest");
    assert_eq!(after, manifest, "the manifest stays as it is");
    assert_eq!(
        made.calendar.provider.log().len(),
        calls,
        "nothing is called"
    );
    made.calendar
        .check("n1")
        .await
        .expect("checked")
        .assert_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn loaders_that_die_in_a_rebuild_lose_nothing() {
    let mut made = Made::new("rebuild-dies");
    made.run("n1");
    let index = made.calendar.index_of("n1");
    let before = made.published(&index).await;
    made.workers.clear();
    made.wipe(&[&index]).await;
    // The loader that the producer starts for itself dies at each of them.
    for point in [
        "load-before-mark@2",
        "rebuild-before-said",
        "rebuild-before-end",
    ] {
        made.calendar.fleet.set("PACELINE_CRASH_AT", point);
        let said = made.rebuild(&["n1"], 1);
        assert!(said.contains("has ended (signal: 9"), "{said}");
    }
    made.calendar.fleet.set("PACELINE_CRASH_AT", "");
    made.rebuild(&["n1"], 0);
    assert_eq!(made.published(&index).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_published_or_is_no_longer_live_is_refused() {
    let made = Made::new("rebuild-not");
    let said = made.rebuild(&["n0"], 2);
    assert!(said.contains("there is no run n0"), "{said}");
    made.run("n1");
    made.run("n2");
    let said = made.rebuild(&["n1"], 2);
    assert!(
        said.contains("`producer rebuild fares/n2`") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(
        made.calendar.live_index().await.expect("an answer"),
        Some(made.calendar.index_of("n2"))
    );
    made.rebuild(&["n1", "--force"], 0);
    assert_eq!(
        made.calendar.live_index().await.expect("an answer"),
        Some(made.calendar.index_of("n1"))
    );

    let calendar = &made.calendar;
    calendar.enqueue("n3").expect("it ends").expect_code(0);
    calendar
        .producer(&["cancel", "fares/n3"])
        .expect("it ends")
        .expect_code(0);
    let manifest = calendar.manifest("n3").await.expect("a manifest");
    if manifest.state != paceline_protocol::manifest::RunEnd::Completed {
        let said = made.rebuild(&["n3"], 4);
        assert!(said.contains("did not pass its gate"), "{said}");
    }
    let key = calendar.layout("n2").data();
    let part = calendar.bucket().keys(&key).await.expect("a list")[0].clone();
    calendar.bucket().delete(&part).await.expect("deleted");
    let said = made.rebuild(&["n2", "--force"], 1);
    assert!(said.contains("1 of its") && said.contains(&part), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_several_runs_get_their_versions_back() {
    let made = Made::new("rebuild-upsert");
    let spec = &made.calendar.fleet.spec;
    spec.replace("jobs/fares.yaml", "mode: snapshot", "mode: upsert")
        .expect("changed");
    made.run("n1");
    spec.destinations(&["NRT", "BKK"]).expect("written");
    made.run("n2");
    let index = made.calendar.index.clone();
    let before = made.published(&index).await;
    assert_eq!(before.sets.len(), 2);
    made.wipe(&[&index]).await;
    // The newer one first: the older one's documents take nothing from it.
    made.rebuild(&["n2"], 0);
    let newest = made.published(&index).await;
    made.rebuild(&["n1", "--force"], 0);
    assert_eq!(made.documents(&index).await, newest.documents);
    made.rebuild(&["n2"], 0);
    assert_eq!(made.published(&index).await, before);
}
