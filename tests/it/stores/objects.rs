//! S3: one of many puts wins, long listings are whole, and what is missing is said to be.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use harness::shared;
use paceline_protocol::stores::objects::{ObjectError, Objects, PutNew};

use super::own_name;

/// The shared bucket; a test keeps to a prefix of its own.
async fn objects() -> Objects {
    let env: BTreeMap<String, String> = shared::stack().env().into_iter().collect();
    Objects::of(&env["PACELINE_BUCKET"], &env).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_puts_of_one_new_key_one_wins() {
    let (objects, key) = (objects().await, format!("{}/key", own_name("race")));
    let puts = (0..20u8).map(|number| {
        let (objects, key) = (objects.clone(), key.clone());
        async move {
            let body = Bytes::from(vec![number]);
            let by = [("by", number.to_string())];
            let put = objects.put_new(&key, body, &by).await;
            (number, put.expect("decided"))
        }
    });
    let winners: Vec<u8> = join_all(puts)
        .await
        .into_iter()
        .filter(|(_, put)| *put == PutNew::Created)
        .map(|(number, _)| number)
        .collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    let kept = objects.get(&key).await.expect("asked").expect("there");
    assert_eq!(kept.body.as_ref(), winners);
    assert_eq!(kept.metadata["by"], winners[0].to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_replaces_and_a_conditional_one_does_not() {
    let (objects, key) = (objects().await, format!("{}/key", own_name("put")));
    let put = async |text: &'static str| {
        let body = Bytes::from_static(text.as_bytes());
        objects.put(&key, body, &[("ends", "12S1E".into())]).await
    };
    put("one").await.expect("put");
    put("two").await.expect("put over it");
    let third = objects.put_new(&key, Bytes::from_static(b"three"), &[]);
    assert_eq!(third.await.ok(), Some(PutNew::Exists));
    let kept = objects.get(&key).await.expect("asked").expect("there");
    assert_eq!(kept.body.as_ref(), b"two");
    let head = objects.head(&key).await.expect("asked").expect("there");
    assert_eq!(head["ends"], "12S1E");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_beyond_its_first_page() {
    const OBJECTS: usize = 1_050;
    let (objects, prefix) = (objects().await, own_name("list"));
    let key = |number: usize| format!("{prefix}/data/shard-{}/part-{number:04}", number % 3);
    for numbers in (0..OBJECTS).collect::<Vec<_>>().chunks(50) {
        let puts = numbers.iter().map(|number| {
            let (objects, key) = (objects.clone(), key(*number));
            async move { objects.put(&key, Bytes::from_static(b"12345"), &[]).await }
        });
        for put in join_all(puts).await {
            put.expect("put");
        }
    }
    let listed = objects.list(&format!("{prefix}/data/")).await;
    let listed = listed.expect("listed");
    assert!(listed.is_sorted_by(|a, b| a.key < b.key), "each once");
    assert_eq!(listed.len(), OBJECTS);
    assert!(listed.iter().all(|object| object.size == 5));
    let folders = objects.folders(&format!("{prefix}/data/")).await;
    assert_eq!(folders.expect("listed"), ["shard-0", "shard-1", "shard-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_none_and_can_be_deleted() {
    let (objects, prefix) = (objects().await, own_name("none"));
    let key = format!("{prefix}/key");
    assert!(objects.get(&key).await.expect("asked").is_none());
    assert!(objects.head(&key).await.expect("asked").is_none());
    objects.delete(&key).await.expect("nothing to do is fine");
    assert_eq!(objects.list(&prefix).await.expect("listed"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named_with_what_to_do() {
    let nowhere = objects().await.with_bucket("no-such-bucket-here");
    // The local store makes a bucket of whatever is put, so only asking can tell.
    let refused = [nowhere.ping().await.err()];
    for error in refused {
        let Some(ObjectError::NoBucket(_)) = &error else {
            panic!("the bucket is missing, yet: {error:?}");
        };
        let text = error.expect("just seen").to_string();
        assert!(text.contains("no-such-bucket-here") && text.contains("PACELINE_BUCKET"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_honours_conditions_and_the_probe_leaves_nothing() {
    let (objects, prefix) = (objects().await, own_name("probe"));
    let probed = objects.probe_conditional_put(&prefix).await;
    probed.expect("it refuses a second put");
    assert_eq!(objects.list(&prefix).await.expect("listed"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_at_once_and_says_so() {
    let mut env: BTreeMap<String, String> = shared::stack().env().into_iter().collect();
    env.insert("AWS_SECRET_ACCESS_KEY".into(), "wrong".into());
    let objects = Objects::of(&env["PACELINE_BUCKET"], &env).await;
    let error = objects.get("key").await.expect_err("refused").to_string();
    assert!(error.contains("access denied"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_wrote_meanwhile_is_not_written_over() {
    let (objects, key) = (objects().await, format!("{}/live.json", own_name("over")));
    let body = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert!(objects.put_over(&key, body("1"), None).await.expect("put"));
    let first = objects.get(&key).await.expect("asked").expect("there");
    assert!(!objects.put_over(&key, body("2"), None).await.expect("put"));
    let over = first.etag.as_deref();
    assert!(objects.put_over(&key, body("2"), over).await.expect("put"));
    assert!(!objects.put_over(&key, body("3"), over).await.expect("put"));
    // The answer to one's own put may have been lost.
    assert!(objects.put_over(&key, body("2"), over).await.expect("put"));
    let last = objects.get(&key).await.expect("asked").expect("there");
    assert_eq!(&last.body[..], b"2");
}
