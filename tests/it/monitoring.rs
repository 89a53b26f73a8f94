//! What `deploy/prometheus` and `deploy/grafana` ask for is what a fleet exports: a real Prometheus watches a run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::Fleet;
use harness::fleet::metrics_address;
use paceline_stack::Process;
use serde_json::Value;

use crate::scene::{Calendar, Scene};
use crate::serve::{LIMIT, serve};

/// 1,400 cells in about 12 s: long enough to be seen at work.
const CALENDAR: Calendar = Calendar {
    rate: 120,
    ..Calendar::SHORT
};
/// What a good run has no reason to move, or another exporter shows.
const WITHOUT_DATA: [&str; 2] = ["paceline_steps_failed_total", "rabbitmq_detailed_"];

fn deploy(path: &str) -> PathBuf {
    harness::binaries::repository().join("deploy").join(path)
}

/// Debian's Prometheus, where `deploy/local/install.sh` puts it, or the one in the path.
fn tool(name: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let caches = [
        std::env::var_os("PACELINE_PROMETHEUS").map(PathBuf::from),
        Some(PathBuf::from("/var/cache/paceline/prometheus")),
        home.map(|home| home.join(".cache/paceline/prometheus")),
    ];
    let paths = std::env::var_os("PATH").unwrap_or_default();
    caches
        .into_iter()
        .flatten()
        .chain(std::env::split_paths(&paths))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: run deploy/local/install.sh"))
}

#[test]
fn rules_and_alerts_pass_their_own_tests() {
    for arguments in [
        &["check", "config", "--syntax-only", "prometheus.yml"][..],
        &["check", "rules", "rules.yml", "alerts.yml"],
        &["test", "rules", "tests/alerts.yml"],
    ] {
        let output = Command::new(tool("promtool"))
            .args(arguments)
            .current_dir(deploy("prometheus"))
            .output()
            .expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn every_alert_has_its_runbook_and_its_test() {
    let read = |path: &str| std::fs::read_to_string(deploy(path)).expect(path);
    let (alerts, tests) = (
        read("prometheus/alerts.yml"),
        read("prometheus/tests/alerts.yml"),
    );
    let after = |prefix: &'static str| {
        let lines = alerts.lines().map(str::trim);
        lines.filter_map(move |line| line.strip_prefix(prefix))
    };
    let names: Vec<&str> = after("- alert: ").collect();
    let books: Vec<&str> = after("runbook_url: ").collect();
    assert_eq!(names.len(), books.len());
    for (name, book) in names.iter().zip(books) {
        let book = harness::binaries::repository().join(book);
        let text = std::fs::read_to_string(&book).expect("a runbook");
        assert!(
            text.contains(name),
            "{} is not about {name}",
            book.display()
        );
        for heading in ["## What it means", "## Look here", "## Do this"] {
            assert!(text.contains(heading), "{}: {heading}", book.display());
        }
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
    }
}

/// A Prometheus that scrapes `targets` every second under our own rules.
struct Prometheus {
    _process: Process,
    url: String,
    since: u64,
}

impl Prometheus {
    async fn start(folder: &Path, targets: &[String]) -> Self {
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [deploy("prometheus/rules.yml"), deploy("prometheus/alerts.yml")],
            "scrape_configs": [{
                "job_name": "paceline", "honor_labels": true,
                "static_configs": [{"targets": targets}],
            }],
        });
        let file = folder.join("prometheus.json");
        std::fs::write(&file, config.to_string()).expect("written");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = port.local_addr().expect("an address");
        drop(port);
        let mut command = Command::new(tool("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let log = folder.join("prometheus.log");
        let process = Process::spawn("prometheus", &mut command, &log).expect("it starts");
        let found = Prometheus {
            _process: process,
            url: format!("http://{address}"),
            since: now(),
        };
        let until = Instant::now() + LIMIT;
        while reqwest::get(format!("{}/-/ready", found.url))
            .await
            .is_ok_and(|answer| answer.status().is_success())
            .eq(&false)
        {
            assert!(Instant::now() < until, "{}", found._process.last_words(20));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        found
    }

    /// How many series an expression had since the start.
    async fn series(&self, expression: &str) -> usize {
        let (since, until) = (self.since.to_string(), now().to_string());
        let query = [
            ("query", expression),
            ("start", &since),
            ("end", &until),
            ("step", "1"),
        ];
        let answer = reqwest::Client::new()
            .get(format!("{}/api/v1/query_range", self.url))
            .query(&query)
            .send()
            .await
            .expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }
}

fn now() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

/// The queries of all panels, and what each is called.
fn panels() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dashboard in ["fleet", "limits"] {
        let path = deploy(&format!("grafana/dashboards/{dashboard}.json"));
        let text = std::fs::read_to_string(path).expect("a dashboard");
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(parsed["uid"], format!("paceline-{dashboard}"));
        for panel in parsed["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
                let expression = target["expr"].as_str().expect("a query");
                found.push((
                    format!("{dashboard}: {}", panel["title"]),
                    expression.replace("$provider", ".*"),
                ));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_rule_has_data_of_a_run() {
    let mut scene = Scene::new(Fleet::new("monitoring").expect("a fleet"), &CALENDAR);
    scene.fleet.tells_nobody();
    let (serving, _) = serve(&scene.fleet);
    scene.collect();
    scene.load();
    let targets = [&serving, &scene.collectors[0], scene.loader()]
        .map(|process| metrics_address(process, LIMIT).expect("it listens"));
    let folder = tempfile::tempdir().expect("a folder");
    let prometheus = Prometheus::start(folder.path(), &targets).await;
    scene.enqueue();
    scene.ends_with(0).await;

    let rules = std::fs::read_to_string(deploy("prometheus/rules.yml")).expect("rules.yml");
    let recorded = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .map(|name| (name.to_owned(), name.to_owned()));
    let mut wanted: Vec<(String, String)> = recorded.chain(panels()).collect();
    wanted.retain(|(_, query)| !WITHOUT_DATA.iter().any(|other| query.contains(other)));
    assert!(wanted.len() > 30, "{} queries", wanted.len());
    let until = Instant::now() + 2 * LIMIT;
    while !wanted.is_empty() {
        let mut missing = Vec::new();
        for (name, query) in wanted {
            if prometheus.series(&query).await == 0 {
                missing.push((name, query));
            }
        }
        wanted = missing;
        assert!(Instant::now() < until, "no data: {wanted:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // The fleet was good: nobody is woken. Prometheus shows pending alerts as well as firing ones.
    let firing = prometheus.series("ALERTS{alertstate=\"firing\"}").await;
    assert_eq!(firing, 0);
}
