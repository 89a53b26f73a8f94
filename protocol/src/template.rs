//! Templates: Jinja with undefined names refused, and the filters that jobs use.
//!
//! A number becomes text with the shortest digits that read back as the same; a float always shows a
//! point (`12.0`). A boolean is `true` or `false`, as APIs and YAML spell it (Jinja's own would be `True`). Null is an empty
//! text, as in CSV (Jinja's own would be `None`).

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

mod signing;

pub use signing::TOTP_STEP_S;

/// The filters that exist beside minijinja's own; the reader uses this list to name the nearest one.
pub const FILTERS: [&str; 10] = [
    "plus_days",
    "date",
    "upper",
    "lower",
    "urlencode",
    "sha256",
    "bcrypt",
    "totp",
    "base64",
    "hex",
];

/// An environment that renders templates as the spec says: strict, nothing escaped.
pub fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    // An error would carry the values of its template, secrets among them.
    env.set_debug(false);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(|out, state, value| match own_text(value) {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => minijinja::escape_formatter(out, state, value),
    });
    env.add_filter("urlencode", urlencode);
    env.add_filter("upper", |value: &Value| {
        given(value).map(|v| as_text(v).to_uppercase())
    });
    env.add_filter("lower", |value: &Value| {
        given(value).map(|v| as_text(v).to_lowercase())
    });
    env.add_filter("string", |value: &Value| given(value).map(as_text));
    env.add_filter("plus_days", plus_days);
    env.add_filter("date", date);
    env.add_filter("sha256", sha256);
    env.add_filter("base64", base64);
    env.add_filter("hex", hex_digits);
    env.add_filter("bcrypt", signing::bcrypt);
    env.add_filter("totp", signing::totp);
    env
}

/// A value as a template shows it.
pub fn as_text(value: &Value) -> String {
    own_text(value).map_or_else(|| value.to_string(), str::to_owned)
}

/// The text of a value that Jinja would spell as Python does.
fn own_text(value: &Value) -> Option<&'static str> {
    match value.kind() {
        ValueKind::Bool if value.is_true() => Some("true"),
        ValueKind::Bool => Some("false"),
        ValueKind::None => Some(""),
        _ => None,
    }
}

/// A value that is there.
fn given(value: &Value) -> Result<&Value, Error> {
    match value.is_undefined() {
        true => Err(Error::from(ErrorKind::UndefinedError)),
        false => Ok(value),
    }
}

/// minijinja's own, with booleans as they are shown elsewhere; of a map nulls are left out.
fn urlencode(value: &Value) -> Result<String, Error> {
    let value = given(value)?;
    if value.kind() != ValueKind::Map {
        return match value.kind() {
            ValueKind::Bytes => minijinja::filters::urlencode(value),
            _ => minijinja::filters::urlencode(&Value::from(as_text(value))),
        };
    }
    let mut pairs = Vec::new();
    for name in value.try_iter()? {
        let one = value.get_item(&name)?;
        if !one.is_none() {
            pairs.push((as_text(&name), Value::from(as_text(&one))));
        }
    }
    minijinja::filters::urlencode(&Value::from_pairs(pairs))
}

/// Compiled templates that share one environment.
#[derive(Debug)]
pub struct Templates {
    env: Environment<'static>,
    compiled: usize,
}

/// One template of a [`Templates`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiled {
    /// No braces in it.
    Literal(String),
    /// The whole template is one name.
    Name(String),
    /// Anything else, by its name in the environment.
    Template(String),
}

impl Templates {
    /// Templates of `env`.
    pub fn new(env: Environment<'static>) -> Self {
        Templates { env, compiled: 0 }
    }

    /// Compiles `source`.
    ///
    /// # Errors
    /// When its syntax is wrong.
    pub fn compile(&mut self, source: &str) -> Result<Compiled, Error> {
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok(Compiled::Literal(source.to_owned()));
        }
        if let Some(name) = whole_name(source) {
            return Ok(Compiled::Name(name.to_owned()));
        }
        let name = format!("t{}", self.compiled);
        self.env
            .add_template_owned(name.clone(), source.to_owned())?;
        self.compiled += 1;
        Ok(Compiled::Template(name))
    }

    /// Renders with the names that `context` gives.
    ///
    /// # Errors
    /// When a name is not defined or a filter refuses its value.
    pub fn render(&self, template: &Compiled, context: &Value) -> Result<String, Error> {
        match template {
            Compiled::Literal(text) => Ok(text.clone()),
            Compiled::Name(name) => self.lookup(name, context).map(|value| as_text(&value)),
            Compiled::Template(name) => self.env.get_template(name)?.render(context.clone()),
        }
    }

    /// The value of an expression, with its type.
    ///
    /// # Errors
    /// When its syntax is wrong, a name is not defined, or a filter refuses its value.
    pub fn evaluate(&self, expression: &str, context: &Value) -> Result<Value, Error> {
        let value = self
            .env
            .compile_expression(expression)?
            .eval(context.clone())?;
        if value.is_undefined() {
            return Err(Error::from(ErrorKind::UndefinedError));
        }
        Ok(value)
    }

    fn lookup(&self, name: &str, context: &Value) -> Result<Value, Error> {
        let value = context.get_attr(name)?;
        if value.is_undefined() {
            return Err(Error::new(
                ErrorKind::UndefinedError,
                format!("{name} is not defined"),
            ));
        }
        Ok(value)
    }
}

/// What is wrong with a template, without the names that templates have among themselves.
pub fn said(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// The name when a template is nothing but `{{ name }}`.
pub fn whole_name(source: &str) -> Option<&str> {
    let name = source.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let reserved = ["true", "false", "none", "True", "False", "None"];
    let good = !name.is_empty()
        && name.bytes().all(legal)
        && !name.as_bytes()[0].is_ascii_digit()
        && !reserved.contains(&name);
    good.then_some(name)
}

/// The expression when a template is nothing but one `{{ expression }}`.
pub fn whole_expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let more = ["{{", "}}", "{%", "{#"];
    (!more.iter().any(|mark| inner.contains(mark))).then(|| inner.trim_matches('-').trim())
}

fn bad(text: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, text)
}

/// `day | plus_days(n)`: an ISO date `n` days later.
fn plus_days(day: &str, days: i64) -> Result<String, Error> {
    let head = day.get(..10).unwrap_or(day);
    let date: Date = head
        .parse()
        .map_err(|_| bad(format!("plus_days: {day:?} is not a date")))?;
    date.checked_add(
        Span::new()
            .try_days(days)
            .map_err(|e| bad(format!("plus_days: {e}")))?,
    )
    .map(|d| d.to_string())
    .map_err(|e| bad(format!("plus_days: {e}")))
}

/// `instant | date(format, zone)`: strftime, an instant in UTC unless told a zone; a date has none.
fn date(value: &Value, format: &str, zone: Option<&str>) -> Result<String, Error> {
    let text = value.to_string();
    let shown = if let Ok(instant) = text.parse::<Timestamp>() {
        let zone = match zone {
            Some(name) => TimeZone::get(name).map_err(|e| bad(format!("date: {e}")))?,
            None => TimeZone::UTC,
        };
        jiff::fmt::strtime::format(format, &instant.to_zoned(zone))
    } else if let Ok(day) = text.parse::<Date>() {
        jiff::fmt::strtime::format(format, day)
    } else if let Ok(local) = text.parse::<DateTime>() {
        jiff::fmt::strtime::format(format, local)
    } else {
        return Err(bad(format!(
            "date: {text:?} is neither an instant nor a date"
        )));
    };
    shown.map_err(|e| bad(format!("date: {e}")))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match value.kind() {
        ValueKind::Bytes => value.as_bytes().unwrap_or_default().to_vec(),
        _ => as_text(value).into_bytes(),
    }
}

fn sha256(value: &Value) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes_of(value)))
}

fn base64(value: &Value) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes_of(value))
}

fn hex_digits(value: &Value) -> String {
    hex::encode(bytes_of(value))
}

/// A template's value from a JSON one. Whole numbers stay numbers; a number with a point or exponent
/// becomes a float; both show as the spec says. One with more digits than a float holds keeps them as text.
pub fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::Number(n) => number(n),
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(items) => {
            Value::from(items.iter().map(value_of).collect::<Vec<_>>())
        }
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(k, v)| (k.clone(), value_of(v))))
        }
    }
}

fn number(n: &serde_json::Number) -> Value {
    if let Some(whole) = n.as_i64() {
        Value::from(whole)
    } else if let Some(whole) = n.as_u64() {
        Value::from(whole)
    } else {
        // A whole number beyond 64 bits keeps its digits as text.
        let digits = n.to_string();
        let float = digits.contains(['.', 'e', 'E']);
        match float.then(|| digits.parse::<f64>()) {
            Some(Ok(float)) if holds(float, &digits) => Value::from(float),
            Some(_) => Value::from(shortest(&digits)),
            None => Value::from(digits),
        }
    }
}

/// As many digits as a float's own longest spelling has: a number of these stays one, so that it compares and counts as one.
const FLOAT_DIGITS: usize = 17;

/// Whether `float`, read from `digits`, is the number that they say, as near as a float is to any. One with an exponent is
/// a float's own spelling.
fn holds(float: f64, digits: &str) -> bool {
    let significant = digits.trim_start_matches(['-', '0', '.']);
    significant.bytes().filter(u8::is_ascii_digit).count() <= FLOAT_DIGITS
        || digits.contains(['e', 'E'])
        || float.to_string() == digits.trim_end_matches('0').trim_end_matches('.')
}

/// A decimal's digits without the zeros that say nothing.
fn shortest(digits: &str) -> &str {
    let short = digits.trim_end_matches('0');
    match short.ends_with('.') {
        true => &digits[..short.len() + 1],
        false => short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn render(template: &str, context: Value) -> Result<String, Error> {
        environment().render_str(template, context)
    }

    #[test]
    fn what_a_float_can_hold_compares_as_a_number() {
        let of = |digits: &str| value_of(&serde_json::from_str(digits).expect("a number"));
        for digits in [
            "0.0000123456789012",
            "0.10000000000000001",
            "80000.50",
            "1e300",
        ] {
            let value = of(digits);
            assert!(value.is_number(), "{digits}");
        }
        let long = of("123456789.123456789012");
        assert_eq!(long.as_str(), Some("123456789.123456789012"));
    }

    #[test]
    fn days_and_dates() {
        let cell = context! { depart => "2026-12-30", nights => 3, at => "2026-11-21T03:04:05Z" };
        let shown = |t: &str| render(t, cell.clone()).expect(t);
        assert_eq!(shown("{{ depart | plus_days(nights) }}"), "2027-01-02");
        assert_eq!(shown("{{ depart | date('%Y%m%d') }}"), "20261230");
        assert_eq!(shown("{{ at | date('%y%m%dT%H%M%SZ') }}"), "261121T030405Z");
        assert_eq!(shown("{{ at | date('%H:%M', 'Asia/Seoul') }}"), "12:04");
    }

    #[test]
    fn an_undefined_name_is_an_error() {
        assert!(render("{{ nihgts }}", context! { nights => 1 }).is_err());
    }

    #[test]
    fn one_whole_expression_is_told_from_text() {
        let whole = |source: &str| whole_expression(source).map(str::to_owned);
        assert_eq!(whole("{{ a // 1000 }}").as_deref(), Some("a // 1000"));
        assert_eq!(whole("{{ a }}/{{ b }}"), None);
        assert_eq!(whole("x {{ a }}"), None);
        let templates = Templates::new(environment());
        let context = context! { a => 7 };
        let value = templates.evaluate("a + 1", &context).expect("a number");
        assert_eq!(value, Value::from(8));
        assert!(templates.evaluate("b", &context).is_err());
    }

    #[test]
    fn booleans_show_as_apis_spell_them() {
        let context = context! { live => true, dead => false };
        for (template, right) in [
            ("{{ live }}", "true"),
            ("a={{ live }}&b={{ dead }}", "a=true&b=false"),
            ("{{ not dead }}", "true"),
        ] {
            assert_eq!(render(template, context.clone()).expect("renders"), right);
            let mut templates = Templates::new(environment());
            let compiled = templates.compile(template).expect("compiles");
            let shown = templates.render(&compiled, &context).expect("renders");
            assert_eq!(shown, right, "{template}");
        }
        assert!(render("{{ nothing }}", context).is_err());
    }

    #[test]
    fn null_is_an_empty_text() {
        let context = context! { none => (), live => true };
        for (template, right) in [
            ("{{ none }}", ""),
            ("a{{ none }}b", "ab"),
            (
                "[{{ none | upper }}{{ none | urlencode }}{{ none | string }}]",
                "[]",
            ),
            ("{{ none | base64 }}", ""),
            (
                "{{ live | urlencode }}&{{ live | lower }}&{{ live | string }}",
                "true&true&true",
            ),
            ("{{ {'a': live, 'b': none} | urlencode }}", "a=true"),
            ("{{ 'x y' | urlencode }}", "x%20y"),
        ] {
            assert_eq!(render(template, context.clone()).expect(template), right);
            let mut templates = Templates::new(environment());
            let compiled = templates.compile(template).expect("compiles");
            let shown = templates.render(&compiled, &context).expect("renders");
            assert_eq!(shown, right, "{template}");
        }
        for filter in ["upper", "lower", "string", "urlencode"] {
            let template = format!("{{{{ nothing | {filter} }}}}");
            assert!(render(&template, context.clone()).is_err(), "{template}");
        }
    }

    #[test]
    fn numbers_show_as_written() {
        let json: serde_json::Value = serde_json::from_str(r#"[12, 12.0, 0.1, -3]"#).expect("json");
        let shown: Vec<String> = json
            .as_array()
            .expect("list")
            .iter()
            .map(|v| render("{{ v }}", context! { v => value_of(v) }).expect("renders"))
            .collect();
        assert_eq!(shown, ["12", "12.0", "0.1", "-3"]);
        for (digits, right) in [
            ("80000.50", "80000.5"),
            ("12.00", "12.0"),
            ("1e3", "1000.0"),
            ("0.1234567890123456", "0.1234567890123456"),
            ("123456789012345678.10", "123456789012345678.1"),
            ("123456789012345678.00", "123456789012345678.0"),
            ("-0.12345678901234567890123", "-0.12345678901234567890123"),
        ] {
            let number: serde_json::Value = serde_json::from_str(digits).expect("a number");
            assert_eq!(as_text(&value_of(&number)), right);
        }
    }
}
