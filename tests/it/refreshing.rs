//! Refresh tokens that rotate, at a shop where each is good once: kept in S3 before what came with it is used, so that neither
//! kill -9 nor a lost Redis loses the account. The shop knows its client by HTTP basic and has a header of its own for tokens.

use std::time::Duration;

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet};
use paceline_loadtest::providers::Server;
use paceline_loadtest::providers::rotating_shop::{self, Config, ORDERS};
use paceline_protocol::layout;
use paceline_protocol::manifest::Manifest;
use redis::AsyncCommands;

const DAYS: u64 = 16;
const TOKEN_CALLS: u32 = 4;
const CLIENT: &str = "canary-client:canary-client-secret";
const CONSENTED: &str = "canary-consented";
/// A quote in a template would end it.
const REGION: &str = "k\"r";
const PATIENCE: Duration = Duration::from_secs(180);

const PROVIDER: &str = r#"
provider: shop
version: 1
base_url: ${SHOP_URL}
credentials: {from_env: SHOP_ACCOUNT, fields: [client, secret, refresh_token]}
auth:
  - oauth2: refresh_token
    token: {post: /oauth/token}
    basic: {user: "{{ credential.client }}", password: "{{ credential.secret }}"}
    header: x-shop-token
    value: "{{ token }}"
limits: [{name: second, rate: 40/s}]
endpoints:
  orders:
    get: /orders
    query: {day: "{{ day }}"}
    records: $.orders[*]
    fields: {id: {path: $.id, as: integer}, amount: {path: $.amount, as: integer}}
  details:
    get: /orders
    query: {day: "{{ day }}"}
    records: $.orders[*]
    detail: {post: /details, batch: 10, ids: $.id, json: {ids: "{{ ids }}"}, records: "$.orders[*]", join: {left: $.id, right: $.id}, missing: report}
    fields: {id: {path: $.id, as: integer}, status: $.status}
"#;

const JOB: &str = r#"
job: shop
provider: shop
endpoint: orders
split: {day: {range: [1, 16]}}
shard: {cells: 2, checkpoint: 1}
outputs:
  s3: {format: ndjson}
  rankings: [{key: "sales:${SHOP_REGION}", member: "{{ id }}-${SHOP_REGION}", score: "{{ amount }}", keep: sum}]
"#;

struct Shop {
    fleet: Fleet,
    server: Server,
}

impl Shop {
    fn new(test: &str, job: &str) -> Self {
        let server = rotating_shop::start(Config {
            client: CLIENT.into(),
            refresh_token: CONSENTED.into(),
            token_calls: TOKEN_CALLS,
        });
        let server = server.expect("it listens");
        let mut fleet = Fleet::new(test).expect("a fleet");
        let write = |path: &str, text: &str| drop(fleet.spec.write(path, text).expect("written"));
        write("providers/shop.yaml", PROVIDER);
        write("jobs/shop.yaml", job);
        fleet.set("SHOP_URL", server.url());
        fleet.set("SHOP_ACCOUNT", format!("{CLIENT}:{CONSENTED}"));
        fleet.set("SHOP_REGION", REGION);
        Shop { fleet, server }
    }

    fn enqueue(&self, run: &str) {
        let ended = self
            .fleet
            .producer(&["enqueue", "shop", "--run-id", run], PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    async fn ends_well(&self, run: &str) -> Manifest {
        let ended = self
            .fleet
            .producer(&["watch", &format!("shop/{run}")], PATIENCE);
        ended.expect("it ends").expect_code(0);
        let outputs = Outputs {
            index: None,
            ranking: None,
        };
        let mut checker = Checker::new(&self.fleet, "shop", run, outputs).expect("a run id");
        for secret in [
            "canary-client-secret",
            "canary-refresh",
            "canary-access",
            CONSENTED,
        ] {
            checker = checker.secret(secret);
        }
        let mut verdict = checker.check().await.expect("checked");
        // What the set holds is looked at by the test.
        verdict
            .breaches
            .retain(|breach| !breach.starts_with("manifest: sets"));
        verdict.assert_kept();
        let layout = self.fleet.layout("shop", run);
        let manifest = Bucket::of(&self.fleet).get(&layout.manifest()).await;
        serde_json::from_slice(&manifest.expect("it is there").body).expect("a manifest")
    }

    /// Token requests; every one of them was taken.
    fn tokens(&self) -> u64 {
        let seen = self.server.seen();
        let tokens = seen.iter().filter(|seen| seen.call.starts_with("token"));
        let tokens: Vec<_> = tokens.collect();
        assert!(tokens.iter().all(|seen| seen.status == 200), "{tokens:?}");
        tokens.len() as u64
    }

    /// The highest number of a refresh token in S3.
    async fn kept(&self) -> u64 {
        let folder = layout::credential(self.fleet.value("PACELINE_PREFIX"), "shop", "");
        let folder = folder.trim_end_matches('/');
        let keys = Bucket::of(&self.fleet).keys(folder).await.expect("a list");
        let number = |key: &String| key.rsplit_once("refresh-")?.1.parse().ok();
        keys.iter().filter_map(number).max().unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_refresh_token_outlives_kill_and_redis() {
    let shop = Shop::new("rotating", JOB);
    shop.enqueue("first");
    let _loader = shop.fleet.load(&[]).expect("started");
    // It dies with its second refresh token in S3 and the access token that came with it nowhere.
    let crash = [("PACELINE_CRASH_AT", "token-before-keep@2")];
    let mut dying = shop
        .fleet
        .start_with(&crash, "worker", &["collect"])
        .expect("started");
    let died = dying.wait_at_most(PATIENCE).expect("its status");
    assert!(died.is_some(), "it lives on: {}", dying.last_words(20));
    assert_eq!((shop.tokens(), shop.kept().await), (2, 2));

    let _second = shop.fleet.collect(&[]).expect("started");
    let _third = shop.fleet.collect(&[]).expect("started");
    let manifest = shop.ends_well("first").await;
    assert_eq!((manifest.cells, manifest.records), (DAYS, DAYS * ORDERS));
    let first = shop.tokens();
    assert!(first > DAYS / u64::from(TOKEN_CALLS), "{first} tokens");
    assert_eq!(shop.kept().await, first, "each is kept, none twice");

    // The environment's value stands in name and member as it is.
    let set = format!("sales:{REGION}");
    let mut redis = shop.fleet.redis().await;
    let members: usize = redis.zcard(&set).await.expect("a set");
    assert_eq!(members as u64, DAYS * ORDERS, "{:?}", manifest.sets);
    let score: Option<f64> = redis
        .zscore(&set, format!("4-{REGION}"))
        .await
        .expect("a set");
    assert_eq!(score, Some(101.0));

    // Redis forgets everything: the newest refresh token is in S3, that of the environment is long dead.
    let _: () = redis::cmd("FLUSHDB")
        .query_async(&mut redis)
        .await
        .expect("forgotten");
    shop.enqueue("second");
    shop.ends_well("second").await;
    assert!(shop.tokens() > first);
    assert_eq!(shop.kept().await, shop.tokens());
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_without_a_detail_are_counted_where_the_file_says_so() {
    let job = JOB
        .replace("endpoint: orders", "endpoint: details")
        .replace("  rankings: [{key: \"sales:${SHOP_REGION}\", member: \"{{ id }}-${SHOP_REGION}\", score: \"{{ amount }}\", keep: sum}]\n", "");
    let shop = Shop::new("undetailed", &job);
    shop.enqueue("first");
    let _loader = shop.fleet.load(&[]).expect("started");
    let _collector = shop.fleet.collect(&[]).expect("started");
    let manifest = shop.ends_well("first").await;
    let all = (1..=DAYS).flat_map(|day| (0..ORDERS).map(move |n| rotating_shop::number(day, n)));
    let missing = all.filter(|id| id % 5 == 0).count() as u64;
    assert_eq!(manifest.missing, missing);
    assert_eq!(manifest.records, DAYS * ORDERS - missing);
}
