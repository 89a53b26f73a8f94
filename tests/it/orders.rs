//! Orders of three markets of very different kinds side by side, the example files as they stand: requests signed by
//! HMAC for each status, tokens signed by bcrypt with a compound cursor and details in batches, Korean XML with result
//! codes. Each record is compared with the markets' own.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet};
use jiff::civil::{Date, DateTime};
use paceline_loadtest::providers::eleven_street::{self, ElevenStreet};
use paceline_loadtest::providers::{Server, coupang, naver_commerce};
use redis::AsyncCommands;
use serde_json::Value;

const DATE: &str = "2026-11-21";
const DAYS: i64 = 7;
const SEED: u64 = 5;
const PATIENCE: Duration = Duration::from_secs(300);
/// A salt that is quick to hash with.
const NAVER_SECRET: &str = "$2a$04$canary0123456789abcdef";

struct Markets {
    fleet: Fleet,
    coupang: Server,
    naver: Server,
    eleven: ElevenStreet,
}

/// An order as it must have been collected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Truth {
    market: &'static str,
    seller: &'static str,
    amount: String,
    line: String,
}

impl Markets {
    async fn new(test: &str) -> Self {
        let coupang = coupang::start(coupang::Config {
            vendors: ["seller-001", "seller-002"]
                .map(|seller| (seller.to_owned(), vendor(seller)))
                .into(),
            page: 2,
            ban: Duration::from_secs(600),
            seed: SEED,
        });
        let naver = naver_commerce::start(naver_commerce::Config {
            applications: ["seller-001", "seller-003"]
                .map(|seller| {
                    let application = (NAVER_SECRET.to_owned(), seller.to_owned());
                    (format!("app-{seller}"), application)
                })
                .into(),
            page: 4,
            seed: SEED,
            ..naver_commerce::Config::default()
        });
        let eleven = ElevenStreet::start(eleven_street::Config {
            keys: [("canary-eleven".to_owned(), "seller-002".to_owned())].into(),
            seed: SEED,
            ..eleven_street::Config::default()
        });
        let mut markets = Markets {
            fleet: Fleet::new(test).expect("a fleet"),
            coupang: coupang.expect("it listens"),
            naver: naver.expect("it listens"),
            eleven: eleven.await.expect("it listens"),
        };
        markets.introduce();
        markets
    }

    /// URLs and accounts for the workers.
    fn introduce(&mut self) {
        let vendors: String = ["seller-001", "seller-002"]
            .map(vendor)
            .iter()
            .zip(["seller-001", "seller-002"])
            .map(|(v, seller)| {
                let (id, key, secret) = (&v.id, &v.access_key, &v.secret);
                format!("{seller}: {{vendor_id: {id}, access_key: {key}, secret_key: {secret}}}\n")
            })
            .collect();
        let applications: String = ["seller-001", "seller-003"]
            .map(|seller| {
                format!("{seller}: {{client_id: app-{seller}, client_secret: '{NAVER_SECRET}'}}\n")
            })
            .concat();
        let keys = "seller-002: {key: canary-eleven}\n";
        for (name, url, text) in [
            ("COUPANG", self.coupang.url(), &*vendors),
            ("NAVER_COMMERCE", self.naver.url(), &*applications),
            ("ELEVEN_STREET", self.eleven.url(), keys),
        ] {
            let file = format!("{}.accounts.yaml", name.to_lowercase());
            let path = self.fleet.spec.write(&file, text).expect("written");
            self.fleet.set(&format!("{name}_URL"), url);
            self.fleet
                .set(&format!("{name}_ACCOUNTS"), path.to_string_lossy());
        }
    }

    fn run(&self, run: &str) {
        let arguments = [
            "enqueue", "orders", "--run-id", run, "--date", DATE, "--wait",
        ];
        let ended = self.fleet.producer(&arguments, PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    fn calls(&self) -> usize {
        self.coupang.seen().len() + self.naver.seen().len() + self.eleven.log().len()
    }

    async fn collected(&self, run: &str) -> BTreeMap<String, String> {
        let layout = self.fleet.layout("orders", run);
        let bucket = Bucket::of(&self.fleet);
        let mut lines = BTreeMap::new();
        for key in bucket.keys(&layout.data()).await.expect("a list") {
            let object = bucket.get(&key).await.expect("a part");
            for line in String::from_utf8(object.body).expect("UTF-8").lines() {
                let row: Value = serde_json::from_str(line).expect("JSON");
                let text = |name: &str| row[name].as_str().expect("text").to_owned();
                let id = format!("{}-{}", text("market"), text("order_id"));
                let before = lines.insert(id, line.to_owned());
                assert!(before.is_none(), "twice: {line}");
            }
        }
        lines
    }

    async fn check(&self, run: &str) {
        let truth = truth();
        let expected: BTreeMap<String, String> = truth
            .iter()
            .map(|(id, t)| (id.clone(), t.line.clone()))
            .collect();
        assert_eq!(self.collected(run).await, expected);
        let outputs = Outputs {
            index: None,
            ranking: None,
        };
        let mut checker = Checker::new(&self.fleet, "orders", run, outputs).expect("a run id");
        for secret in [
            "canary-secret",
            "canary-key",
            "canary-token",
            "canary-eleven",
            NAVER_SECRET,
        ] {
            checker = checker.secret(secret);
        }
        let mut verdict = checker.check().await.expect("checked");
        // The sums of sales are compared below.
        verdict
            .breaches
            .retain(|breach| !breach.starts_with("manifest: sets"));
        verdict.assert_kept();
        self.check_sets(&truth).await;
        self.check_documents(&expected).await;
        let seen = [self.coupang.seen(), self.naver.seen()].concat();
        assert!(seen.iter().all(|seen| seen.status == 200), "{seen:?}");
        let eleven = self.eleven.log();
        assert!(eleven.iter().all(|call| call.answer != "429"), "{eleven:?}");
    }

    /// The sales of each seller at each market.
    async fn check_sets(&self, truth: &BTreeMap<String, Truth>) {
        let mut sales: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for order in truth.values() {
            *sales.entry((order.market, order.seller)).or_default() +=
                order.amount.parse::<f64>().expect("a number");
        }
        let mut plain = self.fleet.redis().await;
        for ((market, seller), sum) in sales {
            let key = format!("sales:{market}:{DATE}");
            let found: Option<f64> = plain.zscore(&key, seller).await.expect("a set");
            let found = found.unwrap_or_else(|| panic!("{key} has no {seller}"));
            assert!(
                (found - sum).abs() < 0.001,
                "{key} {seller}: {found}, not {sum}"
            );
        }
    }

    /// One document for each order, each as its record.
    async fn check_documents(&self, expected: &BTreeMap<String, String>) {
        let url = self
            .fleet
            .value("ELASTICSEARCH_URL")
            .trim_end_matches('/')
            .to_owned();
        let client = reqwest::Client::new();
        let refreshed = client.post(format!("{url}/orders/_refresh")).send().await;
        refreshed
            .expect("refreshed")
            .error_for_status()
            .expect("refreshed");
        let found = client
            .get(format!("{url}/orders/_search?size=2000"))
            .send()
            .await;
        let found: Value = found.expect("searched").json().await.expect("JSON");
        let hits = found["hits"]["hits"].as_array().expect("hits");
        let documents: BTreeMap<String, Value> = hits
            .iter()
            .map(|hit| {
                (
                    hit["_id"].as_str().expect("text").to_owned(),
                    hit["_source"].clone(),
                )
            })
            .collect();
        let expected: BTreeMap<String, Value> = expected
            .iter()
            .map(|(id, line)| (id.clone(), serde_json::from_str(line).expect("JSON")))
            .collect();
        assert_eq!(documents, expected);
    }
}

fn vendor(seller: &str) -> coupang::Vendor {
    coupang::Vendor {
        id: format!("A{}", seller.replace("seller-", "00012")),
        access_key: format!("canary-key-{seller}"),
        secret: format!("canary-secret-{seller}"),
    }
}

fn truth() -> BTreeMap<String, Truth> {
    let last: Date = DATE.parse().expect("a date");
    let days = (0..DAYS).map(|n| last - jiff::ToSpan::days(n));
    let seoul = |local: DateTime| local.in_tz("Asia/Seoul").expect("bundled").timestamp();
    let mut truth = BTreeMap::new();
    let mut add = |market: &'static str,
                   seller: &'static str,
                   day: Date,
                   order: (String, jiff::Timestamp, &str, String)| {
        let (id, at, status, amount) = order;
        let line = format!(
            "{{\"market\":\"{market}\",\"seller\":\"{seller}\",\"day\":\"{day}\",\"order_id\":\"{id}\",\
             \"ordered_at\":\"{at}\",\"status\":\"{status}\",\"amount\":{amount},\"currency\":\"KRW\"}}"
        );
        let order = Truth {
            market,
            seller,
            amount,
            line,
        };
        truth.insert(format!("{market}-{id}"), order);
    };
    for day in days {
        for seller in ["seller-001", "seller-002"] {
            for order in coupang::orders(SEED, seller, day) {
                let order = (
                    order.id.to_string(),
                    seoul(order.at),
                    order.status,
                    order.price,
                );
                add("coupang", seller, day, order);
            }
        }
        for seller in ["seller-001", "seller-003"] {
            for order in naver_commerce::orders(SEED, seller, day) {
                let order = (order.id, order.ordered_at, order.status, order.amount);
                add("naver-commerce", seller, day, order);
            }
        }
        for order in eleven_street::orders(SEED, "seller-002", day) {
            let at = DateTime::strptime("%Y-%m-%d %H:%M:%S", &order.at).expect("its time");
            add(
                "eleven-street",
                "seller-002",
                day,
                (order.number, seoul(at), "complete", order.amount),
            );
        }
    }
    truth
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_three_markets_side_by_side() {
    let markets = Markets::new("orders").await;
    let egress = ["--egress", "static"];
    let _loader = markets.fleet.load(&[]).expect("started");
    let _first = markets.fleet.collect(&egress).expect("started");
    let _second = markets.fleet.collect(&egress).expect("started");
    markets.run("first");
    markets.check("first").await;
    let calls = markets.calls();
    let status = markets
        .fleet
        .producer(&["status", "orders/first", "--json"], PATIENCE);
    let status = status.expect("it ends").expect_code(0);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["cells"], 35, "five accounts and seven days");
    let progress = status["progress"].as_object().expect("by seller");
    let cells = |seller: &str| progress[seller]["cells"].as_u64();
    let sellers = ["seller-001", "seller-002", "seller-003"].map(cells);
    assert_eq!(sellers, [Some(14), Some(14), Some(7)], "{progress:?}");

    let audit = markets
        .fleet
        .producer(&["audit", "orders/first", "--json"], PATIENCE);
    let audit = audit.expect("it ends").expect_code(0);
    let audit: Value = serde_json::from_str(&audit.stdout).expect("JSON");
    assert_eq!(audit["calls"], calls, "{audit}");
    assert_eq!(
        (&audit["refused"], &audit["repeated"]),
        (&0.into(), &0.into())
    );

    // Again: nothing is there twice, and the tokens of the first run serve the second.
    markets.run("second");
    markets.check("second").await;
    for seller in ["seller-001", "seller-003"] {
        let token = format!("token app-{seller}");
        let tokens = markets
            .naver
            .seen()
            .iter()
            .filter(|seen| seen.call == token)
            .count();
        assert_eq!(tokens, 1, "{seller}");
    }
}
