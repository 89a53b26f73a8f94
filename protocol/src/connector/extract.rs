//! From a parsed body to records: JSONPath, then each field coerced or refused.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::body::{Body, BodyReader, Found, JsonPath, Spot, Unreadable};
use super::{CallContext, CompileError, Connector};
use crate::record::{Record, Scalar};
use crate::spec::{Endpoint, Field, FieldKind, FieldSource};
use crate::template::{Compiled, Templates, said};

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
    records: Spot,
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
    Place(Spot),
    Fixed(Value),
    Template(Compiled),
}

impl CompiledSource {
    /// The text of an element has neither markup nor entities: taking them out twice would take what the
    /// page shows.
    fn is_element(&self) -> bool {
        matches!(self, CompiledSource::Place(Spot::Css(_, None)))
    }
}

impl Extractor {
    pub(super) fn compile(
        endpoint: &Endpoint,
        reader: &BodyReader,
        templates: &mut Templates,
    ) -> Result<Self, CompileError> {
        let records = match &endpoint.records {
            Some(place) => Spot::compile(place, reader)?,
            None => Spot::Path(JsonPath::root()),
        };
        let fields = endpoint
            .fields
            .iter()
            .map(|(name, field)| CompiledField::compile(name, field, reader, templates))
            .collect::<Result<_, _>>()?;
        Ok(Extractor { records, fields })
    }
}

impl CompiledField {
    fn compile(
        name: &str,
        field: &Field,
        reader: &BodyReader,
        templates: &mut Templates,
    ) -> Result<Self, CompileError> {
        let from = match &field.from {
            FieldSource::Path(path) => CompiledSource::Place(Spot::path(path, reader)?),
            FieldSource::Css { css, attribute } => {
                CompiledSource::Place(Spot::css(css, attribute.as_deref(), reader)?)
            }
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
            FieldKind::Text if self.from.is_element() => text_of(value).map(Scalar::Text),
            FieldKind::Text => text_of(value).map(|text| Scalar::Text(plain_text(&text))),
            FieldKind::Integer => integer(&text_of(value)?).map(Scalar::Number),
            FieldKind::Decimal => decimal(&text_of(value)?).map(Scalar::Number),
            FieldKind::Float => float(&text_of(value)?).map(Scalar::Number),
            FieldKind::Boolean => boolean(value).map(Scalar::Boolean),
            FieldKind::Date => self
                .date(text_of(value)?.trim(), value.is_number())
                .map(|day| Scalar::Text(day.to_string())),
            FieldKind::Datetime => self
                .instant(text_of(value)?.trim(), value.is_number())
                .map(|at| Scalar::Text(at.to_string())),
        }
    }

    fn date(&self, text: &str, is_number: bool) -> Option<Date> {
        if let Some(format) = &self.format {
            return jiff::fmt::strtime::parse(format, text).ok()?.to_date().ok();
        }
        if let Ok(number) = text.parse::<i64>() {
            // An instant without an offset of its own is one in UTC.
            let at = epoch(number, text, is_number)?;
            return Some(at.to_zoned(TimeZone::UTC).date());
        }
        // The date of an instant is the date in its own offset, so what stands before the T counts.
        let head = text.get(..10)?;
        let rest = &text[10..];
        let whole = rest.is_empty() || rest.parse_is_time();
        whole.then(|| head.parse().ok()).flatten()
    }

    fn instant(&self, text: &str, is_number: bool) -> Option<Timestamp> {
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
        if let Ok(number) = text.parse::<i64>() {
            return epoch(number, text, is_number);
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

/// Seconds or milliseconds since 1970. Text of another length is rather a date without its dashes.
fn epoch(number: i64, text: &str, is_number: bool) -> Option<Timestamp> {
    let is_epoch = is_number || [10, 13].contains(&text.len());
    let millis = number.abs() >= 100_000_000_000;
    let instant = if millis {
        Timestamp::from_millisecond(number)
    } else {
        Timestamp::from_second(number)
    };
    instant.ok().filter(|_| is_epoch)
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

/// Digits that an integer may have: more do not fit its 128 bits.
const LONGEST_INTEGER: usize = 39;

/// Whole numbers, also written as `12.0` or `1.2e1`.
fn integer(text: &str) -> Option<String> {
    let text = text.trim();
    let (digits, power) = match text.split_once(['e', 'E']) {
        Some((digits, power)) => (digits, power.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    let point = usize::try_from(power).unwrap_or(0).min(fraction.len());
    let (moved, rest) = fraction.split_at_checked(point)?;
    let zeros = usize::try_from(power).unwrap_or(0) - point;
    let is_whole = !digits.is_empty()
        && power >= 0
        && zeros <= LONGEST_INTEGER
        && rest.bytes().all(|b| b == b'0');
    let number = is_whole.then(|| format!("{whole}{moved}{:0<zeros$}", ""));
    number?.parse::<i128>().ok().map(|n| n.to_string())
}

/// The digits as they are, when they are a JSON number.
fn decimal(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let is_digit = |c: char| c.is_ascii_digit();
    // `00012.50`, `.5` and `5.` are the same numbers as `12.50`, `0.5` and `5`, and JSON knows the latter alone.
    let bare = digits.trim_start_matches('0');
    let zero = if bare.starts_with(is_digit) { "" } else { "0" };
    let bare = match bare.strip_suffix('.') {
        Some(whole) if !digits.starts_with('.') => whole,
        _ => bare,
    };
    let number = format!("{sign}{zero}{bare}");
    let begins = digits.strip_prefix('.').unwrap_or(digits);
    let fits =
        begins.starts_with(is_digit) && serde_json::from_str::<serde_json::Number>(&number).is_ok();
    fits.then_some(number)
}

/// The shortest digits that read back as the same double; a float always shows a point.
fn float(text: &str) -> Option<String> {
    let number: f64 = text.trim().parse().ok()?;
    let digits = format!("{number:?}");
    number.is_finite().then(|| match digits.split_once('e') {
        Some((whole, power)) if !whole.contains('.') => format!("{whole}.0e{power}"),
        _ => digits,
    })
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(b) => Some(*b),
        Value::String(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
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
    /// Reads a body that did not come by HTTP.
    ///
    /// # Errors
    /// When it is not what the provider's `format` says.
    pub fn read_body(&self, bytes: &[u8]) -> Result<Body, Unreadable> {
        self.bodies.read(bytes, None)
    }

    /// The records of a body, in its order.
    ///
    /// # Errors
    /// When a field of any record is missing, null or does not fit, and is not optional.
    pub fn records(&self, context: &CallContext, body: &Body) -> Result<Vec<Record>, Misfit> {
        self.records_of(context, self.found(body).into_iter())
    }

    /// What the records of a body are read from.
    pub(super) fn found<'b>(&'b self, body: &'b Body) -> Vec<Found<'b>> {
        self.records.records.all(body)
    }

    /// The records that are read from what was found.
    pub(super) fn records_of<'b>(
        &self,
        context: &CallContext,
        found: impl Iterator<Item = Found<'b>>,
    ) -> Result<Vec<Record>, Misfit> {
        let dimensions: Vec<Scalar> = context
            .values
            .iter()
            .map(|v| as_found(v).unwrap_or(Scalar::Null))
            .collect();
        found
            .map(|found| self.record(context, &dimensions, found))
            .collect()
    }

    fn record(
        &self,
        context: &CallContext,
        dimensions: &[Scalar],
        found: Found<'_>,
    ) -> Result<Record, Misfit> {
        let mut values = Vec::with_capacity(self.columns.len());
        values.extend_from_slice(dimensions);
        for field in &self.records.fields {
            values.push(match &field.from {
                CompiledSource::Place(spot) => field.coerce(spot.first_in(found).as_deref())?,
                CompiledSource::Fixed(value) => field.coerce(Some(value))?,
                CompiledSource::Template(template) => {
                    let text = self
                        .templates
                        .render(template, &context.clone().value())
                        .map_err(|e| Misfit {
                            field: field.name.clone(),
                            why: said(&e),
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
        for (text, digits) in [
            ("00012.50", "12.50"),
            ("+5", "5"),
            ("-0.50", "-0.50"),
            ("000", "0"),
            (".5", "0.5"),
            ("-5.", "-5"),
        ] {
            assert_eq!(decimal(text).as_deref(), Some(digits), "{text}");
        }
        for text in ["+", "-", ".", "-.", "+-5", "1,234.50", "0x1", ""] {
            assert_eq!(decimal(text), None, "{text}");
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

    /// XML, CSV and HTML have nothing but text.
    #[test]
    fn text_becomes_every_kind() {
        let number = |digits: &str| Some(Scalar::Number(digits.into()));
        let text = |t: &str| Some(Scalar::Text(t.into()));
        for (kind, found, wanted) in [
            (FieldKind::Integer, " 12 ", number("12")),
            (FieldKind::Integer, "-7", number("-7")),
            (
                FieldKind::Integer,
                "123456789012345678901",
                number("123456789012345678901"),
            ),
            (FieldKind::Integer, "", None),
            (FieldKind::Integer, "1e3", number("1000")),
            (FieldKind::Integer, "-1.25E+2", number("-125")),
            (FieldKind::Integer, "1.250e2", number("125")),
            (FieldKind::Integer, "1.255e2", None),
            (FieldKind::Integer, "5e-1", None),
            (FieldKind::Integer, "1e99999999", None),
            (FieldKind::Integer, "e3", None),
            (FieldKind::Integer, "1,200", None),
            (FieldKind::Decimal, " 80000.50\n", number("80000.50")),
            (FieldKind::Decimal, "", None),
            (FieldKind::Decimal, ".5", number("0.5")),
            (FieldKind::Decimal, "-5.", number("-5")),
            (FieldKind::Decimal, ".", None),
            (FieldKind::Decimal, "-.e1", None),
            (FieldKind::Decimal, "1 000", None),
            (FieldKind::Float, "12", number("12.0")),
            (FieldKind::Float, "1e21", number("1.0e21")),
            (FieldKind::Float, "inf", None),
            (FieldKind::Boolean, "True", Some(Scalar::Boolean(true))),
            (FieldKind::Boolean, "false", Some(Scalar::Boolean(false))),
            (FieldKind::Boolean, "1", None),
            (FieldKind::String, " as found ", text(" as found ")),
            (FieldKind::Text, "<b>a</b> &amp; b", text("a & b")),
            (FieldKind::Date, "2026-11-22", text("2026-11-22")),
            (FieldKind::Date, "1795000000", text("2026-11-18")),
            (FieldKind::Date, "20261122", None),
            (
                FieldKind::Datetime,
                "1795000000",
                text("2026-11-18T11:06:40Z"),
            ),
            (
                FieldKind::Datetime,
                "1795000000000",
                text("2026-11-18T11:06:40Z"),
            ),
            (FieldKind::Datetime, "20261122093500", None),
            (FieldKind::Datetime, "20261122", None),
        ] {
            let fitted = field(kind).fit(&Value::String(found.into()));
            assert_eq!(fitted, wanted, "{kind:?} {found:?}");
        }
    }

    #[test]
    fn formats_and_zones() {
        let mut local = field(FieldKind::Datetime);
        local.zone = Some(TimeZone::get("Asia/Seoul").expect("bundled"));
        let fitted =
            |field: &CompiledField, found: &str| match field.fit(&Value::String(found.into())) {
                Some(Scalar::Text(text)) => text,
                other => format!("{other:?}"),
            };
        for (format, found, wanted) in [
            (
                "%Y-%m-%d %H:%M:%S",
                "2026-11-22 09:35:10",
                "2026-11-22T00:35:10Z",
            ),
            ("%Y.%m.%d %H:%M", "2026.11.22 08:59", "2026-11-21T23:59:00Z"),
            ("%Y%m%d%H%M", "202611220935", "2026-11-22T00:35:00Z"),
            (
                "%d/%m/%Y %H:%M %z",
                "22/11/2026 09:35 +0100",
                "2026-11-22T08:35:00Z",
            ),
            ("%Y-%m-%d %H:%M", "2026-11-22", "None"),
            (
                "%Y-%m-%d %H:%M",
                "2026-11-22 09:35 ",
                "2026-11-22T00:35:00Z",
            ),
            ("%Y-%m-%d %H:%M", "2026-02-30 09:35", "None"),
        ] {
            local.format = Some(format.into());
            assert_eq!(fitted(&local, found), wanted, "{format} {found}");
        }
        let mut day = field(FieldKind::Date);
        day.format = Some("%Y%m%d".into());
        assert_eq!(fitted(&day, "20261122"), "2026-11-22");
        assert_eq!(fitted(&day, "2026-11-22"), "None");
    }

    #[test]
    fn what_is_missing_null_or_unfit_is_named_unless_optional() {
        let mut strict = field(FieldKind::Integer);
        let why = |field: &CompiledField, value: Option<&Value>| {
            field.coerce(value).map_err(|misfit| misfit.to_string())
        };
        let (list, text) = (serde_json::json!([1]), serde_json::json!("x"));
        assert_eq!(why(&strict, None), Err("field f is missing".into()));
        assert_eq!(
            why(&strict, Some(&Value::Null)),
            Err("field f is null".into())
        );
        assert_eq!(
            why(&strict, Some(&text)),
            Err("field f does not fit integer: \"x\"".into())
        );
        strict.kind = None;
        assert_eq!(
            why(&strict, Some(&list)),
            Err("field f does not fit scalar: [1]".into())
        );
        strict.optional = true;
        for value in [None, Some(&Value::Null), Some(&list)] {
            assert_eq!(why(&strict, value), Ok(Scalar::Null));
        }
    }
}
