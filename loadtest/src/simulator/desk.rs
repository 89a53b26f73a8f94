//! Where every call is judged: keys, limits, faults, answer, log. No I/O but the log's file.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Arrival, Clock};
use super::config::SimulatorConfig;
use super::faults::{Fault, Faults};
use super::gate::{Gate, Refusal};
use super::http::{Answered, Request, retry_after};
use super::limits::Limits;
use super::log::{Call, CallLog, Entry, Verdict};
use super::reply::{self, Reply};
use crate::fares::{Answer, Search};
use crate::referee::Report;

/// The provider's mind. One for all connections.
#[derive(Debug)]
pub struct Desk {
    config: SimulatorConfig,
    clock: Clock,
    keys: HashSet<Arc<str>>,
    gate: Gate,
    attempts: HashMap<Arc<str>, u32>,
    log: CallLog,
}

/// What to do about a call.
#[derive(Debug)]
pub struct Decision {
    /// How to answer.
    pub reply: Reply,
    /// When, counted from now.
    pub delay: Duration,
    /// Its place in the log.
    pub entry: Entry,
    /// Whether it holds a place among the calls in flight.
    pub let_in: bool,
}

/// A verdict with everything that the log notes about it.
struct Judged {
    verdict: Verdict,
    cell: Option<Arc<str>>,
    by: Option<Arc<str>>,
    attempt: u32,
    reply: Reply,
    delay: Duration,
}

impl Judged {
    fn new(verdict: Verdict, by: Option<Arc<str>>, answered: Answered) -> Self {
        Self {
            verdict,
            cell: None,
            by,
            attempt: 0,
            reply: Reply::Whole(answered),
            delay: Duration::ZERO,
        }
    }
}

impl Desk {
    /// A provider that has seen no call.
    ///
    /// # Errors
    /// When the log's file cannot be created.
    pub fn new(config: SimulatorConfig, clock: Clock) -> io::Result<Self> {
        Ok(Self {
            log: CallLog::create(config.log_file.as_deref())?,
            keys: config.keys.iter().map(|key| Arc::from(&**key)).collect(),
            gate: Gate::new(config.limits.clone()),
            attempts: HashMap::new(),
            clock,
            config,
        })
    }

    /// Judges a call by its arrival.
    pub fn decide(&mut self, request: &Request, at: Arrival) -> Decision {
        let key = request.key.as_deref().map(|text| self.key(text));
        let search = self.search(request);
        let judged = match request.path() {
            "/health" => self.health(at),
            _ => self.fares(&search, key.as_ref(), at),
        };
        let let_in = judged.verdict.was_let_in();
        let mut reply = judged.reply;
        if let Reply::Whole(answered) = &mut reply {
            for (name, value) in self.gate.told(at) {
                *answered = answered.clone().with(name, value);
            }
        }
        let entry = self.log.open(Call {
            arrived_us: at.us,
            wall_us: at.wall_us,
            key,
            target: judged.cell.is_none().then(|| Arc::from(&*request.target)),
            cell: judged.cell,
            verdict: judged.verdict,
            by: judged.by,
            attempt: judged.attempt,
            in_flight: self.gate.in_flight(),
            status: 0,
            duration_us: None,
        });
        Decision {
            reply,
            delay: judged.delay,
            entry,
            let_in,
        }
    }

    /// Notes the end of a call; `status` is 0 when none was sent.
    pub fn finish(&mut self, entry: Entry, let_in: bool, status: u16) {
        if let_in {
            self.gate.leave();
        }
        self.log.close(entry, status, self.clock.now_us());
    }

    /// Every call so far.
    pub fn calls(&self) -> &[Call] {
        self.log.calls()
    }

    /// The referee's count against the limits of now.
    pub fn report(&self) -> Report {
        Report::of(self.log.calls(), self.gate.limits())
    }

    /// The configuration with the faults and limits of now.
    pub fn config(&self) -> &SimulatorConfig {
        &self.config
    }

    /// Other faults from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.config.faults = faults;
    }

    /// Other limits from now on; the calls so far count under them.
    pub fn set_limits(&mut self, limits: Limits) {
        let mut gate = Gate::new(limits.clone());
        let counts_health = limits.count_health;
        for call in self
            .log
            .calls()
            .iter()
            .filter(|call| call.verdict.was_let_in())
        {
            if call.verdict != Verdict::Health || counts_health {
                let (us, wall_us) = (call.arrived_us, call.wall_us);
                gate.remember(Arrival { us, wall_us }, call.key.as_ref());
            }
        }
        gate.set_in_flight(self.gate.in_flight());
        self.gate = gate;
        self.config.limits = limits;
    }

    /// Forgets log, attempts and what the limits have counted; calls in flight stay in flight.
    pub fn reset(&mut self) {
        let in_flight = self.gate.in_flight();
        self.log.clear();
        self.attempts.clear();
        self.gate = Gate::new(self.config.limits.clone());
        self.gate.set_in_flight(in_flight);
    }

    /// Brings the log's file up to date.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }

    fn health(&mut self, at: Arrival) -> Judged {
        let entered = match self.gate.limits().count_health {
            true => self.gate.enter(at, None),
            false => {
                self.gate.enter_freely();
                Ok(())
            }
        };
        match entered {
            Ok(()) => Judged::new(
                Verdict::Health,
                None,
                Answered::json(200, r#"{"status":"up"}"#),
            ),
            Err(refusal) => self.refused(refusal, at),
        }
    }

    fn fares(
        &mut self,
        search: &Result<Search, String>,
        key: Option<&Arc<str>>,
        at: Arrival,
    ) -> Judged {
        if !key.is_some_and(|key| self.keys.contains(key)) {
            let answered = Answered::error(401, "BAD_KEY", "this key is not known");
            return Judged::new(Verdict::Refused, Some("key".into()), answered);
        }
        let cell = search
            .as_ref()
            .ok()
            .map(|search| Arc::from(search.to_string()));
        let judged = match self.gate.enter(at, key) {
            Err(refusal) => self.refused(refusal, at),
            Ok(()) => self.let_in(search, cell.as_ref(), at),
        };
        Judged { cell, ..judged }
    }

    fn let_in(
        &mut self,
        search: &Result<Search, String>,
        cell: Option<&Arc<str>>,
        at: Arrival,
    ) -> Judged {
        match (search, cell) {
            (Ok(search), Some(cell)) => self.answered(search, cell, at),
            (Err(why), _) => {
                let answered = Answered::error(400, "BAD_REQUEST", why);
                Judged::new(Verdict::BadRequest, Some(why.as_str().into()), answered)
            }
            (Ok(_), None) => unreachable!("a search has a cell"),
        }
    }

    fn answered(&mut self, search: &Search, cell: &Arc<str>, at: Arrival) -> Judged {
        let attempt = self.next_attempt(cell);
        let seed = self.config.world.seed;
        let answer = self.config.world.answer(search);
        let fault = self
            .config
            .faults
            .of(seed, cell, attempt)
            .filter(|f| f.touches(&answer));
        let (reply, extra) = reply::of(search, &answer, fault, at.wall_us);
        Judged {
            verdict: verdict(&answer, fault),
            cell: None,
            by: fault.map(|fault| fault.word().into()),
            attempt,
            reply,
            delay: self.config.latency.of(seed, cell, attempt) + extra,
        }
    }

    fn refused(&self, refusal: Refusal, at: Arrival) -> Judged {
        let form = self.gate.limits().retry_after;
        let answered = match refusal.is_quota {
            true => Answered::error(429, "DAILY_QUOTA", "the quota of this key is used up"),
            false => {
                let wait = refusal
                    .wait
                    .and_then(|wait| retry_after(form, wait, at.wall_us));
                reply::rate_limited(wait)
            }
        };
        Judged::new(Verdict::Refused, Some(refusal.by), answered)
    }

    fn next_attempt(&mut self, cell: &Arc<str>) -> u32 {
        let attempts = self.attempts.entry(cell.clone()).or_default();
        *attempts += 1;
        *attempts
    }

    fn key(&self, text: &str) -> Arc<str> {
        self.keys.get(text).cloned().unwrap_or_else(|| text.into())
    }

    fn search(&self, request: &Request) -> Result<Search, String> {
        if request.method != "GET" || request.path() != "/v1/fares" {
            return Err(format!("there is no {} {}", request.method, request.path()));
        }
        let parameter = |name: &'static str| {
            request
                .parameter(name)
                .ok_or_else(|| format!("{name} is missing"))
        };
        Search::new(
            &parameter("origin")?,
            &parameter("destination")?,
            &parameter("depart")?,
            &parameter("return")?,
            self.config.lenient,
        )
        .map_err(|error| error.to_string())
    }
}

fn verdict(answer: &Answer, fault: Option<&Fault>) -> Verdict {
    match (fault, answer) {
        (Some(fault), _) if !fault.is_harmless() => Verdict::Fault,
        (_, Answer::Offers(_)) => Verdict::Served,
        (_, Answer::EmptyList | Answer::NotFound) => Verdict::Empty,
    }
}
