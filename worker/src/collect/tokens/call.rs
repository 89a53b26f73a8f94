//! One token request or log-in: a call like others. It waits for a grant of every limit that it draws from, is sent
//! in time or not at all, and is written to the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use paceline_protocol::clock::SendDecision;
use paceline_protocol::connector::{Credential, HttpRequest, NotRequestable, TokenAnswer};
use paceline_protocol::http::{HttpAnswer, HttpError};
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::limit::{Grant, Instance, Probed, Refusal, Why};
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::stores::marks;

use super::one_time::{Codes, step_at};
use super::{AWAY, LEASE, Lease, WAIT_HERE, Work, retryable};
use crate::collect::gaps::Leave;
use crate::collect::lane::asking::{Asking, Drawn, Kin, Leases, Wish};
use crate::collect::lane::kept;

/// How a request ended.
pub(super) enum Called {
    /// Nothing was sent: it is made again.
    NotSent,
    /// Somebody else has the lease.
    LeaseLost,
    /// Its limits stay closed for so long.
    Wait(Duration),
    /// The credential is closed until somebody looks.
    Dead,
    /// There is no such request.
    Unfit(String),
    /// It was sent.
    Answered(Answered),
}

/// A request that was sent.
pub(super) struct Answered {
    /// What the answer means.
    pub answer: TokenAnswer,
    /// What it drew from.
    pub drawn: Arc<Drawn>,
    /// When the answer was there.
    pub at: Instant,
    /// The number of the refresh token that it used.
    pub number: u64,
    /// It was to find out whether what was closed opens again.
    pub probe: bool,
}

/// A permission with what belongs to it.
struct Allowed {
    grant: Grant,
    drawn: Arc<Drawn>,
    epoch: u64,
}

/// A request that is ready to be sent.
struct Prepared {
    request: HttpRequest,
    credential: Credential,
    number: u64,
    /// The instant that its templates saw.
    at_us: i64,
}

/// How a request was sent.
struct Sent {
    at: Instant,
    /// On the fleet's clock.
    us: i64,
    /// How long after the grant's start.
    late_us: i64,
    attempt: u32,
}

/// What the ledger keeps of an answer; nothing of one that did not come.
#[derive(Default)]
struct Seen {
    status: u16,
    bytes: u64,
    trace: Option<String>,
}

impl Seen {
    fn of(answer: &HttpAnswer) -> Self {
        Seen {
            status: answer.status,
            bytes: answer.body.len() as u64,
            trace: answer.trace(),
        }
    }
}

impl Work<'_> {
    /// Makes one request under `lease`.
    pub(super) async fn request(&self, lease: &Lease, codes: &mut Codes, attempt: u32) -> Called {
        if let Err(called) = self.wait_for_code(codes).await {
            return called;
        }
        let prepared = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(called) => return called,
        };
        // Building took time, and so may have waiting: is it still ours to send?
        let kept = self.state().keep_token_lease(
            self.provider,
            self.name(),
            self.holder(),
            lease.fence,
            LEASE,
        );
        match kept.await {
            Ok(true) => {}
            Ok(false) => return Called::LeaseLost,
            Err(_) => return Called::Wait(AWAY),
        }
        let allowed = match self.grant().await {
            Ok(allowed) => allowed,
            Err(called) => return called,
        };
        let start_us = allowed.grant.start_us;
        let prepared = match self.with_code_of(prepared, start_us).await {
            Ok(prepared) => prepared,
            Err(called) => {
                self.drop_grant(&allowed).await;
                self.give_leases_back(&allowed.drawn).await;
                return called;
            }
        };
        if !self.use_code(lease, codes, prepared.at_us).await {
            self.drop_grant(&allowed).await;
            self.give_leases_back(&allowed.drawn).await;
            return Called::LeaseLost;
        }
        let drawn = allowed.drawn.clone();
        let called = self.send(allowed, prepared, attempt).await;
        self.give_leases_back(&drawn).await;
        if self.tokens.one_time && matches!(called, Called::NotSent) {
            codes.not_sent(step_at(start_us));
        }
        called
    }

    /// Waits until a one-time code may be used.
    async fn wait_for_code(&self, codes: &mut Codes) -> Result<(), Called> {
        if !self.tokens.one_time {
            return Ok(());
        }
        let now_us = || self.of.lane.fleet_us(Instant::now());
        if !codes.is_known() {
            match self.used_codes_before().await {
                Ok(true) => codes.lost(now_us()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(provider.name = self.provider, error = %error, "a log-in waits for S3");
                    return Err(Called::Wait(AWAY));
                }
            }
        }
        let wait = codes.wait(now_us());
        if !wait.is_zero() {
            tracing::info!(
                provider.name = self.provider,
                credential = self.name(),
                wait.s = wait.as_secs_f64(),
                "a log-in waits for the next one-time code"
            );
            self.pause(wait).await;
        }
        Ok(())
    }

    async fn prepare(&self) -> Result<Prepared, Called> {
        let newest = self.newest().await.map_err(|error| {
            tracing::warn!(provider.name = self.provider, error = %error, "a token request waits for S3");
            Called::Wait(AWAY)
        })?;
        let at_us = self.of.lane.fleet_us(Instant::now());
        let request = self.build(newest.credential.clone(), at_us).await;
        Ok(Prepared {
            request: request.map_err(|error| Called::Unfit(error.to_string()))?,
            credential: newest.credential,
            number: newest.number,
            at_us,
        })
    }

    /// The request as it is sent at `start_us`: a one-time code must be that of its step.
    async fn with_code_of(&self, prepared: Prepared, start_us: i64) -> Result<Prepared, Called> {
        if !self.tokens.one_time || step_at(prepared.at_us) == step_at(start_us) {
            return Ok(prepared);
        }
        let request = self.build(prepared.credential.clone(), start_us).await;
        Ok(Prepared {
            request: request.map_err(|error| Called::Unfit(error.to_string()))?,
            at_us: start_us,
            ..prepared
        })
    }

    /// Beside the collector's thread: signing by bcrypt takes a tenth of a second.
    async fn build(
        &self,
        credential: Credential,
        at_us: i64,
    ) -> Result<HttpRequest, NotRequestable> {
        let (shard, cell) = (self.of.shard.clone(), self.of.cell);
        let built = tokio::task::spawn_blocking(move || {
            let connector = &shard.at.connector;
            let tokens = connector.tokens().expect("its calls need a token");
            let context = connector.cell(shard.run.plan.matrix.cell(cell));
            let context = context.at(at_us).with_credential(&credential);
            connector.token_request(tokens, connector.token_context(context))
        });
        built.await.expect("building a request does not panic")
    }

    /// Uses the code of an instant up in the fleet's record; true when it may be sent.
    async fn use_code(&self, lease: &Lease, codes: &mut Codes, at_us: i64) -> bool {
        let step = step_at(at_us);
        if !self.tokens.one_time {
            return true;
        }
        if codes.is_new(step) {
            let used = self.state().use_one_time_step(
                self.provider,
                self.name(),
                self.holder(),
                lease.fence,
                step,
            );
            if !used.await.unwrap_or(false) {
                return false;
            }
        }
        codes.used(step);
        true
    }

    /// Waits for a grant of every limit that the request draws from.
    async fn grant(&self) -> Result<Allowed, Called> {
        let endpoint = self.tokens.endpoint();
        loop {
            if self.of.context.shutdown.is_draining() {
                return Err(Called::NotSent);
            }
            let wish = Wish {
                held: 0,
                cell: self.of.cell,
            };
            let now_us = self.of.lane.fleet_us(Instant::now());
            let mut asking = Asking::default();
            let (shard, place) = (&self.of.shard, Some(self.of.place));
            Kin::of(shard, self.of.cell, endpoint.to_owned(), place)
                .and_then(|kin| asking.add(wish, kin, shard, now_us))
                .map_err(|error| Called::Unfit(error.to_string()))?;
            let ask = asking.ask(
                self.budgets(),
                self.holder(),
                &Leases::default(),
                Vec::new(),
            );
            let answered = match self.of.context.limiter.ask(&ask).await {
                Ok(answered) => answered,
                Err(error) => {
                    tracing::warn!(provider.name = self.provider, error = %error, "no grant for a token request: nothing is called until Redis answers");
                    return Err(Called::Wait(AWAY));
                }
            };
            let answer = answered.answer;
            asking.numbers_in_force(&answer);
            let epoch = self
                .of
                .lane
                .observe(answer.now_us, answered.sent, answered.received);
            if let Some(grant) = answer.grants.first().copied()
                && let Some((_, drawn)) = asking.grant(grant.group, grant.credential)
            {
                return Ok(Allowed {
                    grant,
                    drawn,
                    epoch,
                });
            }
            match answer.refusals.first() {
                Some(refusal) => self.wait_for(refusal, &asking, answer.now_us).await?,
                None => self.pause(AWAY).await,
            }
        }
    }

    async fn wait_for(
        &self,
        refusal: &Refusal,
        asking: &Asking,
        now_us: i64,
    ) -> Result<(), Called> {
        let limit = refusal.limit.and_then(|place| asking.limit_at(place));
        match (refusal.why, limit) {
            (Why::Dead, None) => Err(Called::Dead),
            (Why::Mark, Some(quota)) => {
                self.put_mark(quota, now_us).await;
                Ok(())
            }
            (Why::Unset, _) => {
                if !kept::put_back(&self.of.context, self.budgets()).await {
                    self.pause(AWAY).await;
                }
                Ok(())
            }
            _ => {
                let wait = refusal.single_call_again(now_us);
                // In the middle of a log-in, a limit of a few calls a minute is waited for.
                if refusal.why != Why::Paced && wait > WAIT_HERE {
                    return Err(Called::Wait(wait));
                }
                self.pause(wait).await;
                Ok(())
            }
        }
    }

    async fn put_mark(&self, quota: &Instance, seen_us: i64) {
        let context = &self.of.context;
        let objects = &context.parting.stores.objects;
        let put = marks::advance(
            objects,
            &context.limiter,
            &context.prefix,
            self.budgets(),
            quota,
            seen_us,
        );
        if let Err(error) = put.await {
            tracing::warn!(provider.name = self.provider, limit.name = quota.limit, error = %error, "the quota's next mark could not be put; no call is made beyond the last one");
            self.pause(AWAY).await;
        }
    }

    /// Waits for the start, sends once, judges.
    async fn send(&self, allowed: Allowed, prepared: Prepared, attempt: u32) -> Called {
        let ready = match self.of.shard.at.http.build(prepared.request) {
            Ok(ready) => ready,
            Err(error) => {
                self.drop_grant(&allowed).await;
                return Called::Unfit(error.to_string());
            }
        };
        let Some((late_us, leave)) = self.wait_for_start(&allowed).await else {
            self.drop_grant(&allowed).await;
            return Called::NotSent;
        };
        let at = Instant::now();
        let sent = Sent {
            at,
            us: self.of.lane.fleet_us(at),
            late_us,
            attempt,
        };
        crate::crash::point("token-before-send");
        let left = allowed.grant.start_us + allowed.grant.slack_us - sent.us;
        let latest = at + Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let at = &self.of.shard.at;
        let answer = tokio::select! {
            answer = at.http.send_ready(ready, latest, at.connector.max_body(), |at| leave.left(at)) => answer,
            () = self.of.cut_off() => Err(HttpError::Broken("cut off by the end of the grace".into())),
        };
        crate::crash::point("token-after-answer");
        let answered = Instant::now();
        let (answer, seen) = match answer {
            Err(HttpError::TooLate) => {
                self.drop_grant(&allowed).await;
                return Called::NotSent;
            }
            Err(error) => {
                leave.left(sent.at);
                let again = TokenAnswer::Again(retryable(error.to_string()));
                (again, Seen::default())
            }
            Ok(answer) => (self.judge(&answer), Seen::of(&answer)),
        };
        self.account(&allowed, &answer, &sent, seen);
        match &answer {
            TokenAnswer::Granted(_) => self.probed(&allowed, Probed::Well).await,
            TokenAnswer::Again(_) if self.of.has_one => {
                self.probed(&allowed, Probed::Unanswered).await;
            }
            // Closes it anew by itself.
            TokenAnswer::Again(_) | TokenAnswer::Refused(_) | TokenAnswer::Closed(_) => {}
        }
        Called::Answered(Answered {
            answer,
            drawn: allowed.drawn,
            at: answered,
            number: prepared.number,
            probe: allowed.grant.probe && !self.of.has_one,
        })
    }

    /// Returns how late the start is, and the leave of the narrow limits; `None` when the call must not be sent any more.
    async fn wait_for_start(&self, allowed: &Allowed) -> Option<(i64, Leave)> {
        let lane = &self.of.lane;
        loop {
            let now = Instant::now();
            match lane.clock(|clock| clock.may_send(&allowed.grant, allowed.epoch, now)) {
                SendDecision::Wait(wait) => tokio::time::sleep_until((now + wait).into()).await,
                SendDecision::Late => return None,
                SendDecision::Send => break,
            }
        }
        let now = Instant::now();
        let left = allowed.grant.start_us + allowed.grant.slack_us - lane.fleet_us(now);
        let latest = now + Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let gaps = &self.of.context.gaps;
        let leave = gaps
            .leave(self.budgets(), &allowed.drawn, latest, 1)
            .await?;
        let now = Instant::now();
        let barred =
            lane.is_closed(&allowed.drawn.names, now) || self.of.context.shutdown.is_draining();
        let allowed_here = !barred && self.of.shard.at.governor.allows();
        allowed_here.then(|| (lane.fleet_us(now) - allowed.grant.start_us, leave))
    }

    fn judge(&self, answer: &HttpAnswer) -> TokenAnswer {
        let now_us = self.of.lane.fleet_us(Instant::now());
        answer.judge_token(&self.of.shard.at.connector, self.tokens, now_us)
    }

    /// Ledger and metrics.
    fn account(&self, allowed: &Allowed, answer: &TokenAnswer, sent: &Sent, seen: Seen) {
        let Verdict {
            outcome, reason, ..
        } = answer.verdict();
        let (endpoint, duration) = (self.tokens.endpoint(), sent.at.elapsed());
        self.of.shard.run.ledger.add(&LedgerRow {
            sent_us: sent.us,
            lane: self.of.shard.message.lane.clone(),
            provider: self.provider.to_owned(),
            endpoint: endpoint.to_owned(),
            credential: Some(self.name().to_owned()),
            scopes: allowed.drawn.scopes.clone(),
            allowed: allowed.drawn.allowed.clone(),
            points: allowed.drawn.points(),
            cell: self.of.cell,
            page: 0,
            attempt: sent.attempt,
            outcome,
            status: seen.status,
            late_us: sent.late_us,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            bytes: seen.bytes,
            reason,
            trace: seen.trace,
        });
        let metrics = &self.of.context.metrics;
        let outcome_label = [self.provider, endpoint, outcome.as_str()];
        metrics.requests.with_label_values(&outcome_label).inc();
        metrics
            .request_duration
            .with_label_values(&[self.provider, endpoint])
            .observe(duration.as_secs_f64());
        metrics
            .response_bytes
            .with_label_values(&[self.provider])
            .inc_by(seen.bytes);
        metrics
            .limiter_permits
            .with_label_values(&[self.provider, "", "granted"])
            .inc();
        if outcome == Outcome::Throttled {
            metrics
                .limit_violations
                .with_label_values(&[self.provider])
                .inc();
        }
    }

    /// Nothing was sent: what the grant took of quotas and of buckets of points goes back.
    async fn drop_grant(&self, allowed: &Allowed) {
        let Allowed { grant, drawn, .. } = allowed;
        self.of.late.give_back(None, &drawn.limits, grant.start_us);
        self.probed(allowed, Probed::NotSent).await;
    }

    /// The leases that the request held.
    async fn give_leases_back(&self, drawn: &Drawn) {
        if drawn.leases.is_empty() {
            return;
        }
        let mut leases = Leases::default();
        leases.take(&drawn.leases);
        leases.give_back(&drawn.leases);
        let none = leases.renewal(self.budgets(), self.holder(), Vec::new());
        if let Err(error) = self.of.context.limiter.renew(&none).await {
            tracing::debug!(error = %error, "a lease was not given back; it ends by itself");
        }
    }

    /// Tells how the request ended when it was the one that tries whether a closure is over.
    async fn probed(&self, allowed: &Allowed, how: Probed) {
        if !allowed.grant.probe {
            return;
        }
        let names: Vec<&str> = allowed.drawn.names.iter().map(String::as_str).collect();
        let start_us = allowed.grant.start_us;
        if let Err(error) = self
            .of
            .context
            .limiter
            .probed(self.budgets(), &names, start_us, how)
            .await
        {
            tracing::warn!(provider.name = self.provider, error = %error, "how a probe ended did not reach the fleet");
        }
    }
}
