//! Kept cases: the answers of one cell, and what the files made of them. Replayed without any I/O, through the code
//! that collects: the same requests, outcomes, paths and records, or a difference.
//!
//! A case holds no secret: credentials and tokens are replaced by their names before requests are built, so that
//! signatures come out the same each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connector::{
    Answer, CallContext, CompileError, Connector, Credential, HttpRequest, Judged, Matched,
    Progress, StepAnswer, Token, digest,
};
use crate::outcome::Outcome;
use crate::plan::{Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment};
use crate::spec::{Job, Method, Outputs, Provider, ShardSize};

/// The form of a case that this build writes and reads.
pub const CASE_VERSION: u32 = 1;

/// One kept case, a JSON file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// [`CASE_VERSION`]
    pub case: u32,
    /// Where its answers are from: a live call, or the documentation that it was built after.
    pub source: String,
    /// The provider.
    pub provider: String,
    /// Its endpoint.
    pub endpoint: String,
    /// Stands in the place of `base_url`.
    #[serde(default = "base_url")]
    pub base_url: String,
    /// `today`
    pub date: Date,
    /// `params`
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub params: IndexMap<String, Value>,
    /// The cell: dimension -> value.
    pub cell: IndexMap<String, Value>,
    /// The answers to its calls, in order.
    pub answers: Vec<KeptAnswer>,
    /// What came of them.
    #[serde(default)]
    pub expected: Replayed,
}

fn base_url() -> String {
    "https://provider.test".into()
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptAnswer {
    /// The fleet's clock at the call.
    pub at: Timestamp,
    /// HTTP status.
    pub status: u16,
    /// Those that matter, by lower-case name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its body after decompression.
    pub body: KeptBody,
}

/// A body as a person can read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBody {
    /// JSON.
    Json(Value),
    /// Text in UTF-8.
    Text(String),
    /// Anything else.
    Base64(String),
}

impl KeptBody {
    /// The most readable form of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return KeptBody::Base64(STANDARD.encode(bytes));
        };
        let is_json = text.trim_start().starts_with(['{', '[']);
        match serde_json::from_str(text) {
            Ok(json) if is_json => KeptBody::Json(json),
            _ => KeptBody::Text(text.to_owned()),
        }
    }

    /// The bytes again, JSON without its white space.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            KeptBody::Json(json) => json.to_string().into_bytes(),
            KeptBody::Text(text) => text.clone().into_bytes(),
            KeptBody::Base64(text) => STANDARD.decode(text).unwrap_or_default(),
        }
    }
}

/// What the files make of the answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replayed {
    /// Each call.
    #[serde(default)]
    pub calls: Vec<ReplayedCall>,
    /// The cell's records.
    #[serde(default)]
    pub records: Vec<Value>,
    /// How the cell ended: `succeeded`, `empty`, `failed: ...`, or what it waits for.
    #[serde(default)]
    pub end: String,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayedCall {
    /// `GET https://...`
    pub request: String,
    /// `name: value`, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<KeptBody>,
    /// What the answer means.
    pub outcome: Outcome,
    /// Which rule decided: its place in `outcomes`, from 1, or the built-in list.
    pub decided_by: String,
    /// What each place found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Matched>,
}

impl ReplayedCall {
    /// As it is shown and kept: `request` must have no secret.
    pub fn of(request: &HttpRequest, judged: &Judged, found: Vec<Matched>) -> Self {
        let method = match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
        };
        let headers = request.headers.iter();
        ReplayedCall {
            request: format!("{method} {}", request.url),
            headers: headers
                .map(|(name, value)| format!("{name}: {value}"))
                .collect(),
            body: request.body.as_ref().map(|(_, body)| KeptBody::of(body)),
            outcome: judged.verdict.outcome,
            decided_by: match judged.rule {
                Some(place) => format!("outcomes[{}]", place + 1),
                None => "the built-in list".into(),
            },
            found,
        }
    }
}

fn masked_credential(provider: &Provider) -> Option<Credential> {
    provider.credentials.as_ref().map(|_| Credential::masked())
}

/// The token that stands for the real one.
fn masked_token(connector: &Connector) -> Option<Token> {
    let tokens = connector.tokens()?;
    let header = match tokens.endpoint() {
        "login" => ("cookie".into(), "<session>".into()),
        _ => tokens.carry("<token>"),
    };
    Some(Token {
        headers: vec![header],
    })
}

/// `context` with every secret replaced by its name.
pub fn masked(connector: &Connector, provider: &Provider, context: CallContext) -> CallContext {
    let context = match masked_credential(provider) {
        Some(credential) => context.with_credential(&credential),
        None => context,
    };
    match masked_token(connector) {
        Some(token) => context.with_token(Arc::new(token)),
        None => context,
    }
}

impl Case {
    /// Replays the answers through `provider`'s file as it is now.
    ///
    /// # Errors
    /// When the provider has no such endpoint, or it does not compile.
    pub fn replay(&self, provider: &Provider) -> Result<Replayed, CompileError> {
        let plan = self.plan(provider);
        let connector = Connector::compile(&plan, &self.provider)?;
        let provider = &plan.providers[&self.provider];
        let endpoint = &provider.endpoints[&self.endpoint];
        let mut replayed = Replayed::default();
        let mut progress = Progress::default();
        let mut answers = self.answers.iter();
        loop {
            let Some(answer) = answers.next() else {
                replayed.end = "more calls than kept answers".into();
                break;
            };
            let at_us = answer.at.as_microsecond();
            let values: Vec<Value> = self.cell.values().cloned().collect();
            let context = masked(&connector, provider, connector.cell(values).at(at_us));
            let context = connector.step(context, &progress.position);
            let request = match connector.request(context.clone()) {
                Ok(request) => request,
                Err(error) => {
                    replayed.end = format!("failed: {error}");
                    break;
                }
            };
            let body = answer.body.bytes();
            let header = |name: &str| answer.headers.get(name).cloned();
            let judged = connector.judge(&Answer {
                status: answer.status,
                header: &header,
                body: &body,
                now_us: at_us,
            });
            let found = match &judged.body {
                Some(found) if judged.verdict.outcome == Outcome::Ok => {
                    connector.explain(provider, endpoint, &progress.position, found)?
                }
                _ => Vec::new(),
            };
            replayed
                .calls
                .push(ReplayedCall::of(&request, &judged, found));
            let step = StepAnswer {
                body: match judged.verdict.outcome {
                    Outcome::Ok => judged.body.as_ref(),
                    Outcome::Empty => None,
                    other => {
                        replayed.end = format!("{}: {}", other.as_str(), judged.verdict.reason);
                        break;
                    }
                },
                header: &header,
                digest: digest(&body),
            };
            match connector.advance(&progress.position, &context, &step) {
                Ok(advance) => {
                    if progress.apply(advance) {
                        replayed.end = match progress.gathered.records {
                            0 => "empty".into(),
                            _ => "succeeded".into(),
                        };
                        break;
                    }
                }
                Err(error) => {
                    replayed.end = format!("failed: {error}");
                    break;
                }
            }
        }
        if answers.next().is_some() {
            replayed.end += "; some kept answers were not asked for";
        }
        let lines = progress.gathered.lines.lines();
        replayed.records = lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Ok(replayed)
    }

    /// A plan of one cell.
    fn plan(&self, provider: &Provider) -> Plan {
        let mut provider = provider.clone();
        provider.base_url = Some(self.base_url.clone());
        let dimensions = self.cell.iter().map(|(name, value)| PlannedDimension {
            names: vec![Arc::from(name.as_str())],
            values: PlannedValues::Rows(vec![vec![value.clone()]]),
        });
        Plan {
            version: PLAN_VERSION,
            run: "case".parse().expect("a run id"),
            planned_at: self.answers.first().map_or(Timestamp::UNIX_EPOCH, |a| a.at),
            date: self.date,
            only: BTreeMap::new(),
            allow_shrink: false,
            force: false,
            base: None,
            matrix: Matrix {
                dimensions: dimensions.collect(),
            },
            segments: vec![Segment {
                lane: self.provider.clone(),
                provider: self.provider.clone(),
                first_cell: 0,
                cells: 1,
            }],
            job: self.job(),
            providers: BTreeMap::from([(self.provider.clone(), provider)]),
            inputs: Default::default(),
        }
    }

    fn job(&self) -> Job {
        Job {
            name: "case".into(),
            provider: Some(self.provider.clone()),
            endpoint: Some(self.endpoint.clone()),
            after: None,
            trigger: None,
            params: self.params.clone(),
            split: IndexMap::new(),
            source: None,
            shard: ShardSize {
                cells: 1,
                checkpoint: 1,
            },
            schedule: None,
            gate: Default::default(),
            dedupe: None,
            progress_by: None,
            changes: None,
            fields: IndexMap::new(),
            outputs: Outputs::default(),
            priority: 5,
            view: None,
            notify: Vec::new(),
            retention: None,
        }
    }
}

/// What differs, a line for each: `calls[1].request: kept ..., now ...`.
pub fn differences(kept: &Replayed, now: &Replayed) -> Vec<String> {
    let tree = |of: &Replayed| serde_json::to_value(of).unwrap_or_default();
    let mut all = Vec::new();
    compare("", &tree(kept), &tree(now), &mut all);
    all
}

fn compare(place: &str, kept: &Value, now: &Value, all: &mut Vec<String>) {
    let below = |name: &str| match place {
        "" => name.to_owned(),
        _ => format!("{place}.{name}"),
    };
    match (kept, now) {
        (Value::Object(kept), Value::Object(now)) => {
            for (name, value) in kept {
                let other = now.get(name).unwrap_or(&Value::Null);
                compare(&below(name), value, other, all);
            }
            for (name, value) in now.iter().filter(|(name, _)| !kept.contains_key(*name)) {
                compare(&below(name), &Value::Null, value, all);
            }
        }
        (Value::Array(kept), Value::Array(now)) => {
            for place_in in 0..kept.len().max(now.len()) {
                let of = |list: &[Value]| list.get(place_in).cloned().unwrap_or_default();
                compare(&format!("{place}[{place_in}]"), &of(kept), &of(now), all);
            }
        }
        (kept, now) if kept == now => {}
        (kept, now) => all.push(format!("{place}: kept {}, now {}", shown(kept), shown(now))),
    }
}

fn shown(value: &Value) -> String {
    const MOST: usize = 300;
    match value {
        Value::Null => "nothing".into(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(MOST) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_as_it_can_be_read() {
        let kept = |bytes: &[u8]| KeptBody::of(bytes);
        assert_eq!(
            kept(b"{\"a\": 1.50}").bytes(),
            b"{\"a\":1.50}",
            "digits stay"
        );
        assert_eq!(kept(b"12"), KeptBody::Text("12".into()));
        assert_eq!(kept(b"<a/>"), KeptBody::Text("<a/>".into()));
        let korean: &[u8] = &[0xb0, 0xa1];
        assert_eq!(kept(korean).bytes(), korean);
    }

    #[test]
    fn differences_name_their_place() {
        let kept = Replayed {
            records: vec![serde_json::json!({"price": 1})],
            end: "succeeded".into(),
            ..Replayed::default()
        };
        let now = Replayed {
            records: vec![serde_json::json!({"price": 2}), serde_json::json!({})],
            ..kept.clone()
        };
        assert_eq!(
            differences(&kept, &now),
            [
                "records[0].price: kept 1, now 2",
                "records[1]: kept nothing, now {}"
            ]
        );
        assert!(differences(&kept, &kept).is_empty());
    }
}
