//! What the fleet is doing, as metrics. Only `serve` exports these: workers at zero would export nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use paceline_protocol::layout;
use paceline_protocol::manifest::Live;
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::Server;
use crate::run::{RunFiles, open_runs};
use crate::watch::{Snapshot, quotas_left, snapshot};

/// How often the fleet is measured.
const EVERY: Duration = Duration::from_secs(5);

/// The metrics and their registry.
pub(super) struct Gauges {
    /// All of them.
    pub(super) registry: Registry,
    /// Whether the servers answered when they were asked last.
    pub(super) ready: IntGauge,
    shards: IntGaugeVec,
    progress: GaugeVec,
    eta: IntGaugeVec,
    quota: IntGaugeVec,
    success: GaugeVec,
    starts: IntCounterVec,
    dead: IntCounterVec,
    deliveries: IntCounterVec,
}

impl Gauges {
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let ints = |name: &str, help: &str, labels: &[&str]| {
            let made = IntGaugeVec::new(opts(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let floats = |name: &str, help: &str, labels: &[&str]| {
            let made = GaugeVec::new(opts(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let counts = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(opts(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let one = |opts: Opts| {
            let made = IntGauge::with_opts(opts)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let build =
            opts("build_info", "Always 1.").const_label("version", env!("CARGO_PKG_VERSION"));
        one(build)?.set(1);
        Ok(Gauges {
            ready: one(opts(
                "serve_ready",
                "Whether the servers answered when they were asked last.",
            ))?,
            shards: ints("shards", "Shards of the open runs.", &["job", "state"])?,
            progress: floats(
                "run_progress_ratio",
                "Share of cells that have ended.",
                &["job"],
            )?,
            eta: ints("run_eta_seconds", "Seconds to the run's end.", &["job"])?,
            quota: ints(
                "quota_remaining",
                "Calls left in the window, over all keys.",
                &["provider", "limit"],
            )?,
            success: floats(
                "run_last_success_timestamp_seconds",
                "When the newest good run was planned, since 1970.",
                &["job"],
            )?,
            starts: counts(
                "schedule_starts_total",
                "Planned starts of schedules by what came of them.",
                &["job", "result"],
            )?,
            dead: counts(
                "dead_letters_total",
                "Messages put to the dead letters.",
                &["reason"],
            )?,
            deliveries: counts(
                "webhook_deliveries_total",
                "Webhooks called, by result.",
                &["result"],
            )?,
            registry,
        })
    }

    /// A planned start was `started`, `skipped`, `missed` or `failed`.
    pub(super) fn start(&self, job: &str, result: &str) {
        self.starts.with_label_values(&[job, result]).inc();
    }

    /// A message was put to the dead letters.
    pub(super) fn dead_letter(&self, reason: &str) {
        self.dead.with_label_values(&[reason]).inc();
    }

    /// A webhook was called.
    pub(super) fn delivery(&self, result: &str) {
        self.deliveries.with_label_values(&[result]).inc();
    }

    /// What belongs to runs that are no more must not stay.
    fn begin(&self) {
        self.shards.reset();
        self.progress.reset();
        self.eta.reset();
    }

    fn show(&self, shot: &Snapshot) {
        let job = shot.job.as_str();
        let open = shot.shards.saturating_sub(shot.shards_loaded);
        for (state, count) in [("open", open), ("loaded", shot.shards_loaded)] {
            self.shards
                .with_label_values(&[job, state])
                .add(whole(count));
        }
        let share = shot.done() as f64 / shot.cells.max(1) as f64;
        self.progress.with_label_values(&[job]).set(share);
        if let Some(eta) = shot.eta_s {
            self.eta.with_label_values(&[job]).set(whole(eta));
        }
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("paceline")
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Measures the fleet until the process stops.
pub(super) async fn keep_measuring(server: Arc<Server>) {
    let mut told = false;
    loop {
        match measure(&server).await {
            Ok(()) => {
                server.gauges.ready.set(1);
                told = false;
            }
            Err(error) => {
                server.gauges.ready.set(0);
                if !told {
                    tracing::warn!("the fleet is not measured: {error:#}");
                    told = true;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = server.stop.cancelled() => return,
        }
    }
}

async fn measure(server: &Server) -> Result<()> {
    let stores = &server.stores;
    let mut shots = Vec::new();
    for run in open_runs(&stores.archive).await? {
        let Some(files) = RunFiles::read(&stores.archive, &run).await? else {
            continue;
        };
        for left in quotas_left(&stores.limiter, &files.plan, &server.context.env).await? {
            let labels = [left.provider.as_str(), left.limit.as_str()];
            server
                .gauges
                .quota
                .with_label_values(&labels)
                .set(whole(left.remaining));
        }
        shots.push(snapshot(&stores.state, &stores.limiter, &files, &server.context.env).await?);
    }
    stores.state.ping().await?;
    server.gauges.begin();
    shots.iter().for_each(|shot| server.gauges.show(shot));
    for job in server.spec.jobs().keys() {
        let key = layout::live(stores.prefix(), job);
        if let Some(object) = stores.objects().get(&key).await?
            && let Ok(live) = serde_json::from_slice::<Live>(&object.body)
        {
            let at = live.planned_at.as_second() as f64;
            server
                .gauges
                .success
                .with_label_values(&[job.as_str()])
                .set(at);
        }
    }
    Ok(())
}
