//! From a parsed body to records: JSONPath, then each field coerced or refused.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::Value;
use serde_json_path::JsonPath as Rfc9535;

use super::{CallContext, CompileError, Connector};
use crate::record::{Record, Scalar};
use crate::spec::{BodyPlace, Endpoint, Field, FieldKind, FieldSource};
use crate::template::{Compiled, Templates};

/// A JSONPath; the plain ones (`$.a.b`) are walked without the query engine.
#[derive(Debug)]
pub(super) enum JsonPath {
    /// `$.a.b`
    Names(Vec<String>),
    /// `$.a.b[*]`
    ItemsOf(Vec<String>),
    /// Anything else of RFC 9535.
    Query(Box<Rfc9535>),
}

impl JsonPath {
    pub(super) fn compile(source: &str) -> Result<Self, CompileError> {
        let query = Rfc9535::parse(source).map_err(|e| CompileError::syntax(source, e))?;
        let (plain, items) = match source.strip_suffix("[*]") {
            Some(plain) => (plain, true),
            None => (source, false),
        };
        Ok(match (plain_names(plain), items) {
            (Some(names), false) => JsonPath::Names(names),
            (Some(names), true) => JsonPath::ItemsOf(names),
            (None, _) => JsonPath::Query(Box::new(query)),
        })
    }

    /// The first node.
    pub(super) fn first<'v>(&self, body: &'v Value) -> Option<&'v Value> {
        match self {
            JsonPath::Names(names) => walk(names, body),
            JsonPath::ItemsOf(names) => items(walk(names, body)?).next(),
            JsonPath::Query(query) => query.query(body).first(),
        }
    }

    /// Every node.
    fn all<'v>(&self, body: &'v Value) -> Vec<&'v Value> {
        match self {
            JsonPath::Names(names) => walk(names, body).into_iter().collect(),
            JsonPath::ItemsOf(names) => walk(names, body)
                .map(|v| items(v).collect())
                .unwrap_or_default(),
            JsonPath::Query(query) => query.query(body).all(),
        }
    }
}

fn plain_names(source: &str) -> Option<Vec<String>> {
    let rest = source.strip_prefix('$')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let legal = |name: &str| {
        !name.is_empty()
            && !name.as_bytes()[0].is_ascii_digit()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let names: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
    names
        .iter()
        .all(|n| legal(n))
        .then(|| names.into_iter().map(str::to_owned).collect())
}

fn walk<'v>(names: &[String], body: &'v Value) -> Option<&'v Value> {
    names
        .iter()
        .try_fold(body, |value, name| value.as_object()?.get(name))
}

fn items(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A field that is missing, null or does not fit: the cell fails with its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {field} {why}")]
pub struct Misfit {
    /// The field's name.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Debug)]
pub(super) struct Extractor {
    records: JsonPath,
    fields: Vec<CompiledField>,
}

#[derive(Debug)]
struct CompiledField {
    name: String,
    from: CompiledSource,
    kind: Option<FieldKind>,
    optional: bool,
    zone: Option<TimeZone>,
    format: Option<String>,
}

#[derive(Debug)]
enum CompiledSource {
    Path(JsonPath),
    Fixed(Value),
    Template(Compiled),
}

impl Extractor {
    pub(super) fn compile(
        endpoint: &Endpoint,
        templates: &mut Templates,
    ) -> Result<Self, CompileError> {
        for (there, what) in [
            (endpoint.page.is_some(), "pages"),
            (!endpoint.each.is_empty(), "each"),
            (endpoint.split_on.is_some(), "split_on"),
            (endpoint.detail.is_some(), "detail"),
        ] {
            if there {
                return Err(CompileError::NotBuilt(what.into()));
            }
        }
        let records = match &endpoint.records {
            Some(BodyPlace::Path(path)) => JsonPath::compile(path)?,
            Some(BodyPlace::Css(_)) => return Err(CompileError::NotBuilt("CSS selectors".into())),
            None => JsonPath::Names(Vec::new()),
        };
        let fields = endpoint
            .fields
            .iter()
            .map(|(name, field)| CompiledField::compile(name, field, templates))
            .collect::<Result<_, _>>()?;
        Ok(Extractor { records, fields })
    }
}

impl CompiledField {
    fn compile(name: &str, field: &Field, templates: &mut Templates) -> Result<Self, CompileError> {
        let from = match &field.from {
            FieldSource::Path(path) => CompiledSource::Path(JsonPath::compile(path)?),
            FieldSource::Css { .. } => return Err(CompileError::NotBuilt("CSS selectors".into())),
            FieldSource::Value(Value::String(source)) => CompiledSource::Template(
                templates
                    .compile(source)
                    .map_err(|e| CompileError::syntax(source, e))?,
            ),
            FieldSource::Value(fixed) => CompiledSource::Fixed(fixed.clone()),
        };
        let zone = match &field.zone {
            Some(zone) => Some(TimeZone::get(zone).map_err(|e| CompileError::syntax(zone, e))?),
            None => None,
        };
        Ok(CompiledField {
            name: name.to_owned(),
            from,
            kind: field.kind,
            optional: field.optional,
            zone,
            format: field.format.clone(),
        })
    }

    fn coerce(&self, value: Option<&Value>) -> Result<Scalar, Misfit> {
        let misfit = |why: String| Misfit {
            field: self.name.clone(),
            why,
        };
        let result = match value {
            None => Err(misfit("is missing".into())),
            Some(Value::Null) => Err(misfit("is null".into())),
            Some(value) => self.fit(value).ok_or_else(|| misfit(self.unfit(value))),
        };
        match result {
            Err(_) if self.optional => Ok(Scalar::Null),
            other => other,
        }
    }

    fn unfit(&self, value: &Value) -> String {
        let kind = self
            .kind
            .map_or("scalar".into(), |k| format!("{k:?}").to_lowercase());
        let shown: String = value.to_string().chars().take(60).collect();
        format!("does not fit {kind}: {shown}")
    }

    fn fit(&self, value: &Value) -> Option<Scalar> {
        let Some(kind) = self.kind else {
            return as_found(value);
        };
        match kind {
            FieldKind::String => text_of(value).map(Scalar::Text),
            FieldKind::Text => text_of(value).map(|text| Scalar::Text(plain_text(&text))),
            FieldKind::Integer => integer(&text_of(value)?).map(Scalar::Number),
            FieldKind::Decimal => decimal(&text_of(value)?).map(Scalar::Number),
            FieldKind::Float => float(&text_of(value)?).map(Scalar::Number),
            FieldKind::Boolean => boolean(value).map(Scalar::Boolean),
            FieldKind::Date => self
                .date(&text_of(value)?)
                .map(|day| Scalar::Text(day.to_string())),
            FieldKind::Datetime => self
                .instant(&text_of(value)?)
                .map(|at| Scalar::Text(at.to_string())),
        }
    }

    fn date(&self, text: &str) -> Option<Date> {
        if let Some(format) = &self.format {
            return jiff::fmt::strtime::parse(format, text).ok()?.to_date().ok();
        }
        // The date of an instant is the date in its own offset, so what stands before the T counts.
        let head = text.get(..10)?;
        let rest = &text[10..];
        let whole = rest.is_empty() || rest.parse_is_time();
        whole.then(|| head.parse().ok()).flatten()
    }

    fn instant(&self, text: &str) -> Option<Timestamp> {
        if let Some(format) = &self.format {
            let parsed = jiff::fmt::strtime::parse(format, text).ok()?;
            return parsed
                .to_timestamp()
                .ok()
                .or_else(|| self.local(parsed.to_datetime().ok()?));
        }
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Some(instant);
        }
        if let Ok(seconds) = text.parse::<i64>() {
            let millis = seconds.abs() >= 100_000_000_000;
            return if millis {
                Timestamp::from_millisecond(seconds)
            } else {
                Timestamp::from_second(seconds)
            }
            .ok();
        }
        self.local(text.parse().ok()?)
    }

    /// A local time is an instant only in a known zone.
    fn local(&self, local: DateTime) -> Option<Timestamp> {
        let zone = self.zone.clone()?;
        zone.to_ambiguous_zoned(local)
            .compatible()
            .ok()
            .map(|zoned| zoned.timestamp())
    }
}

/// What follows a date in an instant.
trait AfterDate {
    fn parse_is_time(&self) -> bool;
}

impl AfterDate for str {
    fn parse_is_time(&self) -> bool {
        format!("2000-01-01{self}").parse::<Timestamp>().is_ok()
            || format!("2000-01-01{self}").parse::<DateTime>().is_ok()
    }
}

fn as_found(value: &Value) -> Option<Scalar> {
    match value {
        Value::Bool(b) => Some(Scalar::Boolean(*b)),
        Value::Number(n) => Some(Scalar::Number(n.to_string())),
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whole numbers, also written as `12.0`.
fn integer(text: &str) -> Option<String> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    whole.parse::<i128>().ok().map(|n| n.to_string())
}

/// The digits as they are, when they are a JSON number.
fn decimal(text: &str) -> Option<String> {
    let text = text.trim();
    let starts_well = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let is_number = starts_well && serde_json::from_str::<serde_json::Number>(text).is_ok();
    is_number.then(|| text.to_owned())
}

/// The shortest digits that read back as the same double; a float always shows a point.
fn float(text: &str) -> Option<String> {
    let number: f64 = text.trim().parse().ok()?;
    number.is_finite().then(|| format!("{number:?}"))
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(text) if text == "true" => Some(true),
        Value::String(text) if text == "false" => Some(false),
        _ => None,
    }
}

/// Text without markup and entities.
fn plain_text(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        plain.push_str(&rest[..open]);
        let after = &rest[open..];
        let is_tag =
            after[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '!');
        match after.find('>').filter(|_| is_tag) {
            Some(close) => rest = &after[close + 1..],
            None => {
                plain.push('<');
                rest = &after[1..];
            }
        }
    }
    plain.push_str(rest);
    html_escape::decode_html_entities(&plain).into_owned()
}

impl Connector {
    /// The records of a body, in its order.
    ///
    /// # Errors
    /// When a field of any record is missing, null or does not fit, and is not optional.
    pub fn records(&self, context: &CallContext, body: &Value) -> Result<Vec<Record>, Misfit> {
        let dimensions: Vec<Scalar> = context
            .values
            .iter()
            .map(|v| as_found(v).unwrap_or(Scalar::Null))
            .collect();
        self.records
            .records
            .all(body)
            .into_iter()
            .map(|found| self.record(context, &dimensions, found))
            .collect()
    }

    fn record(
        &self,
        context: &CallContext,
        dimensions: &[Scalar],
        found: &Value,
    ) -> Result<Record, Misfit> {
        let mut values = Vec::with_capacity(self.columns.len());
        values.extend_from_slice(dimensions);
        for field in &self.records.fields {
            values.push(match &field.from {
                CompiledSource::Path(path) => field.coerce(path.first(found))?,
                CompiledSource::Fixed(value) => field.coerce(Some(value))?,
                CompiledSource::Template(template) => {
                    let text = self
                        .templates
                        .render(template, &context.clone().value())
                        .map_err(|e| Misfit {
                            field: field.name.clone(),
                            why: e.to_string(),
                        })?;
                    field.coerce(Some(&Value::String(text)))?
                }
            });
        }
        Ok(Record {
            columns: self.columns.clone(),
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: FieldKind) -> CompiledField {
        CompiledField {
            name: "f".into(),
            from: CompiledSource::Fixed(Value::Null),
            kind: Some(kind),
            optional: false,
            zone: None,
            format: None,
        }
    }

    fn fitted(kind: FieldKind, json: &str) -> Option<Scalar> {
        field(kind).fit(&serde_json::from_str(json).expect("json"))
    }

    #[test]
    fn a_decimal_keeps_its_digits() {
        for digits in ["80000.50", "0.1", "-3", "123456789012345678901234567890.10"] {
            assert_eq!(
                fitted(FieldKind::Decimal, digits),
                Some(Scalar::Number(digits.into()))
            );
            assert_eq!(
                fitted(FieldKind::Decimal, &format!("{digits:?}")),
                Some(Scalar::Number(digits.into()))
            );
        }
        for bad in [r#""1,234.50""#, r#""""#, r#""NaN""#, "true", "[1]"] {
            assert_eq!(fitted(FieldKind::Decimal, bad), None, "{bad}");
        }
    }

    #[test]
    fn an_instant_is_utc_and_a_local_time_needs_a_zone() {
        let shown = |t: &str| Some(Scalar::Text(t.into()));
        assert_eq!(
            fitted(FieldKind::Datetime, r#""2026-11-22T09:35:00+09:00""#),
            shown("2026-11-22T00:35:00Z")
        );
        assert_eq!(
            fitted(FieldKind::Datetime, r#""2026-11-22T09:35:00""#),
            None
        );
        let mut local = field(FieldKind::Datetime);
        local.zone = Some(TimeZone::get("Asia/Seoul").expect("bundled"));
        assert_eq!(
            local.fit(&Value::String("2026-11-22T09:35:00".into())),
            shown("2026-11-22T00:35:00Z")
        );
        assert_eq!(
            fitted(FieldKind::Date, r#""2026-11-22T23:35:00+09:00""#),
            shown("2026-11-22")
        );
        assert_eq!(fitted(FieldKind::Date, r#""2026-11-22 yes""#), None);
    }

    #[test]
    fn floats_show_a_point_and_integers_none() {
        assert_eq!(
            fitted(FieldKind::Float, "12"),
            Some(Scalar::Number("12.0".into()))
        );
        assert_eq!(
            fitted(FieldKind::Integer, "12.0"),
            Some(Scalar::Number("12".into()))
        );
        assert_eq!(fitted(FieldKind::Integer, "12.5"), None);
    }

    #[test]
    fn text_loses_markup_and_entities() {
        assert_eq!(
            plain_text("<b>a</b> &lt; b &amp; 1 < 2 &quot;x&quot;"),
            "a < b & 1 < 2 \"x\""
        );
    }

    #[test]
    fn plain_paths_need_no_query_engine() {
        assert!(matches!(
            JsonPath::compile("$.data[*]"),
            Ok(JsonPath::ItemsOf(_))
        ));
        assert!(matches!(
            JsonPath::compile("$.price.total"),
            Ok(JsonPath::Names(_))
        ));
        assert!(matches!(
            JsonPath::compile("$.location[0]"),
            Ok(JsonPath::Query(_))
        ));
    }
}
