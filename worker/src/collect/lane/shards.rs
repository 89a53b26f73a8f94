//! The shards of a lane: holding them, settling their blocks, parting with them.

use std::time::{Duration, Instant};

use paceline_protocol::limit::ClaimRef;
use paceline_protocol::message::{PartSummary, ShardMessage};
use paceline_protocol::stores::state::OpenRun;
use paceline_protocol::topology::DelayLevel;

use super::held::{Held, ShardInHand};
use super::{Event, InHand, Lane, WAIT_IN_HAND};
use crate::collect::part_ways::{Back, settle_until_done};
use crate::traced;
use tracing::Instrument;

/// No delivery is held longer (the broker's ack timeout is 30 minutes); some room is left for the last calls.
pub const HOLD_AT_MOST: Duration = Duration::from_secs(9 * 60);

impl Lane {
    pub(super) fn hold(&mut self, mut held: Held) {
        let settling = std::mem::take(&mut held.full).into();
        let leaving = self.context.shutdown.is_draining().then_some(Back::Now);
        let mut in_hand = InHand {
            held,
            settling,
            settle_running: 0,
            unsettled: Vec::new(),
            leaving,
        };
        // The run may have been paused, or have ended, while its shard was on its way here.
        in_hand.heed(&self.context.open_runs.borrow());
        self.held.insert(self.next_key, in_hand);
        self.next_key += 1;
    }

    pub(super) fn hand_all_back(&mut self, back: Back) {
        for in_hand in self.held.values_mut() {
            in_hand.leaving.get_or_insert(back);
        }
    }

    /// Paused runs' shards go back; ended runs' shards are dropped.
    pub(super) fn on_open_runs(&mut self, open: &[OpenRun]) {
        for in_hand in self.held.values_mut() {
            in_hand.heed(open);
        }
    }

    /// Settles full blocks and parts with shards that are done, lost, or have to go.
    pub(super) fn look_after_shards(&mut self) {
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

    pub(super) fn settle_next(&mut self, key: u64) {
        let Some(in_hand) = self.held.get_mut(&key) else {
            return;
        };
        if in_hand.held.shard.is_ended() {
            in_hand.unsettled.extend(in_hand.settling.drain(..));
        }
        while let Some(block) = in_hand.settling.pop_front() {
            in_hand.settle_running += 1;
            let (stores, shard) = (
                self.context.parting.stores.clone(),
                in_hand.held.shard.clone(),
            );
            let events = self.events.clone();
            let span = traced::block(&shard.span, block.number);
            let lines = span.lines();
            let settling = async move {
                let summary = settle_until_done(&stores, &shard, &block).await;
                if let Some(summary) = &summary {
                    span.set("paceline.records", summary.records);
                }
                drop((span, events.send(Event::Settled { held: key, summary })));
            };
            self.context.tasks.spawn(settling.instrument(lines));
        }
    }

    pub(super) fn on_settled(&mut self, key: u64, summary: Option<PartSummary>) {
        let Some(in_hand) = self.held.get_mut(&key) else {
            return;
        };
        in_hand.settle_running -= 1;
        in_hand.held.parts.extend(summary);
    }

    pub(super) fn part_with(&mut self, key: u64) {
        let Some(InHand {
            held,
            leaving,
            unsettled,
            ..
        }) = self.held.remove(&key)
        else {
            return;
        };
        self.refusals.part_with(key);
        self.tokens.part_with(key);
        let Held {
            taken,
            work,
            shard,
            parts,
            since,
            permit,
            in_lane,
            company,
            ..
        } = held;
        let parting = self.context.parting.clone();
        let events = self.events.clone();
        let shared = self.shared.clone();
        let metrics = self.context.metrics.clone();
        let lines = shard.span.lines();
        let going = async move {
            let now = Instant::now();
            if shard.is_lost() {
                shard.span.set("paceline.end", "dropped");
                if shard.is_ended() {
                    let mut open = work.open_cells(shard.at.connector.resumes(), |_| 0);
                    unsettled.into_iter().for_each(|block| open.keep(block));
                    parting.leave_to_a_retry(&shard, &open).await;
                }
                parting.drop(&shard, taken).await;
            } else if work.is_done() {
                shard.span.set("paceline.end", "done");
                parting.done(&shard, taken, parts).await;
                metrics
                    .shard_duration
                    .with_label_values(&[&shard.run.id.job])
                    .observe(since.elapsed().as_secs_f64());
            } else {
                shard.span.set("paceline.end", "handed back");
                let fleet_now = shared.fleet_us(now);
                let clock_of = |at: Instant| {
                    fleet_now
                        + i64::try_from(at.saturating_duration_since(now).as_micros()).unwrap_or(0)
                };
                let open = work.open_cells(shard.at.connector.resumes(), clock_of);
                parting
                    .hand_back(&shard, taken, open, leaving.unwrap_or(Back::Now))
                    .await;
            }
            drop((permit, in_lane, company));
            drop(events.send(Event::Parted));
        };
        self.context.tasks.spawn(going.instrument(lines));
    }
}

impl InHand {
    /// Goes back when its run is paused, and ends with its run.
    fn heed(&mut self, open: &[OpenRun]) {
        let run = &self.held.shard.run.id;
        match open.iter().find(|open| open.run == *run) {
            Some(run) if run.paused => drop(self.leaving.get_or_insert(Back::Now)),
            Some(_) => {}
            None => self.held.shard.end(),
        }
    }
}

impl ShardInHand {
    /// How claims name a shard.
    pub fn claim_of(message: &ShardMessage) -> ClaimRef {
        ClaimRef {
            shard: format!("{}/{}/{}", message.run_ref(), message.shard, message.round),
            publication: message.publication.to_string(),
        }
    }
}
