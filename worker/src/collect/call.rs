//! One call: wait for the grant's start, send once, judge the answer, write the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::output::failures::Failure;
use paceline_protocol::clock::{FleetClock, SendDecision};
use paceline_protocol::connector::cooldown::DrawnLimit;
use paceline_protocol::connector::{
    Advance, Answer, Body, CallContext, Credential, Judged, Position, StepAnswer, StepError,
    digest, provider_trace,
};
use paceline_protocol::http::{HttpAnswer, HttpError, Ready, TooLate};
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::limit::{FURTHEST_US, Grant, Instance, Probed, Rule, Spoken, instance};
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::spec::Retry;
use reqwest::header::HeaderMap;
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::aside::{aside, room_for};
use super::gaps::{Gaps, Leave};
use super::lane::asking::Drawn;
use super::lane::held::ShardInHand;
use super::lane::late::{Late, moves_by};
use super::lane::shared::LaneShared;
use super::on_time;
use super::tokens::SignedIn;
use crate::metrics::Metrics;
use crate::output::finished::CellResult;
use crate::traced::{self, Called};

/// Everything that one call needs.
pub struct Call {
    /// Its shard.
    pub shard: Arc<ShardInHand>,
    /// Its lane.
    pub lane: Arc<LaneShared>,
    /// Whom it tells that it left late.
    pub late: Late,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// The cell.
    pub cell: u64,
    /// Which of the cell's calls.
    pub position: Position,
    /// Attempts at it before that count.
    pub attempts: u32,
    /// What the call draws from.
    pub drawn: Arc<Drawn>,
    /// The token or session that it is signed in with.
    pub signed: Option<SignedIn>,
    /// Its provider refused an earlier token for this very call: from now on that costs attempts.
    pub refused_before: bool,
    /// The permission.
    pub grant: Grant,
    /// The epoch of the fleet's clock that the permission belongs to.
    pub epoch: u64,
    /// The end of the grace: the call is cut off.
    pub cut_off: CancellationToken,
    /// Calls in flight in this process when it was granted.
    pub in_flight: usize,
    /// What lies between the calls of narrow limits.
    pub gaps: Arc<Gaps>,
    /// Its own leave among them.
    pub leave: Leave,
    /// When it had surely left, if that was after its slack; else 0.
    pub left_us: AtomicI64,
}

/// How a call ended.
#[derive(Debug)]
pub enum CallEnd {
    /// It was not sent (late, closed, lost): the cell is as it was.
    NotSent,
    /// The cell has ended.
    Ended(CellResult),
    /// It was answered: the cell has come further.
    Advanced {
        /// What the answer brought.
        advance: Advance,
        /// The fleet's clock at the answer.
        answered_us: i64,
    },
    /// Another attempt is due after the wait.
    Again {
        /// Calls made so far that count.
        attempts: u32,
        /// How long not to call.
        wait: Duration,
    },
    /// The provider closed a scope: no attempt is burnt.
    Closed(CloseScope),
    /// The provider refused the call's credential: that is the credential's or the cell's fault (`lane/refusals.rs`).
    Refused {
        /// What it closes if it is the credential's.
        scope: CloseScope,
        /// How the cell ends if it is the cell's.
        failed: CellResult,
    },
    /// The cell is as it was, and not called again before the wait is over.
    Later(Duration),
    /// The provider does not take the call's token any more; what that means for the cell.
    TokenEnded(Box<CallEnd>),
    /// The grace ended while it was in flight.
    CutOff {
        /// Calls made so far that count.
        attempts: u32,
    },
}

impl CallEnd {
    /// Whether the provider served the call: it took it for a good one, whatever the cell came to.
    pub fn is_served(&self) -> bool {
        self.probed() == Some(Probed::Well)
    }

    /// What it tells of a closure that it was the probe of; `None`: it closes it anew by itself.
    pub fn probed(&self) -> Option<Probed> {
        Some(match self {
            CallEnd::Closed(_) => return None,
            CallEnd::Advanced { .. } => Probed::Well,
            CallEnd::Ended(result) => match &result.failure {
                None => Probed::Well,
                // The last attempt is judged as those before it were.
                Some(failure) if failure.outcome == Outcome::Retryable => Probed::Unanswered,
                Some(failure) if failure.outcome == Outcome::AuthExpired => Probed::NotSent,
                Some(failure) if failure.status == 0 => Probed::NotSent,
                Some(_) => Probed::Well,
            },
            CallEnd::NotSent
            | CallEnd::TokenEnded(_)
            | CallEnd::Refused { .. }
            | CallEnd::Later(_) => Probed::NotSent,
            CallEnd::Again { .. } | CallEnd::CutOff { .. } => Probed::Unanswered,
        })
    }
}

/// What a provider's answer closes.
#[derive(Clone, Debug, PartialEq)]
pub struct CloseScope {
    /// The public name of the credential that was used.
    pub credential: Option<String>,
    /// For how long; `None`: until the reset of the quota.
    pub wait: Option<Duration>,
    /// Why.
    pub outcome: Outcome,
}

/// An answer, or what stood in its place.
struct Attempt {
    status: u16,
    bytes: u64,
    duration: Duration,
    answered_us: i64,
    judged: Judged,
    headers: HeaderMap,
    /// Tells a page from another.
    digest: u64,
    /// Its turn, when the answer is a large one: kept until what was read of it is gone.
    _room: Option<SemaphorePermit<'static>>,
}

impl Call {
    /// Makes the call.
    pub async fn run(mut self) -> CallEnd {
        let credential = self.credential();
        let context = self.context(credential.as_ref());
        let request = match self.shard.at.connector.request(context.clone()) {
            Ok(request) => request,
            Err(error) => return self.ended_without_call(error.to_string()),
        };
        let request = match self.shard.at.http.build(request) {
            Ok(request) => request,
            Err(HttpError::Request(reason)) => return self.ended_without_call(reason),
            Err(error) => return self.ended_without_call(error.to_string()),
        };
        let waiting = Instant::now();
        let Some(late_us) = self.wait_for_start().await else {
            self.give_back();
            return CallEnd::NotSent;
        };
        let sent = Instant::now();
        self.metrics
            .limiter_wait
            .with_label_values(&[self.shard.at.connector.provider()])
            .observe((sent - waiting).as_secs_f64());
        let sent_us = self.lane.fleet_us(sent);
        crate::crash::point("call-before-send");
        let attempt = tokio::select! {
            attempt = self.attempt(request, sent) => attempt,
            () = self.cut_off.cancelled() => Ok(self.cut_off_attempt(sent)),
        };
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(TooLate) => {
                tracing::debug!("a connection came too late: the grant is dropped");
                self.give_back();
                return CallEnd::NotSent;
            }
        };
        crate::crash::point("call-after-answer");
        // What left late is in the ledger as it left: the audit has to see it.
        let sent_us = sent_us.max(self.left_us.load(Ordering::Relaxed));
        self.learn(&attempt, context.endpoint(), sent_us);
        self.account(
            &attempt,
            context.endpoint(),
            credential.as_ref(),
            sent_us,
            late_us,
        );
        if self.cut_off.is_cancelled() && attempt.status == 0 {
            return CallEnd::CutOff {
                attempts: self.attempts + 1,
            };
        }
        self.end(attempt, &context, credential.as_ref())
    }

    fn credential(&self) -> Option<Credential> {
        let place = self.grant.credential?;
        self.shard.at.pool.credentials.get(place).cloned()
    }

    fn context(&self, credential: Option<&Credential>) -> CallContext {
        let values = self.shard.run.plan.matrix.cell(self.cell);
        let context = self.shard.at.connector.cell(values).at(self.grant.start_us);
        let context = match credential {
            Some(credential) => context.with_credential(credential),
            None => context,
        };
        let context = match &self.signed {
            Some(signed) => context.with_token(signed.token.clone()),
            None => context,
        };
        self.shard.at.connector.step(context, &self.position)
    }

    /// Sleeps until the fleet's clock has surely reached the start. Returns how late it is then, in
    /// microseconds; `None` when the call must not be sent any more.
    async fn wait_for_start(&mut self) -> Option<i64> {
        let mut moved = false;
        loop {
            let now = Instant::now();
            match self
                .lane
                .clock(|clock| clock.may_send(&self.grant, self.epoch, now))
            {
                SendDecision::Wait(wait) => {
                    let slack = u64::try_from(self.grant.slack_us).unwrap_or(0);
                    let slack = Duration::from_micros(slack);
                    on_time::sleep_until(now + wait, slack, self.in_flight).await;
                }
                SendDecision::Late if !moved && self.moves(now).await => moved = true,
                SendDecision::Late => {
                    let late_us = self.lane.fleet_us(now) - self.grant.start_us;
                    tracing::debug!(
                        late.us = late_us,
                        slack.us = self.grant.slack_us,
                        "a grant came too late and is dropped"
                    );
                    return None;
                }
                SendDecision::Send => break,
            }
        }
        let now = Instant::now();
        let latest = now + self.left_of_slack(now);
        let provider = self.shard.at.connector.budgets();
        let leave = self
            .gaps
            .leave(provider, &self.drawn, latest, self.in_flight);
        self.leave = leave.await?;
        let now = Instant::now();
        let barred = self.shard.is_lost() || self.lane.is_closed(&self.drawn.names, now);
        // The governor knows the file's numbers alone.
        let changed = !self.drawn.allowed.is_empty();
        let allowed = !barred && (changed || self.shard.at.governor.allows());
        allowed.then(|| self.lane.fleet_us(now) - self.grant.start_us)
    }

    /// Lets a grant that is a little late be used a little later, where that costs the fleet less than dropping it.
    async fn moves(&mut self, now: Instant) -> bool {
        let over_us = self.lane.fleet_us(now) - self.grant.start_us - self.grant.slack_us;
        let known = self.lane.clock(FleetClock::epoch) == self.epoch;
        let by_us = moves_by(&self.drawn.limits, self.grant.slack_us, over_us);
        let Some(by_us) = by_us.filter(|_| known && over_us >= 0) else {
            return false;
        };
        let moved = self.late.move_starts(&self.drawn.limits, by_us).await;
        if moved {
            self.grant.slack_us += by_us;
        }
        moved
    }

    /// Sends; what was surely not sent is no attempt.
    async fn attempt(&self, request: Ready, sent: Instant) -> Result<Attempt, TooLate> {
        let max_body = self.shard.at.connector.max_body();
        let latest = sent + self.left_of_slack(sent);
        let http = &self.shard.at.http;
        let answer = http
            .send_ready(request, latest, max_body, |at| self.passed(at))
            .await;
        let duration = sent.elapsed();
        if !matches!(answer, Err(HttpError::TooLate)) {
            // What broke before anybody said that it had left may have left.
            self.leave.left(sent);
        }
        let answered_us = self.lane.fleet_us(Instant::now());
        let large = answer.as_ref().map_or(0, |answer| answer.body.len());
        let room = room_for(large).await;
        Ok(match answer {
            Err(HttpError::TooLate) => return Err(TooLate),
            Ok(answer) => Attempt {
                status: answer.status,
                bytes: answer.body.len() as u64,
                duration,
                answered_us,
                judged: aside(answer.body.len(), || self.judge(&answer, answered_us)),
                digest: match self.shard.at.connector.compares_bodies() {
                    true => digest(&answer.body),
                    false => 0,
                },
                headers: answer.headers,
                _room: room,
            },
            Err(error) => Attempt {
                status: match error {
                    HttpError::TooLarge { status, .. } => status,
                    _ => 0,
                },
                bytes: 0,
                duration,
                answered_us,
                judged: no_answer(&error),
                headers: HeaderMap::new(),
                digest: 0,
                _room: None,
            },
        })
    }

    /// At `at` the call had surely left.
    fn passed(&self, at: Instant) {
        self.leave.left(at);
        let late_us = self.lane.fleet_us(at) - self.grant.start_us - self.grant.slack_us;
        if late_us > 0 {
            self.left_us
                .store(self.lane.fleet_us(at), Ordering::Relaxed);
            self.late.note(&self.drawn.limits, late_us);
        }
    }

    /// How long from `at` on the call may still be sent.
    fn left_of_slack(&self, at: Instant) -> Duration {
        let left = self.grant.start_us + self.grant.slack_us - self.lane.fleet_us(at);
        Duration::from_micros(u64::try_from(left).unwrap_or(0))
    }

    fn judge(&self, answer: &HttpAnswer, now_us: i64) -> Judged {
        let header = |name: &str| {
            answer
                .headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        self.shard.at.connector.judge(&Answer {
            status: answer.status,
            header: &header,
            body: &answer.body,
            now_us,
        })
    }

    /// What the call cost of each bucket of points, for the ledger; what it took too much or too little of goes back
    /// with the next request for grants.
    fn costs(&self, attempt: &Attempt, endpoint: &str) -> Vec<String> {
        let is_cost = |drawn: &&DrawnLimit| matches!(drawn.instance.rule, Rule::Cost { .. });
        let mut costs = Vec::new();
        for drawn in self.drawn.limits.iter().filter(is_cost) {
            let told = attempt.judged.body.as_ref().and_then(|body| {
                let mut all = self.shard.at.connector.actual(endpoint, body).into_iter();
                all.find(|(scope, _)| scope.limit.name == drawn.instance.limit)
            });
            let actual = told.map_or(drawn.points, |(_, points)| points);
            self.lane.ears(|ears| {
                ears.cost(&drawn.instance, drawn.points, actual, self.grant.start_us);
            });
            costs.push(format!("{}={actual}", drawn.instance.limit));
        }
        costs
    }

    /// The call was not sent: what it took of quotas and of buckets of points goes back.
    fn give_back(&self) {
        let run = &self.shard.run.id;
        let of_us = self.grant.start_us;
        self.late.give_back(Some(run), &self.drawn.limits, of_us);
    }

    /// Keeps what the answer tells of limits for the next request for grants.
    fn learn(&self, attempt: &Attempt, endpoint: &str, sent_us: i64) {
        let connector = &self.shard.at.connector;
        if attempt.status == 0 || !connector.learns() {
            return;
        }
        let header = |name: &str| {
            let value = attempt.headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let spoken = Spoken {
            sent_us,
            answered_us: attempt.answered_us,
        };
        let body = attempt.judged.body.as_ref();
        for (scope, told) in connector.told(endpoint, &header, body, attempt.answered_us) {
            let drawn = self.drawn.limits.iter().map(|drawn| &drawn.instance);
            for limit in drawn.filter(|limit| limit.limit == scope.limit.name) {
                let at_most = scope.learn.as_ref().and_then(|learn| learn.at_most);
                let Ok(file) = instance(&scope.limit, &limit.scope, spoken.answered_us) else {
                    continue;
                };
                let lesson = self.lane.ears(|ears| {
                    let seen = ears.window(limit, &told, &file.rule, spoken);
                    let lesson = told.lesson(&file.rule, &limit.rule, at_most, seen, spoken);
                    ears.hear(limit, &lesson);
                    lesson
                });
                if let Some(until_us) = lesson.shut_until_us(&limit.rule) {
                    self.shut(limit, until_us);
                }
            }
        }
    }

    /// The provider has said that nothing of `limit` is left: calls with a grant in hand are not sent. The fleet hears of
    /// it with the next request for grants.
    fn shut(&self, limit: &Instance, until_us: i64) {
        let now = Instant::now();
        let for_us = (until_us - self.lane.fleet_us(now)).min(FURTHEST_US);
        if let Ok(for_us) = u64::try_from(for_us) {
            self.lane
                .close(&limit.id(), now + Duration::from_micros(for_us));
        }
    }

    fn cut_off_attempt(&self, sent: Instant) -> Attempt {
        let verdict = Verdict {
            outcome: Outcome::Retryable,
            wait: None,
            reason: "cut off by the end of the grace".into(),
        };
        Attempt {
            status: 0,
            bytes: 0,
            duration: sent.elapsed(),
            answered_us: self.lane.fleet_us(Instant::now()),
            judged: Judged {
                verdict,
                body: None,
                rule: None,
            },
            headers: HeaderMap::new(),
            digest: 0,
            _room: None,
        }
    }

    /// Ledger and metrics.
    fn account(
        &self,
        attempt: &Attempt,
        endpoint: &str,
        credential: Option<&Credential>,
        sent_us: i64,
        late_us: i64,
    ) {
        let provider = self.shard.at.connector.provider();
        let verdict = &attempt.judged.verdict;
        let reason = match verdict.outcome {
            Outcome::Ok | Outcome::Empty => String::new(),
            _ => verdict.reason.clone(),
        };
        self.shard.run.ledger.add(&LedgerRow {
            sent_us,
            lane: self.shard.message.lane.clone(),
            provider: provider.to_owned(),
            endpoint: endpoint.to_owned(),
            credential: credential.map(|c| c.name().to_owned()),
            scopes: self.drawn.scopes.clone(),
            allowed: self.drawn.allowed.clone(),
            points: self.costs(attempt, endpoint),
            cell: self.cell,
            page: self.position.call(),
            attempt: self.attempts + 1,
            outcome: verdict.outcome,
            status: attempt.status,
            late_us,
            duration_us: u64::try_from(attempt.duration.as_micros()).unwrap_or(u64::MAX),
            bytes: attempt.bytes,
            reason,
            trace: provider_trace(|name| attempt.headers.get(name)?.to_str().ok()),
        });
        traced::call(
            &self.shard.span,
            &Called {
                provider,
                endpoint,
                cell: self.cell,
                attempt: self.attempts + 1,
                status: attempt.status,
                verdict,
                took: attempt.duration,
            },
        );
        let metrics = &self.metrics;
        metrics
            .requests
            .with_label_values(&[provider, endpoint, verdict.outcome.as_str()])
            .inc();
        metrics
            .request_duration
            .with_label_values(&[provider, endpoint])
            .observe(attempt.duration.as_secs_f64());
        metrics
            .response_bytes
            .with_label_values(&[provider])
            .inc_by(attempt.bytes);
        self.shard.run.spent.add(attempt.duration);
        if self.attempts > 0 {
            metrics.request_attempts.with_label_values(&["retry"]).inc();
        }
        if verdict.outcome == Outcome::Throttled {
            metrics
                .limit_violations
                .with_label_values(&[provider])
                .inc();
        }
    }

    /// What the answer means for the cell.
    fn end(
        &self,
        attempt: Attempt,
        context: &CallContext,
        credential: Option<&Credential>,
    ) -> CallEnd {
        let verdict = &attempt.judged.verdict;
        let of_credential = credential.map(|c| c.name().to_owned());
        match verdict.outcome {
            Outcome::Ok => match &attempt.judged.body {
                Some(body) => aside(attempt.bytes as usize, || {
                    self.advance(&attempt, Some(body), context)
                }),
                None => self.again(&attempt),
            },
            Outcome::Empty => self.advance(&attempt, None, context),
            Outcome::AuthExpired if self.signed.is_some() => {
                CallEnd::TokenEnded(Box::new(match self.refused_before {
                    true => self.again(&attempt),
                    false => CallEnd::NotSent,
                }))
            }
            Outcome::Throttled
            | Outcome::Maintenance
            | Outcome::QuotaExhausted
            | Outcome::AuthExpired => {
                let scope = CloseScope {
                    credential: of_credential,
                    wait: verdict.wait,
                    outcome: verdict.outcome,
                };
                match (scope.outcome, &scope.credential) {
                    (Outcome::AuthExpired, Some(_)) => CallEnd::Refused {
                        scope,
                        failed: self.failure(&attempt, verdict.reason.clone(), None),
                    },
                    _ => CallEnd::Closed(scope),
                }
            }
            Outcome::Retryable => self.again(&attempt),
            Outcome::Permanent => self.failed(&attempt, verdict.reason.clone(), None),
        }
    }

    /// The cell's next step; `body` is `None` for an answer that is rightly empty.
    fn advance(&self, attempt: &Attempt, body: Option<&Body>, context: &CallContext) -> CallEnd {
        let connector = &self.shard.at.connector;
        let header = |name: &str| {
            let values = attempt.headers.get_all(name).iter();
            let values: Vec<&str> = values.filter_map(|v| v.to_str().ok()).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        let answer = StepAnswer {
            body,
            header: &header,
            digest: attempt.digest,
        };
        match connector.advance(&self.position, context, &answer) {
            Ok(mut advance) => {
                match self.shard.run.format.fit_lines(advance.lines) {
                    Ok(lines) => advance.lines = lines,
                    Err(unfit) => {
                        return self.failed(attempt, unfit.to_string(), Some(unfit.column));
                    }
                }
                self.metrics
                    .missing_details
                    .with_label_values(&[connector.provider()])
                    .inc_by(advance.missing);
                CallEnd::Advanced {
                    advance,
                    answered_us: attempt.answered_us,
                }
            }
            Err(error) => {
                self.metrics
                    .steps_failed
                    .with_label_values(&[connector.provider(), error.kind()])
                    .inc();
                let field = match &error {
                    StepError::Misfit(misfit) => Some(misfit.field.clone()),
                    _ => None,
                };
                self.failed(attempt, error.to_string(), field)
            }
        }
    }

    fn again(&self, attempt: &Attempt) -> CallEnd {
        let retry = self.retry();
        let attempts = self.attempts + 1;
        if attempts >= retry.attempts {
            return self.failed(attempt, attempt.judged.verdict.reason.clone(), None);
        }
        let backoff = backoff(retry, attempts, rand::random());
        let verdict = &attempt.judged.verdict;
        // A token that ended is renewed at once.
        let hint = verdict
            .wait
            .filter(|_| verdict.outcome != Outcome::AuthExpired);
        CallEnd::Again {
            attempts,
            wait: hint.unwrap_or_default().max(backoff),
        }
    }

    fn retry(&self) -> Retry {
        let provider = self.shard.at.connector.provider();
        self.shard
            .run
            .plan
            .providers
            .get(provider)
            .map(|p| p.retry)
            .unwrap_or_default()
    }

    fn failed(&self, attempt: &Attempt, reason: String, field: Option<String>) -> CallEnd {
        CallEnd::Ended(self.failure(attempt, reason, field))
    }

    fn failure(&self, attempt: &Attempt, reason: String, field: Option<String>) -> CellResult {
        let outcome = match attempt.judged.verdict.outcome {
            Outcome::Ok => Outcome::Permanent,
            outcome => outcome,
        };
        let failure = Failure {
            cell: self.cell,
            reason,
            outcome,
            status: attempt.status,
            field,
            attempts: self.attempts + 1,
        };
        CellResult::failed(failure, attempt.answered_us)
    }

    fn ended_without_call(&self, reason: String) -> CallEnd {
        self.give_back();
        let failure = Failure {
            cell: self.cell,
            reason,
            outcome: Outcome::Permanent,
            status: 0,
            field: None,
            attempts: self.attempts,
        };
        CallEnd::Ended(CellResult::failed(
            failure,
            self.lane.fleet_us(Instant::now()),
        ))
    }
}

fn no_answer(error: &HttpError) -> Judged {
    let outcome = match error {
        HttpError::Request(_) | HttpError::TooLarge { .. } => Outcome::Permanent,
        HttpError::Broken(_) | HttpError::Timeout(_) | HttpError::TooLate => Outcome::Retryable,
    };
    Judged {
        verdict: Verdict {
            outcome,
            wait: None,
            reason: error.to_string(),
        },
        body: None,
        rule: None,
    }
}

/// Doubles from `from` to `to` with the attempts made; `chance` in 0..1 spreads it over its upper half.
pub(super) fn backoff(retry: Retry, attempts: u32, chance: f64) -> Duration {
    let doubled = retry
        .from
        .0
        .saturating_mul(1u32.checked_shl(attempts - 1).unwrap_or(u32::MAX));
    doubled.min(retry.to.0).mul_f64(0.5 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: Outcome, status: u16) -> CallEnd {
        let failure = Failure {
            cell: 7,
            reason: "no".into(),
            outcome,
            status,
            field: None,
            attempts: 3,
        };
        CallEnd::Ended(CellResult::failed(failure, 1))
    }

    #[test]
    fn a_last_attempt_without_an_answer_opens_nothing() {
        let timed_out = ended(Outcome::Retryable, 0);
        assert_eq!(timed_out.probed(), Some(Probed::Unanswered));
        assert!(!timed_out.is_served());
        assert_eq!(
            ended(Outcome::Retryable, 503).probed(),
            Some(Probed::Unanswered)
        );
        assert_eq!(
            ended(Outcome::Permanent, 0).probed(),
            Some(Probed::NotSent),
            "there was no request"
        );
        assert!(!ended(Outcome::AuthExpired, 401).is_served());
        assert!(ended(Outcome::Permanent, 404).is_served());
        let again = CallEnd::Again {
            attempts: 1,
            wait: Duration::ZERO,
        };
        assert_eq!(again.probed(), Some(Probed::Unanswered));
    }

    #[test]
    fn back_off_doubles_up_to_its_end() {
        let retry = Retry::default();
        let waits: Vec<u128> = [1, 2, 3, 7, 40]
            .map(|n| backoff(retry, n, 1.0).as_millis())
            .into();
        assert_eq!(waits, [500, 1000, 2000, 30_000, 30_000]);
        assert_eq!(backoff(retry, 1, 0.0).as_millis(), 250);
    }
}
