//! Reading the cells of a source that is no HTTP API: there is nothing to ask of the limiter, so a ready cell
//! is read as soon as there is room.

use std::sync::Arc;
use std::time::Instant;

use super::asking::{Drawn, Wish};
use super::{Event, Lane, RENEW};
use crate::collect::reading::Reading;

/// Reads at a time: each holds its object and what comes of it in memory.
const AT_A_TIME: usize = 4;

impl Lane {
    /// Whether its cells are read and not called.
    pub(super) fn reads(&self) -> bool {
        self.provider.source.is_some()
    }

    /// Starts reading ready cells, one from each shard in turn.
    pub(super) fn read_ready(&mut self) {
        if self.ready() == 0 {
            return;
        }
        let now = Instant::now();
        if self.shared.clock(|clock| clock.latest(now)).is_none() {
            // When a cell was read is told by the fleet's clock, which comes with a renewal of claims.
            if now >= self.ask_at {
                self.ask_at = now + RENEW;
                self.renew(now);
            }
            return;
        }
        let reading: usize = self.held.values().map(|h| h.held.work.in_flight()).sum();
        let mut room = AT_A_TIME.saturating_sub(reading);
        // A read that ends looks here again.
        self.ask_at = now + RENEW;
        while room > 0 {
            let before = room;
            let keys: Vec<u64> = self.held.keys().copied().collect();
            for key in keys {
                if room > 0 && self.read_one(key, now) {
                    room -= 1;
                }
            }
            if room == before {
                return;
            }
        }
    }

    fn read_one(&mut self, key: u64, now: Instant) -> bool {
        let Some(in_hand) = self.held.get_mut(&key) else {
            return false;
        };
        if in_hand.leaving.is_some() || in_hand.held.shard.is_lost() {
            return false;
        }
        let Some(cell) = in_hand.held.work.take(now) else {
            return false;
        };
        let wish = Wish { held: key, cell };
        let reading = Reading {
            shard: in_hand.held.shard.clone(),
            lane: self.shared.clone(),
            cell,
            attempts: in_hand.held.work.attempts(cell),
            cut_off: self.cut_off.clone(),
        };
        self.context.seats.take();
        let drawn = Arc::new(Drawn::nothing());
        let events = self.events.clone();
        self.context.tasks.spawn(async move {
            let end = reading.run().await;
            drop(events.send(Event::Called {
                wish,
                drawn,
                end,
                probe: None,
                signed: None,
            }));
        });
        true
    }
}
