//! Taking shards: which run and lane next, one shard at a time, as many as this process may hold.
//!
//! Shards are taken one by one (`basic.get`) and not pushed: nothing is prefetched that a crash would
//! redeliver, a lane that is closed is simply not asked, and runs are chosen by their weight.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use paceline_protocol::ids::RunRef;
use paceline_protocol::lanes::LaneChoice;
use paceline_protocol::message::ShardMessage;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::stores::broker::{BrokerError, TakenShard, Taker};
use paceline_protocol::stores::limiter::Claimed;
use paceline_protocol::stores::state::{OpenRun, QUEUE_GONE};
use paceline_protocol::topology::DelayLevel;
use paceline_protocol::version::Unread;
use tokio::sync::{Mutex, Notify, OwnedRwLockReadGuard, OwnedSemaphorePermit, RwLock, Semaphore};

use super::lane::held::{Company, Held, InLane, ShardInHand};
use super::lane::{self, LaneContext, LaneHandle};
use super::open_runs::OpenRuns;
use super::resume::resume;
use super::run::{Run, Runs};
use super::work::{ShardWork, WantedBlock};
use crate::output::failures::FailureRows;
use crate::patience::Patience;
use crate::traced;

/// How long an idle worker waits before it looks at its queues again.
const IDLE: Duration = Duration::from_millis(700);
/// A run that this worker cannot serve is left to others for so long.
const UNSERVED: Duration = Duration::from_secs(30);
/// So long nobody asks queues that are about to be deleted. A run that is retried at once waits for that.
const DELETING: Duration = Duration::from_secs(1);
/// A queue that does not answer is left alone for so long: asking it takes ten seconds.
const SILENT: Duration = Duration::from_secs(60);
/// A wait that was kept in `open/` is not trusted to be longer: clocks of machines differ.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// From so many deliveries on a shard is suspected to kill its workers.
const SUSPICIOUS: u32 = 2;

/// Takes shards and hands them to their lanes.
pub struct Intake<E> {
    /// The broker's taking side.
    pub taker: Taker,
    /// The runs of this worker.
    pub runs: Runs<E>,
    /// Which are open.
    pub open_runs: Arc<OpenRuns>,
    /// Which lanes are ours.
    pub choice: LaneChoice,
    /// What lanes need.
    pub context: LaneContext,
    /// Shards that may be worked on at once, and of one lane that waits for its limits.
    pub room: Arc<Semaphore>,
    /// How many those are.
    pub shards: usize,
    /// How many shards of each lane and run are in hand.
    pub in_lanes: Mutex<HashMap<(String, RunRef), Arc<AtomicUsize>>>,
    /// A suspected poison shard takes this lock alone.
    pub company: Arc<RwLock<()>>,
    /// The lanes of this process by name.
    pub lanes: Mutex<HashMap<String, LaneHandle>>,
    /// Runs that this worker cannot serve or whose queues are going, and until when it leaves them alone.
    pub unserved: Mutex<HashMap<RunRef, Instant>>,
    /// Queues that do not answer, and until when they are left alone.
    pub silent: Mutex<HashMap<(RunRef, String), Instant>>,
    /// Queues that were empty are looked at again.
    pub look_again: Arc<Notify>,
}

impl<E: Environment + Send + Sync + 'static> Intake<E> {
    /// Takes shards until the drain, then waits for those that are being prepared.
    pub async fn run(self: Arc<Self>) {
        let shutdown = self.context.shutdown.clone();
        let preparing = tokio_util::task::TaskTracker::new();
        while !shutdown.is_draining() {
            let permit = tokio::select! {
                permit = self.room.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
                () = shutdown.draining() => break,
            };
            // Nothing is taken while a suspected shard is worked alone.
            let beside = tokio::select! {
                beside = self.company.clone().read_owned() => beside,
                () = shutdown.draining() => break,
            };
            match self.take_one().await {
                Some((run, lane, taken)) => {
                    let company = self.company_for(taken.delivery_count, beside).await;
                    let place = (permit, self.enter(&lane, &run).await);
                    let intake = self.clone();
                    preparing.spawn(async move {
                        intake.prepare((&run, &lane), taken, place, company).await;
                    });
                }
                None => {
                    drop((permit, beside));
                    self.idle().await;
                }
            }
        }
        preparing.close();
        preparing.wait().await;
        self.context.intake_over.cancel();
    }

    /// The queues of `run` are about to be deleted.
    pub async fn leave_alone(&self, run: RunRef) {
        let until = Instant::now() + DELETING;
        let mut unserved = self.unserved.lock().await;
        let known = unserved.entry(run).or_insert(until);
        *known = until.max(*known);
    }

    async fn idle(&self) {
        let mut open = self.open_runs.subscribe();
        open.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(IDLE.mul_f64(0.75 + 0.5 * rand::random::<f64>())) => {}
            _ = open.changed() => {}
            () = self.look_again.notified() => {}
            () = self.context.shutdown.draining() => {}
        }
    }

    /// One shard of any open run that is ours, runs of higher priority more often.
    async fn take_one(&self) -> Option<(RunRef, String, TakenShard)> {
        for (run, lane) in self.candidates().await {
            match self.taker.take(&lane, &run).await {
                Ok(Some(taken)) => return Some((run, lane, taken)),
                Ok(None) => {}
                Err(BrokerError::NoQueue(queue)) => {
                    tracing::debug!(queue, "the queue is gone; its run has ended");
                    let (state, why) =
                        (&self.context.parting.stores.state, queue_gone(&run, &lane));
                    drop(state.tell_unserved(&run, &why).await);
                    self.open_runs.changed.notify_one();
                }
                Err(error @ BrokerError::Silent(_)) => {
                    tracing::warn!(run.id = %run, error = %error, "others' shards are taken meanwhile; `producer enqueue` with its run id makes the queue anew");
                    let until = Instant::now() + SILENT;
                    self.silent.lock().await.insert((run, lane), until);
                }
                Err(error) => {
                    tracing::warn!(error = %error, "no shard can be taken; it is tried again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    return None;
                }
            }
        }
        None
    }

    async fn enter(&self, lane: &str, run: &RunRef) -> InLane {
        let mut in_lanes = self.in_lanes.lock().await;
        let key = (lane.to_owned(), run.clone());
        InLane::enter(in_lanes.entry(key).or_default())
    }

    /// The queues to look at, in order: lanes with the fewest shards in hand first, of their runs those of more weight more
    /// often. A lane that waits for its own limits is not looked at while it has shards enough; but a run without one among
    /// them gets one, so that it has its share of the limits at once.
    async fn candidates(&self) -> Vec<(RunRef, String)> {
        let now = Instant::now();
        let open = self.open_runs.seen();
        let ids: Vec<RunRef> = open.iter().map(|o| o.run.clone()).collect();
        self.runs.forget_ended(&ids).await;
        let mut silent = self.silent.lock().await;
        silent.retain(|_, until| *until > now);
        let unserved = self.unserved.lock().await;
        let lanes = self.lanes.lock().await;
        let mut in_lanes = self.in_lanes.lock().await;
        in_lanes.retain(|_, shards| shards.load(Ordering::Relaxed) > 0);
        let mut in_hand: HashMap<&str, usize> = HashMap::new();
        for ((lane, _), shards) in in_lanes.iter() {
            *in_hand.entry(lane).or_default() += shards.load(Ordering::Relaxed);
        }
        let mut candidates = Vec::new();
        for run in open
            .iter()
            .filter(|o| !o.paused && unserved.get(&o.run).is_none_or(|until| *until < now))
        {
            for lane in run.lanes.iter().filter(|lane| self.choice.takes(lane)) {
                let handle = lanes.get(lane);
                let in_hand = in_hand.get(lane.as_str()).copied().unwrap_or(0);
                let has_one = in_lanes.contains_key(&(lane.clone(), run.run.clone()));
                let enough = if has_one {
                    self.shards
                } else {
                    2 * self.shards
                };
                if silent
                    .keys()
                    .any(|(of, name)| (of, name) == (&run.run, lane))
                {
                    continue;
                }
                let full = in_hand >= enough && handle.is_some_and(LaneHandle::is_sated);
                if !full && !handle.is_some_and(|handle| handle.is_closed(now)) {
                    let turn = turn(run, rand::random());
                    candidates.push(((in_hand, turn), run.run.clone(), lane.clone()));
                }
            }
        }
        candidates.sort_by(|(a, ..), (b, ..)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        candidates
            .into_iter()
            .map(|(_, run, lane)| (run, lane))
            .collect()
    }

    /// From a delivery to a shard in its lane. Tries as long as a store is away.
    async fn prepare(
        &self,
        (run, lane): (&RunRef, &str),
        taken: TakenShard,
        (permit, in_lane): (OwnedSemaphorePermit, InLane),
        company: Company,
    ) {
        let message = match taken.message.clone() {
            Ok(message) => message,
            Err(Unread::Newer { found, .. }) => {
                return self.leave_to_newer(taken, run, found).await;
            }
            Err(Unread::Broken(why)) => return self.bury(taken, &why).await,
        };
        if taken.delivery_count > 0 {
            self.context.metrics.queue_redeliveries.inc();
        }
        let Some(run) = self.run_of(&message, lane).await else {
            return self.give_back(taken, &message, DelayLevel::S30).await;
        };
        let Some(provider) = provider_of(&run.plan, message.shard) else {
            return self.bury(taken, "the plan has no such shard").await;
        };
        let budgets = run
            .at(provider)
            .map_or(provider, |at| at.connector.budgets());
        match self.claim(budgets, &message).await {
            Some(Claimed::Ours) => {}
            Some(Claimed::Busy { .. }) => {
                return self.give_back(taken, &message, DelayLevel::S5).await;
            }
            None => return self.give_back(taken, &message, DelayLevel::S1).await,
        }
        let handle = self.lane(lane, &run, provider).await;
        match self.resume(&run, provider, &message).await {
            Some((work, full, shard, parts)) => handle.hold(Held {
                taken,
                work,
                full,
                shard,
                parts,
                since: Instant::now(),
                permit: Some(permit),
                in_lane,
                company,
            }),
            None => self.give_back(taken, &message, DelayLevel::S5).await,
        }
    }

    /// A shard that came back too often is worked alone; the others are handed back first.
    async fn company_for(&self, delivery_count: u32, beside: OwnedRwLockReadGuard<()>) -> Company {
        if delivery_count < SUSPICIOUS {
            return Company::Shared(beside);
        }
        drop(beside);
        tracing::warn!(
            delivery.count = delivery_count,
            "a shard came back again and again; it is worked alone"
        );
        let alone = self.company.clone().write_owned();
        for lane in self.lanes.lock().await.values() {
            lane.hand_back_all();
        }
        Company::Alone(alone.await)
    }

    async fn run_of(&self, message: &ShardMessage, lane: &str) -> Option<Arc<Run>> {
        let id = message.run_ref();
        match self.runs.get(&id).await {
            Ok(run) => Some(run),
            Err(error) => {
                // Who watches the run sees why nothing happens; that it is known is worth no more than a try.
                let (state, why) = (&self.context.parting.stores.state, error.to_string());
                drop(state.tell_unserved(&id, &why).await);
                tracing::error!(run.id = %id, lane.name = lane, error = %error, "this worker cannot serve the run; its shards are left to others for {} s", UNSERVED.as_secs());
                self.unserved
                    .lock()
                    .await
                    .insert(id, Instant::now() + UNSERVED);
                None
            }
        }
    }

    /// Takes the claim; `None` when the drain came first.
    async fn claim(&self, provider: &str, message: &ShardMessage) -> Option<Claimed> {
        let claim = ShardInHand::claim_of(message);
        let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            match self
                .context
                .limiter
                .claim(provider, &claim, &self.context.holder)
                .await
            {
                Ok(claimed) => return Some(claimed),
                Err(error) => {
                    tracing::warn!(shard.id = claim.shard, error = %error, "no claim can be taken until Redis answers")
                }
            }
            tokio::select! {
                () = patience.wait() => {}
                () = self.context.shutdown.draining() => return None,
            }
        }
    }

    #[allow(clippy::type_complexity)]
    async fn resume(
        &self,
        run: &Arc<Run>,
        provider: &str,
        message: &ShardMessage,
    ) -> Option<(
        ShardWork,
        Vec<crate::output::finished::FullBlock>,
        Arc<ShardInHand>,
        Vec<paceline_protocol::message::PartSummary>,
    )> {
        let shard = run.plan.shard(message.shard)?;
        let at = run.at(provider)?.clone();
        let objects = &self.context.parting.stores.objects;
        let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(5));
        let resumed = loop {
            match resume(objects, &run.layout, &run.plan, &shard, message.round).await {
                Ok(resumed) => break resumed,
                Err(error) => {
                    tracing::warn!(run.id = %run.id, shard.id = message.shard, error = %error, "the shard cannot be resumed yet")
                }
            }
            tokio::select! {
                () = patience.wait() => {}
                () = self.context.shutdown.draining() => return None,
            }
        };
        let (now, fleet_now) = (Instant::now(), jiff::Timestamp::now().as_microsecond());
        // A wait that was kept on the fleet's clock is resumed on this machine's; it is a courtesy, not a limit.
        let instant_of = |us: i64| {
            now + Duration::from_micros(u64::try_from(us - fleet_now).unwrap_or(0))
                .min(LONGEST_WAIT)
        };
        let open = resumed.blocks.iter().map(WantedBlock::cells).collect();
        let failures = FailureRows::new(resumed.failures, open, resumed.failures_differ);
        let (work, full) = ShardWork::new(resumed.blocks, resumed.open, instant_of);
        let exchange = self.context.parting.publisher.work_exchange();
        let span = traced::shard(&run.plan, message, &exchange);
        let in_hand = ShardInHand {
            span,
            message: message.clone(),
            run: run.clone(),
            at,
            claim: ShardInHand::claim_of(message),
            lost: false.into(),
            ended: false.into(),
            earlier: resumed.earlier,
            failures: failures.into(),
        };
        Some((work, full, Arc::new(in_hand), resumed.parts))
    }

    async fn lane(&self, name: &str, run: &Run, provider: &str) -> LaneHandle {
        let mut lanes = self.lanes.lock().await;
        if let Some(handle) = lanes.get(name) {
            return handle.clone();
        }
        let declared = &run.plan.providers[provider];
        let handle = lane::start(name, declared, self.context.clone());
        lanes.insert(name.to_owned(), handle.clone());
        handle
    }

    /// Gives a shard back through a delay, without burning its delivery count.
    async fn give_back(&self, taken: TakenShard, message: &ShardMessage, level: DelayLevel) {
        let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(10));
        while let Err(error) = self
            .context
            .parting
            .publisher
            .delayed_shard(message, level)
            .await
        {
            tracing::warn!(run.id = %message.run_ref(), shard.id = message.shard, error = %error, "a shard could not be given back yet");
            patience.wait().await;
        }
        taken.ack().await;
    }

    /// Gives back what a newer build has published, unharmed, and leaves its run to others for a while.
    async fn leave_to_newer(&self, taken: TakenShard, run: &RunRef, version: u32) {
        tracing::warn!(
            run.id = %run, version,
            "a shard is of a newer build: the run is left to newer workers for {} s. Upgrade this one", UNSERVED.as_secs()
        );
        self.unserved
            .lock()
            .await
            .insert(run.clone(), Instant::now() + UNSERVED);
        let publisher = &self.context.parting.publisher;
        if let Err(error) = taken.give_back(publisher, DelayLevel::S5).await {
            tracing::warn!(run.id = %run, error = %error, "it could not be given back; the broker delivers it again");
        }
    }

    async fn bury(&self, taken: TakenShard, why: &str) {
        tracing::error!(
            why,
            "a message that is no shard of ours goes to the dead letters"
        );
        self.context
            .metrics
            .dead_letters
            .with_label_values(&["unreadable"])
            .inc();
        if let Err(error) = taken.bury(&self.context.parting.publisher, why).await {
            tracing::error!(error = %error, "it could not be buried; the broker delivers it again");
        }
    }
}

/// Said of a run that is open all the same: its shards are lost.
fn queue_gone(run: &RunRef, lane: &str) -> String {
    let RunRef { job, run } = run;
    format!("{QUEUE_GONE} of {lane} is gone; `producer enqueue {job} --run-id {run}` makes it anew")
}

/// A place in the order of taking: smaller is earlier; a run of twice the weight comes first twice as often.
fn turn(run: &OpenRun, chance: f64) -> f64 {
    -(1.0 - chance).ln() / f64::from(run.priority.max(1))
}

fn provider_of(plan: &Plan, shard: u64) -> Option<&str> {
    plan.shard(shard).map(|shard| shard.provider)
}
