//! A small run of the fare calendar against a simulator of its own, so that a test only says what goes
//! wrong in the middle.

use std::time::{Duration, Instant};

use harness::checker::Outputs;
use harness::{Bucket, Checker, Fleet, Verdict};
use paceline_loadtest::simulator::{Limits, Simulator, SimulatorConfig, SimulatorHandle};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::Manifest;
use paceline_stack::Process;

/// The id of every scene's run.
pub const RUN: &str = "2026-11-21";
/// What the provider knows and nothing else may show.
const KEYS: [&str; 2] = ["canary-5d1f0c", "canary-e27b94"];
/// Between two looks at the run.
const LOOK: Duration = Duration::from_millis(50);
/// A run that is no further by then will never be.
const LONGEST: Duration = Duration::from_secs(180);

/// The size of a run and its pace.
pub struct Calendar {
    /// Destinations.
    pub airports: &'static [&'static str],
    /// Departure dates.
    pub days: u32,
    /// Calls a second that the provider allows.
    pub rate: u32,
}

impl Calendar {
    /// 14 nights for each destination and date.
    const NIGHTS: u32 = 14;

    /// 1,400 cells in about 4 s.
    pub const SHORT: Calendar = Calendar {
        airports: &["NRT"],
        days: 100,
        rate: 400,
    };

    /// 2,800 cells in about 7 s.
    pub const LONG: Calendar = Calendar {
        airports: &["NRT", "BKK"],
        ..Self::SHORT
    };

    fn cells(&self) -> usize {
        self.airports.len() * (self.days * Self::NIGHTS) as usize
    }
}

/// A fleet, its provider and its run.
pub struct Scene {
    /// The fleet.
    pub fleet: Fleet,
    /// The provider.
    pub simulator: SimulatorHandle,
    /// Its `worker collect`s.
    pub collectors: Vec<Process>,
    loader: Option<Process>,
    producer: Option<Process>,
}

impl Scene {
    /// A provider without faults, and the spec folder for `calendar`. Nothing of the fleet runs yet.
    pub fn new(fleet: Fleet, calendar: &Calendar) -> Self {
        let config = SimulatorConfig {
            limits: Limits {
                concurrency: Some(64),
                ..Limits::per_second(calendar.rate)
            },
            ..SimulatorConfig::default()
        };
        let rate = format!("rate: {}/s", calendar.rate);
        let days = format!("days: {}}}", calendar.days);
        let scene = Self::with(fleet, config);
        let spec = &scene.fleet.spec;
        spec.destinations(calendar.airports).expect("written");
        scene.replace("providers/fare-search.yaml", "rate: 50/s", &rate);
        scene.replace("jobs/fares.yaml", "days: 100}", &days);
        scene
    }

    /// A provider as `config` says, and the example's spec folder with an index of the fleet's own.
    pub fn with(mut fleet: Fleet, config: SimulatorConfig) -> Self {
        let keys = KEYS.map(str::to_owned).to_vec();
        let simulator = Simulator::start(SimulatorConfig { keys, ..config }).expect("it listens");
        fleet.set("FARE_SEARCH_URL", simulator.url());
        fleet.set("FARE_SEARCH_KEYS", KEYS.join(","));
        let scene = Scene {
            fleet,
            simulator,
            collectors: Vec::new(),
            loader: None,
            producer: None,
        };
        let index = format!("name: {}", scene.index());
        scene.replace("jobs/fares.yaml", "name: fares", &index);
        scene
    }

    /// Changes a file of the spec folder.
    #[track_caller]
    pub fn replace(&self, file: &str, from: &str, to: &str) {
        self.fleet.spec.replace(file, from, to).expect("replaced");
    }

    /// The name of the job's index.
    pub fn index(&self) -> &str {
        &self.fleet.name
    }

    /// Starts one more `worker collect`.
    pub fn collect(&mut self) {
        let collector = self.fleet.collect(&[]).expect("it starts");
        self.collectors.push(collector);
    }

    /// Starts `worker load`.
    pub fn load(&mut self) {
        self.loader = Some(self.fleet.load(&[]).expect("it starts"));
    }

    /// Starts `producer enqueue --wait`.
    pub fn enqueue(&mut self) {
        let arguments = ["enqueue", "fares", "--run-id", RUN, "--wait"];
        let producer = self.fleet.start("producer", &arguments);
        self.producer = Some(producer.expect("it starts"));
    }

    /// Two collectors, a loader and the run.
    pub fn start(&mut self) {
        self.collect();
        self.collect();
        self.load();
        self.enqueue();
    }

    /// Waits until the provider has seen so many calls.
    pub async fn after_calls(&mut self, calls: usize) {
        let simulator_has = |scene: &mut Self| scene.simulator.log().len() >= calls;
        self.until(&format!("{calls} calls"), simulator_has).await;
    }

    /// Waits for the end of the run, and of `producer enqueue --wait` with `code`.
    pub async fn ends_with(&mut self, code: i32) {
        let mut status = None;
        self.until("the end of the run", |scene| {
            let producer = scene.producer.as_mut().expect("enqueued");
            status = producer.try_wait().expect("its status");
            status.is_some()
        })
        .await;
        let found = status.and_then(|status| status.code());
        assert_eq!(found, Some(code), "{}", self.last_words());
    }

    /// Waits until `holds`.
    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let until = Instant::now() + LONGEST;
        while !holds(self) {
            if Instant::now() > until {
                panic!("no {what} after {LONGEST:?}:\n{}", self.last_words());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// No cell that had a good answer was called again.
    #[track_caller]
    pub fn assert_nothing_repeated(&self) {
        let repeated = self.simulator.report().repeated;
        assert_eq!(repeated, 0, "{}", self.last_words());
    }

    /// The promise is kept; all cells of `calendar` were there, and the provider refused nothing.
    pub async fn check(&self, calendar: &Calendar) -> Verdict {
        let verdict = self.verdict().await;
        verdict.assert_kept();
        assert_eq!(verdict.cells, calendar.cells() as u64);
        assert_eq!(verdict.failed, 0, "{}", self.last_words());
        verdict
    }

    /// What the checker finds.
    pub async fn verdict(&self) -> Verdict {
        let report = serde_json::to_value(self.simulator.report()).expect("JSON");
        let outputs = Outputs::fares(self.index());
        let mut checker = Checker::new(&self.fleet, "fares", RUN, outputs).expect("a run id");
        for key in KEYS {
            checker = checker.secret(key);
        }
        let verdict = checker.referee(report).check().await;
        verdict.unwrap_or_else(|error| panic!("{error:#}\n{}", self.last_words()))
    }

    /// The run's place in S3.
    pub fn layout(&self) -> RunLayout {
        self.fleet.layout("fares", RUN)
    }

    /// The run's manifest.
    pub async fn manifest(&self) -> Manifest {
        let object = Bucket::of(&self.fleet).get(&self.layout().manifest()).await;
        serde_json::from_slice(&object.expect("a manifest").body).expect("it parses")
    }

    /// The rows of the run's objects below `prefix`.
    pub async fn rows(&self, prefix: &str) -> Vec<serde_json::Value> {
        let bucket = Bucket::of(&self.fleet);
        let mut rows = Vec::new();
        for key in bucket.keys(prefix).await.expect("a list") {
            rows.extend(bucket.get(&key).await.expect(&key).rows().expect("NDJSON"));
        }
        rows
    }

    /// Its `worker load`.
    pub fn loader(&self) -> &Process {
        self.loader.as_ref().expect("a loader was started")
    }

    fn last_words(&self) -> String {
        let processes = self.collectors.iter().chain(&self.loader);
        let words = |process: &Process| format!("{}:\n{}", process.name(), process.last_words(12));
        let words: Vec<String> = processes.chain(&self.producer).map(words).collect();
        let calls = self.simulator.log().len();
        format!("{calls} calls\n{}", words.join("\n"))
    }
}
