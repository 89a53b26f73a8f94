//! Redis: every change counts once, a lost registry is not an empty one, and a run's sets are published
//! as a whole or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use paceline_protocol::ids::RunRef;
use paceline_protocol::keys::Keys;
use paceline_protocol::message::PartSummary;
use paceline_protocol::spec::KeepScore;
use paceline_protocol::stores::state::{
    BlockCounts, KeptToken, OpenRun, PublishSet, SetUpdate, State, StateError, TokenSeen,
};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use super::{a_run, own_name, until, value};

/// The state in a namespace of its own, and a plain connection to look behind it.
struct Redis {
    state: State,
    keys: Keys,
    name: String,
    plain: MultiplexedConnection,
}

impl Redis {
    async fn new(test: &str) -> Self {
        let (url, name) = (value("REDIS_URL"), own_name(test));
        let keys = Keys::new(name.clone());
        let state = State::connect(url, keys.clone()).await;
        Redis {
            state: state.expect("connected"),
            keys,
            name,
            plain: harness::redis_at(url).await,
        }
    }

    /// A set of this test: published sets bear their names as they are.
    fn set(&self, name: &str) -> String {
        format!("{}:{name}", self.name)
    }

    async fn members(&self, key: &str) -> Vec<(String, f64)> {
        let asked = self.plain.clone().zrange_withscores(key, 0, -1).await;
        asked.expect("a sorted set")
    }

    async fn own_members(&self, name: &str) -> Vec<(String, f64)> {
        self.members(&self.keys.run_set(&a_run(), &self.set(name)))
            .await
    }

    async fn settle(&self, bit: u64, sets: &[SetUpdate]) -> bool {
        let settled = self
            .state
            .settle_block(&a_run(), bit, &counts(), sets)
            .await;
        settled.expect("settled")
    }

    fn update(&self, keep: KeepScore, members: &[(&str, f64, u64)]) -> SetUpdate {
        let members = members.iter();
        SetUpdate {
            name: self.set("ranking"),
            keep,
            members: members.map(|(m, s, c)| ((*m).to_owned(), *s, *c)).collect(),
        }
    }

    fn publishing(&self, names: &[&str]) -> Vec<PublishSet> {
        let set = |name: &&str| PublishSet {
            name: self.set(name),
            expire: None,
        };
        names.iter().map(set).collect()
    }
}

fn counts() -> BlockCounts {
    BlockCounts {
        succeeded: 3,
        empty: 1,
        failed: 2,
        records: 9,
        by: BTreeMap::from([("a:b".to_owned(), (3, 1, 2))]),
        ..BlockCounts::default()
    }
}

fn open_run(run: &RunRef, priority: u8) -> OpenRun {
    OpenRun {
        run: run.clone(),
        lanes: vec!["fare-search".into()],
        priority,
        paused: false,
        reason: None,
        round: 0,
        opened_at: None,
    }
}

fn part(round: u32, records: u64) -> PartSummary {
    PartSummary {
        block: 0,
        round,
        ends: "2S2F".parse().expect("ends"),
        records,
        truncated: 0,
        missing: 0,
        unscored: 0,
    }
}

fn pairs(members: &[(&str, f64)]) -> Vec<(String, f64)> {
    members.iter().map(|(m, s)| ((*m).to_owned(), *s)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_counts_once_however_each_score_is_kept() {
    for (keep, kept) in [
        (KeepScore::Min, 10.0),
        (KeepScore::Max, 30.0),
        (KeepScore::Sum, 60.0),
        (KeepScore::Last, 30.0),
    ] {
        let redis = Redis::new("settle").await;
        // Blocks do not come in the order of their cells; `last` goes by the highest cell all the same.
        for (bit, score, cell) in [(2, 30.0, 50), (0, 10.0, 10), (1, 20.0, 30)] {
            let sets = [redis.update(keep, &[("m", score, cell)])];
            assert!(redis.settle(bit, &sets).await);
            assert!(!redis.settle(bit, &sets).await, "the same block again");
        }
        assert_eq!(
            redis.own_members("ranking").await,
            pairs(&[("m", kept)]),
            "{keep:?}"
        );
        let progress = redis.state.progress(&a_run()).await.expect("asked");
        assert_eq!((progress.succeeded, progress.empty), (9, 3));
        assert_eq!((progress.failed, progress.records), (6, 27));
        assert_eq!(progress.blocks, 3);
        assert_eq!(progress.by["a:b"], (9, 3, 6));
        let bits = redis.state.settled(&a_run(), 0, 5).await;
        assert_eq!(bits.ok(), Some(vec![true, true, true, false, false]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_settled_at_once_count_once() {
    let redis = Redis::new("at-once").await;
    let sets = [redis.update(KeepScore::Sum, &[("m", 1.0, 1)])];
    let settled = futures::future::join_all((0..40).map(|n| redis.settle(n % 4, &sets))).await;
    assert_eq!(settled.iter().filter(|new| **new).count(), 4);
    assert_eq!(redis.own_members("ranking").await, pairs(&[("m", 4.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_takes_its_cells_out_of_the_failed() {
    let redis = Redis::new("retry").await;
    redis.settle(0, &[]).await;
    let retry = BlockCounts {
        succeeded: 1,
        failed: 1,
        records: 4,
        by: BTreeMap::from([("a:b".to_owned(), (1, 0, 1))]),
        no_longer_failed: 2,
        no_longer_failed_by: BTreeMap::from([("a:b".to_owned(), 2)]),
        ..BlockCounts::default()
    };
    let settled = redis.state.settle_block(&a_run(), 100, &retry, &[]).await;
    assert_eq!(settled.ok(), Some(true));
    let progress = redis.state.progress(&a_run()).await.expect("asked");
    assert_eq!(
        (progress.succeeded, progress.empty, progress.failed),
        (4, 1, 1)
    );
    assert_eq!(progress.by["a:b"], (4, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_score_that_is_no_number_changes_nothing() {
    let redis = Redis::new("nan").await;
    let sets = [redis.update(KeepScore::Min, &[("good", 1.0, 1), ("bad", f64::NAN, 2)])];
    let refused = redis
        .state
        .settle_block(&a_run(), 0, &counts(), &sets)
        .await;
    assert!(refused.is_err());
    assert_eq!(redis.state.knows(&a_run()).await.ok(), Some(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_sets_happens_as_a_whole_and_once() {
    let redis = Redis::new("publish").await;
    let mut plain = redis.plain.clone();
    let (ranking, gone) = (redis.set("ranking"), redis.set("gone"));
    for name in [&ranking, &gone] {
        let added: usize = plain.zadd(name, "yesterday", 1.0).await.expect("added");
        assert_eq!(added, 1);
    }
    redis
        .settle(0, &[redis.update(KeepScore::Min, &[("today", 2.0, 1)])])
        .await;

    let with_lost = redis.publishing(&["ranking", "lost"]);
    let refused = redis
        .state
        .publish_sets(&a_run(), &with_lost, std::slice::from_ref(&gone))
        .await;
    assert!(
        matches!(&refused, Err(StateError::LostSet { set, .. }) if *set == redis.set("lost")),
        "{refused:?}"
    );
    let yesterday = pairs(&[("yesterday", 1.0)]);
    assert_eq!(redis.members(&ranking).await, yesterday, "nothing moved");
    assert_eq!(redis.members(&gone).await, yesterday, "nothing went");

    for _ in 0..2 {
        let sets = redis.publishing(&["ranking"]);
        let gone = std::slice::from_ref(&gone);
        let published = redis.state.publish_sets(&a_run(), &sets, gone).await;
        published.expect("published, also the second time");
        assert_eq!(redis.members(&ranking).await, pairs(&[("today", 2.0)]));
    }
    assert_eq!(redis.members(&gone).await, []);
    let sizes = redis.state.run_sets(&a_run()).await.expect("asked");
    assert_eq!(sizes, BTreeMap::from([(ranking, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_blocks_can_be_made_again() {
    let redis = Redis::new("forget").await;
    let sets = [redis.update(KeepScore::Sum, &[("m", 5.0, 1)])];
    redis.settle(0, &sets).await;
    redis
        .state
        .shard_loaded(&a_run(), 0, &[part(0, 1)], 0)
        .await
        .expect("marked");
    redis.state.forget_blocks(&a_run()).await.expect("forgot");
    assert_eq!(redis.own_members("ranking").await, []);
    assert!(redis.settle(0, &sets).await, "it counts again");
    assert_eq!(redis.own_members("ranking").await, pairs(&[("m", 5.0)]));
    let progress = redis.state.progress(&a_run()).await.expect("asked");
    assert_eq!((progress.blocks, progress.shards_loaded), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_registry_is_not_an_empty_one() {
    let redis = Redis::new("registry").await;
    let run = open_run(&a_run(), 5);
    assert_eq!(redis.state.open_runs().await.ok(), Some(None));
    redis.state.set_open_run(&run).await.expect("opened");
    assert_eq!(
        redis.state.open_runs().await.ok(),
        Some(None),
        "one run alone does not make it whole"
    );
    let stale = open_run(&a_run(), 1);
    redis
        .state
        .restore_open_runs(&[stale])
        .await
        .expect("restored");
    assert_eq!(
        redis.state.open_runs().await.ok(),
        Some(Some(vec![run])),
        "what is there is newer than what S3 said"
    );
    redis.state.remove_open_run(&a_run()).await.expect("ended");
    assert_eq!(redis.state.open_runs().await.ok(), Some(Some(vec![])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_keeps_what_its_newest_round_came_to() {
    let redis = Redis::new("loaded").await;
    let loaded = async |shard, parts: &[PartSummary], rejected| {
        let marked = redis
            .state
            .shard_loaded(&a_run(), shard, parts, rejected)
            .await;
        marked.expect("marked")
    };
    let newest = [part(0, 4), part(1, 2)];
    assert_eq!(loaded(0, &[part(0, 4)], 0).await, 1);
    assert_eq!(loaded(3, &newest, 1).await, 2);
    assert_eq!(loaded(3, &[part(0, 4)], 7).await, 2, "a late receipt");
    let shards = redis.state.loaded_shards(&a_run()).await.expect("asked");
    assert_eq!(shards[&3], (newest.to_vec(), 1));
    assert_eq!(shards.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_has_the_lease_until_it_ends() {
    let redis = Redis::new("lease").await;
    let take = async |holder: &str, ttl: Duration| {
        let taken = redis.state.take_finisher("fares", holder, ttl).await;
        taken.expect("asked")
    };
    let long = Duration::from_secs(600);
    assert!(take("a", long).await && take("a", long).await, "renewed");
    assert!(!take("b", long).await);
    let release = async |holder: &str| {
        let released = redis.state.release_finisher("fares", holder).await;
        released.expect("asked");
    };
    release("b").await;
    assert!(!take("b", long).await, "it was not b's to give back");
    release("a").await;
    assert!(take("b", Duration::from_millis(50)).await);
    let ended = async || take("a", long).await.then_some(());
    until("the end of b's lease", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_opened_again_is_not_forgotten() {
    let redis = Redis::new("expire").await;
    redis
        .settle(0, &[redis.update(KeepScore::Last, &[("m", 1.0, 1)])])
        .await;
    redis
        .state
        .shard_loaded(&a_run(), 0, &[part(0, 1)], 0)
        .await
        .expect("marked");
    let day = Duration::from_secs(86_400);
    redis.state.expire_run(&a_run(), day).await.expect("asked");
    let set = redis.set("ranking");
    let keys = [
        redis.keys.settled_blocks(&a_run()),
        redis.keys.loaded_shards(&a_run()),
        redis.keys.shard_summaries(&a_run()),
        redis.keys.run_set(&a_run(), &set),
        redis.keys.run_set_cells(&a_run(), &set),
    ];
    let mut plain = redis.plain.clone();
    for key in &keys {
        let ttl: i64 = plain.ttl(key).await.expect("asked");
        assert!(ttl > 0, "{key} lives {ttl}");
    }
    let retried = open_run(&a_run(), 5);
    redis.state.set_open_run(&retried).await.expect("opened");
    for key in &keys {
        let ttl: i64 = plain.ttl(key).await.expect("asked");
        assert_eq!(ttl, -1, "{key} would be forgotten under the retry");
    }
}

const LEASE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl Redis {
    async fn look(&self, holder: &str) -> TokenSeen {
        let seen = self.state.look_for_token("p", "0-aa", holder, LEASE).await;
        seen.expect("looked")
    }

    async fn put(&self, holder: &str, generation: u64, text: &str) -> bool {
        let token = KeptToken {
            generation,
            sealed: text.as_bytes().to_vec(),
            renew_in: HOUR,
            good_for: 2 * HOUR,
        };
        let put = self.state.put_token("p", "0-aa", holder, &token).await;
        put.expect("put")
    }

    async fn ended(&self, generation: u64) -> bool {
        let told = self.state.token_ended("p", "0-aa", generation, false);
        told.await.expect("told")
    }
}

#[tokio::test]
async fn a_token_is_renewed_by_one_and_by_generation() {
    let redis = Redis::new("token").await;
    let fence = redis.look("a").await.renew.expect("the lease");
    let other = redis.look("b").await;
    assert!(other.renew.is_none() && other.held_for > Duration::ZERO);
    assert!(redis.put("a", fence, "first").await);
    let kept = redis.look("b").await.kept.expect("the token");
    assert_eq!((kept.generation, &*kept.sealed), (fence, &b"first"[..]));
    let works = redis.state.token_works("p", "0-aa", fence).await;
    works.expect("told");
    // It worked, so its end is an end; who tells it later, or of an older one, hears the same.
    assert!(redis.ended(fence).await && redis.ended(fence).await && redis.ended(1).await);
    let next = redis.look("b").await.renew.expect("the lease");
    assert!(next > fence);
    assert!(redis.put("b", next, "second").await);
    // Never worked: the credential is not accepted, which one alone hears.
    assert!(!redis.ended(next).await);
    assert!(redis.ended(next).await);
}

#[tokio::test]
async fn who_was_too_slow_puts_no_token_over_a_newer_one() {
    let redis = Redis::new("tokenfence").await;
    let old = redis.look("a").await.renew.expect("the lease");
    let () = redis::cmd("DEL")
        .arg(redis.keys.token("p", "0-aa"))
        .query_async(&mut redis.plain.clone())
        .await
        .expect("deleted");
    let new = redis.look("b").await.renew.expect("the lease");
    assert!(new > old, "fences grow over a loss of Redis");
    assert!(redis.put("b", new, "newer").await);
    assert!(!redis.put("a", old, "older").await);
    let keep = redis.state.keep_token_lease("p", "0-aa", "a", old, LEASE);
    assert!(!keep.await.expect("asked"));
    let kept = redis.look("c").await.kept.expect("the token");
    assert_eq!(kept.sealed, b"newer");
}

#[tokio::test]
async fn a_one_time_code_is_used_once_and_trouble_is_shared() {
    let redis = Redis::new("tokencode").await;
    let fence = redis.look("a").await.renew.expect("the lease");
    let step = async |step| {
        let used = redis.state.use_one_time_step("p", "0-aa", "a", fence, step);
        used.await.expect("asked")
    };
    assert!(step(7).await);
    assert!(!step(7).await && !step(6).await);
    let trouble = Some(("status 500", LEASE));
    let left = redis.state.leave_token("p", "0-aa", "a", fence, trouble);
    left.await.expect("left");
    let seen = redis.look("b").await;
    assert_eq!((seen.renew, seen.last_step), (None, Some(7)));
    assert_eq!(seen.trouble.as_deref(), Some("status 500"));
}
