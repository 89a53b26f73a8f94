//! The names that a template of one call can use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, Value};

use super::seal::Sealer;
use super::steps::Asked;
use super::tokens::Token;
use crate::plan::Plan;
use crate::template::value_of;

/// What is the same for every call of a run: its dimensions' names, `params`, `run`, `today`.
#[derive(Debug)]
pub struct RunNames {
    dimensions: Vec<Arc<str>>,
    params: Value,
    run: Value,
    today: Value,
    parent: Option<Value>,
}

impl RunNames {
    /// The names that `plan` gives.
    pub fn of(plan: &Plan) -> Self {
        let date = plan.date.to_string();
        let run = [
            ("id", plan.run.to_string()),
            ("date", date.clone()),
            ("started_at", plan.planned_at.to_string()),
        ];
        RunNames {
            dimensions: plan.matrix.names().cloned().collect(),
            params: Value::from_pairs(
                plan.job
                    .params
                    .iter()
                    .map(|(k, v)| (k.clone(), value_of(v))),
            ),
            run: Value::from_pairs(run.map(|(k, v)| (k, Value::from(v)))),
            today: Value::from(date),
            parent: plan
                .inputs
                .parent
                .as_ref()
                .map(|parent| Value::from_pairs(parent.names())),
        }
    }

    /// The value of a name that every call of the run shares.
    pub fn get(&self, name: &str) -> Option<Value> {
        match name {
            "params" => Some(self.params.clone()),
            "run" => Some(self.run.clone()),
            "today" => Some(self.today.clone()),
            "parent" => self.parent.clone(),
            _ => None,
        }
    }
}

/// A credential: its public name in text, its secret fields below it.
#[derive(Clone)]
pub struct Credential {
    name: Arc<str>,
    fields: Arc<BTreeMap<String, String>>,
    masked: bool,
}

impl Credential {
    /// A credential called `name` (safe to show) with secret `fields`.
    pub fn new(name: &str, fields: BTreeMap<String, String>) -> Self {
        Credential {
            name: name.into(),
            fields: Arc::new(fields),
            masked: false,
        }
    }

    /// One whose every field is its own name in angle brackets: what is made with it shows no secret.
    pub fn masked() -> Self {
        Credential {
            name: "0-000000".into(),
            fields: Arc::default(),
            masked: true,
        }
    }

    /// `text` with the name of a field wherever its secret stands.
    pub fn mask(&self, text: &str) -> String {
        /// Shorter ones are words of anything.
        const LEAST: usize = 4;
        let secrets = self.fields.iter().filter(|(_, s)| s.len() >= LEAST);
        secrets.fold(text.to_owned(), |text, (field, secret)| {
            text.replace(secret.as_str(), &format!("<{field}>"))
        })
    }

    /// The same with another value of a field, which a provider gave in its place.
    pub fn with_field(&self, field: &str, value: &str) -> Self {
        let mut fields = BTreeMap::clone(&self.fields);
        fields.insert(field.to_owned(), value.to_owned());
        Credential {
            name: self.name.clone(),
            fields: Arc::new(fields),
            masked: self.masked,
        }
    }

    /// What is kept for it is sealed with a key made of its own secrets.
    pub fn sealer(&self, provider: &str) -> Sealer {
        Sealer::of(provider, &self.fields)
    }

    /// Its public name: place in the pool and six hex digits of a keyed hash.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.name)
    }
}

impl Object for Credential {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let field = key.as_str()?;
        if self.masked {
            return Some(Value::from(format!("<{field}>")));
        }
        self.fields
            .get(field)
            .map(|secret| Value::from(secret.as_str()))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The names of one call.
#[derive(Clone, Debug)]
pub struct CallContext {
    names: Arc<RunNames>,
    endpoint: Arc<str>,
    /// In the order of the plan's names, as JSON for records.
    pub(super) values: Vec<serde_json::Value>,
    credential: Option<Value>,
    /// The fleet's clock at this attempt, microseconds since 1970.
    now_us: Option<i64>,
    /// Headers that a token or session of the credential comes in.
    pub(super) token: Option<Arc<Token>>,
    /// What the cell's step adds.
    asked: Arc<Asked>,
}

impl CallContext {
    pub(super) fn new(
        names: Arc<RunNames>,
        endpoint: Arc<str>,
        values: Vec<serde_json::Value>,
    ) -> Self {
        CallContext {
            names,
            endpoint,
            values,
            credential: None,
            now_us: None,
            token: None,
            asked: Arc::default(),
        }
    }

    /// The same cell, its call signed in with `token`.
    pub fn with_token(mut self, token: Arc<Token>) -> Self {
        self.token = Some(token);
        self
    }

    /// The same cell, served by `credential`.
    pub fn with_credential(mut self, credential: &Credential) -> Self {
        self.credential = Some(Value::from_object(credential.clone()));
        self
    }

    pub(super) fn asking(mut self, asked: Asked) -> Self {
        self.asked = Arc::new(asked);
        self
    }

    pub(super) fn asked(&self) -> &Arc<Asked> {
        &self.asked
    }

    /// The same cell, called at another endpoint: a second step, a token or log-in request.
    pub fn of_endpoint(mut self, endpoint: &str) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// The endpoint that is called, as ledger and limits name it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same cell, at one instant of the fleet's clock (microseconds since 1970).
    pub fn at(mut self, now_us: i64) -> Self {
        self.now_us = Some(now_us);
        self
    }

    /// The value of a dimension as JSON.
    pub fn dimension(&self, name: &str) -> Option<&serde_json::Value> {
        let place = self.names.dimensions.iter().position(|d| &**d == name)?;
        self.values.get(place)
    }

    /// As a template's context.
    pub fn value(self) -> Value {
        Value::from_object(self)
    }
}

impl Object for CallContext {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if let Some(value) = self.dimension(key) {
            return Some(value_of(value));
        }
        match key {
            "credential" => self.credential.clone(),
            "endpoint" => Some(Value::from(&*self.endpoint)),
            "item" => self.asked.item.as_ref().map(value_of),
            "ids" => self.asked.ids.as_ref().map(value_of),
            "now" => {
                let now = jiff::Timestamp::from_microsecond(self.now_us?).ok()?;
                Some(Value::from(now.to_string()))
            }
            "now_ms" => Some(Value::from(self.now_us? / 1000)),
            shared => self.names.get(shared),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}
