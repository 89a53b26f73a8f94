//! A run's ledger of any length, as collectors leave it behind.

use std::collections::BTreeMap;

use anyhow::Context as _;
use jiff::Timestamp;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::spec::SpecFolder;
use paceline_protocol::stores::objects::Objects;

use super::BenchJob;
use crate::chance::scatter;

/// Calls a second of the run.
const RATE: u64 = 1_000;
/// Workers that share them.
const WORKERS: u64 = 8;
/// Rows of an object: about the four megabytes at which a worker puts one.
const ROWS: u64 = 16_000;
/// Microseconds of some day.
const FIRST_US: i64 = 1_795_000_000_000_000;

/// A run at 1,000 calls/s over 8 workers, of whose calls one of a hundred was tried twice.
pub struct LedgerOfRun {
    plan: Plan,
    layout: RunLayout,
    rows: u64,
}

impl LedgerOfRun {
    /// With `rows` calls; `folder` is for its files.
    ///
    /// # Errors
    /// When they cannot be written or read.
    pub fn new(rows: u64, prefix: &str, folder: &std::path::Path) -> anyhow::Result<Self> {
        let job = BenchJob {
            wanted: 1,
            rate: RATE as u32,
            concurrency: 256,
            limits: None,
        };
        job.write(folder)?;
        let loaded = SpecFolder::open(folder)?.job(BenchJob::NAME);
        let loaded = loaded.map_err(|error| anyhow::anyhow!("the bench's own job: {error:?}"))?;
        let now = Timestamp::now();
        let lane = "fare-search".to_owned();
        let plan = Plan {
            version: PLAN_VERSION,
            run: "audited".parse()?,
            planned_at: now,
            date: now.to_zoned(jiff::tz::TimeZone::UTC).date(),
            only: BTreeMap::new(),
            allow_shrink: false,
            force: false,
            base: None,
            job: loaded.job,
            providers: loaded.providers,
            matrix: Matrix {
                dimensions: vec![PlannedDimension {
                    names: vec!["cell".into()],
                    values: PlannedValues::Range {
                        first: 0,
                        count: rows,
                    },
                }],
            },
            segments: vec![Segment {
                lane: lane.clone(),
                provider: lane,
                first_cell: 0,
                cells: rows,
            }],
            inputs: Default::default(),
        };
        let layout = RunLayout::new(prefix, &plan.run_ref());
        Ok(LedgerOfRun { plan, layout, rows })
    }

    /// How it is named.
    pub fn run(&self) -> String {
        self.plan.run_ref().to_string()
    }

    /// Calls that were refused.
    pub fn refused(&self) -> u64 {
        (0..self.rows).filter(|n| n % 100 == 99).count() as u64
    }

    /// Writes plan and ledger.
    ///
    /// # Errors
    /// When the store does not take them.
    pub async fn write(&self, objects: &Objects) -> anyhow::Result<()> {
        let plan = serde_json::to_vec(&self.plan).context("a plan is plain data")?;
        objects.put(&self.layout.plan(), plan.into(), &[]).await?;
        for worker in 0..WORKERS {
            let own = (self.rows + WORKERS - 1 - worker) / WORKERS;
            for (seq, first) in (0..own).step_by(ROWS as usize).enumerate() {
                let rows = first..own.min(first + ROWS);
                let body = self.object(worker, rows)?;
                let name = format!("worker-{worker}");
                let key = self.layout.ledger_object(&name, seq as u64);
                objects.put(&key, body.into(), &[]).await?;
            }
        }
        Ok(())
    }

    /// The rows `numbers` of a worker; every eighth call is its own.
    fn object(&self, worker: u64, numbers: std::ops::Range<u64>) -> anyhow::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for number in numbers {
            serde_json::to_writer(&mut lines, &row(number * WORKERS + worker))?;
            lines.push(b'\n');
        }
        Ok(zstd::encode_all(&lines[..], 1)?)
    }
}

/// Call `n` of the run.
fn row(n: u64) -> LedgerRow {
    let refused = n % 100 == 99;
    LedgerRow {
        sent_us: FIRST_US + (n * 1_000_000 / RATE) as i64 + (scatter(n) % 4) as i64,
        lane: "fare-search".into(),
        provider: "fare-search".into(),
        endpoint: "fares".into(),
        credential: Some("0-3fa91c".into()),
        scopes: Vec::new(),
        allowed: Vec::new(),
        points: Vec::new(),
        // A refused cell is the next call's.
        cell: n / 100 * 100 + (n % 100).min(98),
        page: 0,
        attempt: 1,
        outcome: if refused {
            Outcome::Throttled
        } else {
            Outcome::Ok
        },
        status: if refused { 429 } else { 200 },
        late_us: (scatter(n + 1) % 900) as i64,
        duration_us: 5_000 + scatter(n + 2) % 15_000,
        bytes: 400 + scatter(n + 3) % 900,
        reason: String::new(),
        trace: None,
    }
}
