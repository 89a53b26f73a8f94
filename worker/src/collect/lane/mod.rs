//! A lane: one provider (and egress) in this process. One actor owns the shards in hand, asks for grants
//! in batches, starts calls, and parts with shards when they are done or have to go.

pub mod asking;
pub mod held;
pub mod shared;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use paceline_protocol::ids::RunRef;
use paceline_protocol::limit::{Answer, Ask, ClaimRef, Grant, Instance, Why};
use paceline_protocol::message::PartSummary;
use paceline_protocol::outcome::Outcome;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::{Answered, Closure, FleetLimiter, LimiterError};
use paceline_protocol::stores::state::OpenRun;
use paceline_protocol::topology::DelayLevel;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::asking::{Asking, Drawn, Leases, Wish};
use self::held::{Held, ShardInHand};
use self::shared::LaneShared;
use super::call::{Call, CallEnd, CloseScope};
use super::marks;
use super::part_ways::{Back, Parting, settle_until_done};
use super::work::{CellResult, FullBlock};
use crate::metrics::Metrics;
use crate::output::failures::Failure;
use crate::shutdown::Shutdown;

/// No delivery is held longer (the broker's ack timeout is 30 minutes); some room is left for the last calls.
pub const HOLD_AT_MOST: Duration = Duration::from_secs(9 * 60);
/// A worker does not hold shards while their budget is closed for longer than this.
const WAIT_IN_HAND: Duration = Duration::from_secs(8);
/// After a refusal a hungry fleet does not ask all at once. (That a batch gathers meanwhile is in the refusal's
/// own instant.)
const APART: Duration = Duration::from_millis(4);
/// The most cells of one request.
const BATCH: usize = 256;
/// How often leases and claims are renewed when nothing is asked for.
const RENEW: Duration = Duration::from_secs(1);
/// Before the grace ends, calls still in flight are cut off so that their shards can be handed back.
const CUT_OFF_BEFORE_END: Duration = Duration::from_secs(4);

/// What a lane needs of its process.
#[derive(Clone)]
pub struct LaneContext {
    /// This worker, as leases and claims know it.
    pub holder: String,
    /// Where runs live in S3.
    pub prefix: String,
    /// The fleet's limiter.
    pub limiter: FleetLimiter,
    /// Stores and broker.
    pub parting: Parting,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Calls in flight over all lanes of the process, and how many there may be.
    pub in_flight: Arc<AtomicUsize>,
    /// `--concurrency`
    pub concurrency: usize,
    /// The drain.
    pub shutdown: Shutdown,
    /// The open runs.
    pub open_runs: watch::Receiver<Vec<OpenRun>>,
    /// Another shard could be taken.
    pub shard_left: Arc<tokio::sync::Notify>,
    /// The tasks that drain waits for.
    pub tasks: TaskTracker,
    /// No further shard will be handed over.
    pub intake_over: CancellationToken,
}

/// How others speak to a lane.
#[derive(Clone)]
pub struct LaneHandle {
    events: mpsc::UnboundedSender<Event>,
    closed_until: watch::Receiver<Option<Instant>>,
}

impl LaneHandle {
    /// Hands a shard over.
    pub fn hold(&self, held: Held) {
        // The lane lives until every handle is gone, so it always hears.
        drop(self.events.send(Event::Hold(Box::new(held))));
    }

    /// Everything in hand has to go: a suspected poison shard is to be worked alone.
    pub fn hand_back_all(&self) {
        drop(self.events.send(Event::HandBackAll));
    }

    /// Whether the lane's budget is closed for longer than a shard should wait in hand.
    pub fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.borrow().is_some_and(|until| until > now)
    }
}

enum Event {
    Hold(Box<Held>),
    HandBackAll,
    Answered {
        asking: Asking,
        claims: Vec<ClaimRef>,
        answer: Result<Answered, LimiterError>,
    },
    Renewed {
        claims: Vec<ClaimRef>,
        answer: Result<Answered, LimiterError>,
    },
    Called {
        wish: Wish,
        drawn: Arc<Drawn>,
        end: CallEnd,
    },
    Settled {
        held: u64,
        summary: Option<PartSummary>,
    },
    Parted,
    Marked(Instance),
}

struct Lane {
    name: String,
    provider: Provider,
    context: LaneContext,
    shared: Arc<LaneShared>,
    events: mpsc::UnboundedSender<Event>,
    closed_until: watch::Sender<Option<Instant>>,
    held: BTreeMap<u64, InHand>,
    next_key: u64,
    leases: Leases,
    asking: bool,
    /// Not before this instant is asked again.
    ask_at: Instant,
    renewed_at: Instant,
    marking: Vec<(String, String)>,
    cut_off: CancellationToken,
}

struct InHand {
    held: Held,
    settling: VecDeque<FullBlock>,
    settle_running: usize,
    /// Going back once nothing of it is in flight or being settled.
    leaving: Option<Back>,
}

impl InHand {
    fn is_quiet(&self) -> bool {
        self.held.work.in_flight() == 0 && self.settle_running == 0 && self.settling.is_empty()
    }
}

/// Starts the lane called `name` at `provider`.
pub fn start(name: &str, provider: &Provider, context: LaneContext) -> LaneHandle {
    #[expect(
        clippy::disallowed_methods,
        reason = "every event belongs to a call, block or shard in hand, whose numbers are bounded"
    )]
    let (events, inbox) = mpsc::unbounded_channel();
    let (closed, closed_until) = watch::channel(None);
    let now = Instant::now();
    let lane = Lane {
        name: name.to_owned(),
        shared: Arc::new(LaneShared::default()),
        provider: provider.clone(),
        events: events.clone(),
        closed_until: closed,
        held: BTreeMap::new(),
        next_key: 0,
        leases: Leases::default(),
        asking: false,
        ask_at: now,
        renewed_at: now,
        marking: Vec::new(),
        cut_off: CancellationToken::new(),
        context: context.clone(),
    };
    context.tasks.spawn(lane.run(inbox));
    LaneHandle {
        events,
        closed_until,
    }
}

impl Lane {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let shutdown = self.context.shutdown.clone();
        let intake_over = self.context.intake_over.clone();
        let mut open_runs = self.context.open_runs.clone();
        let mut drained_at = None;
        loop {
            self.look_after_shards();
            self.ask();
            if self.context.intake_over.is_cancelled() && self.held.is_empty() && !self.asking {
                return;
            }
            let wake = self.next_wake(drained_at);
            tokio::select! {
                event = inbox.recv() => {
                    let Some(event) = event else { return };
                    self.on(event);
                    while let Ok(event) = inbox.try_recv() {
                        self.on(event);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => self.on_wake(drained_at),
                Ok(()) = open_runs.changed() => self.on_open_runs(&open_runs.borrow_and_update()),
                () = intake_over.cancelled(), if !intake_over.is_cancelled() => {}
                () = shutdown.draining(), if drained_at.is_none() => {
                    drained_at = Some(Instant::now());
                    self.hand_all_back(Back::Now);
                }
            }
        }
    }

    fn next_wake(&self, drained_at: Option<Instant>) -> Instant {
        let mut wake = self.renewed_at + RENEW;
        if self.ready() > 0 && !self.asking {
            wake = wake.min(self.ask_at);
        }
        if let Some(next) = self
            .held
            .values()
            .filter_map(|h| h.held.work.next_wake())
            .min()
        {
            wake = wake.min(next);
        }
        if let Some(drained_at) = drained_at.filter(|_| !self.cut_off.is_cancelled()) {
            wake = wake.min(self.cut_off_at(drained_at));
        }
        wake
    }

    fn cut_off_at(&self, drained_at: Instant) -> Instant {
        let grace = self.context.shutdown.grace();
        drained_at + grace.saturating_sub(CUT_OFF_BEFORE_END.min(grace / 2))
    }

    fn on_wake(&mut self, drained_at: Option<Instant>) {
        let now = Instant::now();
        if drained_at.is_some_and(|at| now >= self.cut_off_at(at)) {
            self.cut_off.cancel();
        }
        if now >= self.renewed_at + RENEW {
            self.renew(now);
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Hold(held) => self.hold(*held),
            Event::HandBackAll => self.hand_all_back(Back::Now),
            Event::Answered {
                asking,
                claims,
                answer,
            } => self.on_answer(asking, &claims, answer),
            Event::Renewed { claims, answer } => self.on_renewed(&claims, answer),
            Event::Called { wish, drawn, end } => self.on_called(wish, &drawn, end),
            Event::Settled { held, summary } => self.on_settled(held, summary),
            Event::Parted => self.context.shard_left.notify_one(),
            Event::Marked(quota) => {
                self.marking
                    .retain(|key| *key != (quota.limit.clone(), quota.scope.clone()));
                self.ask_at = Instant::now();
            }
        }
    }

    // ------------------------------------------------------------------------------------- shards

    fn hold(&mut self, mut held: Held) {
        let settling = std::mem::take(&mut held.full).into();
        let leaving = self.context.shutdown.is_draining().then_some(Back::Now);
        self.held.insert(
            self.next_key,
            InHand {
                held,
                settling,
                settle_running: 0,
                leaving,
            },
        );
        self.next_key += 1;
    }

    fn hand_all_back(&mut self, back: Back) {
        for in_hand in self.held.values_mut() {
            in_hand.leaving.get_or_insert(back);
        }
    }

    /// Paused runs' shards go back; ended runs' shards are dropped.
    fn on_open_runs(&mut self, open: &[OpenRun]) {
        let of = |run: &RunRef| open.iter().find(|o| o.run == *run);
        for in_hand in self.held.values_mut() {
            match of(&in_hand.held.shard.run.id) {
                Some(run) if run.paused => drop(in_hand.leaving.get_or_insert(Back::Now)),
                Some(_) => {}
                None => in_hand.held.shard.lose(),
            }
        }
    }

    /// Settles full blocks and parts with shards that are done, lost, or have to go.
    fn look_after_shards(&mut self) {
        let now = Instant::now();
        let keys: Vec<u64> = self.held.keys().copied().collect();
        for key in keys {
            self.settle_next(key);
            let Some(in_hand) = self.held.get_mut(&key) else {
                continue;
            };
            if now.duration_since(in_hand.held.since) > HOLD_AT_MOST {
                in_hand.leaving.get_or_insert(Back::Now);
            }
            if let Some(until) = in_hand
                .held
                .work
                .idle_until()
                .filter(|until| *until > now + WAIT_IN_HAND)
            {
                in_hand
                    .leaving
                    .get_or_insert(Back::Delayed(DelayLevel::for_wait(until - now)));
            }
            let over = in_hand.held.work.is_done()
                || in_hand.leaving.is_some()
                || in_hand.held.shard.is_lost();
            if over && in_hand.is_quiet() {
                self.part_with(key);
            }
        }
    }

    fn settle_next(&mut self, key: u64) {
        let Some(in_hand) = self.held.get_mut(&key) else {
            return;
        };
        while let Some(block) = in_hand.settling.pop_front() {
            in_hand.settle_running += 1;
            let (stores, shard) = (
                self.context.parting.stores.clone(),
                in_hand.held.shard.clone(),
            );
            let events = self.events.clone();
            self.context.tasks.spawn(async move {
                let summary = settle_until_done(&stores, &shard, &block).await;
                drop(events.send(Event::Settled { held: key, summary }));
            });
        }
    }

    fn on_settled(&mut self, key: u64, summary: Option<PartSummary>) {
        let Some(in_hand) = self.held.get_mut(&key) else {
            return;
        };
        in_hand.settle_running -= 1;
        in_hand.held.parts.extend(summary);
    }

    fn part_with(&mut self, key: u64) {
        let Some(InHand { held, leaving, .. }) = self.held.remove(&key) else {
            return;
        };
        let Held {
            taken,
            work,
            shard,
            parts,
            since,
            permit,
            company,
            ..
        } = held;
        let parting = self.context.parting.clone();
        let events = self.events.clone();
        let shared = self.shared.clone();
        let metrics = self.context.metrics.clone();
        self.context.tasks.spawn(async move {
            let now = Instant::now();
            if shard.is_lost() {
                parting.drop(taken).await;
            } else if work.is_done() {
                parting.done(&shard, taken, parts).await;
                metrics
                    .shard_duration
                    .with_label_values(&[&shard.run.id.job])
                    .observe(since.elapsed().as_secs_f64());
            } else {
                let fleet_now = shared.fleet_us(now);
                let clock_of = |at: Instant| {
                    fleet_now
                        + i64::try_from(at.saturating_duration_since(now).as_micros()).unwrap_or(0)
                };
                let open = work.open_cells(clock_of);
                parting
                    .hand_back(&shard, taken, open, leaving.unwrap_or(Back::Now))
                    .await;
            }
            drop((permit, company));
            drop(events.send(Event::Parted));
        });
    }

    // ------------------------------------------------------------------------------------- asking

    fn ready(&self) -> usize {
        let now = Instant::now();
        let working = self
            .held
            .values()
            .filter(|h| h.leaving.is_none() && !h.held.shard.is_lost());
        working
            .map(|h| {
                h.held
                    .work
                    .ready()
                    .max(usize::from(h.held.work.has_ready(now)))
            })
            .sum()
    }

    fn ask(&mut self) {
        let now = Instant::now();
        let free = self
            .context
            .concurrency
            .saturating_sub(self.context.in_flight.load(Ordering::Relaxed));
        if self.asking || now < self.ask_at || free == 0 {
            return;
        }
        let asking = self.gather(free.min(BATCH), now);
        if asking.is_empty() {
            return;
        }
        let ask = asking.ask(
            &self.provider.name,
            &self.context.holder,
            &self.leases,
            self.claims(),
        );
        self.asking = true;
        self.renewed_at = now;
        self.send_ask(asking, ask);
    }

    fn send_ask(&self, asking: Asking, ask: Ask) {
        let (limiter, events) = (self.context.limiter.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            let answer = limiter.ask(&ask).await;
            drop(events.send(Event::Answered {
                asking,
                claims: ask.claims,
                answer,
            }));
        });
    }

    /// Takes up to `most` ready cells, one from each shard in turn, so that no shard holds the others.
    fn gather(&mut self, most: usize, now: Instant) -> Asking {
        let fleet_now = self.shared.fleet_us(now);
        let mut asking = Asking::default();
        let mut gathered = 0;
        let mut turn: VecDeque<u64> = self
            .held
            .iter()
            .filter(|(_, h)| h.leaving.is_none() && !h.held.shard.is_lost())
            .map(|(key, _)| *key)
            .collect();
        while gathered < most {
            let Some(key) = turn.pop_front() else { break };
            let Some(in_hand) = self.held.get_mut(&key) else {
                continue;
            };
            let Some(cell) = in_hand.held.work.take(now) else {
                continue;
            };
            turn.push_back(key);
            let shard = in_hand.held.shard.clone();
            match asking.add(Wish { held: key, cell }, &shard, fleet_now) {
                Ok(()) => gathered += 1,
                Err(error) => {
                    let result = unaskable(cell, error.to_string(), fleet_now);
                    in_hand
                        .settling
                        .extend(in_hand.held.work.finish(cell, result));
                }
            }
        }
        asking
    }

    fn claims(&self) -> Vec<ClaimRef> {
        self.held
            .values()
            .filter(|h| !h.held.shard.is_lost())
            .map(|h| h.held.shard.claim.clone())
            .collect()
    }

    fn on_answer(
        &mut self,
        mut asking: Asking,
        claims: &[ClaimRef],
        answer: Result<Answered, LimiterError>,
    ) {
        self.asking = false;
        let now = Instant::now();
        match answer {
            Ok(Answered {
                answer,
                sent,
                received,
            }) => {
                let epoch = self.shared.observe(answer.now_us, sent, received);
                self.lose_claims(claims, &answer);
                for grant in &answer.grants {
                    if let Some((wish, drawn)) = asking.grant(grant.group, grant.credential) {
                        self.call(wish, drawn, *grant, epoch);
                    }
                }
                self.count_permits(&answer, &asking);
                self.on_refusals(&answer, &asking, now);
                self.put_marks(&answer, &asking);
            }
            Err(error) => {
                tracing::warn!(lane.name = self.name, error = %error, "no grants: nothing is called until Redis answers");
                self.ask_at = now + Duration::from_millis(250).mul_f64(0.5 + rand::random::<f64>());
            }
        }
        for wish in asking.ungranted() {
            if let Some(in_hand) = self.held.get_mut(&wish.held) {
                in_hand.held.work.untake(wish.cell);
            }
        }
    }

    fn lose_claims(&mut self, claims: &[ClaimRef], answer: &Answer) {
        for claim in answer
            .lost_claims
            .iter()
            .filter_map(|place| claims.get(*place))
        {
            self.lose_claim(claim);
        }
    }

    fn lose_claim(&mut self, claim: &ClaimRef) {
        for in_hand in self.held.values().filter(|h| h.held.shard.claim == *claim) {
            tracing::warn!(run.id = %in_hand.held.shard.run.id, shard.id = in_hand.held.shard.message.shard, "the claim is lost: somebody else goes on with this shard");
            in_hand.held.shard.lose();
        }
    }

    fn count_permits(&self, answer: &Answer, asking: &Asking) {
        let permits = &self.context.metrics.limiter_permits;
        let granted = u64::try_from(answer.grants.len()).unwrap_or(u64::MAX);
        permits
            .with_label_values(&[&self.provider.name, "", "granted"])
            .inc_by(granted);
        for refusal in &answer.refusals {
            let limit = refusal
                .limit
                .and_then(|place| asking.limit_at(place))
                .map_or("", |l| l.limit.as_str());
            let result = if refusal.why == Why::Paced {
                "delayed"
            } else {
                "denied"
            };
            permits
                .with_label_values(&[&self.provider.name, limit, result])
                .inc();
        }
    }

    /// When to ask again, and whether the lane's budget is closed for longer than a shard may wait.
    fn on_refusals(&mut self, answer: &Answer, asking: &Asking, now: Instant) {
        let Some(first) = answer.refusals.iter().map(|r| r.opens_us).min() else {
            self.ask_at = now;
            self.open();
            return;
        };
        let wait = Duration::from_micros(u64::try_from(first - answer.now_us).unwrap_or(0));
        let urgent = answer
            .refusals
            .iter()
            .any(|r| matches!(r.why, Why::Mark | Why::Window));
        for refusal in answer.refusals.iter().filter(|r| r.why == Why::Mark) {
            if let Some(quota) = refusal.limit.and_then(|place| asking.limit_at(place)) {
                self.mark(quota.clone(), answer.now_us);
            }
        }
        self.ask_at = now + wait.min(WAIT_IN_HAND) + APART.mul_f64(0.5 + rand::random::<f64>());
        if wait > WAIT_IN_HAND && !urgent && answer.grants.is_empty() {
            self.closed(now, wait, answer);
        } else {
            self.open();
        }
    }

    /// Pressure goes back to the queue: nothing is held while the budget is closed.
    fn closed(&mut self, now: Instant, wait: Duration, answer: &Answer) {
        // Looked at again now and then, since an operator may open what an answer had closed.
        const LOOK_AGAIN: Duration = Duration::from_secs(5);
        let why = answer.refusals.first().map(|r| r.why);
        tracing::warn!(lane.name = self.name, opens_in.s = wait.as_secs(), why = ?why, "the lane is closed; its shards go back to their queue");
        self.context
            .metrics
            .provider_blocked
            .with_label_values(&[&self.provider.name])
            .set(1);
        self.closed_until
            .send_replace(Some(now + wait.min(LOOK_AGAIN)));
        let level = DelayLevel::for_wait(wait.min(Duration::from_secs(5)));
        self.hand_all_back(Back::Delayed(level));
    }

    fn open(&mut self) {
        if self.closed_until.borrow().is_some() {
            self.closed_until.send_replace(None);
            self.shared.reopen();
            self.context
                .metrics
                .provider_blocked
                .with_label_values(&[&self.provider.name])
                .set(0);
        }
    }

    fn put_marks(&mut self, answer: &Answer, asking: &Asking) {
        for quota in answer
            .marks_wanted
            .iter()
            .filter_map(|place| asking.limit_at(*place))
        {
            self.mark(quota.clone(), answer.now_us);
        }
    }

    /// Puts the next mark of a quota that an answer of `seen_us` asked for.
    fn mark(&mut self, quota: Instance, seen_us: i64) {
        let key = (quota.limit.clone(), quota.scope.clone());
        if self.marking.contains(&key) {
            return;
        }
        self.marking.push(key);
        let context = self.context.clone();
        let (provider, events) = (self.provider.name.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            let objects = &context.parting.stores.objects;
            if let Err(error) = marks::advance(objects, &context.limiter, &context.prefix, &provider, &quota, seen_us).await {
                tracing::warn!(provider.name = provider, limit.name = quota.limit, error = %error, "the quota's next mark could not be put; no call is made beyond the last one");
            }
            drop(events.send(Event::Marked(quota)));
        });
    }

    // ------------------------------------------------------------------------------------- calls

    fn call(&mut self, wish: Wish, drawn: Arc<Drawn>, grant: Grant, epoch: u64) {
        let Some(in_hand) = self.held.get(&wish.held) else {
            return;
        };
        self.leases.take(&drawn.leases);
        let in_flight = self.context.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.context
            .metrics
            .worker_inflight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let call = Call {
            shard: in_hand.held.shard.clone(),
            lane: self.shared.clone(),
            metrics: self.context.metrics.clone(),
            cell: wish.cell,
            attempts: in_hand.held.work.attempts(wish.cell),
            drawn: drawn.clone(),
            grant,
            epoch,
            cut_off: self.cut_off.clone(),
        };
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let end = call.run().await;
            drop(events.send(Event::Called { wish, drawn, end }));
        });
    }

    fn on_called(&mut self, wish: Wish, drawn: &Drawn, end: CallEnd) {
        self.leases.give_back(&drawn.leases);
        let in_flight = self.context.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.context
            .metrics
            .worker_inflight
            .set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let now = Instant::now();
        if let CallEnd::Closed(scope) = &end {
            self.close(scope.clone(), now);
        }
        let Some(in_hand) = self.held.get_mut(&wish.held) else {
            return;
        };
        let work = &mut in_hand.held.work;
        match end {
            CallEnd::NotSent | CallEnd::Closed(_) => work.untake(wish.cell),
            CallEnd::Ended(result) => in_hand.settling.extend(work.finish(wish.cell, result)),
            CallEnd::Again { attempts, wait } => work.again(wish.cell, attempts, now + wait),
            CallEnd::CutOff { attempts } => work.again(wish.cell, attempts, now),
        }
    }

    /// Closes a scope here at once and in Redis for the whole fleet.
    fn close(&mut self, scope: CloseScope, now: Instant) {
        let wait = scope.wait.unwrap_or_else(|| self.until_reset(now));
        tracing::warn!(
            provider.name = self.provider.name,
            credential = scope.credential,
            outcome = scope.outcome.as_str(),
            closed.s = wait.as_secs_f64(),
            "the provider closed a scope; the whole fleet waits"
        );
        // Redis holds the rest; here it only has to bridge the time until the fleet knows.
        self.shared
            .close(scope.credential.as_deref(), now + wait.min(WAIT_IN_HAND));
        let closure = Closure {
            credential: scope.credential,
            for_: wait,
            reason: scope.outcome.as_str().to_owned(),
        };
        let (limiter, provider) = (self.context.limiter.clone(), self.provider.name.clone());
        self.context.tasks.spawn(async move {
            for _ in 0..5 {
                match limiter.close(&provider, &closure).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(provider.name = provider, error = %error, "the closure did not reach the fleet yet"),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    /// Until the reset of the provider's calendar quota; an hour where there is none.
    fn until_reset(&self, now: Instant) -> Duration {
        use paceline_protocol::limit::{Rule, instance};
        let fleet_now = self.shared.fleet_us(now);
        let resets = self.provider.limits.iter().filter_map(|limit| {
            match instance(limit, "", fleet_now).ok()?.rule {
                Rule::Quota { closes_us, .. } => u64::try_from(closes_us - fleet_now).ok(),
                _ => None,
            }
        });
        resets
            .max()
            .map_or(Duration::from_secs(3600), Duration::from_micros)
    }

    // ------------------------------------------------------------------------------------- leases

    fn renew(&mut self, now: Instant) {
        self.renewed_at = now;
        // One request of a holder at a time: an ask renews too.
        if self.asking {
            return;
        }
        let claims = self.claims();
        let ask = self
            .leases
            .renewal(&self.provider.name, &self.context.holder, claims.clone());
        if ask.claims.is_empty() && ask.limits.is_empty() {
            return;
        }
        self.asking = true;
        let (limiter, events) = (self.context.limiter.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            let answer = limiter.renew(&ask).await;
            drop(events.send(Event::Renewed { claims, answer }));
        });
    }

    fn on_renewed(&mut self, claims: &[ClaimRef], answer: Result<Answered, LimiterError>) {
        self.asking = false;
        match answer {
            Ok(Answered {
                answer,
                sent,
                received,
            }) => {
                self.shared.observe(answer.now_us, sent, received);
                self.lose_claims(claims, &answer);
            }
            Err(error) => {
                tracing::debug!(lane.name = self.name, error = %error, "leases and claims were not renewed")
            }
        }
    }
}

/// A cell whose limits cannot even be named has no call: it fails with the reason.
fn unaskable(cell: u64, reason: String, answered_us: i64) -> CellResult {
    let failure = Failure {
        cell,
        reason,
        outcome: Outcome::Permanent,
        status: 0,
        field: None,
        attempts: 0,
    };
    CellResult {
        lines: String::new(),
        records: 0,
        failure: Some(failure),
        answered_us,
    }
}

impl ShardInHand {
    /// How claims name a shard.
    pub fn claim_of(message: &paceline_protocol::message::ShardMessage) -> ClaimRef {
        ClaimRef {
            shard: format!("{}/{}/{}", message.run_ref(), message.shard, message.round),
            publication: message.publication.to_string(),
        }
    }
}
