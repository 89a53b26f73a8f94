//! Asking providers whether they are ready before their lanes are published.
//!
//! Such a request is a call like others: it waits for a grant of the fleet and is written to the ledger.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::limit::{Ask, Group, Rule};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::Plan;
use paceline_protocol::spec::{Provider, Ready};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::template;
use reqwest::redirect::Policy;
use uuid::Uuid;

use crate::limits::{limiter_name, unscoped};

/// The endpoint under which these calls are limited and logged.
const ENDPOINT: &str = "ready";

/// How long between two rounds of asking.
pub const BETWEEN_ROUNDS: Duration = Duration::from_secs(5);

/// The providers of a run that have not yet said that they are ready.
pub struct Readiness<'a> {
    plan: &'a Plan,
    limiter: &'a FleetLimiter,
    started: Instant,
    waiting: Vec<Asked<'a>>,
    holder: String,
    /// What was called, for the ledger.
    pub calls: Vec<LedgerRow>,
}

struct Asked<'a> {
    provider: &'a Provider,
    ready: &'a Ready,
    last_answer: String,
}

/// Whether to go on waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Everybody is ready.
    Over,
    /// Somebody is not yet; the text says who and what they answered.
    Longer(String),
    /// Somebody was not in their time.
    InVain(String),
}

impl<'a> Readiness<'a> {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// When a provider wants its `ready` signed, which this version does not do.
    pub fn new(plan: &'a Plan, limiter: &'a FleetLimiter) -> Result<Self> {
        let mut waiting = Vec::new();
        for provider in plan.providers.values() {
            let Some(ready) = &provider.ready else {
                continue;
            };
            anyhow::ensure!(
                !ready.auth,
                "provider {}: `ready` with `auth: true` is not supported yet",
                provider.name
            );
            waiting.push(Asked {
                provider,
                ready,
                last_answer: "not asked yet".into(),
            });
        }
        Ok(Readiness {
            plan,
            limiter,
            started: Instant::now(),
            waiting,
            holder: format!("producer-{}", Uuid::now_v7().simple()),
            calls: Vec::new(),
        })
    }

    /// The name under which the producer takes its grants and writes its ledger.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The providers that need not be waited for (any more).
    pub fn ready(&self) -> Vec<&'a str> {
        let waiting = |name: &str| self.waiting.iter().any(|asked| asked.provider.name == name);
        self.plan
            .providers
            .keys()
            .map(String::as_str)
            .filter(|name| !waiting(name))
            .collect()
    }

    /// Asks everybody who is waited for once.
    ///
    /// # Errors
    /// When Redis gives no grants; a provider's silence is an answer, not an error.
    pub async fn ask(&mut self) -> Result<()> {
        let mut still = Vec::new();
        for mut asked in std::mem::take(&mut self.waiting) {
            let call = self.call(&asked).await?;
            let good = call.outcome == Outcome::Ok;
            asked.last_answer = if call.status == 0 {
                call.reason.clone()
            } else {
                format!("status {}", call.status)
            };
            self.calls.push(call);
            if !good {
                still.push(asked);
            }
        }
        self.waiting = still;
        Ok(())
    }

    /// Whether there is somebody to wait for, and still time.
    pub fn wait(&self) -> Wait {
        let waited = self.started.elapsed();
        let shown = |asked: &Asked<'_>| {
            let patience = crate::show::span(asked.ready.patience.0);
            let name = &asked.provider.name;
            format!(
                "{name} is not ready ({}; asked for up to {patience})",
                asked.last_answer
            )
        };
        if let Some(late) = self
            .waiting
            .iter()
            .find(|asked| waited >= asked.ready.patience.0)
        {
            return Wait::InVain(shown(late));
        }
        match self.waiting.first() {
            Some(_) => Wait::Longer(
                self.waiting
                    .iter()
                    .map(shown)
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            None => Wait::Over,
        }
    }

    async fn call(&self, asked: &Asked<'_>) -> Result<LedgerRow> {
        let url = url(self.plan, asked)?;
        let client = client(asked.provider)?;
        let start = granted(
            self.limiter,
            asked.provider,
            &self.plan.run_ref(),
            &self.holder,
        )
        .await?;
        let sent = Instant::now();
        let answer = client.get(url).send().await;
        let row = LedgerRow {
            sent_us: start.sent_us,
            lane: self.lane(&asked.provider.name),
            provider: asked.provider.name.clone(),
            endpoint: ENDPOINT.into(),
            credential: None,
            scopes: Vec::new(),
            allowed: Vec::new(),
            points: Vec::new(),
            cell: 0,
            page: 0,
            attempt: 1,
            outcome: outcome(&answer),
            status: answer.as_ref().map_or(0, |a| a.status().as_u16()),
            late_us: start.late_us,
            duration_us: u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX),
            bytes: 0,
            reason: reason(&answer),
            trace: None,
        };
        give_back(self.limiter, asked.provider, &self.holder).await?;
        Ok(row)
    }

    fn lane(&self, provider: &str) -> String {
        let segment = self.plan.segments.iter().find(|s| s.provider == provider);
        segment.map_or_else(|| provider.to_owned(), |s| s.lane.clone())
    }
}

/// A call that may be sent now, by the fleet's clock.
struct Start {
    sent_us: i64,
    late_us: i64,
}

/// Waits for a grant of every limit that needs neither cell nor credential.
async fn granted(
    limiter: &FleetLimiter,
    provider: &Provider,
    run: &RunRef,
    holder: &str,
) -> Result<Start> {
    loop {
        let ask = ask(provider, holder, Some(run));
        if ask.limits.is_empty() {
            return Ok(Start {
                sent_us: Timestamp::now().as_microsecond(),
                late_us: 0,
            });
        }
        let answered = limiter.ask(&ask).await?;
        let elapsed_us =
            |since: Instant| i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX);
        // Redis' clock was read at the earliest when we sent: the latest reading is now_us + since then.
        let now_us = || answered.answer.now_us + elapsed_us(answered.received);
        if let Some(grant) = answered.answer.grants.first() {
            sleep_us(grant.start_us - now_us()).await;
            let sent_us = now_us();
            let late_us = sent_us - grant.start_us;
            if late_us <= grant.slack_us {
                return Ok(Start { sent_us, late_us });
            }
            continue;
        }
        let opens = answered
            .answer
            .refusals
            .first()
            .map_or(0, |r| r.opens_us - now_us());
        // At most a few seconds at a time, since an operator or a reset may open it earlier.
        sleep_us(opens.clamp(50_000, 5_000_000)).await;
    }
}

/// Gives the lease of a limit of calls in flight back.
async fn give_back(limiter: &FleetLimiter, provider: &Provider, holder: &str) -> Result<()> {
    let mut none = ask(provider, holder, None);
    let in_flight = |(i, limit): (usize, &paceline_protocol::limit::Instance)| {
        matches!(limit.rule, Rule::Concurrency { .. }).then_some((i, 0))
    };
    none.held = none
        .limits
        .iter()
        .enumerate()
        .filter_map(in_flight)
        .collect();
    if !none.held.is_empty() {
        limiter.renew(&none).await?;
    }
    Ok(())
}

fn ask(provider: &Provider, holder: &str, run: Option<&RunRef>) -> Ask {
    let limits = unscoped(provider, ENDPOINT, Timestamp::now());
    let group = |run: &RunRef| Group {
        run: run.to_string(),
        want: 1,
        limits: (0..limits.len()).collect(),
        choices: Vec::new(),
        spread: false,
        points: Vec::new(),
    };
    Ask {
        provider: limiter_name(provider),
        holder: holder.to_owned(),
        held: Vec::new(),
        groups: run.map(group).into_iter().collect(),
        claims: Vec::new(),
        heard: Vec::new(),
        keeps: false,
        limits,
    }
}

async fn sleep_us(us: i64) {
    if let Ok(us) = u64::try_from(us) {
        tokio::time::sleep(Duration::from_micros(us)).await;
    }
}

fn url(plan: &Plan, asked: &Asked<'_>) -> Result<String> {
    let name = &asked.provider.name;
    let base = asked.provider.base_url.as_deref();
    let base = base.with_context(|| format!("provider {name} has `ready` but no `base_url`"))?;
    let names = serde_json::json!({
        "params": plan.job.params,
        "run": {"id": plan.run, "date": plan.date, "started_at": plan.planned_at},
        "today": plan.date,
    });
    let path = template::environment()
        .render_str(&asked.ready.get, template::value_of(&names))
        .with_context(|| format!("provider {name}: `ready`"))?;
    Ok(format!(
        "{}/{}",
        base.trim_end_matches('/'),
        path.trim_start_matches('/')
    ))
}

fn client(provider: &Provider) -> Result<reqwest::Client> {
    // No redirect is followed: it would be a call that nobody granted, perhaps to somebody else.
    Ok(reqwest::Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(provider.timeout.connect.0)
        .timeout(provider.timeout.total.0)
        .build()?)
}

fn outcome(answer: &reqwest::Result<reqwest::Response>) -> Outcome {
    match answer {
        Ok(answer) if answer.status().is_success() => Outcome::Ok,
        Ok(answer) if answer.status().as_u16() == 429 => Outcome::Throttled,
        _ => Outcome::Retryable,
    }
}

fn reason(answer: &reqwest::Result<reqwest::Response>) -> String {
    match answer {
        Ok(answer) if answer.status().is_success() => String::new(),
        Ok(answer) => format!("status {}", answer.status().as_u16()),
        Err(error) if error.is_timeout() => "timeout".into(),
        Err(error) if error.is_connect() => "no connection".into(),
        Err(_) => "no answer".into(),
    }
}
