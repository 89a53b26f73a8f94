//! What the programs export is what `deploy/METRICS.md` says, and no more.

use std::collections::{BTreeMap, BTreeSet};

use harness::fleet::metrics_address;
use paceline_stack::Process;

use crate::serve::{LIMIT, scene, serve};

/// What a document or a scrape says of a metric: its type and labels.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// Metrics with labels that a good run has no reason to move.
const ACCIDENTS: [&str; 2] = [
    "paceline_steps_failed_total",
    "paceline_missing_details_total",
];

/// A table of `deploy/METRICS.md`.
fn documented(section: &str) -> Metrics {
    let path = harness::binaries::repository().join("deploy/METRICS.md");
    let text = std::fs::read_to_string(path).expect("deploy/METRICS.md");
    let begin = format!("<!-- {section} -->");
    let (_, rest) = text.split_once(&begin).expect("the section begins");
    let end = format!("<!-- /{section} -->");
    let (table, _) = rest.split_once(&end).expect("the section ends");
    let row = |line: &str| {
        let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let kind = cells.next()?.to_owned();
        let labels = cells.next()?.split_whitespace();
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        Some((name.to_owned(), (kind, labels.collect())))
    };
    table.lines().filter_map(row).collect()
}

/// The metrics of a scrape, with the labels that they have there.
fn scraped(text: &str) -> Metrics {
    let mut found = Metrics::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of_type.split_once(' ').expect("a name and a type");
            current = name.to_owned();
            found.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if !line.starts_with('#') {
            let labels = line.split_once('{').map_or("", |(_, rest)| rest);
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split(',').filter_map(|l| Some(l.split_once('=')?.0));
            let (_, known) = found.get_mut(&current).expect("a type comes first");
            known.extend(names.filter(|n| *n != "le").map(str::to_owned));
        }
    }
    found
}

async fn scrape(process: &Process) -> String {
    let address = metrics_address(process, LIMIT).expect("it listens");
    let answer = reqwest::get(format!("http://{address}/metrics")).await;
    let answer = answer.expect("an answer").error_for_status();
    answer.expect("200").text().await.expect("text")
}

/// Everything scraped is documented as it is; everything documented was scraped, but for accidents.
#[track_caller]
fn assert_same(section: &str, scrapes: &[String]) {
    let documented = documented(section);
    let mut seen = Metrics::new();
    for scrape in scrapes {
        seen.extend(scraped(scrape));
    }
    for (name, found) in &seen {
        assert_eq!(documented.get(name), Some(found), "{name} of {section}");
    }
    for name in documented.keys() {
        let seen = seen.contains_key(name) || ACCIDENTS.contains(&name.as_str());
        assert!(seen, "{name} is documented and nobody exports it");
    }
}

/// Looks again and again until a line of the metrics has this beginning.
async fn until_shown(process: &Process, line: &str) -> String {
    let until = std::time::Instant::now() + LIMIT;
    loop {
        let text = scrape(process).await;
        if text.lines().any(|found| found.starts_with(line)) {
            return text;
        }
        assert!(std::time::Instant::now() < until, "no {line} in {text}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_what_is_documented() {
    let mut scene = scene("metrics");
    scene.fleet.tells_nobody();
    let (serving, _) = serve(&scene.fleet);
    let enqueue = ["enqueue", "fares", "--run-id", crate::scene::RUN];
    let enqueued = scene.fleet.producer(&enqueue, LIMIT).expect("it runs");
    enqueued.expect_code(0);
    // Work and an open budget, and nobody there: one worker is of use.
    let waiting = until_shown(&serving, "paceline_useful_workers{egress=\"\"} 1").await;
    for line in [
        "paceline_shards{job=\"fares\",state=\"open\"} 1",
        "paceline_provider_blocked{provider=\"fare-search\"} 0",
    ] {
        assert!(waiting.lines().any(|found| found == line), "{waiting}");
    }
    scene.collect();
    // Without a worker there is no telling when it ends.
    let going = until_shown(&serving, "paceline_run_eta_seconds{job=\"fares\"}").await;
    scene.load();
    let ended = until_shown(
        &serving,
        "paceline_run_last_success_timestamp_seconds{job=\"fares\"}",
    )
    .await;
    let idle = until_shown(&serving, "paceline_useful_workers{egress=\"\"} 0").await;
    assert!(!idle.contains("paceline_shards"), "{idle}");
    assert_same("serve", &[waiting, going, ended]);
    let workers = [
        scrape(&scene.collectors[0]).await,
        scrape(scene.loader()).await,
    ];
    assert_same("worker", &workers);
}
