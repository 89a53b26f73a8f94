//! Asking providers whether they are ready before their lanes are published.
//!
//! Such a request is a call like others: it waits for a grant of the fleet and is written to the ledger. With
//! `auth: true` it is signed as the provider's calls are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indexmap::IndexMap;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Method, Provider, Ready, Request};
use uuid::Uuid;

use crate::calling::{Called, Caller, Fleet, Sent};

/// The endpoint under which these calls are limited and logged.
const ENDPOINT: &str = "ready";

/// How long a question waits for its grant: longer, and the provider is not ready yet.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long between two rounds of asking.
pub const BETWEEN_ROUNDS: Duration = Duration::from_secs(5);

/// The providers of a run that have not yet said that they are ready.
pub struct Readiness<'a> {
    plan: &'a Plan,
    started: Instant,
    waiting: Vec<Asked<'a>>,
    holder: String,
    /// What was called, for the ledger.
    pub calls: Vec<LedgerRow>,
}

struct Asked<'a> {
    provider: &'a Provider,
    ready: &'a Ready,
    caller: Caller<'a>,
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
    /// When a provider wants its `ready` signed and its credentials cannot be read here.
    pub fn new(
        plan: &'a Plan,
        fleet: Fleet<'a>,
        env: &(impl Environment + ?Sized),
    ) -> Result<Self> {
        let mut waiting = Vec::new();
        for provider in plan.providers.values() {
            let Some(ready) = &provider.ready else {
                continue;
            };
            let name = &provider.name;
            anyhow::ensure!(
                provider.base_url.is_some(),
                "provider {name} has `ready` but no `base_url`"
            );
            let asking = asking(plan, provider, ready);
            let provider_asked = asking.providers.get(name).unwrap_or(provider);
            let caller = Caller::new(fleet, &asking, provider_asked, env)
                .with_context(|| format!("provider {name}: `ready`"))?;
            waiting.push(Asked {
                provider,
                ready,
                caller: caller.without_cell(),
                last_answer: "not asked yet".into(),
            });
        }
        Ok(Readiness {
            plan,
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
            let called = asked.call().await;
            self.calls.extend(asked.caller.take_calls());
            match called? {
                None => {}
                Some(answer) => {
                    asked.last_answer = answer;
                    still.push(asked);
                }
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
}

impl Asked<'_> {
    /// Asks once; what came instead of a yes.
    async fn call(&self) -> Result<Option<String>> {
        let context = self.caller.connector.cell(Vec::new());
        let called = self.caller.call(&context, None, PATIENCE).await;
        let sent =
            match called.with_context(|| format!("provider {}: `ready`", self.provider.name))? {
                Called::Sent(sent) => sent,
                Called::Closed(why) => return Ok(Some(why)),
            };
        let verdict = self.judge(&sent);
        self.caller.note(&sent, &verdict);
        self.caller
            .tell(&sent, verdict.outcome, verdict.wait)
            .await?;
        Ok((verdict.outcome != Outcome::Ok).then_some(verdict.reason))
    }

    /// A good status is a yes. What else came closes only what the request was limited or signed by: a provider that
    /// is not ready is asked again.
    fn judge(&self, sent: &Sent) -> Verdict {
        let not_yet = |reason: String| Verdict {
            outcome: Outcome::Retryable,
            wait: None,
            reason,
        };
        let answer = match &sent.answer {
            Ok(answer) => answer,
            Err(error) => return not_yet(error.to_string()),
        };
        let reason = format!("status {}", answer.status);
        if (200..300).contains(&answer.status) {
            return Verdict {
                outcome: Outcome::Ok,
                ..not_yet(reason)
            };
        }
        let verdict = self.caller.judge(answer, sent.answered_us).verdict;
        match verdict.outcome {
            Outcome::Throttled => verdict,
            Outcome::QuotaExhausted | Outcome::AuthExpired if self.ready.auth => verdict,
            _ => not_yet(reason),
        }
    }
}

/// The plan with an endpoint of its own for the question, so that the code of all calls builds and signs it.
fn asking(plan: &Plan, provider: &Provider, ready: &Ready) -> Plan {
    let mut plan = plan.clone();
    // A question is about no cell.
    plan.matrix.dimensions.clear();
    let declared = plan.job.endpoint.clone().unwrap_or_default();
    if let Some(asked) = plan.providers.get_mut(&provider.name) {
        if !ready.auth {
            asked.auth.clear();
            asked.credentials = None;
        }
        if let Some(mut endpoint) = asked.endpoints.get(&declared).cloned() {
            endpoint.request = Some(Request {
                method: Method::Get,
                path: ready.get.clone(),
                query: IndexMap::new(),
                headers: IndexMap::new(),
                body: None,
            });
            endpoint.each = Vec::new();
            (endpoint.page, endpoint.split_on, endpoint.detail) = (None, None, None);
            // No record is read, so the names that only workers know are not needed.
            endpoint.fields.clear();
            asked.endpoints.insert(ENDPOINT.to_owned(), endpoint);
        }
    }
    plan.job.endpoint = Some(ENDPOINT.to_owned());
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use paceline_protocol::connector::{Connector, Pool};
    use paceline_protocol::spec::{Auth, Span, SpecFolder};

    use super::*;
    use crate::plan::{PlanRequest, plan_run};

    #[test]
    fn a_question_is_signed_as_calls_are() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
        let folder = SpecFolder::open(&folder).expect("the examples");
        let env = BTreeMap::from([
            ("FARE_SEARCH_URL".to_owned(), "http://p.test".to_owned()),
            ("FARE_SEARCH_KEYS".to_owned(), "one,two".to_owned()),
        ]);
        let request = PlanRequest::example();
        let mut plan =
            plan_run(&folder.job("fares").expect("loads"), &request, &env).expect("plans");
        let provider = plan.providers.get_mut("fare-search").expect("it is there");
        provider.auth.push(Auth::Query {
            query: "k".into(),
            value: "{{ credential }}".into(),
        });
        let provider = provider.clone();
        let ready = |auth| Ready {
            get: "/health".into(),
            auth,
            patience: Span::secs(1),
        };
        let request = |ready: &Ready| {
            let asking = asking(&plan, &provider, ready);
            let provider = &asking.providers["fare-search"];
            let pool = Pool::read(provider, &env).expect("a pool");
            let connector = Connector::compile(&asking, "fare-search").expect("compiles");
            let mut context = connector.cell(Vec::new()).at(0);
            if let Some(credential) = pool.credentials.first() {
                context = context.with_credential(credential);
            }
            connector.request(context).expect("a request")
        };
        let signed = request(&ready(true));
        assert!(
            signed.url.starts_with("http://p.test/health?k=0-"),
            "{}",
            signed.url
        );
        let key = signed.headers.iter().find(|(name, _)| name == "x-api-key");
        assert_eq!(key.map(|(_, value)| value.as_str()), Some("one"));
        let plain = request(&ready(false));
        assert_eq!(plain.url, "http://p.test/health");
        assert!(plain.headers.iter().all(|(name, _)| name != "x-api-key"));
    }
}
