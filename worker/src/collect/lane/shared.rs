//! What a lane shares with its calls: the fleet's clock, and what is closed.

use std::collections::HashMap;
use std::sync::{Mutex, RwLock};
use std::time::Instant;

use paceline_protocol::clock::FleetClock;

use super::ears::Ears;

/// Shared by a lane and its calls.
pub struct LaneShared {
    clock: RwLock<FleetClock>,
    /// Until when a name (of a closure, see the limiter) is closed as far as this process knows: calls with
    /// a grant in hand look here before they are sent.
    closed: Mutex<HashMap<String, Instant>>,
    /// What answers told of limits.
    ears: Mutex<Ears>,
}

impl Default for LaneShared {
    /// Nothing closed, the clock not known yet.
    fn default() -> Self {
        LaneShared {
            clock: RwLock::new(FleetClock::new(Instant::now())),
            closed: Mutex::default(),
            ears: Mutex::default(),
        }
    }
}

impl LaneShared {
    /// Runs `read` on the fleet's clock.
    pub fn clock<T>(&self, read: impl FnOnce(&FleetClock) -> T) -> T {
        read(
            &self
                .clock
                .read()
                .expect("no panic while the clock is locked"),
        )
    }

    /// Learns from a reply of Redis. Returns the clock's epoch, which its grants belong to.
    pub fn observe(&self, now_us: i64, sent: Instant, received: Instant) -> u64 {
        self.clock
            .write()
            .expect("no panic while the clock is locked")
            .observe(now_us, sent, received)
    }

    /// The fleet's time, microseconds since 1970; this machine's own before the first reply, which the
    /// limiter then corrects.
    pub fn fleet_us(&self, at: Instant) -> i64 {
        self.clock(|clock| clock.latest(at))
            .unwrap_or_else(|| jiff::Timestamp::now().as_microsecond())
    }

    /// Runs `with` on what answers told of limits.
    pub fn ears<T>(&self, with: impl FnOnce(&mut Ears) -> T) -> T {
        with(&mut self.ears.lock().expect("no panic while somebody hears"))
    }

    /// Closes for this process at once; the fleet hears of it through Redis.
    pub fn close(&self, name: &str, until: Instant) {
        let mut closed = self
            .closed
            .lock()
            .expect("no panic while closures are locked");
        let entry = closed.entry(name.to_owned()).or_insert(until);
        *entry = (*entry).max(until);
    }

    /// Forgets what is closed here: Redis said that it is open.
    pub fn reopen(&self) {
        self.closed
            .lock()
            .expect("no panic while closures are locked")
            .clear();
    }

    /// Whether a call whose closures would have one of these `names` must not be sent at `at`.
    pub fn is_closed(&self, names: &[String], at: Instant) -> bool {
        let mut closed = self
            .closed
            .lock()
            .expect("no panic while closures are locked");
        if closed.is_empty() {
            return false;
        }
        closed.retain(|_, until| *until > at);
        names.iter().any(|name| closed.contains_key(name))
    }
}
