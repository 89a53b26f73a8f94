//! The role `worker collect`: takes shards from the lanes of open runs, calls their providers under the
//! fleet's limits, makes the answers durable block by block. Stateless: start any number, kill any of them.

mod aside;
pub mod call;
pub mod connect;
pub mod gaps;
mod governor;
pub mod intake;
pub mod lane;
pub mod ledger;
mod on_time;
pub mod open_runs;
pub mod part_ways;
pub mod reading;
pub mod resume;
pub mod run;
mod seats;
pub mod settle;
pub mod source;
pub mod spent;
mod taking;
pub mod tokens;
pub mod work;

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::lanes::LaneChoice;
use paceline_protocol::message::Control;
use paceline_protocol::settings::ProcessEnvironment;
use paceline_protocol::stores::broker::Taker;
use paceline_protocol::stores::objects::Objects;
use tokio::sync::{Mutex, Notify, RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connect::Servers;
use self::intake::Intake;
use self::lane::LaneContext;
use self::open_runs::OpenRuns;
use self::part_ways::Parting;
use self::run::Runs;
use self::seats::Seats;
use self::settle::Stores;
use crate::admin::Readiness;
use crate::config::CollectSettings;
use crate::metrics::Metrics;
use crate::servers::NotConnected;
use crate::shutdown::Shutdown;

/// Collects until told to stop, then drains.
///
/// # Errors
/// When a server will never do: it may evict, ignores conditional puts, or the bucket is missing.
pub async fn run(
    settings: CollectSettings,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let servers = match Servers::connect(&settings, &readiness, &shutdown).await {
        Ok(servers) => servers,
        Err(NotConnected::Draining(_)) => return Ok(()),
        Err(never) => return Err(never.into()),
    };
    readiness.ready(servers.look(&settings));
    let holder = format!("w-{}", &uuid::Uuid::new_v4().simple().to_string()[..10]);
    tracing::info!(
        worker.id = holder,
        concurrency = settings.concurrency,
        shards = settings.shards,
        "collecting"
    );
    let intake = intake(&settings, &servers, &holder, shutdown.clone(), metrics);
    let open_runs = intake.open_runs.clone();
    let look_again = intake.look_again.clone();
    let tasks = intake.context.tasks.clone();
    let taker = servers.taker.clone();
    let (lanes, hearing) = (intake.clone(), open_runs.clone());
    let listening =
        tokio::spawn(async move { listen(&taker, &hearing, &look_again, &lanes).await });
    let open_runs = intake.open_runs.clone();
    let registry = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { open_runs.keep_up(&shutdown).await }
    });
    let state = servers.state.clone();
    let taking = taking::keep_telling(state, intake.choice.clone(), shutdown.clone());
    let taking = tokio::spawn(taking);
    intake.clone().run().await;
    taking.abort();
    tasks.close();
    tasks.wait().await;
    listening.abort();
    registry.abort();
    flush_ledgers(&intake, &servers.objects).await;
    servers.publisher.close(Duration::from_secs(2)).await;
    tracing::info!(worker.id = holder, "drained: nothing is in hand");
    Ok(())
}

fn intake(
    settings: &CollectSettings,
    servers: &Servers,
    holder: &str,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
) -> Arc<Intake<ProcessEnvironment>> {
    for egress in std::iter::once("").chain(settings.egress.as_deref()) {
        metrics.worker_egress.with_label_values(&[egress]).set(1);
    }
    let prefix = &settings.fleet.prefix;
    let runs = Runs::new(servers.objects.clone(), prefix, holder, ProcessEnvironment);
    let open_runs = Arc::new(OpenRuns::new(
        servers.state.clone(),
        servers.objects.clone(),
        runs.open_prefix(),
    ));
    let look_again = Arc::new(Notify::new());
    let stores = Stores {
        objects: servers.objects.clone(),
        state: servers.state.clone(),
        metrics: metrics.clone(),
    };
    let seats = Arc::new(Seats::new(
        settings.concurrency,
        metrics.worker_inflight.clone(),
    ));
    let context = LaneContext {
        holder: holder.to_owned(),
        prefix: prefix.clone(),
        limiter: servers.limiter.clone(),
        parting: Parting {
            stores,
            publisher: servers.publisher.clone(),
            limiter: servers.limiter.clone(),
            holder: holder.to_owned(),
        },
        metrics,
        seats,
        shutdown,
        open_runs: open_runs.subscribe(),
        shard_left: look_again.clone(),
        tasks: TaskTracker::new(),
        gaps: Arc::default(),
        intake_over: CancellationToken::new(),
    };
    Arc::new(Intake {
        taker: servers.taker.clone(),
        runs,
        open_runs,
        choice: LaneChoice {
            egress: settings.egress.clone(),
            lanes: settings.lanes.clone(),
        },
        context,
        room: Arc::new(Semaphore::new(settings.shards.max(1))),
        shards: settings.shards.max(1),
        in_lanes: Mutex::default(),
        company: Arc::new(RwLock::new(())),
        lanes: Mutex::default(),
        unserved: Mutex::default(),
        silent: Mutex::default(),
        look_again,
    })
}

/// Hears the control exchange. What it says is also in the registry; hearing it only saves time.
async fn listen(
    taker: &Taker,
    open_runs: &OpenRuns,
    look_again: &Notify,
    intake: &Intake<ProcessEnvironment>,
) {
    loop {
        match taker.control().await {
            Control::RunsChanged | Control::Pause { .. } => open_runs.changed.notify_one(),
            Control::Cancel { run } => {
                intake.leave_alone(run).await;
                open_runs.changed.notify_one();
            }
            Control::LimitsChanged { provider } => {
                tracing::info!(provider.name = provider, "limits were changed");
                for lane in intake.lanes.lock().await.values() {
                    lane.limits_changed();
                }
            }
        }
        for lane in intake.lanes.lock().await.values() {
            lane.look_again();
        }
        look_again.notify_one();
    }
}

async fn flush_ledgers(intake: &Intake<ProcessEnvironment>, objects: &Objects) {
    for run in intake.runs.all().await {
        if let Err(error) = run.ledger.flush(objects).await {
            tracing::error!(run.id = %run.id, error = %error, "rows of the ledger are lost: audit will show more grants than calls");
        }
    }
}
