//! The templates of an output, compiled once for a run and rendered for every record.
//!
//! Most of them are names and literals (`{{ depart }}/{{ nights }}`): those take their values straight out of
//! the record's line, which is parsed borrowing. What a run fixes (`params`, `run`, `today`) becomes literal
//! when it is compiled. Everything else goes through Jinja.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

use minijinja::{Environment, Value};
use paceline_protocol::plan::Plan;
use paceline_protocol::template::{as_text, environment, value_of};
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a template cannot be compiled, or a record gives it no text.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It is not a template.
    #[error("the template {template:?}: {why}")]
    Broken {
        /// As written.
        template: String,
        /// What is wrong.
        why: String,
    },
    /// The record lacks the name, or a filter refused its value.
    #[error("{0}")]
    Record(String),
    /// The line is not a flat JSON object.
    #[error("not a JSON object: {0}")]
    Line(#[from] serde_json::Error),
}

/// What a run fixes for all its templates.
#[derive(Clone, Debug)]
pub struct Constants(BTreeMap<&'static str, Value>);

impl Constants {
    /// `params`, `run`, `today` and `parent` of a plan.
    pub fn of(plan: &Plan) -> Self {
        let params = plan.job.params.iter();
        let params = Value::from_pairs(params.map(|(k, v)| (k.clone(), value_of(v))));
        let run = Value::from_pairs([
            ("id", plan.run.to_string()),
            ("date", plan.date.to_string()),
            ("started_at", plan.planned_at.to_string()),
        ]);
        let today = Value::from(plan.date.to_string());
        let mut constants = BTreeMap::from([("params", params), ("run", run), ("today", today)]);
        if let Some(parent) = &plan.inputs.parent {
            constants.insert("parent", Value::from_pairs(parent.names()));
        }
        Constants(constants)
    }

    /// As names for templates.
    pub fn names(&self) -> std::collections::HashMap<String, Value> {
        let named = self.0.iter();
        named.map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
    }

    fn context(&self) -> Value {
        Value::from_pairs(self.0.iter().map(|(k, v)| (*k, v.clone())))
    }
}

/// Several templates over one kind of record.
#[derive(Debug)]
pub struct RecordTemplates {
    /// The names that plain templates use; a record's values lie in the same places.
    names: Vec<String>,
    templates: Vec<Compiled>,
    constants: Constants,
    jinja: Environment<'static>,
}

#[derive(Debug)]
enum Compiled {
    Plain(Vec<Piece>),
    /// Its name in the environment.
    Jinja(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// Place in [`RecordTemplates::names`].
    Name(usize),
}

/// One record's line, with the values that plain templates need.
#[derive(Debug)]
pub struct RecordLine<'a> {
    line: &'a str,
    values: Vec<Option<&'a RawValue>>,
    /// `now` of the record: the fleet's clock at its block's last answer.
    version: i64,
}

impl RecordTemplates {
    /// Compiles `sources`; [`RecordTemplates::render`] knows them by their place.
    ///
    /// # Errors
    /// [`TemplateError::Broken`]
    pub fn compile(sources: &[&str], constants: Constants) -> Result<Self, TemplateError> {
        let mut all = RecordTemplates {
            names: Vec::new(),
            templates: Vec::new(),
            constants,
            jinja: environment(),
        };
        for source in sources {
            let compiled = all.compile_one(source)?;
            all.templates.push(compiled);
        }
        Ok(all)
    }

    /// No templates.
    pub fn none() -> Self {
        RecordTemplates {
            names: Vec::new(),
            templates: Vec::new(),
            constants: Constants(BTreeMap::new()),
            jinja: environment(),
        }
    }

    fn compile_one(&mut self, source: &str) -> Result<Compiled, TemplateError> {
        let broken = |error: minijinja::Error| TemplateError::Broken {
            template: source.to_owned(),
            why: error.to_string(),
        };
        let name = self.templates.len().to_string();
        self.jinja
            .add_template_owned(name.clone(), source.to_owned())
            .map_err(broken)?;
        Ok(match self.plain(source) {
            Some(pieces) => Compiled::Plain(pieces),
            None => Compiled::Jinja(name),
        })
    }

    /// The pieces of a template that is only names, constants and literals.
    fn plain(&mut self, source: &str) -> Option<Vec<Piece>> {
        // Blocks, comments and trimming are Jinja's own; so is the line end that it cuts off.
        if source.contains("{%") || source.contains("{#") || source.ends_with('\n') {
            return None;
        }
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((literal, after)) = rest.split_once("{{") {
            let (inside, next) = after.split_once("}}")?;
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(self.expression(inside)?);
            rest = next;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Literal(String::new()));
        Some(pieces)
    }

    fn expression(&mut self, inside: &str) -> Option<Piece> {
        if inside.starts_with('-') || inside.ends_with('-') {
            return None;
        }
        let name = inside.trim();
        let expression = self.jinja.compile_expression(name).ok()?;
        let mut used = expression.undeclared_variables(false).into_iter();
        if used.all(|used| self.constants.0.contains_key(used.as_str())) {
            let value = expression.eval(self.constants.context()).ok()?;
            return (!value.is_undefined()).then(|| Piece::Literal(as_text(&value)));
        }
        (is_identifier(name) && !matches!(name, "now" | "now_ms"))
            .then(|| Piece::Name(self.place_of(name)))
    }

    fn place_of(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Reads what the templates need of a record's line. `version` is the part's.
    ///
    /// # Errors
    /// [`TemplateError::Line`]
    pub fn read<'a>(&self, line: &'a str, version: i64) -> Result<RecordLine<'a>, TemplateError> {
        let mut reader = serde_json::Deserializer::from_str(line);
        let values = Picked(&self.names).deserialize(&mut reader)?;
        reader.end()?;
        Ok(RecordLine {
            line,
            values,
            version,
        })
    }

    /// Appends the text of template `place` for a record.
    ///
    /// # Errors
    /// [`TemplateError::Record`], with `into` as it was or longer.
    pub fn render(
        &self,
        place: usize,
        record: &RecordLine<'_>,
        into: &mut String,
    ) -> Result<(), TemplateError> {
        match &self.templates[place] {
            Compiled::Plain(pieces) => self.render_plain(pieces, record, into),
            Compiled::Jinja(name) => self.render_jinja(name, record, into),
        }
    }

    fn render_plain(
        &self,
        pieces: &[Piece],
        record: &RecordLine<'_>,
        into: &mut String,
    ) -> Result<(), TemplateError> {
        for piece in pieces {
            match piece {
                Piece::Literal(text) => into.push_str(text),
                Piece::Name(place) => {
                    let missing = || TemplateError::Record(format!("no `{}`", self.names[*place]));
                    push_text(record.values[*place].ok_or_else(missing)?, into)?;
                }
            }
        }
        Ok(())
    }

    fn render_jinja(
        &self,
        name: &str,
        record: &RecordLine<'_>,
        into: &mut String,
    ) -> Result<(), TemplateError> {
        let refused = |error: minijinja::Error| TemplateError::Record(error.to_string());
        let template = self.jinja.get_template(name).map_err(refused)?;
        let text = template.render(self.context(record)?).map_err(refused)?;
        into.push_str(&text);
        Ok(())
    }

    fn context(&self, record: &RecordLine<'_>) -> Result<Value, TemplateError> {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(record.line)?;
        let mut context: BTreeMap<String, Value> = BTreeMap::new();
        for (name, value) in &self.constants.0 {
            context.insert((*name).to_owned(), value.clone());
        }
        if let Ok(now) = jiff::Timestamp::from_microsecond(record.version) {
            context.insert("now".to_owned(), now.to_string().into());
            context.insert("now_ms".to_owned(), now.as_millisecond().into());
        }
        context.extend(fields.iter().map(|(k, v)| (k.clone(), value_of(v))));
        Ok(Value::from_pairs(context))
    }
}

/// Whether a template's text changes from run to run or from day to day (`run`, `today`, `now`).
///
/// # Errors
/// [`TemplateError::Broken`]
pub fn names_the_run(source: &str) -> Result<bool, TemplateError> {
    let jinja = environment();
    let template = jinja
        .template_from_str(source)
        .map_err(|error| TemplateError::Broken {
            template: source.to_owned(),
            why: error.to_string(),
        })?;
    let used = template.undeclared_variables(false);
    Ok(["run", "today", "now", "now_ms"]
        .iter()
        .any(|name| used.contains(*name)))
}

fn is_identifier(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_')
        && letters.all(|c| c.is_alphanumeric() || c == '_')
}

/// Appends a JSON value as a template shows it.
fn push_text(value: &RawValue, into: &mut String) -> Result<(), TemplateError> {
    let json = value.get();
    match json.as_bytes() {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => {
            into.push_str(&json[1..json.len() - 1]);
        }
        digits if is_short_integer(digits) => into.push_str(json),
        // Longer ones may hold more than a float does.
        digits if has_point(digits) && digits.len() <= 15 => {
            let float = Value::from(json.parse::<f64>().unwrap_or(f64::NAN));
            write!(into, "{float}").expect("writing into memory cannot fail");
        }
        _ => {
            let value: serde_json::Value = serde_json::from_str(json)?;
            into.push_str(&as_text(&value_of(&value)));
        }
    }
    Ok(())
}

/// An integer whose digits are its text: within 64 bits, and not `-0`.
fn is_short_integer(json: &[u8]) -> bool {
    let digits = json.strip_prefix(b"-").unwrap_or(json);
    (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && json != b"-0"
}

/// A number that is read as a float.
fn has_point(json: &[u8]) -> bool {
    let number = matches!(json.first(), Some(b'-' | b'0'..=b'9'));
    number && json.iter().any(|b| matches!(b, b'.' | b'e' | b'E'))
}

/// Reads a flat object, keeping the values of some names without copying them.
struct Picked<'n>(&'n [String]);

impl<'de> DeserializeSeed<'de> for Picked<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Picked<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.len()];
        while let Some(name) = fields.next_key_seed(Name)? {
            match self.0.iter().position(|wanted| *wanted == name) {
                Some(place) => values[place] = Some(fields.next_value()?),
                None => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// A key, borrowed unless it holds an escape.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn constants() -> Constants {
        let params = Value::from_pairs([("event", "104")]);
        let run = Value::from_pairs([("id", "2026-11-21")]);
        let today = Value::from("2026-11-21");
        Constants(BTreeMap::from([
            ("params", params),
            ("run", run),
            ("today", today),
        ]))
    }

    fn both(source: &str, line: &str) -> (Option<String>, Option<String>) {
        let templates = RecordTemplates::compile(&[source], constants()).expect("compiles");
        let record = templates.read(line, 1_795_000_000_000_000).expect("reads");
        let mut fast = String::new();
        let fast = templates.render(0, &record, &mut fast).ok().map(|()| fast);
        let mut slow = String::new();
        let slow = templates
            .render_jinja("0", &record, &mut slow)
            .ok()
            .map(|()| slow);
        (fast, slow)
    }

    /// As a value of the environment stands in a template.
    #[test]
    fn a_literal_may_look_like_a_template() {
        let both = r#"{{ id }}-{{ "{{ kr }}" }}"#;
        let sources = ["sales:{{ \"{{ kr }}\" }}", both, "{{ \"v\" }}/{{ id }}"];
        let templates = RecordTemplates::compile(&sources, Constants(BTreeMap::new()));
        let templates = templates.expect("compile");
        let record = templates.read(r#"{"id":7}"#, 1).expect("a record");
        for (place, shown) in ["sales:{{ kr }}", "7-{{ kr }}", "v/7"]
            .into_iter()
            .enumerate()
        {
            let mut text = String::new();
            templates
                .render(place, &record, &mut text)
                .expect("renders");
            assert_eq!(text, shown);
        }
    }

    #[test]
    fn names_and_literals_are_plain() {
        let templates = RecordTemplates::compile(
            &[
                "{{ a }}-{{b}}",
                "rank:{{ params.event }}:{{ today | plus_days(1) }}",
                "{{ a | upper }}",
                "{{ now }}",
            ],
            constants(),
        )
        .expect("compiles");
        let plain: Vec<bool> = templates
            .templates
            .iter()
            .map(|t| matches!(t, Compiled::Plain(_)))
            .collect();
        assert_eq!(plain, [true, true, false, false]);
    }

    #[test]
    fn both_ways_give_the_same_text() {
        let line = r#"{"a":"x\ny","b":12,"c":12.50,"d":null,"e":true,"f":-0,"g":123456789012345678901234,"h":1e3,"i":"é\u00e9","n\u0061me":"k"}"#;
        for source in [
            "{{ a }}",
            "{{ b }}/{{ c }}",
            "{{ d }}",
            "{{ e }}",
            "{{ f }}",
            "{{ g }}",
            "{{ h }}",
            "{{ i }}",
            "{{ name }}",
            "{{ missing }}",
            "{{ params.event }}:{{ a }}",
            "plain",
            "{{- b -}}",
            "{{ a | upper }}",
            "{{ now }}",
            "{{ '}}' }}",
            "",
        ] {
            let (fast, slow) = both(source, line);
            assert_eq!(fast, slow, "{source}");
        }
        assert_eq!(both("{{ b }}/{{ c }}", line).0.as_deref(), Some("12/12.5"));
        assert_eq!(both("{{ missing }}", line).0, None);
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_went_in(text in ".*") {
            let line = serde_json::json!({ "a": text }).to_string();
            let (fast, slow) = both("<{{ a }}>", &line);
            prop_assert_eq!(&fast, &Some(format!("<{text}>")));
            prop_assert_eq!(fast, slow);
        }
    }

    #[test]
    fn a_name_that_changes_every_day_is_seen() {
        assert_eq!(names_the_run("fares:{{ destination }}").ok(), Some(false));
        assert_eq!(names_the_run("fares:{{ today }}").ok(), Some(true));
        assert_eq!(names_the_run("fares:{{ run.id }}").ok(), Some(true));
    }
}
