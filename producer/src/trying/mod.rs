//! One cell's calls, for whoever writes files: what went out, what came, what the files make of it, and where its
//! records would go. Nothing is written but a case to be kept.

mod cases;
mod places;
mod shown;

pub use cases::{Found, KeptCase, find, keep};
pub use shown::{CallShown, RecordShown, Tried};

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use paceline_protocol::cases::{CASE_VERSION, Case, KeptAnswer, KeptBody, ReplayedCall, masked};
use paceline_protocol::connector::{Progress, StepAnswer, digest};
use paceline_protocol::http::HttpAnswer;
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Endpoint, Provider};
use serde_json::Value;

use crate::calling::{Called, Caller, Fleet, Sent};
use crate::exit::Refusal;
use places::Places;

/// How long a call waits for its grant.
const PATIENCE: Duration = Duration::from_secs(60);
/// Headers of an answer that say nothing of it, or too much.
const NOT_KEPT: [&str; 12] = [
    "set-cookie",
    "date",
    "server",
    "connection",
    "keep-alive",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "vary",
    "via",
    "alt-svc",
    "strict-transport-security",
];

/// A cell to be tried.
pub struct Trying<'a> {
    fleet: Fleet<'a>,
    plan: &'a Plan,
    cell: u64,
    provider: &'a Provider,
    endpoint_name: &'a str,
    endpoint: &'a Endpoint,
    caller: Caller<'a>,
}

impl<'a> Trying<'a> {
    /// The cell with this number.
    ///
    /// # Errors
    /// When there is no such cell, its calls are no HTTP calls, or its credentials cannot be read here.
    pub fn new(
        fleet: Fleet<'a>,
        plan: &'a Plan,
        cell: u64,
        env: &(impl Environment + ?Sized),
    ) -> Result<Self> {
        let cells = plan.cells();
        let segment = plan
            .segments
            .iter()
            .find(|s| (s.first_cell..s.first_cell + s.cells).contains(&cell));
        let Some(segment) = segment else {
            return Err(Refusal::usage(match cells {
                0 => "the job has no cells now".to_owned(),
                _ => format!("there is no cell {cell}: they are 0 to {}", cells - 1),
            }));
        };
        let provider = plan.providers.get(&segment.provider);
        let provider = provider.context("its provider is in the plan")?;
        let endpoint_name = plan.job.endpoint.as_deref().unwrap_or_default();
        let endpoint = provider.endpoints.get(endpoint_name);
        let called = endpoint.filter(|endpoint| endpoint.request.is_some());
        let Some(endpoint) = called else {
            return Err(Refusal::usage(format!(
                "cell {cell} makes no HTTP calls: it is read from {}",
                segment.provider
            )));
        };
        Ok(Trying {
            fleet,
            plan,
            cell,
            provider,
            endpoint_name,
            endpoint,
            caller: Caller::new(fleet, plan, provider, env)?,
        })
    }

    /// Makes its calls, at most `most` of them.
    ///
    /// # Errors
    /// When a store is away, there is no such request, or a limit stays closed.
    pub async fn run(&self, most: u32) -> Result<(Tried, Case)> {
        let connector = &self.caller.connector;
        let cell = connector.cell(self.plan.matrix.cell(self.cell));
        let picked = self.caller.picked(&cell)?;
        let mut progress = Progress::default();
        let mut tried = Tried::new(self.plan, self.cell, &self.provider.name);
        let mut case = self.case();
        let mut sent_last = None;
        loop {
            let context = connector.step(cell.clone(), &progress.position);
            let sent = match self.caller.call(&context, picked, PATIENCE).await? {
                Called::Sent(sent) => sent,
                Called::Closed(why) => {
                    return Err(Refusal::stopped(format!("{}: {why}", self.provider.name)));
                }
            };
            let answer = match &sent.answer {
                Ok(answer) => answer,
                Err(error) => {
                    let end = format!("retryable: {error}");
                    self.caller.tell(&sent, Outcome::Retryable, None).await?;
                    tried.end = sent.mask(&end);
                    break;
                }
            };
            let judged = self.caller.judge(answer, sent.answered_us);
            let verdict = judged.verdict.clone();
            self.caller
                .tell(&sent, verdict.outcome, verdict.wait)
                .await?;
            let found = match &judged.body {
                Some(body) if verdict.outcome == Outcome::Ok => {
                    connector.explain(self.provider, self.endpoint, &progress.position, body)?
                }
                _ => Vec::new(),
            };
            let request = masked(connector, self.provider, sent.context.clone());
            let request = connector.request(request)?;
            case.answers.push(kept(&sent, answer)?);
            tried.calls.push(CallShown::of(
                ReplayedCall::of(&request, &judged, found),
                &sent,
                answer,
            ));
            let body = match verdict.outcome {
                Outcome::Ok => judged.body.as_ref(),
                Outcome::Empty => None,
                outcome => {
                    let end = format!("{}: {}", outcome.as_str(), verdict.reason);
                    tried.end = sent.mask(&end);
                    tried.closed = !matches!(outcome, Outcome::Retryable | Outcome::Permanent);
                    break;
                }
            };
            let header = |name: &str| answer.header(name);
            let step = StepAnswer {
                body,
                header: &header,
                digest: digest(&answer.body),
            };
            let advanced = connector.advance(&progress.position, &sent.context, &step);
            let done = match advanced {
                Ok(advance) => progress.apply(advance),
                Err(error) => {
                    tried.end = sent.mask(&format!("failed: {error}"));
                    break;
                }
            };
            sent_last = Some(sent);
            if done {
                tried.end = match progress.gathered.records {
                    0 => "empty".into(),
                    _ => "succeeded".into(),
                };
                break;
            }
            if tried.calls.len() as u32 >= most {
                tried.end = format!("stopped after {most} calls; more would follow (--calls N)");
                break;
            }
        }
        let places = Places::of(self.plan, self.fleet.archive, self.cell);
        tried.part = places.part();
        for line in progress.gathered.lines.lines() {
            let line = match &sent_last {
                Some(sent) => sent.mask(line),
                None => line.to_owned(),
            };
            tried.records.push(places.record(&line)?);
        }
        Ok((tried, case))
    }

    fn case(&self) -> Case {
        let names = self.plan.matrix.names().map(|name| name.to_string());
        let values = self.plan.matrix.cell(self.cell);
        Case {
            case: CASE_VERSION,
            source: format!(
                "calls of job {} at {}",
                self.plan.job.name, self.plan.planned_at
            ),
            provider: self.provider.name.clone(),
            endpoint: self.endpoint_name.to_owned(),
            base_url: self.provider.base_url.clone().unwrap_or_default(),
            date: self.plan.date,
            params: self.plan.job.params.clone(),
            cell: names.zip(values).collect(),
            answers: Vec::new(),
            expected: Default::default(),
        }
    }
}

/// An answer without what is secret in it.
fn kept(sent: &Sent, answer: &HttpAnswer) -> Result<KeptAnswer> {
    let headers = answer.headers.iter().filter_map(|(name, value)| {
        let (name, value) = (name.as_str(), value.to_str().ok()?);
        let is_kept = !NOT_KEPT.contains(&name);
        is_kept.then(|| (name.to_owned(), sent.mask(value)))
    });
    let body = KeptBody::of(&hidden(&answer.body, |text| sent.mask(text)));
    Ok(KeptAnswer {
        at: Timestamp::from_microsecond(sent.started_us())?,
        status: answer.status,
        headers: headers.collect(),
        body,
    })
}

/// A body without what `mask` takes out of a text. Of one in another charset its ASCII is looked at: keys are.
fn hidden(body: &[u8], mask: impl Fn(&str) -> String) -> Vec<u8> {
    if let Ok(text) = std::str::from_utf8(body) {
        return mask(text).into_bytes();
    }
    let bytes_as_signs: String = body.iter().copied().map(char::from).collect();
    let masked = mask(&bytes_as_signs);
    let byte = |sign| u8::try_from(u32::from(sign)).unwrap_or(b'?');
    masked.chars().map(byte).collect()
}

/// A value as it stands behind `name=`.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_leave_bodies_of_every_charset() {
        let mask = |text: &str| text.replace("SECRET", "<secret>");
        assert_eq!(
            hidden("키 SECRET".as_bytes(), mask),
            "키 <secret>".as_bytes()
        );
        // The same in EUC-KR, which is no UTF-8.
        let (before, after) = (b"\xc5\xb0 SECRET\xc5\xb0", b"\xc5\xb0 <secret>\xc5\xb0");
        assert_eq!(hidden(before, mask), after);
    }
}
