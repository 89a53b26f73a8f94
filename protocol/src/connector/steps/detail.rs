//! `detail`: a second step for the records of a page, in batches of their ids.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::page::Turn;
use super::{Misfit, StepError};
use crate::connector::CompileError;
use crate::connector::body::JsonPath;
use crate::connector::request::RequestTemplates;
use crate::spec::{BodyPlace, Detail, Provider, details_of};
use crate::template::Templates;

/// A compiled `detail:`.
#[derive(Debug)]
pub(in crate::connector) struct DetailStep {
    /// `<endpoint>.detail`
    pub(super) endpoint: String,
    pub(in crate::connector) requests: RequestTemplates,
    batch: usize,
    ids: JsonPath,
    records: JsonPath,
    left: JsonPath,
    right: JsonPath,
    report_missing: bool,
}

impl DetailStep {
    pub(super) fn compile(
        provider: &Provider,
        endpoint: &str,
        detail: &Detail,
        templates: &mut Templates,
    ) -> Result<Self, CompileError> {
        let BodyPlace::Path(records) = &detail.records else {
            return Err(CompileError::NotBuilt("CSS selectors".into()));
        };
        Ok(DetailStep {
            endpoint: details_of(endpoint),
            requests: RequestTemplates::compile(provider, &detail.request, templates)?,
            batch: detail.batch.map_or(usize::MAX, |n| n as usize),
            ids: JsonPath::compile(&detail.ids)?,
            records: JsonPath::compile(records)?,
            left: JsonPath::compile(&detail.left)?,
            right: JsonPath::compile(&detail.right)?,
            report_missing: detail.report_missing,
        })
    }
}

/// An id that is asked for, and what joins its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AskedId {
    pub(super) id: Value,
    key: String,
}

/// The second step of one page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Details {
    /// The page's records.
    left: Vec<Value>,
    /// Ids yet to be asked for, the next batch first.
    queue: Vec<AskedId>,
    /// Ids that got no answer in this turn.
    unanswered: Vec<AskedId>,
    /// The unanswered ones are asked for once more.
    again: bool,
    /// Details so far.
    right: Vec<Value>,
    /// What follows the page.
    turn: Turn,
}

impl Details {
    /// # Errors
    /// When a record has no id.
    pub(super) fn of(step: &DetailStep, left: Vec<Value>, turn: Turn) -> Result<Self, StepError> {
        let mut queue: Vec<AskedId> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for record in &left {
            let id = step.ids.first(record).filter(|id| key_of(id).is_some());
            let key = step.left.first(record).and_then(key_of);
            let (Some(id), Some(key)) = (id, key) else {
                let misfit = Misfit {
                    field: "detail.ids".into(),
                    why: "is missing in a record of the page".into(),
                };
                return Err(misfit.into());
            };
            if known.insert(key.clone()) {
                queue.push(AskedId {
                    id: id.clone(),
                    key,
                });
            }
        }
        Ok(Details {
            left,
            queue,
            unanswered: Vec::new(),
            again: false,
            right: Vec::new(),
            turn,
        })
    }

    /// The ids of the next call.
    pub(super) fn batch(&self, step: &DetailStep) -> impl Iterator<Item = &AskedId> {
        self.queue.iter().take(step.batch)
    }

    /// Takes an answer to [`Details::batch`] in; `None` is one without a body.
    pub(super) fn answered(&mut self, step: &DetailStep, body: Option<&Value>) {
        let found = body.map(|body| step.records.all(body)).unwrap_or_default();
        let size = step.batch.min(self.queue.len());
        let mut batch: HashMap<String, (AskedId, bool)> = self
            .queue
            .drain(..size)
            .map(|asked| (asked.key.clone(), (asked, false)))
            .collect();
        for detail in found {
            let key = step.right.first(detail).and_then(key_of);
            if let Some((_, answered)) = key.and_then(|key| batch.get_mut(&key)) {
                *answered = true;
                self.right.push(detail.clone());
            }
        }
        let without = batch.into_values().filter(|(_, answered)| !answered);
        self.unanswered.extend(without.map(|(asked, _)| asked));
        self.unanswered.sort_by(|a, b| a.key.cmp(&b.key));
        if self.queue.is_empty() && !self.again {
            self.again = true;
            self.queue = std::mem::take(&mut self.unanswered);
        }
    }

    /// Another call is due.
    pub(super) fn asks_more(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Ids without an answer that are only counted.
    ///
    /// # Errors
    /// When there are some and the file does not say that they are only counted.
    pub(super) fn missing(&self, step: &DetailStep) -> Result<u64, StepError> {
        match self.unanswered.first() {
            Some(first) if !step.report_missing => Err(StepError::MissingIds {
                count: self.unanswered.len(),
                first: first.key.chars().take(60).collect(),
            }),
            _ => Ok(self.unanswered.len() as u64),
        }
    }

    /// The page's records, each with its details; of two fields with one name the detail's counts.
    pub(super) fn joined(&self, step: &DetailStep) -> Vec<Value> {
        let mut by_key: HashMap<String, Vec<&Value>> = HashMap::new();
        for detail in &self.right {
            if let Some(key) = step.right.first(detail).and_then(key_of) {
                by_key.entry(key).or_default().push(detail);
            }
        }
        let mut joined = Vec::new();
        for left in &self.left {
            let key = step.left.first(left).and_then(key_of);
            let details = key.and_then(|key| by_key.get(&key));
            joined.extend(
                details
                    .into_iter()
                    .flatten()
                    .map(|right| merged(left, right)),
            );
        }
        joined
    }

    /// Records of the page.
    pub(super) fn left(&self) -> u64 {
        self.left.len() as u64
    }

    pub(super) fn into_turn(self) -> Turn {
        self.turn
    }
}

fn key_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn merged(left: &Value, right: &Value) -> Value {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let mut both = left.clone();
            both.extend(right.iter().map(|(k, v)| (k.clone(), v.clone())));
            Value::Object(both)
        }
        (_, right) => right.clone(),
    }
}
