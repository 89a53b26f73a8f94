//! A small fare calendar: the example job and provider with a quick provider of the test's own, and the
//! checker that every test ends with.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use paceline_loadtest::simulator::{
    Call, Expected, FaultRule, Faults, Latency, Limits, Simulator, SimulatorConfig,
    SimulatorHandle, Verdict as Seen,
};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::Manifest;
use paceline_protocol::plan::Plan;
use paceline_stack::Process;

use crate::checker::{Collected, Outputs, Row};
use crate::fleet::Ended;
use crate::{Bucket, Checker, Fleet, Verdict};

/// Longer than any run of a test takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// The date of every run: the first day of departure is the next one.
const DATE: &str = "2026-12-01";

/// What differs from test to test.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where to.
    pub destinations: &'static [&'static str],
    /// Days of departure.
    pub days: u32,
    /// Lengths of stay, from one night on.
    pub nights: u32,
    /// Calls a second, in the provider's file and at the provider alike.
    pub rate: u32,
    /// Calls a second that the provider serves, where that is not what its file says.
    pub serves: Option<u32>,
    /// How long the provider takes to answer.
    pub latency: Duration,
    /// What goes wrong there.
    pub faults: Vec<FaultRule>,
    /// Share of cells that must come back, as `gate:` has it.
    pub gate: &'static str,
    /// Further replacements in `providers/fare-search.yaml`.
    pub provider: Vec<(&'static str, String)>,
}

impl Default for Shape {
    /// 60 cells in 3 shards of 4 blocks, at 400 calls a second.
    fn default() -> Self {
        Shape {
            destinations: &["NRT"],
            days: 20,
            nights: 3,
            rate: 400,
            serves: None,
            latency: Duration::from_millis(3),
            faults: Vec::new(),
            gate: "0.99",
            provider: Vec::new(),
        }
    }
}

impl Shape {
    /// How many cells a run has.
    pub fn cells(&self) -> u64 {
        self.destinations.len() as u64 * u64::from(self.days) * u64::from(self.nights)
    }
}

/// The job `fares` in a small shape, its provider, and the fleet that collects it.
pub struct Calendar {
    /// Its processes.
    pub fleet: Fleet,
    /// The referee.
    pub provider: SimulatorHandle,
    /// The alias behind the calendar.
    pub index: String,
    /// The keys; none may turn up anywhere.
    pub keys: Vec<String>,
    cells: u64,
}

impl Calendar {
    /// A calendar of `shape` for the test called `test`.
    ///
    /// # Errors
    /// When the servers, the provider or the spec folder cannot be set up.
    pub fn new(test: &str, shape: Shape) -> anyhow::Result<Self> {
        let mut fleet = Fleet::new(test)?;
        let keys: Vec<String> = ["one", "two"]
            .map(|n| format!("canary-{n}-{}", fleet.name))
            .into();
        let provider = Simulator::start(SimulatorConfig {
            keys: keys.clone(),
            limits: Limits {
                concurrency: Some(64),
                ..Limits::per_second(shape.serves.unwrap_or(shape.rate))
            },
            latency: Latency::fixed(shape.latency),
            faults: Faults(shape.faults.clone()),
            ..SimulatorConfig::default()
        })?;
        fleet.set("FARE_SEARCH_URL", provider.url());
        fleet.set("FARE_SEARCH_KEYS", keys.join(","));
        let index = format!("{}-fares", fleet.name);
        let calendar = Calendar {
            cells: shape.cells(),
            fleet,
            provider,
            index,
            keys,
        };
        calendar.write_spec(&shape)?;
        Ok(calendar)
    }

    fn write_spec(&self, shape: &Shape) -> anyhow::Result<()> {
        let spec = &self.fleet.spec;
        spec.destinations(shape.destinations)?;
        let job = [
            ("days: 100", format!("days: {}", shape.days)),
            ("range: [1, 14]", format!("range: [1, {}]", shape.nights)),
            (
                "cells: 140, checkpoint: 20",
                "cells: 20, checkpoint: 5".into(),
            ),
            ("gate: 0.99", format!("gate: {}", shape.gate)),
            // All tests share one Elasticsearch.
            ("    name: fares", format!("    name: {}", self.index)),
        ];
        for (from, to) in &job {
            spec.replace("jobs/fares.yaml", from, to)?;
        }
        let provider = [
            ("rate: 50/s", format!("rate: {}/s", shape.rate)),
            // Tests have no half minute.
            ("from: 500ms, to: 30s", "from: 20ms, to: 100ms".into()),
        ];
        for (from, to) in provider.iter().chain(&shape.provider) {
            spec.replace("providers/fare-search.yaml", from, to)?;
        }
        Ok(())
    }

    /// How many cells a run has.
    pub fn cells(&self) -> u64 {
        self.cells
    }

    /// Starts a loader.
    ///
    /// # Errors
    /// When it does not start.
    pub fn load(&self) -> anyhow::Result<Process> {
        self.fleet.load(&[])
    }

    /// Starts a collector.
    ///
    /// # Errors
    /// When it does not start.
    pub fn collect(&self) -> anyhow::Result<Process> {
        self.fleet.collect(&[])
    }

    /// `producer enqueue fares --run-id RUN`
    ///
    /// # Errors
    /// When it does not end.
    pub fn enqueue(&self, run: &str) -> anyhow::Result<Ended> {
        self.producer(&["enqueue", "fares", "--run-id", run, "--date", DATE])
    }

    /// `producer enqueue fares --run-id RUN --wait`
    ///
    /// # Errors
    /// When it does not end.
    pub fn enqueue_and_wait(&self, run: &str) -> anyhow::Result<Ended> {
        self.producer(&[
            "enqueue", "fares", "--run-id", run, "--date", DATE, "--wait",
        ])
    }

    /// `producer watch RUN`
    ///
    /// # Errors
    /// When it does not end.
    pub fn watch(&self, run: &str) -> anyhow::Result<Ended> {
        self.producer(&["watch", run])
    }

    /// Any `producer` command.
    ///
    /// # Errors
    /// When it does not end.
    pub fn producer(&self, arguments: &[&str]) -> anyhow::Result<Ended> {
        self.fleet.producer(arguments, PATIENCE)
    }

    /// The data of a `producer ... --json` command that must end with 0.
    ///
    /// # Errors
    /// When it does not end, or does not speak JSON.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
        let ended = self
            .producer(&[arguments, &["--json"]].concat())?
            .expect_code(0);
        serde_json::from_str(&ended.stdout).with_context(|| ended.stdout.clone())
    }

    /// Waits until the provider's log is as `wanted`.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Call]) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while !wanted(&self.provider.log()) {
            let report = self.provider.report();
            ensure!(Instant::now() < until, "{what} never came: {report:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until so many different cells have had a good answer.
    ///
    /// # Errors
    /// When they have not in time.
    pub async fn until_answered(&self, cells: usize) -> anyhow::Result<()> {
        let what = format!("an answer to {cells} cells");
        self.until(&what, |log| answered(log) >= cells).await
    }

    /// What the run has left in S3 so far.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn collected(&self, run: &str) -> anyhow::Result<Collected> {
        Collected::read(&self.bucket(), &self.layout(run)).await
    }

    /// The run's manifest.
    ///
    /// # Errors
    /// When there is none.
    pub async fn manifest(&self, run: &str) -> anyhow::Result<Manifest> {
        let object = self.bucket().get(&self.layout(run).manifest()).await?;
        Ok(serde_json::from_slice(&object.body)?)
    }

    /// The fleet's bucket.
    pub fn bucket(&self) -> Bucket {
        Bucket::of(&self.fleet)
    }

    /// Where the run lies.
    pub fn layout(&self, run: &str) -> RunLayout {
        self.fleet.layout("fares", run)
    }

    /// The index that the alias leads to; none when there is no alias.
    ///
    /// # Errors
    /// When Elasticsearch does not answer.
    pub async fn live_index(&self) -> anyhow::Result<Option<String>> {
        let url = self.fleet.value("ELASTICSEARCH_URL");
        let answer = reqwest::get(format!("{url}/_alias/{}", self.index)).await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let found: BTreeMap<String, serde_json::Value> = answer.error_for_status()?.json().await?;
        ensure!(found.len() == 1, "the alias has {} indices", found.len());
        Ok(found.into_keys().next())
    }

    /// The index of a run, as the alias shows it.
    pub fn index_of(&self, run: &str) -> String {
        format!("{}-{run}", self.index)
    }

    /// The checker, which the provider's own count belongs to.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn check(&self, run: &str) -> anyhow::Result<Verdict> {
        let report = serde_json::to_value(self.provider.report())?;
        self.checker(run)?.referee(report).check().await
    }

    /// The checker, for a provider that was told to refuse.
    ///
    /// # Errors
    /// When `run` is no run id.
    pub fn checker(&self, run: &str) -> anyhow::Result<Checker<'_>> {
        let checker = Checker::new(&self.fleet, "fares", run, Outputs::fares(&self.index))?;
        Ok(self.keys.iter().fold(checker, Checker::secret))
    }

    /// Every record of the run is what the provider has for its cell, and every cell that has records
    /// there has them here. Tells how many cells were compared.
    ///
    /// # Errors
    /// When S3 does not answer, or a cell differs.
    pub async fn compare_with_the_truth(&self, run: &str) -> anyhow::Result<u64> {
        let object = self.bucket().get(&self.layout(run).plan()).await?;
        let plan: Plan = serde_json::from_slice(&object.body)?;
        let names: Vec<&str> = plan.matrix.names().map(|name| &**name).collect();
        let collected = self.collected(run).await?;
        let mut found: BTreeMap<Search, Vec<Row>> = BTreeMap::new();
        for (row, _) in collected.rows() {
            found.entry(search(row)?).or_default().push(row.clone());
        }
        for number in 0..plan.cells() {
            let values = plan.matrix.cell(number);
            let named = names.iter().map(|n| (*n).to_owned()).zip(values);
            let search = search(&named.collect())?;
            let (destination, depart, back) = &search;
            let truth = self.provider.truth("ICN", destination, depart, back);
            let rows = found.remove(&search).unwrap_or_default();
            ensure!(
                agree(&truth, &rows)?,
                "cell {number} {search:?}: {rows:?} is not {truth:?}"
            );
        }
        Ok(plan.cells())
    }
}

/// Destination, day out, day back.
type Search = (String, String, String);

fn search(row: &Row) -> anyhow::Result<Search> {
    let text = |name: &str| {
        let value = row.get(name).and_then(serde_json::Value::as_str);
        value.with_context(|| format!("{row:?} has no {name}"))
    };
    let nights = row.get("nights").and_then(serde_json::Value::as_i64);
    let nights = jiff::Span::new().days(nights.context("a row without nights")?);
    let depart: jiff::civil::Date = text("depart")?.parse()?;
    let back = depart.checked_add(nights)?;
    Ok((
        text("destination")?.to_owned(),
        depart.to_string(),
        back.to_string(),
    ))
}

fn agree(truth: &Expected, rows: &[Row]) -> anyhow::Result<bool> {
    let Expected::Records(offers) = truth else {
        return Ok(rows.is_empty());
    };
    let mut same = offers.len() == rows.len();
    for (offer, row) in offers.iter().zip(rows) {
        let text = |name: &str| row.get(name).and_then(serde_json::Value::as_str);
        let price = row.get("price").map(ToString::to_string);
        let departs: jiff::Timestamp = offer.departs_at.parse()?;
        let departed: jiff::Timestamp = text("departs_at").unwrap_or_default().parse()?;
        same &= text("carrier") == Some(offer.carrier)
            // The digits, not the number.
            && price.as_deref() == Some(&offer.price)
            && text("currency") == Some(offer.currency)
            && departs == departed;
    }
    Ok(same)
}

/// Different cells with a good answer.
pub fn answered(log: &[Call]) -> usize {
    let good = log.iter().filter(|call| call.verdict.is_good());
    let cells: std::collections::BTreeSet<_> = good.filter_map(|c| c.cell.as_deref()).collect();
    cells.len()
}

/// Calls of the cells whose name contains `part`, in order of arrival.
pub fn calls_of(log: &[Call], part: &str) -> Vec<Call> {
    let of = |call: &&Call| call.cell.as_deref().is_some_and(|cell| cell.contains(part));
    log.iter()
        .filter(of)
        .filter(|call| call.verdict != Seen::Health)
        .cloned()
        .collect()
}
