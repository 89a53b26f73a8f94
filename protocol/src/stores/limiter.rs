//! The fleet's limiter: [`crate::limit::Ask`] in one atomic step in Redis.
//!
//! One connection for each process, shared by all tasks; it reconnects by itself for ever, and a step that
//! was not answered in time may have been taken: what it granted is lost, never used and never given back.
//! A holder asks and renews one after the other (for one provider), since both say how many calls it has in flight.

mod kept;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, IntoConnectionInfo, Script, ScriptInvocation,
};

use crate::keys::Keys;
use crate::limit::{
    Answer, Ask, BREAKER, BREAKER_US, CLAIM_US, ClaimRef, Closed, FORGOTTEN_US, Instance,
    LONGEST_DOUBLED_US, Moment, Numbers, PACE_KNOWN_AFTER_US, PROBE_AGAIN_US, PROVIDER, Probed,
    RAISED_AFTER_US, RAISED_AT_MOST, RAMP_OVER_US, SetMark, State, in_force, used_now, whole_of,
};
use crate::settings::shown_url;
use crate::version;
pub use kept::{KeptNow, KnownScope};
use wire::{Fields, WireAnswer};

/// How long a step may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The longest pause between two tries to connect again.
const RECONNECT_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Why no answer came. No answer means no call.
#[derive(Debug, thiserror::Error)]
pub enum LimiterError {
    /// Redis cannot be reached at the start.
    #[error("cannot connect to the limiter's Redis at {url}: {source}")]
    Connect {
        /// Where, without password.
        url: String,
        /// Why.
        source: redis::RedisError,
    },
    /// Redis may drop keys, and with them what was counted.
    #[error(
        "the limiter's Redis at {url} has maxmemory-policy {policy:?}: it may drop what was counted; set it to noeviction"
    )]
    Evicts {
        /// Where, without password.
        url: String,
        /// Its policy.
        policy: String,
    },
    /// No answer in time. The step may have been taken.
    #[error("the limiter's Redis at {url} did not answer within {} ms", within.as_millis())]
    TimedOut {
        /// Where, without password.
        url: String,
        /// How long it had.
        within: Duration,
    },
    /// Redis is away, or refused the script.
    #[error("the limiter's Redis at {url} failed: {source}")]
    Redis {
        /// Where, without password.
        url: String,
        /// Why.
        source: redis::RedisError,
    },
    /// Redis answered something else.
    #[error("the limiter's Redis answered unexpectedly: {0}")]
    Reply(String),
}

/// Counts of runs are kept for as long as the limits' own (`KEEP_MS` of ask.lua).
const KEEP_MS: i64 = 30 * 86_400_000;
/// So long a claim that was given back is nobody's (milliseconds): no worker sleeps longer with a shard in hand and has its
/// delivery still.
const GIVEN_BACK_MS: i64 = 30 * 60_000;
/// Who puts a quota's mark and does not come back is waited for so long (milliseconds).
const MARKING_MS: i64 = 5_000;

/// Grants of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Given to its workers.
    pub given: u64,
    /// Dropped by them without a call.
    pub dropped: u64,
}

impl Grants {
    /// Those that stand for a call, made or still to be made.
    pub fn used(self) -> u64 {
        self.given.saturating_sub(self.dropped)
    }
}

impl std::ops::AddAssign for Grants {
    fn add_assign(&mut self, other: Self) {
        self.given += other.given;
        self.dropped += other.dropped;
    }
}

/// The limiter of one fleet. Cheap to clone; one connection for each process.
#[derive(Clone)]
pub struct FleetLimiter {
    connection: ConnectionManager,
    scripts: Arc<Scripts>,
    keys: Keys,
    url: Arc<str>,
    seq: Arc<AtomicU64>,
}

struct Scripts {
    ask: Script,
    claim: Script,
    release: Script,
    close: Script,
    probed: Script,
    reopen: Script,
    set_mark: Script,
    peek: Script,
    put_back: Script,
}

impl Scripts {
    fn new() -> Self {
        Scripts {
            ask: of_closures(include_str!("limiter/ask.lua")),
            claim: script(include_str!("limiter/claim.lua")),
            release: script(include_str!("limiter/release.lua")),
            close: of_closures(include_str!("limiter/close.lua")),
            probed: of_closures(include_str!("limiter/probed.lua")),
            reopen: of_closures(include_str!("limiter/reopen.lua")),
            set_mark: script(include_str!("limiter/set_mark.lua")),
            peek: script(include_str!("limiter/peek.lua")),
            put_back: script(include_str!("limiter/put_back.lua")),
        }
    }
}

/// What marks a record beside the server process that wrote it.
fn stamp() -> String {
    match version::limiter() {
        1 => String::new(),
        layout => format!("/{layout}"),
    }
}

/// A script, which knows the layout of the state that this build reads and writes. Records are marked with the server
/// process and, from the second layout on, with the layout: so those of an older one are as lost.
fn script(body: &str) -> Script {
    let (layout, stamp) = (version::limiter(), stamp());
    Script::new(&format!(
        "local LAYOUT, STAMP = {layout}, '{stamp}'\n{body}"
    ))
}

/// A script that reads or writes closures.
fn of_closures(body: &str) -> Script {
    let closure = include_str!("limiter/closure.lua");
    script(&format!(
        "local RAISED_AFTER, RAISED_AT_MOST = {RAISED_AFTER_US}, {RAISED_AT_MOST}\n{closure}\n{body}"
    ))
}

/// An [`Answer`] with the local instants around the round trip, for the fleet's clock.
#[derive(Clone, Debug)]
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

/// What an answer closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closure {
    /// [`PROVIDER`], a credential's public name, or a limit in one scope ([`Instance::id`]).
    pub name: String,
    /// How long from now on Redis' clock; zero: the time is over, but no probe came back yet.
    pub for_: Duration,
    /// `throttled`, `quota_exhausted`, `auth_expired`, `maintenance`; `breaker:` before it when it is final.
    pub reason: String,
}

/// What came of closing a name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Struck {
    /// Refusals in a row; from [`BREAKER`] on it stays closed until somebody looks.
    pub strikes: u32,
    /// Ramps were refused: from now on they stay below so many calls a second.
    pub below_per_s: Option<f64>,
}

/// What opened again, and is kept below a pace that its provider refused ([`crate::limit::Slower`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Slowed {
    /// As [`Closure::name`].
    pub name: String,
    /// So many calls a second are tried now.
    pub below_per_s: f64,
}

impl Closure {
    /// The credential or scope; `None`: every call of the provider.
    pub fn part(&self) -> Option<&str> {
        (self.name != PROVIDER).then_some(&*self.name)
    }
}

/// One limit as `producer limits` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitNow {
    /// Which limit and scope, with the numbers that hold (an operator's, those that answers told, else the file's).
    pub instance: Instance,
    /// Calls charged in the current window (quota), in flight (concurrency), or in the last period (rate).
    pub used: u64,
    /// What is left: calls, or what a bucket holds; nothing to count of a spacing.
    pub left: Option<u64>,
    /// When the next call may start, on Redis' clock; `None`: never in this window.
    pub opens_us: Option<i64>,
    /// Numbers that answers told.
    pub learned: Option<Numbers>,
    /// Numbers that an operator set.
    pub set: Option<Numbers>,
    /// Workers with calls in flight, and how many (concurrency).
    pub held_by: BTreeMap<String, u64>,
}

impl FleetLimiter {
    /// Connects, with TCP_NODELAY and time limits; refuses a Redis that may evict keys.
    ///
    /// # Errors
    /// When Redis cannot be reached or its `maxmemory-policy` is not `noeviction`.
    pub async fn connect(url: &str, keys: Keys) -> Result<Self, LimiterError> {
        let shown = shown_url(url);
        let failed = |source| LimiterError::Connect {
            url: shown.clone(),
            source,
        };
        let client = client(url).map_err(failed)?;
        check_eviction(&client, &shown).await?;
        let connection =
            ConnectionManager::new_lazy_with_config(client, for_ever()).map_err(failed)?;
        Ok(FleetLimiter {
            connection,
            scripts: Arc::new(Scripts::new()),
            keys,
            url: shown.clone().into(),
            seq: Arc::new(AtomicU64::new(first_seq())),
        })
    }

    /// Asks for grants. One at a time for a holder and provider, see the module.
    ///
    /// # Errors
    /// When Redis does not answer in time. What it may have granted is then lost, never used.
    pub async fn ask(&self, ask: &Ask) -> Result<Answered, LimiterError> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let call = self.prepare(ask, seq);
        self.send_ask(ask, &call).await
    }

    /// As [`ask`](Self::ask), at a moment that is passed in instead of Redis' own: for the suite that
    /// compares the script with [`crate::limit::decide`].
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    #[doc(hidden)]
    pub async fn ask_at(&self, ask: &Ask, moment: &Moment<'_>) -> Result<Answered, LimiterError> {
        let mut call = self.prepare(ask, moment.seq);
        call.arg(moment.now_us).arg(moment.server);
        self.send_ask(ask, &call).await
    }

    fn prepare(&self, ask: &Ask, seq: u64) -> ScriptInvocation<'_> {
        let mut call = self.scripts.ask.prepare_invoke();
        call.key(self.keys.closures(&ask.provider));
        for limit in &ask.limits {
            call.key(self.keys.limit(&ask.provider, limit));
        }
        for group in &ask.groups {
            call.key(self.keys.granted(&ask.provider, &group.run));
        }
        for claim in &ask.claims {
            call.key(self.keys.claim(&ask.provider, &claim.shard));
        }
        call.arg(wire::encode(ask, seq));
        call
    }

    async fn send_ask(
        &self,
        ask: &Ask,
        call: &ScriptInvocation<'_>,
    ) -> Result<Answered, LimiterError> {
        let sent = Instant::now();
        let reply: WireAnswer = self.run(call).await?;
        let received = Instant::now();
        Ok(Answered {
            answer: wire::decode(ask, reply)?,
            sent,
            received,
        })
    }

    /// Runs a script within [`ANSWER_WITHIN`].
    async fn run<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, LimiterError> {
        let mut connection = self.connection.clone();
        self.within(call.invoke_async(&mut connection)).await
    }

    async fn within<T>(
        &self,
        reply: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, LimiterError> {
        let url = || self.url.to_string();
        match tokio::time::timeout(ANSWER_WITHIN, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(source)) if source.is_timeout() => Err(LimiterError::TimedOut {
                url: url(),
                within: ANSWER_WITHIN,
            }),
            Ok(Err(source)) => Err(LimiterError::Redis { url: url(), source }),
            Err(_) => Err(LimiterError::TimedOut {
                url: url(),
                within: ANSWER_WITHIN,
            }),
        }
    }

    /// Takes the claim on a shard, before the first grant.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn claim(
        &self,
        provider: &str,
        claim: &ClaimRef,
        holder: &str,
    ) -> Result<Claimed, LimiterError> {
        let mut call = self
            .scripts
            .claim
            .key(self.keys.claim(provider, &claim.shard));
        call.arg(&claim.publication)
            .arg(holder)
            .arg(CLAIM_US / 1000);
        let busy_ms: i64 = self.run(&call).await?;
        Ok(match u64::try_from(busy_ms) {
            Ok(busy_ms) => Claimed::Busy {
                expires_in: Duration::from_millis(busy_ms),
            },
            Err(_) => Claimed::Ours,
        })
    }

    /// Gives a claim back (only its holder's own).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn release(
        &self,
        provider: &str,
        claim: &ClaimRef,
        holder: &str,
    ) -> Result<(), LimiterError> {
        let mut call = self
            .scripts
            .release
            .key(self.keys.claim(provider, &claim.shard));
        call.arg(&claim.publication).arg(holder).arg(GIVEN_BACK_MS);
        self.run(&call).await
    }

    /// Renews this worker's leases with the absolute number of calls in flight (also 0), and its claims:
    /// an ask that wants nothing. The answer names the claims that are lost.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn renew(&self, ask: &Ask) -> Result<Answered, LimiterError> {
        let nothing_wanted = Ask {
            groups: Vec::new(),
            ..ask.clone()
        };
        self.ask(&nothing_wanted).await
    }

    /// Redis' clock, in microseconds since 1970, with the local instants around the round trip. It is read faster
    /// than a batch is decided, so it says more about the time.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn clock(&self) -> Result<(i64, Instant, Instant), LimiterError> {
        let mut connection = self.connection.clone();
        let sent = Instant::now();
        let command = redis::cmd("TIME");
        let (seconds, us): (i64, i64) = self.within(command.query_async(&mut connection)).await?;
        Ok((seconds * 1_000_000 + us, sent, Instant::now()))
    }

    /// Closes a name for the whole fleet, see [`State::close`].
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn close(&self, provider: &str, closure: &Closure) -> Result<Struck, LimiterError> {
        self.close_at(provider, closure, None).await
    }

    /// As [`close`](Self::close), at an instant: for the suite, which passes the clock.
    ///
    /// # Errors
    /// As for [`close`](Self::close).
    #[doc(hidden)]
    pub async fn close_at(
        &self,
        provider: &str,
        closure: &Closure,
        now_us: Option<i64>,
    ) -> Result<Struck, LimiterError> {
        let mut call = self.scripts.close.key(self.keys.closures(provider));
        let for_us = u64::try_from(closure.for_.as_micros())
            .unwrap_or(u64::MAX)
            .min(LONGEST_CLOSURE_US);
        let name = match closure.name.as_str() {
            PROVIDER => whole_of(provider),
            name => name,
        };
        call.arg(name).arg(for_us).arg(&closure.reason);
        call.arg(BREAKER).arg(BREAKER_US).arg(LONGEST_DOUBLED_US);
        call.arg(FORGOTTEN_US)
            .arg(RAMP_OVER_US)
            .arg(PACE_KNOWN_AFTER_US);
        if let Some(now_us) = now_us {
            call.arg(now_us);
        }
        let (strikes, least_us) = self.run(&call).await?;
        Ok(Struck {
            strikes,
            below_per_s: per_s(least_us),
        })
    }

    /// Tells how a probe ended ([`crate::limit::Grant::probe`]): what it was a probe of, among the `names` of its
    /// closures, opens.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn probed(
        &self,
        provider: &str,
        names: &[&str],
        start_us: i64,
        how: Probed,
    ) -> Result<(), LimiterError> {
        self.probed_at(provider, names, start_us, how, None).await
    }

    /// As [`probed`](Self::probed), at an instant: for the suite.
    ///
    /// # Errors
    /// As for [`probed`](Self::probed).
    #[doc(hidden)]
    pub async fn probed_at(
        &self,
        provider: &str,
        names: &[&str],
        start_us: i64,
        how: Probed,
        now_us: Option<i64>,
    ) -> Result<(), LimiterError> {
        let mut call = self.scripts.probed.key(self.keys.closures(provider));
        call.arg(start_us).arg(how.code()).arg(PROBE_AGAIN_US);
        call.arg(now_us.map_or_else(String::new, |now| now.to_string()));
        for name in names {
            call.arg(if *name == PROVIDER {
                whole_of(provider)
            } else {
                name
            });
        }
        let _nothing: i64 = self.run(&call).await?;
        Ok(())
    }

    /// Opens what answers closed: each closure gets one probe. Returns how many there were.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn reopen(&self, provider: &str) -> Result<u64, LimiterError> {
        self.reopen_at(provider, None, None).await
    }

    /// Opens one closure: it gets one probe. Returns how many there were.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn reopen_one(&self, provider: &str, name: &str) -> Result<u64, LimiterError> {
        self.reopen_at(provider, Some(name), None).await
    }

    /// As [`reopen`](Self::reopen), at an instant: for the suite.
    ///
    /// # Errors
    /// As for [`reopen`](Self::reopen).
    #[doc(hidden)]
    pub async fn reopen_at(
        &self,
        provider: &str,
        name: Option<&str>,
        now_us: Option<i64>,
    ) -> Result<u64, LimiterError> {
        let mut call = self.scripts.reopen.key(self.keys.closures(provider));
        call.arg(name.unwrap_or_default());
        if let Some(now_us) = now_us {
            call.arg(now_us);
        }
        self.run(&call).await
    }

    /// Drops what is remembered of limits, as a flush of Redis does: they start anew, empty.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn forget(&self, provider: &str, limits: &[Instance]) -> Result<(), LimiterError> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("DEL");
        for limit in limits {
            command.arg(self.keys.limit(provider, limit));
        }
        self.within(command.exec_async(&mut connection)).await
    }

    /// Everything that is closed now.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn closures(&self, provider: &str) -> Result<Vec<Closure>, LimiterError> {
        let seen = self.look(vec![self.keys.closures(provider)]).await?;
        let mut closures: Vec<Closure> = seen
            .hashes
            .iter()
            .flatten()
            .filter_map(|(name, text)| {
                let own = own_closure(provider, name)?;
                open_closure(seen.now_us, own, wire::read_closed(text)?)
            })
            .collect();
        closures.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(closures)
    }

    /// Whether this caller alone puts the next mark of a quota now; until [`end_mark`](Self::end_mark), or for some
    /// seconds where that does not come.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn begin_mark(&self, provider: &str, quota: &Instance) -> Result<bool, LimiterError> {
        let mut alone = redis::cmd("SET");
        alone.arg(self.keys.marking(provider, quota)).arg(1);
        alone.arg("NX").arg("PX").arg(MARKING_MS);
        let mut connection = self.connection.clone();
        let taken: Option<String> = self.within(alone.query_async(&mut connection)).await?;
        Ok(taken.is_some())
    }

    /// The quota's mark is set, or could not be.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn end_mark(&self, provider: &str, quota: &Instance) -> Result<(), LimiterError> {
        let mut connection = self.connection.clone();
        let mut end = redis::cmd("DEL");
        end.arg(self.keys.marking(provider, quota));
        self.within(end.query_async(&mut connection)).await
    }

    /// Sets a quota's mark after it was put to S3: the counter may go up to it. A counter that was lost
    /// goes on from [`SetMark::before`]. Returns whether it was taken; if not (the counter was lost again
    /// meanwhile, or the window turned), ask again and read the marks again.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_mark(
        &self,
        provider: &str,
        quota: &Instance,
        set: &SetMark,
    ) -> Result<bool, LimiterError> {
        self.send_mark(provider, quota, set, None).await
    }

    /// As [`set_mark`](Self::set_mark), on a server process that is passed in.
    ///
    /// # Errors
    /// As for [`set_mark`](Self::set_mark).
    #[doc(hidden)]
    pub async fn send_mark(
        &self,
        provider: &str,
        quota: &Instance,
        set: &SetMark,
        server: Option<&str>,
    ) -> Result<bool, LimiterError> {
        let mut call = self.scripts.set_mark.key(self.keys.limit(provider, quota));
        call.arg(set.opened_us)
            .arg(set.seen_us)
            .arg(set.before)
            .arg(set.mark);
        if let Some(server) = server {
            call.arg(server);
        }
        self.run(&call).await
    }

    /// The state of limits, without changing it.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn peek(
        &self,
        provider: &str,
        limits: &[Instance],
    ) -> Result<Vec<LimitNow>, LimiterError> {
        let mut keys = vec![self.keys.closures(provider)];
        keys.extend(limits.iter().map(|limit| self.keys.limit(provider, limit)));
        let seen = self.look(keys).await?;
        let mut state = State::default();
        let mut hashes = seen.hashes.iter();
        for (name, text) in hashes.next().into_iter().flatten() {
            if let Some(limit) = name.strip_prefix('=') {
                let numbers = wire::read_numbers(text);
                state
                    .kept
                    .set
                    .extend(numbers.map(|n| (limit.to_owned(), n)));
            }
        }
        for (limit, fields) in limits.iter().zip(hashes) {
            wire::remember(&mut state, limit, fields);
        }
        let moment = Moment {
            now_us: seen.now_us,
            server: &seen.server,
            seq: 0,
        };
        Ok(limits
            .iter()
            .map(|instance| limit_now(&state, instance, &moment))
            .collect())
    }

    /// Grants given to a run since its state began.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn grants(&self, provider: &str, run: &str) -> Result<Grants, LimiterError> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("MGET");
        command.arg(self.keys.granted(provider, run));
        command.arg(self.keys.dropped(provider, run));
        let (given, dropped): (Option<u64>, Option<u64>) =
            self.within(command.query_async(&mut connection)).await?;
        Ok(Grants {
            given: given.unwrap_or(0),
            dropped: dropped.unwrap_or(0),
        })
    }

    /// Counts grants of a run that were dropped.
    ///
    /// # Errors
    /// When Redis does not answer: whether they were counted is not known then.
    pub async fn dropped(
        &self,
        provider: &str,
        run: &str,
        grants: u64,
    ) -> Result<(), LimiterError> {
        let mut connection = self.connection.clone();
        let key = self.keys.dropped(provider, run);
        let mut count = redis::pipe();
        count.atomic().incr(&key, grants).ignore();
        count.pexpire(&key, KEEP_MS).ignore();
        self.within(count.query_async(&mut connection)).await
    }

    async fn look(&self, keys: Vec<String>) -> Result<Seen, LimiterError> {
        let mut call = self.scripts.peek.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        let reply: Vec<redis::Value> = self.run(&call).await?;
        read_seen(reply).map_err(|error| LimiterError::Reply(error.to_string()))
    }
}

/// The name of a closure as `provider` knows it: its own whole is [`PROVIDER`], that of another provider with whom it
/// shares a limit is none of its own, and neither is what operators said.
fn own_closure<'n>(provider: &str, name: &'n str) -> Option<&'n str> {
    if name == whole_of(provider) {
        return Some(PROVIDER);
    }
    (!name.starts_with(['#', '=', '*'])).then_some(name)
}

/// A limit as it is now, by the numbers that hold.
fn limit_now(state: &State, instance: &Instance, moment: &Moment) -> LimitNow {
    let (learned, set) = in_force(state, instance);
    let numbers = set.or(learned);
    let rule = numbers.and_then(|n| n.put_into(&instance.rule));
    let instance = Instance {
        rule: rule.unwrap_or(instance.rule),
        ..instance.clone()
    };
    let now = used_now(state, &instance, moment);
    let leases = state.leases.get(&instance.id());
    let holders = leases.into_iter().flat_map(|leases| &leases.holders);
    let alive = holders.filter(|(_, l)| l.calls > 0 && l.expires_us > moment.now_us);
    let held_by = alive.map(|(name, l)| (name.clone(), l.calls)).collect();
    LimitNow {
        instance,
        used: now.used,
        left: now.left,
        opens_us: now.opens_us,
        learned,
        set,
        held_by,
    }
}

/// A closure lasts at most so long (400 days), so that its end stays a number that Lua holds exactly.
const LONGEST_CLOSURE_US: u64 = 400 * 86_400 * 1_000_000;

/// What lies under some keys at one moment.
struct Seen {
    now_us: i64,
    server: String,
    hashes: Vec<Fields>,
}

fn read_seen(reply: Vec<redis::Value>) -> Result<Seen, redis::ParsingError> {
    let mut values = reply.into_iter();
    let mut next = || values.next().unwrap_or(redis::Value::Nil);
    let now_us = i64::from_redis_value(next())?;
    let server = String::from_redis_value(next())?;
    let hashes = values
        .map(Fields::from_redis_value)
        .collect::<Result<_, _>>()?;
    Ok(Seen {
        now_us,
        server,
        hashes,
    })
}

fn open_closure(now_us: i64, name: &str, closed: Closed) -> Option<Closure> {
    let left = u64::try_from(closed.until_us - now_us).unwrap_or(0);
    let opened = left == 0 && (closed.ramp_us > 0 || closed.until_us + FORGOTTEN_US < now_us);
    (!opened).then(|| Closure {
        name: name.to_owned(),
        for_: Duration::from_micros(left),
        reason: closed.reason,
    })
}

fn slowed(now_us: i64, name: &str, closed: &Closed) -> Option<Slowed> {
    let least_us = closed.slower.now_us(now_us, closed.ramp_us);
    let is_open = closed.ramp_us > 0 && !closed.is_over(now_us);
    Some(Slowed {
        name: name.to_owned(),
        below_per_s: per_s(least_us).filter(|_| is_open)?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "an interval far below 2^52")]
fn per_s(interval_us: i64) -> Option<f64> {
    (interval_us > 0).then(|| 1e6 / interval_us as f64)
}

/// Numbers of asks rise over restarts of a process that keeps its name.
fn first_seq() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

fn client(url: &str) -> Result<Client, redis::RedisError> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2));
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    // Linux alone can be told how long sent bytes may stay without acknowledgement.
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(Duration::from_secs(5));
    Client::open(url.into_connection_info()?.set_tcp_settings(tcp))
}

/// Reconnects without end; a step waits for it no longer than its own time.
fn for_ever() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_number_of_retries(usize::MAX)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(RECONNECT_AT_LEAST_EVERY)
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(ANSWER_WITHIN))
}

/// One try with a clear answer, before the connection that never gives up.
async fn check_eviction(client: &Client, shown: &str) -> Result<(), LimiterError> {
    let failed = |source| LimiterError::Connect {
        url: shown.to_owned(),
        source,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(CONNECT_WITHIN));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(failed)?;
    let memory: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await
        .map_err(failed)?;
    let policy = memory
        .lines()
        .find_map(|line| line.strip_prefix("maxmemory_policy:"));
    match policy.map(str::trim) {
        Some("noeviction") => Ok(()),
        other => Err(LimiterError::Evicts {
            url: shown.to_owned(),
            policy: other.unwrap_or("unknown").to_owned(),
        }),
    }
}
