//! Waiting for a grant: of every limit that one call draws from, with a credential that has budget.

use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::connector::CallContext;
use paceline_protocol::connector::cooldown::DrawnLimit;
use paceline_protocol::limit::{
    Answer, Ask, Choice, Grant, Group, Instance, LEASE_US, Refusal, Rule, Why,
};
use paceline_protocol::stores::limiter::Answered;
use paceline_protocol::stores::marks;

use super::Caller;
use super::draw::drawn;
use crate::show;

/// How long between two looks at most: an operator or a reset may open it earlier.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Permission for one call, with what it draws from and the fleet's clock.
pub(super) struct Allowed {
    pub grant: Grant,
    pub drawn: Vec<DrawnLimit>,
    pub allowed: Vec<String>,
    answered: Answered,
}

impl Allowed {
    /// The latest that the fleet's clock may show.
    pub fn now_us(&self) -> i64 {
        self.answered.answer.now_us + micros(self.answered.sent.elapsed())
    }

    /// Waits until the start has surely come; the last instant for sending, `None` when that is over.
    pub async fn wait_for_start(&self) -> Option<Instant> {
        let surely = self.answered.answer.now_us + micros(self.answered.received.elapsed());
        if let Ok(wait) = u64::try_from(self.grant.start_us - surely) {
            tokio::time::sleep(Duration::from_micros(wait)).await;
        }
        let left = self.grant.start_us + self.grant.slack_us - self.now_us();
        let left = u64::try_from(left).ok()?;
        Some(Instant::now() + Duration::from_micros(left))
    }
}

/// One call's limits as they are asked for.
struct Wanted {
    limits: Vec<DrawnLimit>,
    /// How many of them come before those of credentials.
    shared: usize,
    choices: Vec<Choice>,
}

impl Wanted {
    fn ask(&self, caller: &Caller<'_>) -> Ask {
        let points = |(place, drawn): (usize, &DrawnLimit)| (place, drawn.points);
        let group = Group {
            run: asks_for(&caller.run),
            want: 1,
            limits: (0..self.shared).collect(),
            choices: self.choices.clone(),
            spread: false,
            yields: false,
            points: self.limits.iter().enumerate().map(points).collect(),
        };
        Ask {
            groups: vec![group],
            ..caller.holding(&self.limits, 0)
        }
    }

    fn allowed(&self, grant: Grant, answered: Answered) -> Allowed {
        let chosen = |choice: &&Choice| Some(choice.credential) == grant.credential;
        let own = self.choices.iter().find(chosen);
        let own = own.map_or(&[] as &[usize], |choice| &choice.limits);
        let places: Vec<usize> = (0..self.shared).chain(own.iter().copied()).collect();
        let changed = answered.answer.changed.iter();
        let changed = changed.filter(|(place, _)| places.contains(place));
        let allowed = changed.map(|(place, numbers)| {
            let limit = &self.limits[*place].instance.limit;
            format!("{limit}={numbers}")
        });
        Allowed {
            grant,
            allowed: allowed.collect(),
            drawn: places.iter().map(|p| self.limits[*p].clone()).collect(),
            answered,
        }
    }
}

/// The name under which a run's grants to the producer are counted: beside those to workers, which say whether any has begun.
pub fn asks_for(run: &str) -> String {
    format!("{run}#producer")
}

impl Caller<'_> {
    /// Waits for a grant; a text when it would not come before `until`.
    pub(super) async fn granted(
        &self,
        context: &CallContext,
        picked: Option<usize>,
        until: Instant,
    ) -> Result<Result<Allowed, String>> {
        let mut now_us = Timestamp::now().as_microsecond();
        loop {
            let wanted = self.wanted(context, picked, now_us)?;
            let answered = self.fleet.limiter.ask(&wanted.ask(self)).await?;
            now_us = answered.answer.now_us;
            if let Some(grant) = answered.answer.grants.first().copied() {
                return Ok(Ok(wanted.allowed(grant, answered)));
            }
            if let Some(why) = self.wait(&answered.answer, &wanted, until).await? {
                return Ok(Err(why));
            }
        }
    }

    fn wanted(&self, context: &CallContext, picked: Option<usize>, now_us: i64) -> Result<Wanted> {
        let mut limits = drawn(&self.connector, context, false, self.lenient, now_us)?;
        let shared = limits.len();
        let mut choices = Vec::new();
        for (credential, with) in self.pool.credentials.iter().enumerate() {
            if picked.is_some_and(|picked| picked != credential) {
                continue;
            }
            let context = context.clone().with_credential(with);
            let own = drawn(&self.connector, &context, true, self.lenient, now_us)?;
            let places = limits.len()..limits.len() + own.len();
            limits.extend(own);
            choices.push(Choice {
                credential,
                name: with.name().to_owned(),
                limits: places.collect(),
            });
        }
        Ok(Wanted {
            limits,
            shared,
            choices,
        })
    }

    /// Waits until asking again is worth it; a text when that would be after `until`.
    async fn wait(
        &self,
        answer: &Answer,
        wanted: &Wanted,
        until: Instant,
    ) -> Result<Option<String>> {
        let Some(refusal) = answer.refusals.first() else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return Ok(None);
        };
        let limit = refusal.limit.and_then(|place| wanted.limits.get(place));
        match (refusal.why, limit) {
            (Why::Mark, Some(quota)) => {
                let archive = self.fleet.archive;
                marks::advance(
                    &archive.objects,
                    self.fleet.limiter,
                    &archive.fleet.prefix,
                    self.connector.budgets(),
                    &quota.instance,
                    answer.now_us,
                )
                .await?;
                return Ok(None);
            }
            (Why::Unset, _) => {
                self.kept().put_back(self.fleet.limiter).await?;
                return Ok(None);
            }
            _ => {}
        }
        let opens_us = refusal.opens_us - answer.now_us;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || (refusal.why != Why::Paced && opens_us > micros(left)) {
            let limit = limit.map(|drawn| &drawn.instance);
            return Ok(Some(why(self.connector.provider(), refusal, limit)));
        }
        let wait = refusal.single_call_again(answer.now_us);
        tokio::time::sleep(wait.min(LOOK_AGAIN)).await;
        Ok(None)
    }

    /// A request that says how many calls of ours hold a lease of each limit of calls in flight, and wants nothing.
    pub(super) fn holding(&self, limits: &[DrawnLimit], calls: u64) -> Ask {
        let leased = |(place, drawn): (usize, &DrawnLimit)| {
            matches!(drawn.instance.rule, Rule::Concurrency { .. }).then_some((place, calls))
        };
        Ask {
            held: limits.iter().enumerate().filter_map(leased).collect(),
            limits: limits.iter().map(|drawn| drawn.instance.clone()).collect(),
            ..Ask::nothing(self.connector.budgets(), &self.holder)
        }
    }

    /// Keeps the leases of a call in flight. Never returns.
    pub(super) async fn keep_leases(&self, allowed: &Allowed) {
        let keep = Duration::from_micros(LEASE_US.unsigned_abs() / 4);
        loop {
            tokio::time::sleep(keep).await;
            let held = self.holding(&allowed.drawn, 1);
            if !held.held.is_empty()
                && let Err(error) = self.fleet.limiter.renew(&held).await
            {
                tracing::debug!(error = %error, "the lease of a call was not kept");
            }
        }
    }

    /// Gives the leases of a call back.
    pub(super) async fn give_back(&self, allowed: &Allowed) -> Result<()> {
        let none = self.holding(&allowed.drawn, 0);
        if !none.held.is_empty() {
            self.fleet.limiter.renew(&none).await?;
        }
        Ok(())
    }
}

/// What a person reads.
fn why(provider: &str, refusal: &Refusal, limit: Option<&Instance>) -> String {
    let who = match limit {
        Some(limit) if limit.scope.is_empty() => format!("limit {}", limit.limit),
        Some(limit) => format!("limit {} of {}", limit.limit, limit.scope),
        None if refusal.key => "every credential".into(),
        None => provider.to_owned(),
    };
    let what = match refusal.why {
        Why::Paced => "gave no start in time",
        Why::InFlight => "has no room for another call",
        Why::Quota => "is used up",
        Why::Held => "is held by an operator",
        Why::Dead => {
            return format!(
                "{who} is closed until somebody looks (`producer limits {provider}`; `producer resume` or `retry` opens it)"
            );
        }
        Why::Newer => {
            return format!(
                "the budgets of {provider} are kept by a newer build: upgrade this producer"
            );
        }
        Why::Closed | Why::Mark | Why::Window | Why::Unset => "is closed",
    };
    let opens = show::instant(refusal.opens_us);
    format!("{who} {what} until {opens}")
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
