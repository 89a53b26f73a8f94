//! Elasticsearch: versions decide, a swap is all or nothing, and nothing goes by its name alone.

use bytes::Bytes;
use paceline_protocol::stores::index::{Index, IndexError, Item};
use serde_json::{Value, json};

use super::{own_name, value};

fn index() -> Index {
    Index::new(value("ELASTICSEARCH_URL"), None).expect("a client")
}

fn body(run: &str) -> Value {
    json!({
        "settings": { "index": { "refresh_interval": "-1", "number_of_replicas": 0 } },
        "mappings": {
            "dynamic": false,
            "_meta": { "paceline": { "run": run } },
            "properties": { "price": { "type": "double" } },
        },
    })
}

async fn made(test: &str) -> (Index, String) {
    let (index, name) = (index(), own_name(test));
    assert_eq!(index.create(&name, &body("r1")).await.ok(), Some(true));
    (index, name)
}

/// Lines of a `_bulk`: id, version, price as JSON.
fn bulk(documents: &[(&str, i64, &str)]) -> Bytes {
    let line = |(id, version, price): &(&str, i64, &str)| {
        format!(
            "{{\"index\":{{\"_id\":\"{id}\",\"version\":{version},\"version_type\":\"external\"}}}}\n{{\"price\":{price}}}\n"
        )
    };
    documents.iter().map(line).collect::<String>().into()
}

async fn price(index: &Index, name: &str, id: &str) -> Value {
    index.refresh(name).await.expect("refreshed");
    let query = json!({ "query": { "ids": { "values": [id] } } });
    let found = index.search(name, &query).await.expect("searched");
    found["hits"]["hits"][0]["_source"]["price"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_created_once() {
    let (index, name) = made("create").await;
    assert_eq!(index.create(&name, &body("r2")).await.ok(), Some(false));
    let metas = index.metas(&name).await.expect("asked");
    assert_eq!(metas, [(name, json!({ "paceline": { "run": "r1" } }))]);
    assert!(index.version().await.expect("a version").contains('.'));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_the_same_or_an_older_version_change_nothing() {
    let (index, name) = made("versions").await;
    let first = bulk(&[("a", 5, "1"), ("b", 5, "2")]);
    let stored = vec![Item::Stored, Item::Stored];
    for _ in 0..2 {
        // The second time every item is a 409, and the answer as a whole an error.
        let items = index.bulk(&name, first.clone()).await.expect("answered");
        assert_eq!(items, stored);
    }
    let later = bulk(&[("a", 4, "9"), ("b", 6, "3")]);
    assert_eq!(index.bulk(&name, later).await.ok(), Some(stored));
    assert_eq!(price(&index, &name, "a").await, json!(1));
    assert_eq!(price(&index, &name, "b").await, json!(3));
    assert_eq!(index.count(&name).await.ok(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_does_not_fit_is_rejected_alone() {
    let (index, name) = made("mapping").await;
    let documents = bulk(&[("a", 1, "1"), ("b", 1, "\"dear\""), ("c", 1, "2")]);
    let items = index.bulk(&name, documents).await.expect("answered");
    let [Item::Stored, Item::Rejected(why), Item::Stored] = items.as_slice() else {
        panic!("{items:?}");
    };
    assert!(why.contains("price"), "{why}");
    index.refresh(&name).await.expect("refreshed");
    assert_eq!(index.count(&name).await.ok(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_names_the_wrong_index_changes_nothing() {
    let (index, old) = made("swap-old").await;
    let (_, new) = made("swap-new").await;
    let (_, other) = made("swap-other").await;
    let alias = own_name("swap");
    assert_eq!(index.behind(&alias).await.ok(), Some(vec![]));
    index.swap(&alias, &[], &old).await.expect("given");
    for wrong in [other, "no-such-index".to_owned()] {
        let refused = index.swap(&alias, &[wrong], &new).await;
        assert!(
            matches!(refused, Err(IndexError::Refused { .. })),
            "{refused:?}"
        );
        assert_eq!(index.behind(&alias).await.ok(), Some(vec![old.clone()]));
    }
    let right = index.swap(&alias, &[old], &new).await;
    right.expect("the index that has it");
    assert_eq!(index.behind(&alias).await.ok(), Some(vec![new.clone()]));
    let twice = index.swap(&alias, &[], &new).await;
    twice.expect("giving it again is harmless");
    assert_eq!(index.behind(&alias).await.ok(), Some(vec![new]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_cannot_take_an_indexs_name() {
    let (index, name) = made("clash").await;
    let (_, new) = made("clash-new").await;
    let refused = index.swap(&name, &[], &new).await;
    assert!(matches!(refused, Err(IndexError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn metas_are_those_of_the_pattern() {
    let (index, name) = made("metas").await;
    let second = format!("{name}-2");
    let created = index.create(&second, &body("r2")).await;
    assert_eq!(created.ok(), Some(true));
    let mute = format!("{name}-mute");
    let created = index.create(&mute, &json!({})).await;
    assert_eq!(created.ok(), Some(true));
    let found = index.metas(&format!("{name}*")).await.expect("asked");
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [name.as_str(), &second],
        "one says nothing of itself"
    );
    let none = index.metas(&own_name("nothing")).await;
    assert_eq!(none.ok(), Some(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_single_index_is_deleted() {
    let (index, name) = made("delete").await;
    for pattern in ["", "*", "_all", "delete-*"] {
        let refused = index.delete(pattern).await;
        assert!(
            matches!(refused, Err(IndexError::Refused { .. })),
            "{pattern:?}"
        );
    }
    for _ in 0..2 {
        index.delete(&name).await.expect("also when it is gone");
    }
    let count = index.count(&name).await;
    assert!(matches!(
        count,
        Err(IndexError::Refused { status: 404, .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_back_after_loading() {
    let (index, name) = made("settings").await;
    let settings = json!({ "index": { "refresh_interval": null, "auto_expand_replicas": "0-1" } });
    index.settings(&name, &settings).await.expect("changed");
    let limit = std::time::Duration::from_secs(60);
    assert_eq!(index.wait_green(&name, limit).await.ok(), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let index = Index::new("http://me:hidden@127.0.0.1:1", None).expect("a client");
    let error = index.refresh("fares").await.expect_err("nobody listens");
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && !text.contains("hidden"),
        "{text}"
    );
}
