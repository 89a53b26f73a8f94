//! What a lane shares with its calls: the fleet's clock, and what is closed.

use std::collections::HashMap;
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use paceline_protocol::clock::FleetClock;
use paceline_protocol::stores::limiter::FleetLimiter;

use super::ears::Ears;

/// A clock known less exactly than this makes calls of short slack late before they are due.
const EXACT_US: i64 = 400;
/// So often the clock may be looked at for its own sake, and so many times in a row.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(250);
const LOOKS: usize = 3;

/// Shared by a lane and its calls.
pub struct LaneShared {
    clock: RwLock<FleetClock>,
    /// When the fleet's clock was last looked at for its own sake.
    looked: Mutex<Option<Instant>>,
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
            looked: Mutex::default(),
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

    /// Looks at Redis' clock until it is known exactly enough, some times at most: the replies of asks are slow while
    /// there is much to decide.
    pub async fn set_the_clock(&self, limiter: &FleetLimiter) {
        if !self.may_look(Instant::now()) {
            return;
        }
        for _ in 0..LOOKS {
            if self.is_exact(Instant::now()) {
                return;
            }
            let Ok((now_us, sent, received)) = limiter.clock().await else {
                return;
            };
            self.observe(now_us, sent, received);
        }
    }

    fn is_exact(&self, at: Instant) -> bool {
        let width = self.clock(|clock| clock.width_us(at));
        width.is_some_and(|width| width <= EXACT_US)
    }

    fn may_look(&self, now: Instant) -> bool {
        if self.is_exact(now) {
            return false;
        }
        let mut looked = self
            .looked
            .lock()
            .expect("no panic while somebody looks at the clock");
        let due = looked.is_none_or(|before| now >= before + LOOK_AT_MOST_EVERY);
        if due {
            *looked = Some(now);
        }
        due
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

    /// Forgets that `name` is closed here.
    pub fn open(&self, name: &str) {
        self.closed
            .lock()
            .expect("no panic while closures are locked")
            .remove(name);
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
