//! Tokens for the whole fleet, at a marketplace whose token requests are signed by bcrypt: one for each credential
//! however many workers need it, renewed once, and never knocked for again when a credential is not accepted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet};
use jiff::civil::Date;
use paceline_loadtest::providers::naver_commerce::{self, Config, orders};
use paceline_loadtest::providers::{Seen, Server};
use paceline_stack::Process;

const RUN: &str = "2026-11-21";
const DATE: &str = "2026-11-21";
const SEED: u64 = 23;
const DAYS: i64 = 4;
const SELLERS: [&str; 2] = ["seller-001", "seller-003"];
const PATIENCE: Duration = Duration::from_secs(180);

const JOB: &str = r#"
job: market
provider: naver-commerce
endpoint: orders
split:
  seller: [seller-001, seller-003]
  day: {dates: {from: today-3, days: 4}}
shard: {cells: 1}
gate: GATE
outputs:
  s3: {format: ndjson}
"#;

/// A salt that is quick to hash with.
fn secret(seller: &str) -> String {
    format!(
        "$2a$04$canary{}abcdefgh",
        seller.replace('-', "")[6..].to_owned() + "00000"
    )
    .chars()
    .take(29)
    .collect()
}

struct Market {
    fleet: Fleet,
    server: Server,
}

impl Market {
    fn new(test: &str, gate: &str, config: Config) -> Self {
        let applications = SELLERS.map(|seller| {
            let application = (secret(seller), seller.to_owned());
            (format!("app-{seller}"), application)
        });
        let config = Config {
            applications: applications.into(),
            page: 3,
            seed: SEED,
            ..config
        };
        let server = naver_commerce::start(config).expect("it listens");
        let mut fleet = Fleet::new(test).expect("a fleet");
        fleet
            .spec
            .write("jobs/market.yaml", &JOB.replace("GATE", gate))
            .expect("written");
        let accounts: String = SELLERS
            .map(|seller| {
                format!(
                    "{seller}: {{client_id: app-{seller}, client_secret: '{}'}}\n",
                    secret(seller)
                )
            })
            .concat();
        let accounts = fleet
            .spec
            .write("accounts.yaml", &accounts)
            .expect("written");
        fleet.set("NAVER_COMMERCE_URL", server.url());
        fleet.set("NAVER_COMMERCE_ACCOUNTS", accounts.to_string_lossy());
        Market { fleet, server }
    }

    fn enqueue(&self) {
        let arguments = ["enqueue", "market", "--run-id", RUN, "--date", DATE];
        let ended = self.fleet.producer(&arguments, PATIENCE);
        ended.expect("it ends").expect_code(0);
    }

    /// The run, a loader and so many collectors.
    fn start(&self, collectors: usize) -> Vec<Process> {
        self.enqueue();
        let loader = self.fleet.load(&[]);
        let collectors = (0..collectors).map(|_| self.fleet.collect(&[]));
        let all = std::iter::once(loader).chain(collectors);
        all.map(|worker| worker.expect("started")).collect()
    }

    fn watch(&self, code: i32) {
        let run = format!("market/{RUN}");
        let ended = self.fleet.producer(&["watch", &run], PATIENCE);
        ended.expect("it ends").expect_code(code);
    }

    /// Token requests of a seller's application with this status.
    fn tokens(&self, seller: &str, status: u16) -> usize {
        let call = format!("token app-{seller}");
        let is_one = |seen: &&Seen| seen.call == call && seen.status == status;
        self.server.seen().iter().filter(is_one).count()
    }

    /// Calls of a seller that were answered well.
    fn answered(&self, seller: &str) -> usize {
        let of = |seen: &&Seen| seen.status == 200 && seen.call.contains(&format!(" {seller} "));
        self.server.seen().iter().filter(of).count()
    }

    async fn until_calls(&self, calls: usize) {
        let until = Instant::now() + PATIENCE;
        while self.server.seen().len() < calls {
            assert!(
                Instant::now() < until,
                "no {calls} calls: {:?}",
                self.server.seen()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every record is as the marketplace has it, nothing was refused as too fast, nothing secret lies anywhere.
    async fn compare(&self, sellers: &[&str]) {
        let found = collected(&self.fleet).await;
        let expected = truth(sellers);
        assert!(
            expected.len() > 10,
            "the truth is too small: {}",
            expected.len()
        );
        assert_eq!(found, expected);
        let outputs = Outputs {
            index: None,
            ranking: None,
        };
        let mut checker = Checker::new(&self.fleet, "market", RUN, outputs).expect("a run id");
        checker = checker.secret("canary-token").secret("Bearer");
        for seller in SELLERS {
            checker = checker.secret(secret(seller));
        }
        checker.check().await.expect("checked").assert_kept();
        let seen = self.server.seen();
        assert!(seen.iter().all(|seen| seen.status != 429), "{seen:?}");
    }
}

fn truth(sellers: &[&str]) -> BTreeMap<String, String> {
    let last: Date = DATE.parse().expect("a date");
    let days = (0..DAYS).map(|n| last - jiff::ToSpan::days(n));
    let cells = days.flat_map(|day| sellers.iter().map(move |seller| (*seller, day)));
    cells
        .flat_map(|(seller, day)| {
            orders(SEED, seller, day).into_iter().map(move |order| {
                let line = format!(
                    "{{\"seller\":\"{seller}\",\"day\":\"{day}\",\"order_id\":\"{}\",\"ordered_at\":\"{}\",\
                     \"status\":\"{}\",\"amount\":{},\"currency\":\"KRW\"}}",
                    order.id, order.ordered_at, order.status, order.amount
                );
                (order.id, line)
            })
        })
        .collect()
}

/// The lines of the run's parts, by order number.
async fn collected(fleet: &Fleet) -> BTreeMap<String, String> {
    let layout = fleet.layout("market", RUN);
    let bucket = Bucket::of(fleet);
    let mut lines = BTreeMap::new();
    for key in bucket.keys(&layout.data()).await.expect("a list") {
        let object = bucket.get(&key).await.expect("a part");
        for line in String::from_utf8(object.body).expect("UTF-8").lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let number = row["order_id"].as_str().expect("text").to_owned();
            let before = lines.insert(number, line.to_owned());
            assert!(before.is_none(), "twice: {line}");
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_has_one_token_for_each_credential() {
    let config = Config {
        token_faults: 1,
        ..Config::default()
    };
    let market = Market::new("token", "1.0", config);
    let _workers = market.start(3);
    market.watch(0);
    market.compare(&SELLERS).await;
    for seller in SELLERS {
        assert_eq!(
            (market.tokens(seller, 500), market.tokens(seller, 200)),
            (1, 1),
            "{seller}"
        );
    }
    let audit = market
        .fleet
        .producer(&["audit", &format!("market/{RUN}"), "--json"], PATIENCE);
    let audit = audit.expect("it ends").expect_code(0);
    let audit: serde_json::Value = serde_json::from_str(&audit.stdout).expect("JSON");
    assert_eq!(
        audit["calls"],
        market.server.seen().len(),
        "token requests are calls like others"
    );
    // A grant that came late is dropped.
    assert!(
        audit["granted"].as_u64() >= audit["calls"].as_u64(),
        "{audit}"
    );
    assert_eq!(
        (&audit["refused"], &audit["repeated"]),
        (&0.into(), &0.into())
    );
}

/// The endpoint of tokens is down for longer than the tries of one log-in: that is no fault of any cell.
#[tokio::test(flavor = "multi_thread")]
async fn while_no_token_can_be_had_no_cell_fails() {
    let config = Config {
        token_faults: 6,
        ..Config::default()
    };
    let market = Market::new("no-token", "1.0", config);
    let provider = "providers/naver-commerce.yaml";
    let quick = "retry: {attempts: 5, backoff: {from: 50ms, to: 200ms}}\nlimits:";
    let changed = market.fleet.spec.replace(provider, "limits:", quick);
    changed.expect("changed");
    let _workers = market.start(2);
    market.watch(0);
    market.compare(&SELLERS).await;
    for seller in SELLERS {
        let tokens = (market.tokens(seller, 500), market.tokens(seller, 200));
        assert_eq!(tokens, (6, 1), "{seller}");
    }
}

/// The producer asks with `auth: true`, before any worker lives: its token is the fleet's.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_signed_in_leaves_its_token_to_the_fleet() {
    let market = Market::new("tokenready", "1.0", Config::default());
    let path = "/v1/pay-order/seller/product-orders/last-changed-statuses";
    let asked = "lastChangedFrom=2020-01-01T00:00:00.000%2B09:00&lastChangedTo=2020-01-02T00:00:00.000%2B09:00&limitCount=1";
    let ready = format!("ready: {{get: \"{path}?{asked}\", auth: true}}\nendpoints:\n");
    let file = "providers/naver-commerce.yaml";
    let replaced = market.fleet.spec.replace(file, "endpoints:\n", &ready);
    replaced.expect("it is there");
    market.enqueue();
    let first = market.server.seen();
    let statuses: Vec<u16> = first.iter().map(|seen| seen.status).collect();
    assert_eq!(
        statuses,
        [200, 200],
        "a token, then the question: {first:?}"
    );
    let _loader = market.fleet.load(&[]).expect("started");
    let _collector = market.fleet.collect(&[]).expect("started");
    market.watch(0);
    market.compare(&SELLERS).await;
    assert_eq!(market.tokens(SELLERS[0], 200), 1, "the question's");
    let audit = ["audit", &format!("market/{RUN}"), "--json"];
    let audit = market.fleet.producer(&audit, PATIENCE).expect("it ends");
    let audit: serde_json::Value =
        serde_json::from_str(&audit.expect_code(0).stdout).expect("JSON");
    let seen = market.server.seen().len();
    assert_eq!(audit["calls"], seen, "both are in the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_the_middle_is_renewed_once() {
    const CALLS: u32 = 4;
    let config = Config {
        token_calls: Some(CALLS),
        ..Config::default()
    };
    let market = Market::new("tokenend", "1.0", config);
    let _workers = market.start(2);
    market.watch(0);
    market.compare(&SELLERS).await;
    for seller in SELLERS {
        let (tokens, answered) = (market.tokens(seller, 200), market.answered(seller));
        assert!(
            answered > 2 * CALLS as usize,
            "{seller} had too few calls: {answered}"
        );
        // Each token served all its calls before there was another one.
        assert_eq!(
            tokens,
            answered.div_ceil(CALLS as usize),
            "{seller}: {answered} calls"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_dies_with_the_lease_of_a_token() {
    let market = Market::new("tokenkill", "1.0", Config::default());
    market.enqueue();
    let _loader = market.fleet.load(&[]).expect("started");
    let arguments = ["collect"];
    let dying = [("PACELINE_CRASH_AT", "token-after-answer")];
    let mut dying = market
        .fleet
        .start_with(&dying, "worker", &arguments)
        .expect("started");
    market.until_calls(1).await;
    let _next = market.fleet.collect(&[]).expect("started");
    assert!(
        dying.wait_at_most(PATIENCE).expect("its status").is_some(),
        "it lives on"
    );
    market.watch(0);
    market.compare(&SELLERS).await;
    for seller in SELLERS {
        assert!(market.tokens(seller, 200) <= 2, "{seller}");
    }
}

/// Each cell is bound to its seller's account; where all are refused nobody serves, and nothing fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_every_account_is_refused_waits_for_people() {
    let config = Config {
        distrusted: SELLERS.map(str::to_owned).to_vec(),
        ..Config::default()
    };
    let market = Market::new("alldead", "0.5", config);
    let _workers = market.start(1);
    market.watch(5);
    let status = ["status", &format!("market/{RUN}"), "--json"];
    let status = market.fleet.producer(&status, PATIENCE).expect("it ends");
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
    assert_eq!(status["failed"], 0, "{status}");
    for seller in SELLERS {
        assert_eq!(market.tokens(seller, 200), 1, "{seller}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_whose_first_call_is_refused_is_not_tried_again() {
    let config = Config {
        distrusted: vec![SELLERS[1].to_owned()],
        ..Config::default()
    };
    let market = Market::new("tokendead", "0.5", config);
    let _workers = market.start(2);
    market.watch(0);
    market.compare(&SELLERS[..1]).await;
    assert_eq!(market.tokens(SELLERS[1], 200), 1);
    let run = format!("market/{RUN}");
    let failures = market.fleet.layout("market", RUN).all_failures();
    let bucket = Bucket::of(&market.fleet);
    let mut failed = 0;
    for key in bucket.keys(&failures).await.expect("a list") {
        for row in bucket
            .get(&key)
            .await
            .expect("failures")
            .rows()
            .expect("NDJSON")
        {
            assert_eq!(row["outcome"], "auth_expired", "{row}");
            failed += 1;
        }
    }
    assert_eq!(failed, DAYS);
    // Somebody looked: one try more.
    let again = market.fleet.producer(&["retry", &run, "--wait"], PATIENCE);
    again.expect("it ends").expect_code(0);
    assert_eq!(market.tokens(SELLERS[1], 200), 2);
}
