//! The fleet's limiter: [`crate::limit::Ask`] in one atomic step in Redis.

use std::time::{Duration, Instant};

use crate::keys::Keys;
use crate::limit::{Answer, Ask, ClaimRef, Instance};

/// Why no answer came. No answer means no call.
#[derive(Debug, thiserror::Error)]
pub enum LimiterError {
    /// Redis is away, slow, or refused the script.
    #[error("the limiter's Redis did not answer")]
    Redis(#[from] redis::RedisError),
    /// Redis answered something else.
    #[error("the limiter's Redis answered unexpectedly: {0}")]
    Reply(String),
}

/// The limiter of one fleet. Cheap to clone; one connection for each process.
#[derive(Clone)]
pub struct FleetLimiter {}

/// An [`Answer`] with the local instants around the round trip, for the fleet's clock.
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// Just before it was sent.
    pub sent: Instant,
    /// Just after it was received.
    pub received: Instant,
}

/// The outcome of taking a shard's claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours (also: it was this publication's, and is taken over).
    Ours,
    /// Another publication of the shard is being worked on; its claim ends at the latest then.
    Busy {
        /// Until the claim expires.
        expires_in: Duration,
    },
}

/// What is closed: a credential, or (without one) the whole provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// The credential's public name; `None`: every call of the provider.
    pub credential: Option<String>,
    /// How long from now on Redis' clock.
    pub for_: Duration,
    /// `throttled`, `quota_exhausted`, `auth_expired`, `maintenance`.
    pub reason: String,
}

/// One limit as `producer limits` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitNow {
    /// Which limit and scope, with its numbers.
    pub instance: Instance,
    /// Calls charged in the current window (quota), in flight (concurrency), or in the last period (rate).
    pub used: u64,
    /// When the next call may start, on Redis' clock; `None`: never in this window.
    pub opens_us: Option<i64>,
}

impl FleetLimiter {
    /// Connects, with TCP_NODELAY and time limits; refuses a Redis that may evict keys.
    ///
    /// # Errors
    /// When Redis cannot be reached or its `maxmemory-policy` is not `noeviction`.
    pub async fn connect(_url: &str, _keys: Keys) -> Result<Self, LimiterError> {
        todo!()
    }

    /// Asks for grants.
    ///
    /// # Errors
    /// When Redis does not answer in time. What it may have granted is then lost, never used.
    pub async fn ask(&self, _ask: &Ask) -> Result<Answered, LimiterError> {
        todo!()
    }

    /// Takes the claim on a shard, before the first grant.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn claim(
        &self,
        _provider: &str,
        _claim: &ClaimRef,
        _holder: &str,
    ) -> Result<Claimed, LimiterError> {
        todo!()
    }

    /// Gives a claim back (only its holder's own).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn release(
        &self,
        _provider: &str,
        _claim: &ClaimRef,
        _holder: &str,
    ) -> Result<(), LimiterError> {
        todo!()
    }

    /// Renews this worker's leases with the absolute number of calls in flight (also 0), and its claims.
    /// Returns the indices of the claims that are lost.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn renew(&self, _ask: &Ask) -> Result<Answered, LimiterError> {
        todo!()
    }

    /// Closes the provider or one credential for the whole fleet; never shortens what is closed longer.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn close(&self, _provider: &str, _closure: &Closure) -> Result<(), LimiterError> {
        todo!()
    }

    /// Opens again what answers had closed (`retry`, `resume`).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn reopen(&self, _provider: &str) -> Result<(), LimiterError> {
        todo!()
    }

    /// Everything that is closed now.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn closures(&self, _provider: &str) -> Result<Vec<Closure>, LimiterError> {
        todo!()
    }

    /// Sets a quota's mark after it was put to S3: the counter may go up to it. On a lost counter the
    /// count goes on from `mark_before`.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_mark(
        &self,
        _provider: &str,
        _quota: &Instance,
        _mark_before: u64,
        _mark: u64,
    ) -> Result<(), LimiterError> {
        todo!()
    }

    /// The state of limits, without changing it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn peek(
        &self,
        _provider: &str,
        _limits: &[Instance],
    ) -> Result<Vec<LimitNow>, LimiterError> {
        todo!()
    }

    /// Grants given to a run since its state began.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn granted(&self, _provider: &str, _run: &str) -> Result<u64, LimiterError> {
        todo!()
    }
}
