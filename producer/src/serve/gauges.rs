//! What the fleet is doing, as metrics. Only `serve` exports these: workers at zero would export nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout;
use paceline_protocol::manifest::Live;
use paceline_protocol::metrics::{Registrar, gauge};
use paceline_protocol::spec::Provider;
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::Server;
use super::budgets::{Budget, budgets};
use super::calendar::Calendar;
use super::need::{self, ProviderNow};
use super::useful::{CallMeter, LaneNow, WorkerSize, useful_workers};
use crate::limits::limiter_name;
use crate::run::{RunFiles, StateWord, open_runs_since};
use crate::watch::{PoolNow, Snapshot, provider_and_pool, snapshot};

/// How often the fleet is measured.
const EVERY: Duration = Duration::from_secs(5);
/// How long S3 may take to say which runs are open; it is asked again for a minute.
const PATIENCE: Duration = Duration::from_secs(10);
/// Starts of a schedule that are looked at for the longest time between two.
const STARTS: usize = 10;

/// The metrics and their registry.
pub(super) struct Gauges {
    /// All of them.
    pub(super) registry: Registry,
    /// Whether the servers answered when they were asked last.
    pub(super) ready: IntGauge,
    leading: IntGauge,
    shards: IntGaugeVec,
    age: IntGaugeVec,
    progress: GaugeVec,
    eta: IntGaugeVec,
    blocked: IntGaugeVec,
    credentials: IntGaugeVec,
    utilization: GaugeVec,
    quota: IntGaugeVec,
    quota_reset: GaugeVec,
    useful: IntGaugeVec,
    success: GaugeVec,
    interval: IntGaugeVec,
    starts: IntCounterVec,
    dead: IntCounterVec,
    deliveries: IntCounterVec,
    spans: IntCounterVec,
    /// What one worker takes on.
    worker: WorkerSize,
}

impl Gauges {
    pub(super) fn new(worker: WorkerSize) -> prometheus::Result<Self> {
        Self::register(&mut Registrar::new(env!("PACELINE_VERSION"))?, worker)
    }

    fn register(r: &mut Registrar, worker: WorkerSize) -> prometheus::Result<Self> {
        let gauges = Gauges {
            ready: r.gauge(
                "serve_ready",
                "1 while S3, Redis and RabbitMQ answer; looked at every 5 s, as everything here.",
            )?,
            leading: r.gauge(
                "serve_leading",
                "1 in the process that starts runs, 0 in the other replicas.",
            )?,
            shards: r.gauges(
                "shards",
                "Shards of the open runs by state: open, loaded.",
                &["job", "state"],
            )?,
            age: r.gauges(
                "shard_age_seconds",
                "Age of the oldest shard that is not loaded yet: since the job's oldest open run was opened, paused or resumed.",
                &["job"],
            )?,
            progress: r.fractions(
                "run_progress_ratio",
                "Share of cells that have ended, of the job's open run.",
                &["job"],
            )?,
            eta: r.gauges(
                "run_eta_seconds",
                "Seconds to the end of the job's open run at the allowed rate.",
                &["job"],
            )?,
            blocked: r.gauges(
                "provider_blocked",
                "1 while every call of the provider is kept back, by an answer, a used up quota or an operator, over all keys that this process can see.",
                &["provider"],
            )?,
            credentials: r.gauges(
                "credentials",
                "Keys of the provider's pool by state: open; closed until they open by themselves (a cooldown, a quota that is used up); dead until somebody looks.",
                &["provider", "state"],
            )?,
            utilization: r.fractions(
                "limiter_utilization_ratio",
                "Share that is used now of each limit, over all keys that this process can see: of the last period, of the calls in flight, of the window. Limits by other scopes and spacings are left out.",
                &["provider", "limit"],
            )?,
            quota: r.gauges(
                "quota_remaining",
                "Calls left in the window, over all keys that this process can see.",
                &["provider", "limit"],
            )?,
            quota_reset: r.fractions(
                "quota_reset_timestamp_seconds",
                "When the window ends, since 1970.",
                &["provider", "limit"],
            )?,
            useful: r.gauges(
                "useful_workers",
                "Collectors that are of use now by the egress label that lanes ask for (empty: none asked): the smaller of what open budgets keep busy (calls a second x seconds of a call / `--worker-concurrency`) and what finds work (shards / `--worker-shards`). 0 for a closed budget.",
                &["egress"],
            )?,
            success: r.fractions(
                "run_last_success_timestamp_seconds",
                "When the job's newest good run was planned, since 1970.",
                &["job"],
            )?,
            interval: r.gauges(
                "schedule_interval_seconds",
                "The longest time between the next ten planned starts of a job with a schedule.",
                &["job"],
            )?,
            starts: r.counters(
                "schedule_starts_total",
                "Planned starts by what came of them: started, skipped, missed, failed.",
                &["job", "result"],
            )?,
            dead: r.counters(
                "dead_letters_total",
                "Messages put to the dead letters: request, delivery (unreadable ones), webhook (given up after a day).",
                &["reason"],
            )?,
            spans: r.counters(
                "trace_spans_total",
                "Spans of traces that were sent, and those that were dropped: the receiver was away, refused them or was too slow. Only with OTEL_EXPORTER_OTLP_ENDPOINT.",
                &["result"],
            )?,
            deliveries: r.counters(
                "webhook_deliveries_total",
                "Webhooks called, by result: ok, retried, failed.",
                &["result"],
            )?,
            worker,
            registry: r.registry.clone(),
        };
        for reason in ["request", "delivery", "webhook"] {
            gauges.dead.with_label_values(&[reason]);
        }
        for result in ["ok", "retried", "failed"] {
            gauges.deliveries.with_label_values(&[result]);
        }
        for result in ["sent", "dropped"] {
            gauges.spans.with_label_values(&[result]);
        }
        Ok(gauges)
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

    /// Shows one look at the fleet. What belongs to runs that are no more must not stay.
    fn show(&self, look: &Look) {
        for of_runs in [
            &self.shards,
            &self.age,
            &self.eta,
            &self.quota,
            &self.blocked,
            &self.credentials,
        ] {
            of_runs.reset();
        }
        for of_runs in [&self.progress, &self.utilization, &self.quota_reset] {
            of_runs.reset();
        }
        self.useful.reset();
        for shot in &look.shots {
            self.show_run(shot);
        }
        for (job, since) in &look.opened {
            let age = Timestamp::now().duration_since(*since).as_secs().max(0);
            self.age.with_label_values(&[job]).set(age);
        }
        for (provider, now) in &look.providers {
            let blocked = i64::from(!now.open);
            self.blocked.with_label_values(&[provider]).set(blocked);
            if let Some(pool) = now.pool {
                self.show_pool(provider, pool);
            }
            for (limit, budget) in &now.budgets {
                self.show_budget(&[provider, limit], budget);
            }
        }
        // A label without work says 0, so that nothing has to be guessed where it is missing.
        for egress in &look.egresses {
            self.useful.with_label_values(&[egress]).set(0);
        }
        for (egress, workers) in useful_workers(&look.lanes, self.worker) {
            self.useful
                .with_label_values(&[&egress])
                .set(gauge(workers));
        }
    }

    /// Everything, as it is now.
    pub(super) fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        let (sent, dropped) = paceline_protocol::stores::traces::counts();
        for (result, count) in [("sent", sent), ("dropped", dropped)] {
            let counter = self.spans.with_label_values(&[result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.registry.gather()
    }

    fn show_run(&self, shot: &Snapshot) {
        let job = shot.job.as_str();
        let open = shot.shards.saturating_sub(shot.shards_loaded);
        for (state, count) in [("open", open), ("loaded", shot.shards_loaded)] {
            self.shards
                .with_label_values(&[job, state])
                .add(gauge(count));
        }
        let share = shot.done() as f64 / shot.cells.max(1) as f64;
        self.progress.with_label_values(&[job]).set(share);
        if let Some(eta) = shot.eta_s {
            self.eta.with_label_values(&[job]).set(gauge(eta));
        }
    }

    fn show_pool(&self, provider: &str, pool: PoolNow) {
        for (state, keys) in [
            ("open", pool.open),
            ("closed", pool.closed),
            ("dead", pool.dead),
        ] {
            self.credentials
                .with_label_values(&[provider, state])
                .set(gauge(keys));
        }
    }

    fn show_budget(&self, labels: &[&str; 2], budget: &Budget) {
        if let Some(share) = budget.share() {
            self.utilization.with_label_values(labels).set(share);
        }
        if let Some(resets_us) = budget.resets_us {
            let left = budget.allowed.saturating_sub(budget.used);
            self.quota.with_label_values(labels).set(gauge(left));
            let at = resets_us as f64 / 1e6;
            self.quota_reset.with_label_values(labels).set(at);
        }
    }
}

/// One look at the fleet.
#[derive(Default)]
struct Look {
    shots: Vec<Snapshot>,
    /// Since when each job's oldest open run is as it is.
    opened: BTreeMap<String, Timestamp>,
    providers: BTreeMap<String, ProviderNow>,
    lanes: Vec<LaneNow>,
    egresses: BTreeSet<String>,
}

/// Measures the fleet until the process stops.
pub(super) async fn keep_measuring(server: Arc<Server>) {
    let mut told = false;
    let mut meters = Meters::new();
    loop {
        let leads = server.leading.borrow().is_some();
        server.gauges.leading.set(i64::from(leads));
        match measure(&server, &mut meters).await {
            Ok(()) => {
                server.gauges.ready.set(1);
                server.note_away(None);
                told = false;
            }
            Err(error) => {
                server.gauges.ready.set(0);
                server.note_away(Some(format!("{error:#}")));
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

/// How long the calls of each open run take, and how far it was.
struct Meters {
    began: Instant,
    of_runs: BTreeMap<RunRef, OfRun>,
}

#[derive(Default)]
struct OfRun {
    calls: CallMeter,
    /// How many of its cells had ended, and its calls, at the last look.
    progress: (u64, u64),
}

impl Meters {
    fn new() -> Self {
        Meters {
            began: Instant::now(),
            of_runs: BTreeMap::new(),
        }
    }

    /// Whether a run has come further since the last look.
    fn has_progressed(&mut self, run: &RunRef, shot: &Snapshot) -> bool {
        let now = (shot.done(), shot.calls);
        let known = self.of_runs.entry(run.clone()).or_default();
        std::mem::replace(&mut known.progress, now) != now
    }

    fn call_s(&mut self, run: &RunRef, (calls, busy_ms): (u64, u64)) -> f64 {
        let known = self.of_runs.entry(run.clone()).or_default();
        known.calls.note(self.began.elapsed(), calls, busy_ms)
    }
}

async fn measure(server: &Server, meters: &mut Meters) -> Result<()> {
    let stores = &server.stores;
    let open = tokio::time::timeout(PATIENCE, open_runs_since(&stores.archive)).await;
    let open = open.context("S3 does not answer")??;
    meters
        .of_runs
        .retain(|run, _| open.iter().any(|(other, _)| other == run));
    let mut look = Look::default();
    look.egresses.insert(String::new());
    for job in server.spec.jobs().values() {
        let labels = job.providers.values().filter_map(|p| p.egress.clone());
        look.egresses.extend(labels);
    }
    for (run, since) in open {
        let Some(files) = RunFiles::read(&stores.archive, &run).await? else {
            continue;
        };
        if let Some(since) = since {
            let oldest = look.opened.entry(run.job.clone()).or_insert(since);
            *oldest = since.min(*oldest);
        }
        for provider in files.plan.providers.values() {
            if !look.providers.contains_key(&provider.name) {
                let now = provider_now(server, provider).await?;
                look.providers.insert(provider.name.clone(), now);
            }
        }
        let env = &server.context.env;
        let shot = snapshot(&stores.state, &stores.limiter, &files, env).await?;
        if matches!(shot.state, StateWord::Queued | StateWord::Running) {
            let call_s = meters.call_s(&run, shot.told);
            let (plan, left) = (&files.plan, shot.left);
            let lanes = need::lanes(stores, plan, left, call_s, &look.providers, env).await?;
            look.lanes.extend(lanes);
        }
        if meters.has_progressed(&run, &shot) && server.leading.borrow().is_some() {
            tell_progress(server, &shot).await;
        }
        look.shots.push(shot);
    }
    for lane in &look.lanes {
        tracing::debug!(
            provider.name = lane.provider,
            egress = lane.egress,
            open = lane.open,
            calls_per_second = lane.calls_per_second,
            in_flight = lane.in_flight,
            call.s = lane.call_s,
            shards = lane.shards,
            "a lane asks for workers"
        );
    }
    stores.state.ping().await?;
    server.gauges.show(&look);
    of_jobs(server).await?;
    let heard = stores.publisher.loaders().await;
    heard.context("RabbitMQ does not answer: nothing is started")?;
    Ok(())
}

/// Tells whoever listens how far a run is.
async fn tell_progress(server: &Server, shot: &Snapshot) {
    let mut body = serde_json::to_value(shot).unwrap_or_default();
    body["calls"] = shot.calls.into();
    // A value of each seller would make it long; who wants them asks for the run.
    if let Some(fields) = body.as_object_mut() {
        fields.remove("progress");
    }
    let told = server.stores.publisher.event("run.progressed", &body).await;
    if let Err(error) = told {
        tracing::debug!(run.id = shot.run, %error, "how far a run is was not told");
    }
}

async fn provider_now(server: &Server, provider: &Provider) -> Result<ProviderNow> {
    let (limiter, env) = (&server.stores.limiter, &server.context.env);
    let held = limiter.kept(&limiter_name(provider)).await?.hold.is_some();
    let (whole, pool) = provider_and_pool(limiter, provider, env).await?;
    Ok(ProviderNow {
        open: !held && whole.is_none(),
        pool,
        budgets: budgets(limiter, provider, env).await?,
    })
}

/// What the jobs of the spec folder came to, and how often they are planned.
async fn of_jobs(server: &Server) -> Result<()> {
    let (stores, gauges) = (&server.stores, &server.gauges);
    gauges.interval.reset();
    for (name, job) in server.spec.jobs() {
        if job.job.schedule.is_some() {
            for result in ["started", "skipped", "missed", "failed"] {
                gauges.starts.with_label_values(&[name.as_str(), result]);
            }
        }
        let key = layout::live(stores.prefix(), &name);
        if let Some(object) = stores.objects().get(&key).await?
            && let Ok(live) = serde_json::from_slice::<Live>(&object.body)
        {
            let at = live.planned_at.as_second() as f64;
            gauges.success.with_label_values(&[name.as_str()]).set(at);
        }
        let schedule = job.job.schedule.as_ref();
        let calendar = schedule.and_then(|schedule| Calendar::new(&name, schedule).ok());
        if let Some(longest) = calendar.and_then(|calendar| longest_gap(&calendar)) {
            gauges
                .interval
                .with_label_values(&[name.as_str()])
                .set(longest);
        }
    }
    Ok(())
}

/// Seconds between the two of the next starts that lie farthest apart.
fn longest_gap(calendar: &Calendar) -> Option<i64> {
    let next = |after: &Timestamp| calendar.next(*after);
    let starts: Vec<Timestamp> = std::iter::successors(next(&Timestamp::now()), next)
        .take(STARTS)
        .collect();
    let gaps = starts.windows(2).map(|two| two[1].duration_since(two[0]));
    gaps.map(|gap| gap.as_secs()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make metrics` (`UPDATE_DOCS=1`) writes the table instead of comparing it.
    #[test]
    fn the_table_of_the_documents_is_what_is_registered() {
        let mut registrar = Registrar::new(env!("PACELINE_VERSION")).expect("registers");
        let worker = WorkerSize {
            concurrency: 64,
            shards: 2,
        };
        Gauges::register(&mut registrar, worker).expect("registers");
        let table = registrar.table();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/METRICS.md");
        let text = std::fs::read_to_string(path).expect("the document");
        let (before, rest) = text.split_once("<!-- serve -->\n").expect("its beginning");
        let (now, after) = rest.split_once("<!-- /serve -->").expect("its end");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let new = format!("{before}<!-- serve -->\n{table}<!-- /serve -->{after}");
            std::fs::write(path, new).expect("written");
        } else {
            assert_eq!(now, table, "run `make metrics`");
        }
    }
}
