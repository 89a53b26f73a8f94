//! A lane: one provider (and egress) in this process. One actor owns the shards in hand, asks for grants
//! in batches, starts calls, and parts with shards when they are done or have to go.
//!
//! This file is the actor: its events and its loop. What it does with shards, grants and calls lies in a
//! file each.

mod appetite;
pub mod asking;
mod breaker;
mod calls;
mod crowd;
mod dead;
mod ears;
mod grants;
pub mod held;
pub mod kept;
pub mod late;
mod reading;
mod refusals;
mod scopes;
mod shards;
pub mod shared;
mod tokens;
mod turns;
mod yielding;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::limit::{ClaimRef, Instance};
use paceline_protocol::message::PartSummary;
use paceline_protocol::spec::Provider;
use paceline_protocol::stores::limiter::{Answered, Closure, FleetLimiter, LimiterError};
use paceline_protocol::stores::state::OpenRun;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::appetite::Appetite;
use self::asking::{Asking, Drawn, Leases, Wish};
use self::crowd::Crowd;
use self::held::Held;
use self::late::Late;
use self::refusals::Refusals;
use self::scopes::Asleep;
use self::shared::LaneShared;
use self::tokens::Tokens;
use super::call::CallEnd;
use super::gaps::Gaps;
use super::part_ways::{Back, Parting};
use super::seats::Seats;
use super::tokens::{Renewed, SignedIn};
use crate::metrics::Metrics;
use crate::output::finished::FullBlock;
use crate::shutdown::Shutdown;

/// A worker does not hold shards while their budget is closed for longer than this.
const WAIT_IN_HAND: Duration = Duration::from_secs(8);
/// How often leases and claims are renewed when nothing is asked for.
const RENEW: Duration = Duration::from_secs(1);
/// A request for grants that comes so long after a renewal is due takes its place.
const SOON: Duration = Duration::from_millis(350);
/// So long after it should have been asked, nobody has: the renewal goes by itself.
const AFTER_ASKING: Duration = Duration::from_millis(50);
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
    /// For the calls in flight over all lanes of the process.
    pub seats: Arc<Seats>,
    /// The drain.
    pub shutdown: Shutdown,
    /// The open runs.
    pub open_runs: watch::Receiver<Vec<OpenRun>>,
    /// What lies between the calls of narrow limits.
    pub gaps: Arc<Gaps>,
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
    sated: watch::Receiver<bool>,
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

    /// Limits or closures changed.
    pub fn look_again(&self) {
        drop(self.events.send(Event::LookAgain));
    }

    /// An operator changed limits.
    pub fn limits_changed(&self) {
        drop(self.events.send(Event::LimitsChanged));
    }

    /// Whether the lane's budget is closed for longer than a shard should wait in hand.
    pub fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.borrow().is_some_and(|until| until > now)
    }

    /// Whether its limits, and not its shards, are what keeps it from calling more: others would only wait with them.
    pub fn is_sated(&self) -> bool {
        *self.sated.borrow()
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
        /// When it started, if it was the one that tries whether a closure is over.
        probe: Option<i64>,
        /// What it was signed in with.
        signed: Option<SignedIn>,
    },
    /// A renewal of a credential's token ended.
    TokenRenewed(String, Renewed),
    /// Limits or closures changed: ask at once.
    LookAgain,
    /// A probe of what this call drew from ended, and the fleet knows.
    Probed(Arc<Drawn>),
    /// An operator changed limits.
    LimitsChanged,
    /// What dropped grants had taken of these quotas was given back: who waits for their reset may go on.
    GivenBack(Vec<(String, u64)>),
    /// What operators said was put back into Redis, or could not be.
    PutBack,
    /// A scope was refused again and again.
    BreakerOpened(Closure),
    Settled {
        held: u64,
        summary: Option<PartSummary>,
    },
    Parted,
    Marked(Instance),
    /// These credentials are closed until somebody looks, each with its reason.
    Dead(Vec<(String, String)>),
}

struct Lane {
    name: String,
    provider: Provider,
    /// The provider, as the limiter knows it.
    budgets: String,
    context: LaneContext,
    shared: Arc<LaneShared>,
    late: Late,
    events: mpsc::UnboundedSender<Event>,
    closed_until: watch::Sender<Option<Instant>>,
    sated: watch::Sender<bool>,
    held: BTreeMap<u64, InHand>,
    next_key: u64,
    leases: Leases,
    asking: bool,
    /// Not before this instant is asked again.
    ask_at: Instant,
    /// The last answer refused for want of leases: a call of ours that ends frees one.
    wants_lease: bool,
    /// Others may wait for a lease of ours that ends.
    scarce_leases: bool,
    renewed_at: Instant,
    /// Leases came free that others may wait for: the fleet is told by then.
    tell_at: Option<Instant>,
    appetite: Appetite,
    crowd: Crowd,
    /// How far ahead the last start lay that was granted last.
    planned_ahead: Duration,
    /// Asks in a row that brought nothing because others got it.
    empties: u32,
    /// Names of closures (credentials, limits in a scope) under which calls went well.
    good: BTreeSet<String>,
    marking: Vec<(String, String)>,
    asleep: Asleep,
    /// Credentials that are not accepted, until when that is believed, and why.
    dead: HashMap<String, dead::Dead>,
    looking_for_dead: bool,
    refusals: Refusals,
    tokens: Tokens,
    putting_back: bool,
    cut_off: CancellationToken,
}

struct InHand {
    held: Held,
    settling: VecDeque<FullBlock>,
    settle_running: usize,
    /// Full when their run had ended.
    unsettled: Vec<FullBlock>,
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
    let (sates, sated) = watch::channel(false);
    let now = Instant::now();
    context.metrics.begin_provider(&provider.name);
    let lane = Lane {
        name: name.to_owned(),
        shared: Arc::new(LaneShared::default()),
        late: Late::new(
            events.clone(),
            context.limiter.clone(),
            &provider.limiter_name(),
            &context.holder,
            context.tasks.clone(),
        ),
        provider: provider.clone(),
        budgets: provider.limiter_name(),
        events: events.clone(),
        closed_until: closed,
        sated: sates,
        held: BTreeMap::new(),
        next_key: 0,
        leases: Leases::default(),
        asking: false,
        ask_at: now,
        wants_lease: false,
        scarce_leases: false,
        renewed_at: now,
        tell_at: None,
        appetite: Appetite::default(),
        crowd: Crowd::default(),
        planned_ahead: Duration::ZERO,
        empties: 0,
        good: BTreeSet::new(),
        marking: Vec::new(),
        asleep: Asleep::default(),
        dead: HashMap::new(),
        looking_for_dead: false,
        refusals: Refusals::default(),
        tokens: Tokens::default(),
        putting_back: false,
        cut_off: CancellationToken::new(),
        context: context.clone(),
    };
    context.tasks.spawn(lane.run(inbox));
    LaneHandle {
        events,
        closed_until,
        sated,
    }
}

impl Lane {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let shutdown = self.context.shutdown.clone();
        let intake_over = self.context.intake_over.clone();
        let mut open_runs = self.context.open_runs.clone();
        let seats = self.context.seats.clone();
        let mut drained_at = None;
        let (draining, no_more_intake) = (shutdown.draining(), intake_over.cancelled());
        tokio::pin!(draining, no_more_intake);
        loop {
            self.look_after_shards();
            let seat_freed = seats.freed();
            self.ask();
            self.make_room_beside_answers();
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
                () = seat_freed, if seats.free() == 0 => {}
                Ok(()) = open_runs.changed() => self.on_open_runs(&open_runs.borrow_and_update()),
                () = &mut no_more_intake, if !intake_over.is_cancelled() => {}
                () = &mut draining, if drained_at.is_none() => {
                    drained_at = Some(Instant::now());
                    self.hand_all_back(Back::Now);
                }
            }
        }
    }

    fn next_wake(&self, drained_at: Option<Instant>) -> Instant {
        let asks_at = self.asks_at();
        let mut wake = self.renewal_at(asks_at);
        if let Some(asks_at) = asks_at {
            wake = wake.min(asks_at);
        }
        let sleepers = self.held.values().filter_map(|h| h.held.work.next_wake());
        if let Some(next) = first_to_come(sleepers, Instant::now()) {
            wake = wake.min(next);
        }
        if let Some(drained_at) = drained_at.filter(|_| !self.cut_off.is_cancelled()) {
            wake = wake.min(self.cut_off_at(drained_at));
        }
        wake
    }

    /// When grants are asked for next. Without a seat there is nothing to ask for, until one comes free.
    fn asks_at(&self) -> Option<Instant> {
        let asks = self.ready() > 0 && !self.asking && self.context.seats.free() > 0;
        asks.then_some(self.ask_at)
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
        if now >= self.renewal_at(self.asks_at()) {
            self.renew(now);
        }
    }

    /// When leases and claims are renewed by a request of their own. One that is under way tells of no lease that came
    /// free since: the next one does.
    fn renewal_at(&self, asks_at: Option<Instant>) -> Instant {
        let tell_at = self.tell_at.filter(|_| !self.asking);
        renewal_at(self.renewed_at, asks_at, tell_at)
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
            Event::Called {
                wish,
                drawn,
                end,
                probe,
                signed,
            } => {
                let end = self.judge_refusal(wish, &drawn, end);
                if let Some(start_us) = probe {
                    self.report_probe(&end, &drawn, start_us);
                }
                self.on_called(wish, &drawn, end, signed);
            }
            Event::TokenRenewed(credential, renewed) => self.on_token(&credential, renewed),
            Event::LookAgain => self.look_again(),
            Event::Probed(drawn) => self.on_probed(&drawn.names),
            Event::LimitsChanged => self.on_limits_changed(),
            Event::GivenBack(quotas) => self.go_on_with_what_came_back(&quotas),
            Event::PutBack => self.on_put_back(),
            Event::BreakerOpened(closure) => self.on_breaker(&closure),
            Event::Settled { held, summary } => self.on_settled(held, summary),
            Event::Dead(names) => self.on_dead(names),
            Event::Parted => self.context.shard_left.notify_one(),
            Event::Marked(quota) => {
                self.marking
                    .retain(|key| *key != (quota.limit.clone(), quota.scope.clone()));
                self.ask_at = Instant::now();
            }
        }
    }
}

/// The first of `wakes` that lies ahead. A cell that is awake already waits for the next request for grants, which has
/// its own time: whoever woke for it again would turn round until then.
fn first_to_come(wakes: impl Iterator<Item = Instant>, now: Instant) -> Option<Instant> {
    wakes.filter(|at| *at > now).min()
}

/// When leases and claims are renewed by a request of their own. One for grants renews them too: if it comes soon,
/// the fleet is spared the other. Leases that others may wait for are told of at `tell_at`: who has nothing to ask for
/// would keep them from the fleet until the next renewal.
fn renewal_at(renewed_at: Instant, asks_at: Option<Instant>, tell_at: Option<Instant>) -> Instant {
    let due = renewed_at + RENEW;
    let due = match asks_at {
        Some(asks_at) if asks_at <= due + SOON => due.max(asks_at + AFTER_ASKING),
        _ => due,
    };
    tell_at.map_or(due, |tell_at| due.min(tell_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_grants_that_comes_soon_spares_the_renewal() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(renewal_at(now, None, None), now + RENEW);
        assert_eq!(renewal_at(now, Some(now + ms(200)), None), now + RENEW);
        let soon = now + ms(1_300);
        assert_eq!(renewal_at(now, Some(soon), None), soon + AFTER_ASKING);
        assert_eq!(renewal_at(now, Some(now + ms(5_000)), None), now + RENEW);
    }

    #[test]
    fn a_lease_that_others_wait_for_is_told_of_by_who_has_nothing_to_ask_for() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let told = Some(now + ms(20));
        assert_eq!(renewal_at(now, None, told), now + ms(20));
        assert_eq!(renewal_at(now, Some(now + ms(1_300)), told), now + ms(20));
        assert_eq!(renewal_at(now, None, Some(now + ms(3_000))), now + RENEW);
    }

    #[test]
    fn a_cell_that_is_awake_wakes_nobody_again() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let wakes = [now - ms(1), now, now + ms(9), now + ms(5)];
        assert_eq!(first_to_come(wakes.into_iter(), now), Some(now + ms(5)));
        assert_eq!(first_to_come([now].into_iter(), now), None);
    }

    #[test]
    fn leases_are_renewed_while_a_fleet_that_lost_them_waits_for_their_holders() {
        let longest = RENEW + SOON + AFTER_ASKING;
        let blind = u64::try_from(paceline_protocol::limit::LEASES_BLIND_US).expect("positive");
        let way = Duration::from_millis(500);
        assert!(longest + way < Duration::from_micros(blind));
    }
}
