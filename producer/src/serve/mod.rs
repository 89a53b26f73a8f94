//! `producer serve`: starts runs by schedule, message and HTTP, tells the world how they ended, ends those
//! that are past their deadline, and shows the fleet. Any number of replicas may run: a lease in Redis decides
//! who starts things, and the runs' ids, made from job and cause, make a double start the same start.

pub mod agenda;
mod budgets;
pub mod calendar;
mod chains;
mod clock;
mod deadline;
mod gauges;
mod half;
mod http;
mod leader;
mod lost_queues;
mod need;
mod notify;
mod page;
mod requests;
mod schedules;
mod spec_watch;
mod starting;
mod triggers;
pub mod useful;
mod views;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::stores::broker::{Hear, Inbox};
use paceline_protocol::topology::Topology;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::ServeArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::interrupt::asked_to_stop;
use crate::stores::{Stores, broker_url};
use spec_watch::SpecWatch;

/// How long a drain may take before what is left is cut off; every step can be done again.
const GRACE: Duration = Duration::from_secs(25);
/// Events that a slow listener may lag behind.
const EVENTS: usize = 1024;

/// What all parts of a serving process share.
struct Server {
    context: Context,
    stores: Stores,
    /// The jobs as they were last right.
    spec: SpecWatch,
    /// By which schedules and deadlines go.
    clock: clock::FleetClock,
    /// The starts that this process is making, as `<job>/<run>`.
    starts: Mutex<BTreeSet<String>>,
    /// The fence while this process starts things.
    leading: watch::Receiver<Option<u64>>,
    /// The fleet's events as they come by.
    events: broadcast::Sender<Arc<Event>>,
    gauges: gauges::Gauges,
    /// The server that did not answer when the fleet was measured last, and how.
    away: Mutex<Option<String>>,
    views: views::Views,
    amqp: String,
    /// When this process began to serve.
    began: Timestamp,
    stop: CancellationToken,
}

/// An event of the fleet.
#[derive(Clone, Debug)]
struct Event {
    topic: String,
    body: String,
}

impl Event {
    /// The run that it tells of.
    fn run(&self) -> Option<RunRef> {
        let body: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        Some(RunRef {
            job: body["job"].as_str()?.to_owned(),
            run: body["run"].as_str()?.parse().ok()?,
        })
    }
}

impl Server {
    fn inbox(&self, hear: Hear, prefetch: u16) -> Result<Inbox> {
        let topology = Topology::new(self.stores.archive.fleet.namespace.clone());
        Ok(Inbox::new(&self.amqp, topology, hear, prefetch)?)
    }

    fn note_away(&self, why: Option<String>) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn away(&self) -> Option<String> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.clone()
    }

    /// Waits `every` time, and on until this replica leads; `false` when the process stops.
    async fn leads_after(&self, every: Duration) -> bool {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.stop.cancelled() => return false,
            }
            if self.leading.borrow().is_some() {
                return true;
            }
        }
    }
}

/// Serves until told to stop.
///
/// # Errors
/// When a setting is missing, a server stays away, or the address cannot be had.
pub async fn run(context: Context, args: &ServeArgs) -> Result<Exit> {
    let began = Timestamp::now();
    let tokens = http::auth::Tokens::from_env(&context.env)?;
    let signer = notify::sign::Signer::from_env(&context.env)?;
    // Nobody watches bars here, and what commands say to people is in the log or in an answer.
    let context = Context {
        quiet: true,
        lively: false,
        ..context
    };
    let spec = SpecWatch::open(&context)?;
    let stores = Stores::connect(&context.env).await?;
    stores
        .objects()
        .probe_conditional_put(stores.prefix())
        .await?;
    // Only now: who finds the port open finds the queues declared too, so that no request is lost.
    let listener = http::bind(args.listen).await?;
    let (lead, leading) = watch::channel(None);
    let stop = CancellationToken::new();
    let server = Arc::new(Server {
        amqp: broker_url(&context.env)?,
        gauges: gauges::Gauges::new(args.worker())?,
        away: Mutex::default(),
        views: views::Views::default(),
        events: broadcast::channel(EVENTS).0,
        context,
        stores,
        spec,
        clock: clock::FleetClock::default(),
        starts: Mutex::default(),
        leading,
        began,
        stop: stop.clone(),
    });
    let tasks = TaskTracker::new();
    if let Some(listener) = listener {
        tasks.spawn(http::serve(server.clone(), tokens, listener));
    }
    tasks.spawn(leader::lead(server.clone(), lead));
    tasks.spawn(spec_watch::keep_reading(server.clone()));
    tasks.spawn(schedules::follow(server.clone()));
    tasks.spawn(chains::follow(server.clone()));
    tasks.spawn(triggers::follow(server.clone()));
    tasks.spawn(deadline::enforce(server.clone()));
    tasks.spawn(half::go_on(server.clone()));
    tasks.spawn(lost_queues::look_after(server.clone()));
    tasks.spawn(gauges::keep_measuring(server.clone()));
    tasks.spawn(hear(server.clone()));
    tasks.spawn(requests::answer(server.clone()));
    notify::spawn(&tasks, server.clone(), signer);
    tasks.close();
    tracing::info!(jobs = server.spec.jobs().len(), "serving");

    asked_to_stop().await;
    tracing::info!("draining; a second signal stops at once");
    stop.cancel();
    tokio::select! {
        () = tasks.wait() => {}
        () = tokio::time::sleep(GRACE) => tracing::warn!("not all of it ended in time; it is done again"),
        () = asked_to_stop() => return Ok(Exit::Interrupted),
    }
    Ok(Exit::Done)
}

/// Passes the fleet's events on to whoever listens in this process.
async fn hear(server: Arc<Server>) {
    let Ok(mut inbox) = server.inbox(Hear::Events, 100) else {
        return;
    };
    loop {
        let letter = tokio::select! {
            letter = inbox.next() => letter,
            () = server.stop.cancelled() => return,
        };
        let Some(letter) = letter else { continue };
        let event = Event {
            topic: letter.topic.clone(),
            body: String::from_utf8_lossy(&letter.body).into_owned(),
        };
        // Nobody need be listening.
        let _ = server.events.send(Arc::new(event));
    }
}
