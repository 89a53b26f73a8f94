//! What each place of an endpoint finds in an answer, for people who write files: `producer try` shows it, and
//! `check` warns of places that found nothing in any kept case.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::{Body, BodyReader, Found, JsonPath, Spot};
use super::{CompileError, Connector, Position};
use crate::spec::{Endpoint, FieldSource, Place, Provider, Stop};

/// One place, and what it found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// Its keys below `endpoints.<name>`, with dots: `records`, `fields.price`, `page.next.cursor`.
    pub what: String,
    /// The path or selector.
    pub place: String,
    /// In how many it found something.
    pub found: usize,
    /// Of how many that it was looked for in: the records, else 1.
    pub of: usize,
    /// The first of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Value>,
}

/// No value that is shown is longer.
const SHOWN: usize = 120;

impl Connector {
    /// What the places of `endpoint` find in the answer to the call at `position`.
    ///
    /// # Errors
    /// When a place does not compile.
    pub fn explain(
        &self,
        provider: &Provider,
        endpoint: &Endpoint,
        position: &Position,
        body: &Body,
    ) -> Result<Vec<Matched>, CompileError> {
        let mut explaining = Explaining {
            reader: BodyReader::compile(&provider.format)?,
            body,
            all: Vec::new(),
        };
        match &endpoint.detail {
            Some(detail) if position.is_detail() => {
                let records = JsonPath::compile(place_text(&detail.records))?;
                let found = records.all(body.tree());
                explaining.push(
                    "detail.records",
                    place_text(&detail.records),
                    usize::from(!found.is_empty()),
                    1,
                    None,
                );
                let found: Vec<Found<'_>> = found.into_iter().map(Found::Value).collect();
                explaining.within("detail.join.right", &detail.right, &found)?;
                explaining.fields(endpoint, &found)?;
            }
            _ => explaining.page(endpoint)?,
        }
        Ok(explaining.all)
    }
}

struct Explaining<'b> {
    reader: BodyReader,
    body: &'b Body,
    all: Vec<Matched>,
}

impl Explaining<'_> {
    fn page(&mut self, endpoint: &Endpoint) -> Result<(), CompileError> {
        let spot = match &endpoint.records {
            Some(place) => Spot::compile(place, &self.reader)?,
            None => Spot::Path(JsonPath::root()),
        };
        let body = self.body;
        let found = spot.all(body);
        if let Some(place) = &endpoint.records {
            let (text, some) = (place_text(place).to_owned(), !found.is_empty());
            self.push("records", &text, usize::from(some), 1, None);
        }
        if let Some(detail) = &endpoint.detail {
            self.within("detail.ids", &detail.ids, &found)?;
            self.within("detail.join.left", &detail.left, &found)?;
        } else {
            self.fields(endpoint, &found)?;
        }
        let Some(page) = &endpoint.page else {
            return Ok(());
        };
        for (name, place) in &page.next {
            if let Place::Path(path) = place {
                self.whole(&format!("page.next.{name}"), path)?;
            }
        }
        if let Some(path) = &page.total {
            self.whole("page.total", path)?;
        }
        if let Some(Stop::Test { path, .. }) = &page.stop {
            self.whole("page.stop", path)?;
        }
        Ok(())
    }

    fn fields(&mut self, endpoint: &Endpoint, records: &[Found<'_>]) -> Result<(), CompileError> {
        for (name, field) in &endpoint.fields {
            let what = format!("fields.{name}");
            match &field.from {
                FieldSource::Path(path) => self.within(&what, path, records)?,
                FieldSource::Css { css, attribute } => {
                    let spot = Spot::css(css, attribute.as_deref(), &self.reader)?;
                    self.spot(&what, css, &spot, records);
                }
                FieldSource::Value(_) => {}
            }
        }
        Ok(())
    }

    fn within(
        &mut self,
        what: &str,
        path: &str,
        records: &[Found<'_>],
    ) -> Result<(), CompileError> {
        let spot = Spot::path(path, &self.reader)?;
        self.spot(what, path, &spot, records);
        Ok(())
    }

    fn spot(&mut self, what: &str, text: &str, spot: &Spot, records: &[Found<'_>]) {
        let values: Vec<Cow<'_, Value>> = records
            .iter()
            .filter_map(|record| spot.first_in(*record))
            .filter(|value| !value.is_null())
            .collect();
        let first = values.first().map(|value| shortened(value));
        self.push(what, text, values.len(), records.len(), first);
    }

    fn whole(&mut self, what: &str, path: &str) -> Result<(), CompileError> {
        let found = JsonPath::compile(path)?.first(self.body.tree()).cloned();
        let found = found.filter(|value| !value.is_null());
        let first = found.as_ref().map(shortened);
        self.push(what, path, usize::from(found.is_some()), 1, first);
        Ok(())
    }

    fn push(&mut self, what: &str, place: &str, found: usize, of: usize, first: Option<Value>) {
        self.all.push(Matched {
            what: what.to_owned(),
            place: place.to_owned(),
            found,
            of,
            first,
        });
    }
}

fn place_text(place: &crate::spec::BodyPlace) -> &str {
    match place {
        crate::spec::BodyPlace::Path(text) | crate::spec::BodyPlace::Css(text) => text,
    }
}

/// A value that is long is shown by its beginning.
fn shortened(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
        other => return other.clone(),
    };
    let is_long = text.chars().count() > SHOWN;
    let mut short: String = text.chars().take(SHOWN).collect();
    if is_long {
        short.push('…');
    }
    match value {
        Value::String(_) => Value::String(short),
        whole if is_long => Value::String(format!("{}: {short}", kind(whole))),
        whole => whole.clone(),
    }
}

fn kind(value: &Value) -> &'static str {
    if value.is_array() { "list" } else { "object" }
}
