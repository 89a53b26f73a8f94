//! Orders of a marketplace that answers EUC-KR XML with result codes, each record held against its truth.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet};
use jiff::civil::{Date, DateTime};
use paceline_loadtest::providers::eleven_street::{Config, ElevenStreet, orders};

const RUN: &str = "2026-11-21";
const DATE: &str = "2026-11-21";
const SEED: u64 = 11;
const SELLERS: [&str; 3] = ["seller-001", "seller-002", "seller-003"];

/// The job `orders`, narrowed to this market and three days.
const JOB: &str = r#"
job: market
provider: eleven-street
endpoint: orders
split:
  seller: [seller-001, seller-002, seller-003]
  day: {dates: {from: today-2, days: 3}}
shard: {cells: 3}
progress_by: seller
outputs:
  s3: {format: ndjson}
"#;

fn world() -> Config {
    let keys = SELLERS.map(|seller| (format!("canary-{seller}"), seller.to_owned()));
    Config {
        keys: keys.into(),
        maintenance: [("seller-002".to_owned(), 1)].into(),
        seed: SEED,
        rate: None,
    }
}

/// What must have been collected, by order number.
fn truth() -> BTreeMap<String, String> {
    let last: Date = DATE.parse().expect("a date");
    let days = (0..3).map(|n| last - jiff::ToSpan::days(n));
    let cells = days.flat_map(|day| SELLERS.map(|seller| (seller, day)));
    let records = cells.flat_map(|(seller, day)| {
        orders(SEED, seller, day).into_iter().map(move |order| {
            let local = DateTime::strptime("%Y-%m-%d %H:%M:%S", &order.at).expect("its time");
            let at = local.in_tz("Asia/Seoul").expect("bundled").timestamp();
            let line = format!(
                "{{\"seller\":\"{seller}\",\"day\":\"{day}\",\"order_id\":\"{}\",\"ordered_at\":\"{at}\",\
                 \"status\":\"complete\",\"amount\":{},\"currency\":\"KRW\"}}",
                order.number, order.amount
            );
            (order.number, line)
        })
    });
    records.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marketplace_of_korean_xml_is_collected_exactly() {
    let market = ElevenStreet::start(world()).await.expect("it listens");
    let mut fleet = Fleet::new("eleven").expect("a fleet");
    let spec = &fleet.spec;
    spec.write("jobs/market.yaml", JOB).expect("written");
    // Each seller's key without a file of accounts, and a maintenance that a test can wait for.
    let pick = r#"credentials: {from_file: "${ELEVEN_STREET_ACCOUNTS}", pick: "{{ seller }}"}"#;
    for (from, to) in [
        (pick, "#"),
        ("{{ credential.key }}", "canary-{{ seller }}"),
        ("wait: 10m", "wait: 2s"),
    ] {
        let provider = "providers/eleven-street.yaml";
        spec.replace(provider, from, to).expect("replaced");
    }
    fleet.set("ELEVEN_STREET_URL", market.url());
    let _collector = fleet.collect(&["--egress", "static"]).expect("started");
    let _loader = fleet.load(&[]).expect("started");
    let arguments = [
        "enqueue", "market", "--run-id", RUN, "--date", DATE, "--wait",
    ];
    let ended = fleet.producer(&arguments, Duration::from_secs(90));
    ended.expect("it ends").expect_code(0);

    let outputs = Outputs {
        index: None,
        ranking: None,
    };
    let mut checker = Checker::new(&fleet, "market", RUN, outputs).expect("a run id");
    for seller in SELLERS {
        checker = checker.secret(format!("canary-{seller}"));
    }
    let verdict = checker.check().await.expect("checked");
    verdict.assert_kept();
    assert_eq!((verdict.cells, verdict.failed), (9, 0));

    let expected = truth();
    assert!(expected.len() > 9, "the truth is too small");
    assert_eq!(collected(&fleet).await, expected);
    let log = market.log();
    let answers = |word: &str| log.iter().filter(|call| call.answer == word).count();
    assert_eq!((answers("429"), answers("-1000")), (0, 1), "{log:?}");
    assert_eq!(log.len(), 9 + 1, "{log:?}");
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
            assert!(
                lines.insert(number, line.to_owned()).is_none(),
                "twice: {line}"
            );
        }
    }
    lines
}
