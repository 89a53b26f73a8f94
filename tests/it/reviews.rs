//! Reviews of a portal without an API: one log-in for each account by form and one-time code, its session shared by
//! the fleet, tables in HTML; each record compared with the portal's own.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet};
use jiff::civil::Date;
use paceline_loadtest::providers::seller_portal::{self, Account, Config, reviews};
use paceline_loadtest::providers::{Seen, Server};
use serde_json::Value;

const DATE: &str = "2026-11-21";
const SEED: u64 = 41;
const DAYS: i64 = 3;
const SELLERS: [&str; 2] = ["seller-001", "seller-002"];
const PATIENCE: Duration = Duration::from_secs(300);
const PASSWORD: &str = "canary-password & 1";
const TOTP: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";

struct Portal {
    fleet: Fleet,
    server: Server,
}

impl Portal {
    fn new(test: &str, session_calls: Option<u32>) -> Self {
        let account = |seller: &str| Account {
            seller: seller.to_owned(),
            password: PASSWORD.to_owned(),
            totp_secret: TOTP.to_owned(),
        };
        let config = Config {
            accounts: SELLERS
                .map(|seller| (login(seller), account(seller)))
                .into(),
            page: 3,
            session_calls,
            seed: SEED,
        };
        let server = seller_portal::start(config).expect("it listens");
        let mut fleet = Fleet::new(test).expect("a fleet");
        let accounts: String = SELLERS
            .map(|seller| {
                let login = login(seller);
                format!(
                    "{seller}: {{login: {login}, password: '{PASSWORD}', totp_secret: {TOTP}}}\n"
                )
            })
            .concat();
        let accounts = fleet
            .spec
            .write("accounts.yaml", &accounts)
            .expect("written");
        fleet.set("SELLER_PORTAL_URL", server.url());
        fleet.set("SELLER_PORTAL_ACCOUNTS", accounts.to_string_lossy());
        Portal { fleet, server }
    }

    fn enqueue(&self, run: &str) {
        let arguments = ["enqueue", "reviews", "--run-id", run, "--date", DATE];
        let ended = self.fleet.producer(&arguments, PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    fn watch(&self, run: &str) {
        let ended = self
            .fleet
            .producer(&["watch", &format!("reviews/{run}")], PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    /// The steps of an account's log-ins; every one of them was taken.
    fn logins(&self, seller: &str) -> Vec<u64> {
        let begin = format!("login {} ", login(seller));
        let calls = self.server.seen();
        let of = calls
            .iter()
            .filter_map(|seen| seen.call.strip_prefix(&begin));
        of.map(|how| how.strip_prefix("step ").expect(how).parse().expect(how))
            .collect()
    }

    fn answered(&self, seller: &str) -> usize {
        let begin = format!("reviews {seller} ");
        let of = |seen: &&Seen| seen.status == 200 && seen.call.starts_with(&begin);
        self.server.seen().iter().filter(of).count()
    }

    /// Every record is the portal's, nothing came too fast, nothing secret lies anywhere.
    async fn compare(&self, run: &str) {
        let found = self.collected(run).await;
        assert_eq!(found, truth());
        let outputs = Outputs {
            index: None,
            ranking: None,
        };
        let checker = Checker::new(&self.fleet, "reviews", run, outputs).expect("a run id");
        let checker = checker
            .secret("canary-password")
            .secret("canary-session")
            .secret(TOTP);
        checker.check().await.expect("checked").assert_kept();
        let seen = self.server.seen();
        assert!(seen.iter().all(|seen| seen.status != 429), "{seen:?}");
    }

    /// The lines of the run's parts, by number.
    async fn collected(&self, run: &str) -> BTreeMap<String, String> {
        let layout = self.fleet.layout("reviews", run);
        let bucket = Bucket::of(&self.fleet);
        let mut lines = BTreeMap::new();
        for key in bucket.keys(&layout.data()).await.expect("a list") {
            let object = bucket.get(&key).await.expect("a part");
            for line in String::from_utf8(object.body).expect("UTF-8").lines() {
                let row: Value = serde_json::from_str(line).expect("JSON");
                let number = row["review_id"].as_str().expect("text").to_owned();
                let before = lines.insert(number, line.to_owned());
                assert!(before.is_none(), "twice: {line}");
            }
        }
        lines
    }
}

fn login(seller: &str) -> String {
    format!("{seller}@portal.test")
}

fn truth() -> BTreeMap<String, String> {
    let last: Date = DATE.parse().expect("a date");
    let days = (0..DAYS).map(|n| last - jiff::ToSpan::days(n));
    let cells = days.flat_map(|day| SELLERS.map(|seller| (seller, day)));
    cells
        .flat_map(|(seller, day)| {
            reviews(SEED, seller, day).into_iter().map(move |review| {
                let at = review.at.in_tz("Asia/Seoul").expect("bundled").timestamp();
                let text = serde_json::to_string(&review.text).expect("JSON");
                let line = format!(
                    "{{\"seller\":\"{seller}\",\"day\":\"{day}\",\"review_id\":\"{}\",\"product\":\"{}\",\
                     \"stars\":{},\"text\":{text},\"written_at\":\"{at}\"}}",
                    review.id, review.product, review.stars
                );
                (review.id, line)
            })
        })
        .collect()
}

/// The documents of an index, by number, as JSON text.
async fn documents(fleet: &Fleet, index: &str) -> BTreeMap<String, Value> {
    let url = fleet.value("ELASTICSEARCH_URL").trim_end_matches('/');
    let client = reqwest::Client::new();
    let refreshed = client.post(format!("{url}/{index}/_refresh")).send().await;
    refreshed
        .expect("refreshed")
        .error_for_status()
        .expect("refreshed");
    let found = client
        .get(format!("{url}/{index}/_search?size=1000"))
        .send()
        .await
        .expect("searched");
    let found: Value = found.json().await.expect("JSON");
    let hits = found["hits"]["hits"].as_array().expect("hits");
    hits.iter()
        .map(|hit| {
            let document = hit["_source"].clone();
            let number = document["review_id"].as_str().expect("text").to_owned();
            let id = hit["_id"].as_str().expect("text");
            assert_eq!(
                id,
                format!("{}-{number}", document["seller"].as_str().expect("text"))
            );
            (number, document)
        })
        .collect()
}

/// The example files as they stand; then Redis is lost, and the job runs again.
#[tokio::test(flavor = "multi_thread")]
async fn reviews_of_a_portal_by_one_log_in_for_each_account() {
    let portal = Portal::new("reviews", None);
    let egress = ["--egress", "static"];
    let _loader = portal.fleet.load(&[]).expect("started");
    let first = portal.fleet.collect(&egress).expect("started");
    let second = portal.fleet.collect(&egress).expect("started");
    portal.enqueue("first");
    portal.watch("first");
    portal.compare("first").await;
    for seller in SELLERS {
        assert_eq!(portal.logins(seller).len(), 1, "{seller}");
    }
    let expected: BTreeMap<String, Value> = truth()
        .into_iter()
        .map(|(number, line)| (number, serde_json::from_str(&line).expect("JSON")))
        .collect();
    assert_eq!(documents(&portal.fleet, "reviews").await, expected);

    let audit = portal
        .fleet
        .producer(&["audit", "reviews/first", "--json"], PATIENCE);
    let audit = audit.expect("it ends").expect_code(0);
    let audit: Value = serde_json::from_str(&audit.stdout).expect("JSON");
    assert_eq!(
        audit["calls"],
        portal.server.seen().len(),
        "log-ins are calls like others"
    );

    // Sessions and the steps of their codes go with Redis (and those that workers have in memory with them): who logs
    // in next waits for another code.
    drop((first, second));
    let mut plain = portal.fleet.redis().await;
    let () = redis::cmd("FLUSHDB")
        .query_async(&mut plain)
        .await
        .expect("flushed");
    // Nobody waits here for the sixteen seconds of an empty bucket of four a minute.
    let file = "providers/seller-portal.yaml";
    portal
        .fleet
        .spec
        .replace(file, "rate: 4/min", "rate: 60/min")
        .expect("replaced");
    let _third = portal.fleet.collect(&egress).expect("started");
    portal.enqueue("second");
    portal.watch("second");
    portal.compare("second").await;
    assert_eq!(documents(&portal.fleet, "reviews").await, expected);
    for seller in SELLERS {
        let steps = portal.logins(seller);
        assert!(
            steps.len() == 2 && steps[0] < steps[1],
            "{seller}: {steps:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_in_the_middle_is_renewed_once() {
    const CALLS: u32 = 6;
    let portal = Portal::new("sessionend", Some(CALLS));
    let index = format!("name: {}", portal.fleet.name);
    for (from, to) in [
        ("name: reviews", &*index),
        (
            "progress_by: seller",
            "progress_by: seller\nshard: {cells: 1}",
        ),
    ] {
        portal
            .fleet
            .spec
            .replace("jobs/reviews.yaml", from, to)
            .expect("replaced");
    }
    let egress = ["--egress", "static"];
    portal.enqueue("first");
    let _loader = portal.fleet.load(&[]).expect("started");
    let _first = portal.fleet.collect(&egress).expect("started");
    let _second = portal.fleet.collect(&egress).expect("started");
    portal.watch("first");
    portal.compare("first").await;
    for seller in SELLERS {
        let (steps, answered) = (portal.logins(seller), portal.answered(seller));
        assert!(
            answered > CALLS as usize,
            "{seller} had too few calls: {answered}"
        );
        // Each session served all its calls before there was another one.
        assert_eq!(
            steps.len(),
            answered.div_ceil(CALLS as usize),
            "{seller}: {answered}"
        );
        assert!(steps.is_sorted_by(|a, b| a < b), "{seller}: {steps:?}");
    }
}
