//! Asking for grants: which cells, when, and what the answer means for the lane.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use paceline_protocol::limit::{Answer, Ask, ClaimRef, Instance, Refusal, Why};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::stores::limiter::{Answered, LimiterError};
use paceline_protocol::stores::marks;
use paceline_protocol::topology::DelayLevel;

use super::asking::{self, Asking, Kin, Wish, WishError};
use super::held::Company;
use super::scopes::{self, Sleep};
use super::tokens::Signing;
use super::turns::Turns;
use super::yielding::yields;
use super::{Event, InHand, Lane, WAIT_IN_HAND};
use crate::collect::part_ways::Back;
use crate::output::failures::Failure;
use crate::output::finished::CellResult;

/// After a refusal a hungry fleet does not ask all at once. (That a batch gathers meanwhile is in the refusal's
/// own instant.)
const APART: Duration = Duration::from_millis(4);
/// Who got nothing twice in a row asks once in so long.
const HUNGRY: Duration = Duration::from_secs(1);
/// How soon it is known whether a closed credential is one that is not accepted.
const LOOKING: Duration = Duration::from_millis(200);
/// A cell whose credential waits for people is looked at again after so long.
const WAITS_FOR_PEOPLE: Duration = Duration::from_secs(1);
/// So many shards may wait for their own scopes or for answers beside those that are worked on.
const WAITING_AT_MOST: usize = 64;

impl Lane {
    pub(super) fn ready(&self) -> usize {
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

    pub(super) fn ask(&mut self) {
        if self.reads() {
            return self.read_ready();
        }
        let now = Instant::now();
        let free = self.context.seats.free();
        if self.asking || now < self.ask_at || free == 0 {
            return;
        }
        let asking = self.gather(free.min(self.appetite.cells()), now);
        if asking.is_empty() {
            return;
        }
        let mut ask = asking.ask(
            &self.budgets,
            &self.context.holder,
            &self.leases,
            self.claims(),
        );
        ask.heard = self.shared.ears(|ears| ears.tell(&ask.limits));
        self.asking = true;
        (self.renewed_at, self.tell_at) = (now, None);
        self.send_ask(asking, ask);
    }

    pub(super) fn send_ask(&self, asking: Asking, ask: Ask) {
        let (limiter, events) = (self.context.limiter.clone(), self.events.clone());
        let shared = self.shared.clone();
        self.context.tasks.spawn(async move {
            shared.set_the_clock(&limiter).await;
            let answer = limiter.ask(&ask).await;
            drop(events.send(Event::Answered {
                asking,
                claims: ask.claims,
                answer,
            }));
        });
    }

    fn yields(&self) -> bool {
        let shards = self.held.values().map(|h| &h.held.shard);
        let here = shards.map(|shard| shard.run.plan.job.priority).max();
        let open = self.context.open_runs.borrow();
        yields(here.unwrap_or(0), &self.name, &open, rand::random())
    }

    /// Takes up to `most` ready cells, one from each shard in turn, of runs by their weight.
    pub(super) fn gather(&mut self, most: usize, now: Instant) -> Asking {
        let fleet_now = self.shared.fleet_us(now);
        let mut asking = Asking::default();
        asking.yields = self.yields();
        let mut gathered = 0;
        let mut slept = BTreeSet::new();
        let working = |h: &&InHand| h.leaving.is_none() && !h.held.shard.is_lost();
        let shards = self
            .held
            .iter()
            .filter(|(_, h)| working(h))
            .map(|(key, h)| {
                let run = &h.held.shard.run;
                (*key, run.name.clone(), run.plan.job.priority)
            });
        let mut turns = Turns::new(shards, rand::random);
        while gathered < most {
            let next = match 2 * gathered < most {
                true => turns.oldest(rand::random()),
                false => turns.next(rand::random()),
            };
            let Some(key) = next else {
                break;
            };
            let taken = self.held.get_mut(&key);
            let taken = taken.and_then(|in_hand| Some((in_hand.held.work.take(now)?, in_hand)));
            let Some((cell, in_hand)) = taken else {
                turns.is_through(key);
                continue;
            };
            let shard = in_hand.held.shard.clone();
            let endpoint = shard
                .at
                .connector
                .endpoint_of(in_hand.held.work.position(cell))
                .to_owned();
            let picked = asking::picked(&shard, cell);
            if let Ok(Some(place)) = picked
                && self.waits_for_people(&shard, place, now)
            {
                if let Some(in_hand) = self.held.get_mut(&key) {
                    in_hand.held.work.sleep(cell, now + WAITS_FOR_PEOPLE);
                }
                // Others may be served meanwhile.
                self.make_room(key);
                continue;
            }
            let picked = picked.and_then(|place| {
                match place.and_then(|place| self.why_dead(&shard, place, now)) {
                    Some(dead) => Err(dead),
                    None => Ok(place),
                }
            });
            let signed = picked.and_then(|place| {
                let signing = self.sign_in(&shard, cell, place, &mut asking.without, now)?;
                Ok((place, signing))
            });
            if let Ok((_, Signing::Wait(until))) = signed {
                if let Some(in_hand) = self.held.get_mut(&key) {
                    in_hand.held.work.sleep(cell, until);
                }
                continue;
            }
            let kin = signed.and_then(|(place, _)| Kin::of(&shard, cell, endpoint, place));
            let asleep = kin
                .as_ref()
                .ok()
                .and_then(|kin| self.asleep.queue(kin, now));
            let added = kin.and_then(|kin| match &asleep {
                Some(_) => Ok(()),
                None => asking.add(Wish { held: key, cell }, kin, &shard, fleet_now),
            });
            let Some(in_hand) = self.held.get_mut(&key) else {
                continue;
            };
            match (added, asleep) {
                (Ok(()), Some((until, name))) => {
                    in_hand.held.work.sleep_for(cell, until, name);
                    slept.insert(key);
                }
                (Ok(()), None) => gathered += 1,
                (Err(error), _) => {
                    let result = unaskable(cell, error.to_string(), error.outcome(), fleet_now);
                    in_hand
                        .settling
                        .extend(in_hand.held.work.finish(cell, result));
                }
            }
        }
        asking.oldest_first();
        slept.into_iter().for_each(|key| self.make_room(key));
        asking
    }

    pub(super) fn claims(&self) -> Vec<ClaimRef> {
        self.held
            .values()
            .filter(|h| !h.held.shard.is_lost())
            .map(|h| h.held.shard.claim.clone())
            .collect()
    }

    pub(super) fn on_answer(
        &mut self,
        mut asking: Asking,
        claims: &[ClaimRef],
        answer: Result<Answered, LimiterError>,
    ) {
        self.asking = false;
        let now = Instant::now();
        let mut sleeps = Vec::new();
        match answer {
            Ok(Answered {
                answer,
                sent,
                received,
            }) => {
                let epoch = self.shared.observe(answer.now_us, sent, received);
                self.lose_claims(claims, &answer);
                if answer.refusals.iter().any(|r| r.why == Why::Unset) {
                    // The limiter begins no lost limit before the operators' numbers are back: it remembers nothing yet.
                    self.shared.ears(|ears| ears.tell_again(asking.limits()));
                }
                asking.numbers_in_force(&answer);
                let last_start = answer.grants.iter().map(|grant| grant.start_us).max();
                let ahead_us = last_start.unwrap_or(answer.now_us) - answer.now_us;
                self.planned_ahead = Duration::from_micros(u64::try_from(ahead_us).unwrap_or(0));
                for grant in &answer.grants {
                    if let Some((wish, drawn)) = asking.grant(grant.group, grant.credential) {
                        self.call(wish, drawn, *grant, epoch);
                    }
                }
                self.count_permits(&answer, &asking);
                sleeps = self.on_refusals(&answer, &asking, now);
                self.look_for_dead(&answer);
                self.put_back(&answer);
                self.put_marks(&answer, &asking);
            }
            Err(error) => {
                self.shared.ears(|ears| ears.tell_again(asking.limits()));
                tracing::warn!(lane.name = self.name, error = %error, "no grants: nothing is called until Redis answers");
                self.ask_at = now + Duration::from_millis(250).mul_f64(0.5 + rand::random::<f64>());
            }
        }
        self.take_back(asking, &sleeps, now);
    }

    pub(super) fn lose_claims(&mut self, claims: &[ClaimRef], answer: &Answer) {
        for claim in answer
            .lost_claims
            .iter()
            .filter_map(|place| claims.get(*place))
        {
            self.lose_claim(claim);
        }
    }

    pub(super) fn lose_claim(&mut self, claim: &ClaimRef) {
        for in_hand in self.held.values().filter(|h| h.held.shard.claim == *claim) {
            tracing::warn!(run.id = %in_hand.held.shard.run.id, shard.id = in_hand.held.shard.message.shard, "the claim is lost: somebody else goes on with this shard");
            in_hand.held.shard.lose();
        }
    }

    pub(super) fn count_permits(&self, answer: &Answer, asking: &Asking) {
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

    /// When to ask again, and whether the lane's budget is closed for longer than a shard may wait. Returns what
    /// concerns single scopes: their cells sleep while the others go on.
    fn on_refusals(&mut self, answer: &Answer, asking: &Asking, now: Instant) -> Vec<Sleep> {
        self.wants_lease = answer.refusals.iter().any(|r| r.why == Why::InFlight);
        self.scarce_leases = answer.scarce;
        for refusal in answer.refusals.iter().filter(|r| r.why == Why::Mark) {
            if let Some(quota) = refusal.limit.and_then(|place| asking.limit_at(place)) {
                self.mark(quota.clone(), answer.now_us);
            }
        }
        let hungry = self.is_hungry(answer);
        let (sleeps, wide) = scopes::part(answer, asking);
        self.appetite
            .learn(asking.wanted(), answer.grants.len(), !sleeps.is_empty());
        let apart = APART.mul_f64(0.5 + rand::random::<f64>());
        self.note_sated(&wide, asking);
        let Some(first) = wide.iter().min_by_key(|r| r.opens_us) else {
            self.ask_at = if sleeps.is_empty() { now } else { now + apart };
            self.open();
            return sleeps;
        };
        let opens_us = first.opens_us - answer.now_us;
        let wait = Duration::from_micros(u64::try_from(opens_us).unwrap_or(0));
        let wait = self.beside_others(first, wait, answer, asking, now);
        let urgent = wide
            .iter()
            .any(|r| matches!(r.why, Why::Mark | Why::Window | Why::Unset));
        self.ask_at = now + wait.min(WAIT_IN_HAND) + apart;
        if hungry && !urgent {
            self.ask_at = self
                .ask_at
                .max(now + HUNGRY.mul_f64(1.0 + 0.3 * rand::random::<f64>()));
        }
        let all_shut = wide.iter().map(|r| r.group).eq(0..asking.groups());
        if wait > WAIT_IN_HAND && !urgent && answer.grants.is_empty() && all_shut {
            self.closed(now, wait, answer);
        } else {
            self.open();
        }
        sleeps
    }

    /// A paced limit that opens after `wait` is asked later where others ask for it too.
    fn beside_others(
        &mut self,
        first: &Refusal,
        wait: Duration,
        answer: &Answer,
        asking: &Asking,
        now: Instant,
    ) -> Duration {
        let limit = first.limit.and_then(|place| asking.limit_at(place));
        let paced = limit.filter(|_| first.why == Why::Paced);
        let Some(pace) = paced.and_then(|limit| limit.rule.pace()) else {
            return wait;
        };
        self.crowd.learn(now, answer.grants.len(), &pace);
        self.crowd.wait(wait, &pace)
    }

    /// Whether others got everything, several times in a row: waiting workers do not crowd around Redis.
    fn is_hungry(&mut self, answer: &Answer) -> bool {
        let refused = |r: &Refusal| matches!(r.why, Why::Paced | Why::InFlight);
        let nothing = answer.grants.is_empty() && answer.refusals.iter().any(refused);
        self.empties = if nothing { self.empties + 1 } else { 0 };
        self.empties >= 2
    }

    /// Takes cells back that got no grant: those of a scope that opens later sleep until then.
    fn take_back(&mut self, asking: Asking, sleeps: &[Sleep], now: Instant) {
        let hungry = self.empties >= 2;
        let picks = self.picks();
        let mut slept = Vec::new();
        let served: Vec<Option<String>> = (0..asking.groups())
            .map(|g| self.dead_reason(sleeps.iter().find(|s| s.group == g)))
            .collect();
        for (group, kin, wishes) in asking.ungranted() {
            let sleep = sleeps.iter().find(|sleep| sleep.group == group);
            if let Some(sleep) = sleep.filter(|sleep| sleep.why == Why::Paced) {
                self.asleep.note(kin, sleep, hungry, wishes.len(), now);
            }
            let dead = served.get(group).cloned().flatten();
            let number = wishes.len();
            // The last one first, since taking back puts to the front.
            for (place, wish) in wishes.into_iter().enumerate().rev() {
                let Some(in_hand) = self.held.get_mut(&wish.held) else {
                    continue;
                };
                let work = &mut in_hand.held.work;
                match (sleep, &dead) {
                    (_, Some(reason)) => {
                        let result = unaskable(
                            wish.cell,
                            reason.clone(),
                            Outcome::Permanent,
                            self.shared.fleet_us(now),
                        );
                        in_hand.settling.extend(work.finish(wish.cell, result));
                    }
                    // Whether its own credential is not accepted any more is being looked up.
                    (Some(sleep), _) if picks && sleep.is_dead_key() => {
                        work.sleep(wish.cell, now + LOOKING);
                    }
                    (Some(sleep), _) => {
                        let until = now + sleep.of(place, number, hungry);
                        let name = sleep.name.clone().unwrap_or_default();
                        work.sleep_for(wish.cell, until, name);
                        slept.push(wish.held);
                    }
                    (None, _) => work.untake(wish.cell),
                }
            }
        }
        slept.sort_unstable();
        slept.dedup();
        slept.into_iter().for_each(|key| self.make_room(key));
    }

    /// Why the cells of a scope fail that stays closed until somebody looks, while others are served.
    fn dead_reason(&self, sleep: Option<&Sleep>) -> Option<String> {
        let sleep = sleep.filter(|sleep| sleep.why == Why::Dead)?;
        let name = sleep.name.as_deref()?;
        if self.picks() && sleep.is_dead_key() {
            return None;
        }
        let kin = |good: &&String| {
            let stem = |n: &str| n.split_once(':').map(|(limit, _)| limit.to_owned());
            good.as_str() != name && stem(good) == stem(name)
        };
        self.good.iter().any(|good| kin(&good)).then(|| {
            format!("`{name}` is closed by its provider until somebody looks; `producer retry` tries again")
        })
    }

    /// Answers may take seconds, and blocks are counted a little later: where nothing is left to ask for, shards that wait
    /// for that alone make room for others, as long as this process may have more calls in flight.
    pub(super) fn make_room_beside_answers(&mut self) {
        if self.asking || self.context.seats.free() == 0 || self.ready() > 0 {
            return;
        }
        let awaits = |h: &InHand| h.held.permit.is_some() && h.leaving.is_none() && !h.is_quiet();
        let waiting = self.held.iter().filter(|(_, h)| awaits(h));
        let keys: Vec<u64> = waiting.map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.make_room(key));
    }

    /// A shard that waits for its own scope or for answers alone makes room for another one.
    fn make_room(&mut self, key: u64) {
        let waiting = self
            .held
            .values()
            .filter(|h| h.held.permit.is_none())
            .count();
        if let Some(in_hand) = self.held.get_mut(&key)
            && waiting < WAITING_AT_MOST
            && in_hand.held.work.ready() == 0
            && matches!(in_hand.held.company, Company::Shared(_))
        {
            in_hand.held.permit = None;
            self.context.shard_left.notify_one();
        }
    }

    /// While all groups wait for paces of the whole lane, its shards keep no other lane's out.
    fn note_sated(&mut self, wide: &[&Refusal], asking: &Asking) {
        let paced = wide.iter().all(|r| r.why == Why::Paced);
        let all = wide.iter().map(|r| r.group).eq(0..asking.groups());
        let sated = !wide.is_empty() && paced && all;
        self.sated
            .send_if_modified(|was| std::mem::replace(was, sated) != sated);
        if sated {
            let mut freed = false;
            for in_hand in self.held.values_mut() {
                let shared = matches!(in_hand.held.company, Company::Shared(_));
                freed |= shared && in_hand.held.permit.take().is_some();
            }
            if freed {
                self.context.shard_left.notify_one();
            }
        }
    }

    /// Pressure goes back to the queue: nothing is held while the budget is closed.
    pub(super) fn closed(&mut self, now: Instant, wait: Duration, answer: &Answer) {
        // Looked at again now and then, since an operator may open what an answer had closed.
        const LOOK_AGAIN: Duration = Duration::from_secs(5);
        let why = answer.refusals.first().map(|r| r.why);
        tracing::warn!(lane.name = self.name, opens_in.s = wait.as_secs(), why = ?why, "the lane is closed; its shards go back to their queue");
        self.context
            .metrics
            .provider_blocked
            .with_label_values(&[&self.provider.name])
            .set(1);
        let again = match why {
            Some(Why::Newer) => wait,
            _ => wait.min(LOOK_AGAIN),
        };
        self.closed_until.send_replace(Some(now + again));
        // Whoever else would take them at once finds the lane closed too; but when an operator opens it they are there.
        self.hand_all_back(Back::Delayed(DelayLevel::S1));
    }

    pub(super) fn open(&mut self) {
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

    pub(super) fn put_marks(&mut self, answer: &Answer, asking: &Asking) {
        for quota in answer
            .marks_wanted
            .iter()
            .filter_map(|place| asking.limit_at(*place))
        {
            self.mark(quota.clone(), answer.now_us);
        }
    }

    /// Puts the next mark of a quota that an answer of `seen_us` asked for.
    pub(super) fn mark(&mut self, quota: Instance, seen_us: i64) {
        let key = (quota.limit.clone(), quota.scope.clone());
        if self.marking.contains(&key) {
            return;
        }
        self.marking.push(key);
        let context = self.context.clone();
        let (provider, events) = (self.budgets.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            let objects = &context.parting.stores.objects;
            if let Err(error) = marks::advance(objects, &context.limiter, &context.prefix, &provider, &quota, seen_us).await {
                tracing::warn!(provider.name = provider, limit.name = quota.limit, error = %error, "the quota's next mark could not be put; no call is made beyond the last one");
            }
            drop(events.send(Event::Marked(quota)));
        });
    }

    pub(super) fn renew(&mut self, now: Instant) {
        self.renewed_at = now;
        // One request of a holder at a time: an ask renews too.
        if self.asking {
            return;
        }
        let claims = self.claims();
        let ask = self
            .leases
            .renewal(&self.budgets, &self.context.holder, claims.clone());
        if ask.claims.is_empty() && ask.limits.is_empty() {
            return;
        }
        self.asking = true;
        self.tell_at = None;
        let (limiter, events) = (self.context.limiter.clone(), self.events.clone());
        self.context.tasks.spawn(async move {
            let answer = limiter.renew(&ask).await;
            drop(events.send(Event::Renewed { claims, answer }));
        });
    }

    pub(super) fn on_renewed(
        &mut self,
        claims: &[ClaimRef],
        answer: Result<Answered, LimiterError>,
    ) {
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

impl WishError {
    /// How a cell without a call ends.
    fn outcome(&self) -> Outcome {
        match self {
            WishError::Dead { reason, .. } if reason == Outcome::AuthExpired.as_str() => {
                Outcome::AuthExpired
            }
            WishError::NoToken { verdict, .. } => verdict.outcome,
            _ => Outcome::Permanent,
        }
    }
}

/// A cell whose limits cannot even be named has no call: it fails with the reason.
fn unaskable(cell: u64, reason: String, outcome: Outcome, answered_us: i64) -> CellResult {
    let failure = Failure {
        cell,
        reason,
        outcome,
        status: 0,
        field: None,
        attempts: 0,
    };
    CellResult::failed(failure, answered_us)
}
