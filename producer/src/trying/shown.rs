//! What was tried, as it is shown. Holds no secret.

use std::fmt::Write;

use indexmap::IndexMap;
use paceline_protocol::cases::{KeptBody, ReplayedCall};
use paceline_protocol::http::HttpAnswer;
use paceline_protocol::plan::Plan;
use serde::Serialize;
use serde_json::Value;

use super::plain;
use crate::calling::Sent;
use crate::show;

/// So much of a body is shown.
const BODY: usize = 1_500;
/// So many records are shown to people.
const RECORDS: usize = 5;

/// A cell that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// Its number.
    pub cell: u64,
    /// Its dimensions.
    pub values: Vec<(String, Value)>,
    /// Who was called.
    pub provider: String,
    /// The key of its part.
    pub part: String,
    /// Its calls.
    pub calls: Vec<CallShown>,
    /// Its records.
    pub records: Vec<RecordShown>,
    /// How it ended.
    pub end: String,
    /// A provider's answer closed something: the cell would be called again later.
    pub closed: bool,
}

/// One call.
#[derive(Clone, Debug, Serialize)]
pub struct CallShown {
    /// Request, outcome, places.
    #[serde(flatten)]
    pub call: ReplayedCall,
    /// The credential's public name.
    pub credential: Option<String>,
    /// The limits that it drew from.
    pub limits: Vec<String>,
    /// HTTP status.
    pub status: u16,
    /// From sending to the last byte.
    pub took_ms: u64,
    /// Bytes of the body.
    pub bytes: usize,
    /// Its type.
    pub content_type: String,
    /// How the body begins.
    pub answer: String,
}

/// One record.
#[derive(Clone, Debug, Serialize)]
pub struct RecordShown {
    /// As it is in the part.
    pub record: IndexMap<String, Value>,
    /// Sets, objects and documents that it would be in.
    pub goes_to: Vec<String>,
}

impl CallShown {
    pub(super) fn of(mut call: ReplayedCall, sent: &Sent, answer: &HttpAnswer) -> Self {
        for place in &mut call.found {
            // What an answer says back of the request.
            if let Some(Value::String(first)) = &mut place.first {
                *first = sent.mask(first);
            }
        }
        let limits = sent.drawn.iter().map(|drawn| &drawn.instance);
        let limits = limits.map(|limit| match limit.scope.as_str() {
            "" => limit.limit.clone(),
            scope => format!("{} of {scope}", limit.limit),
        });
        let content_type = answer.headers.get("content-type");
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let begins = String::from_utf8_lossy(&answer.body[..answer.body.len().min(4 * BODY)]);
        let begins = sent.mask(&begins);
        let mut text: String = begins.chars().take(BODY).collect();
        if text.len() < begins.len() || answer.body.len() > 4 * BODY {
            text.push('…');
        }
        CallShown {
            call,
            credential: sent.credential.as_ref().map(|c| c.name().to_owned()),
            limits: limits.collect(),
            status: answer.status,
            took_ms: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
            bytes: answer.body.len(),
            content_type: content_type.unwrap_or_default().to_owned(),
            answer: text,
        }
    }

    fn write(&self, number: usize, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\ncall {number}  {}", self.call.request)?;
        for header in &self.call.headers {
            writeln!(text, "        {header}")?;
        }
        match &self.call.body {
            Some(KeptBody::Json(json)) => writeln!(text, "        {json}")?,
            Some(KeptBody::Text(body) | KeptBody::Base64(body)) => {
                writeln!(text, "        {body}")?;
            }
            None => {}
        }
        let key = self.credential.as_deref().unwrap_or("none");
        let limits = match self.limits.is_empty() {
            true => "none".to_owned(),
            false => self.limits.join(", "),
        };
        writeln!(text, "drew    credential {key}; limits {limits}")?;
        writeln!(
            text,
            "answer  {} in {} ms, {} bytes, {}",
            self.status,
            show::count(self.took_ms),
            show::count(self.bytes as u64),
            match self.content_type.as_str() {
                "" => "without a type",
                named => named,
            }
        )?;
        for line in self.answer.lines() {
            writeln!(text, "        {line}")?;
        }
        let (outcome, rule) = (self.call.outcome.as_str(), &self.call.decided_by);
        writeln!(text, "means   {outcome}, by {rule}")?;
        for place in &self.call.found {
            let first = place.first.as_ref().map(plain).unwrap_or_default();
            let mark = if place.found == 0 { "!" } else { " " };
            writeln!(
                text,
                "found  {mark}{}  {}  {} of {}  {first}",
                place.what, place.place, place.found, place.of
            )?;
        }
        Ok(())
    }
}

impl Tried {
    pub(super) fn new(plan: &Plan, cell: u64, provider: &str) -> Self {
        let names = plan.matrix.names().map(|name| name.to_string());
        Tried {
            cell,
            values: names.zip(plan.matrix.cell(cell)).collect(),
            provider: provider.to_owned(),
            part: String::new(),
            calls: Vec::new(),
            records: Vec::new(),
            end: String::new(),
            closed: false,
        }
    }

    /// Whether the cell would be in the output.
    pub fn is_good(&self) -> bool {
        matches!(self.end.as_str(), "succeeded" | "empty") || self.end.starts_with("stopped after")
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _written = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let values = self.values.iter();
        let values: Vec<String> = values
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect();
        let (cell, provider) = (self.cell, &self.provider);
        writeln!(text, "cell {cell} at {provider}: {}", values.join(" "))?;
        for (place, call) in self.calls.iter().enumerate() {
            call.write(place + 1, text)?;
        }
        writeln!(
            text,
            "\nend     {}; {} records",
            self.end,
            self.records.len()
        )?;
        if !self.records.is_empty() {
            writeln!(text, "they would lie in {}", self.part)?;
        }
        for record in self.records.iter().take(RECORDS) {
            let line = serde_json::to_string(&record.record).unwrap_or_default();
            writeln!(text, "{line}")?;
            for place in &record.goes_to {
                writeln!(text, "    {place}")?;
            }
        }
        if self.records.len() > RECORDS {
            writeln!(
                text,
                "and {} more (--json shows all)",
                self.records.len() - RECORDS
            )?;
        }
        Ok(())
    }
}
