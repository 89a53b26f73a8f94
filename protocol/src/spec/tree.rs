//! YAML as a tree that remembers where everything stands. Numbers keep their digits, doubled keys are
//! kept (the reader complains about them), and what could only be a mistake or an attack is refused:
//! anchors, tags of one's own, several documents, a tree too deep or a file too large.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Number, Value};

use super::diagnostic::{Diagnostic, Position};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The deepest nesting.
pub const MAX_DEPTH: usize = 32;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value begins.
    pub at: Position,
    /// Where its key stands; for an item or the root, where it begins itself.
    pub key_at: Position,
    /// Its place in the tree, as in `limits[0].rate`; empty for the root.
    pub path: String,
    /// The value.
    pub data: Data,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Data {
    /// A scalar.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file, doubled keys included.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key stands.
    pub key_at: Position,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// What it is, in a word that a message can use.
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
            Data::Scalar(Value::Null) => "nothing",
            Data::Scalar(Value::Bool(_)) => "true or false",
            Data::Scalar(Value::Number(_)) => "a number",
            Data::Scalar(_) => "text",
        }
    }

    /// Calls `see` with this node and everything below it.
    pub fn walk<'n>(&'n self, see: &mut impl FnMut(&'n Node)) {
        see(self);
        match &self.data {
            Data::Scalar(_) => {}
            Data::List(items) => items.iter().for_each(|item| item.walk(see)),
            Data::Map(entries) => entries.iter().for_each(|entry| entry.node.walk(see)),
        }
    }

    fn set_paths(&mut self, path: String) {
        match &mut self.data {
            Data::Scalar(_) => {}
            Data::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    item.set_paths(format!("{path}[{i}]"));
                }
            }
            Data::Map(entries) => {
                for entry in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    entry.node.set_paths(format!("{path}{dot}{}", entry.key));
                }
            }
        }
        self.path = path;
    }
}

/// Reads the one document of `text`.
///
/// # Errors
/// The first place where it is not YAML, or not YAML that is read here.
pub fn parse(file: &str, text: &str) -> Result<Node, Diagnostic> {
    let fault = |place, message: &str| Diagnostic::error(file, place, message);
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(fault(Position::START, &message));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(at) = leading_tab(text) {
        return Err(fault(at, "a tab in the indent").hint(NO_TABS));
    }
    let mut builder = Builder {
        file,
        events: Parser::new_from_str(text),
        depth: 0,
        deepest: MAX_DEPTH,
    };
    let mut root = builder.document()?.ok_or_else(|| {
        fault(Position::START, "the file is empty")
            .hint("a job begins with `job: <name>`, a provider with `provider: <name>`")
    })?;
    root.set_paths(String::new());
    Ok(root)
}

/// Reads somebody else's YAML as JSON: larger and deeper than a file of ours, and without places. Of a key that
/// comes twice the last one counts.
///
/// # Errors
/// Where it is not YAML, or not YAML that is read here.
pub fn yaml_value(text: &str) -> Result<Value, String> {
    const LARGEST: usize = 32 << 20;
    const DEEPEST: usize = 96;
    if text.len() > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes"));
    }
    let mut builder = Builder {
        file: "",
        events: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        depth: 0,
        deepest: DEEPEST,
    };
    let root = builder.document().map_err(|fault| {
        let Diagnostic {
            line,
            column,
            message,
            ..
        } = fault;
        format!("line {line}, column {column}: {message}")
    })?;
    root.map_or(Err("it is empty".into()), |root| Ok(plain_value(root.data)))
}

fn plain_value(data: Data) -> Value {
    match data {
        Data::Scalar(value) => value,
        Data::List(items) => items
            .into_iter()
            .map(|item| plain_value(item.data))
            .collect(),
        Data::Map(entries) => {
            let entries = entries.into_iter();
            let fields = entries.map(|entry| (entry.key, plain_value(entry.node.data)));
            Value::Object(fields.collect())
        }
    }
}

const NO_TABS: &str = "YAML is indented by spaces, never by tabs";

/// The first tab that indents a line; not all of them are refused by the parser, and none is meant.
fn leading_tab(text: &str) -> Option<Position> {
    text.lines().zip(1..).find_map(|(content, line)| {
        let indent = content.len() - content.trim_start().len();
        let column = content[..indent].find('\t')? + 1;
        (indent < content.len()).then_some(Position { line, column })
    })
}

struct Builder<'t> {
    file: &'t str,
    events: Parser<'t, StrInput<'t>>,
    depth: usize,
    deepest: usize,
}

fn place(span: Span) -> Position {
    Position {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

impl<'t> Builder<'t> {
    fn fault(&self, place: Position, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.file, place, message)
    }

    fn next(&mut self) -> Result<(Event<'t>, Position), Diagnostic> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, place(span))),
            Some(Err(error)) => Err(self.not_yaml(&error)),
            None => Ok((Event::StreamEnd, Position::START)),
        }
    }

    fn not_yaml(&self, error: &saphyr_parser::ScanError) -> Diagnostic {
        let place = Position {
            line: error.marker().line().max(1),
            column: error.marker().col() + 1,
        };
        let found = self.fault(place, format!("not YAML: {}", error.info()));
        found.hint("a value with `: `, ` #`, or one of `{ [ & * ! | > % @` at its start needs quotes; entries of one mapping begin in one column")
    }

    /// The one document; `None` when there is none.
    fn document(&mut self) -> Result<Option<Node>, Diagnostic> {
        let mut root = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self
                        .fault(at, "a second document in the file")
                        .hint("one file, one job or provider; take the `---` out"));
                }
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                event => root = self.root(event, at)?,
            }
        }
    }

    /// A document of nothing but comments is no document.
    fn root(&mut self, event: Event<'t>, at: Position) -> Result<Option<Node>, Diagnostic> {
        let node = self.node(event, at, at)?;
        let nothing = matches!(node.data, Data::Scalar(Value::Null));
        Ok((!nothing).then_some(node))
    }

    fn node(
        &mut self,
        event: Event<'t>,
        at: Position,
        key_at: Position,
    ) -> Result<Node, Diagnostic> {
        let data = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_yaml(at, anchor, tag.as_deref())?;
                Data::Scalar(scalar(&text, style == ScalarStyle::Plain, tag.as_deref()))
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain_yaml(at, anchor, tag.as_deref())?;
                self.deeper(at, Self::list)?
            }
            Event::MappingStart(anchor, tag) => {
                self.plain_yaml(at, anchor, tag.as_deref())?;
                self.deeper(at, Self::map)?
            }
            _ => {
                return Err(self
                    .fault(at, "an alias (`*name`)")
                    .hint("aliases are not read; write the value out"));
            }
        };
        Ok(Node {
            at,
            key_at,
            path: String::new(),
            data,
        })
    }

    /// Refuses anchors and all tags but the core schema's.
    fn plain_yaml(&self, at: Position, anchor: usize, tag: Option<&Tag>) -> Result<(), Diagnostic> {
        if anchor != 0 {
            return Err(self
                .fault(at, "an anchor (`&name`)")
                .hint("anchors are not read; write the value out, or quote it when it is text"));
        }
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() => Err(self
                .fault(at, format!("the tag `{tag}` means nothing here"))
                .hint("take it out, or quote the value when it is text")),
            _ => Ok(()),
        }
    }

    fn deeper(
        &mut self,
        at: Position,
        read: fn(&mut Self) -> Result<Data, Diagnostic>,
    ) -> Result<Data, Diagnostic> {
        if self.depth == self.deepest {
            return Err(self
                .fault(at, format!("nested deeper than {} levels", self.deepest))
                .hint("no job or provider needs that; take brackets out"));
        }
        self.depth += 1;
        let data = read(self);
        self.depth -= 1;
        data
    }

    fn list(&mut self) -> Result<Data, Diagnostic> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Data::List(items)),
                (event, at) => items.push(self.node(event, at, at)?),
            }
        }
    }

    fn map(&mut self) -> Result<Data, Diagnostic> {
        let mut entries = Vec::new();
        loop {
            let (event, key_at) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Data::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    return Err(self
                        .fault(key_at, "a key that is not text")
                        .hint("a template as a value needs quotes: \"{{ name }}\""));
                }
            };
            let (event, at) = self.next()?;
            let node = self.node(event, at, key_at)?;
            entries.push(Entry { key, key_at, node });
        }
    }
}

fn scalar(text: &str, plain: bool, tag: Option<&Tag>) -> Value {
    let is_text = !plain || tag.is_some_and(|tag| tag.suffix == "str");
    if is_text {
        Value::String(text.to_owned())
    } else {
        plain_scalar(text)
    }
}

/// A plain scalar by YAML's core schema; a number keeps its digits. `--param` values are typed so too, where the file has no text.
pub fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

/// A decimal number in JSON's own spelling, or with a sign or zeros that YAML allows too.
fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits_first = unsigned.starts_with(|c: char| c.is_ascii_digit());
    if !digits_first
        || !unsigned
            .bytes()
            .all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
    {
        return None;
    }
    text.parse::<Number>()
        .ok()
        .or_else(|| text.parse::<i64>().ok().map(Number::from))
        .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        parse("x.yaml", text).expect("YAML")
    }

    #[test]
    fn places_are_counted_from_one() {
        let root = read("job: fares\nlimits:\n  - {name: a, rate: 5/s}\n");
        let mut places = Vec::new();
        root.walk(&mut |n| places.push((n.path.clone(), n.at.line, n.at.column, n.key_at.column)));
        assert_eq!(places[1], ("job".into(), 1, 6, 1));
        assert_eq!(places[5], ("limits[0].rate".into(), 3, 21, 15));
    }

    #[test]
    fn scalars_keep_their_type_and_digits() {
        let cases = [
            ("1", "1"),
            ("80000.50", "80000.50"),
            ("-10", "-10"),
            ("true", "true"),
            ("~", "null"),
            ("50/s", "\"50/s\""),
            ("010", "10"),
            ("1.", "1.0"),
            ("2026-11-21", "\"2026-11-21\""),
            ("1-2", "\"1-2\""),
            ("0x1F", "31"),
        ];
        for (text, json) in cases {
            assert_eq!(plain_scalar(text).to_string(), json, "{text}");
        }
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark() {
        assert_eq!(read("\u{feff}job: x").kind(), "a mapping");
    }

    #[test]
    fn attacks_are_refused() {
        for bad in [
            &"[".repeat(4000),
            "a: &x 1\nb: *x",
            "a: !ruby/object 1",
            "a: 1\n---\nb: 2",
            "\ta: 1",
            "a:\n\t- 1",
            "",
            "# nothing",
        ] {
            assert!(parse("x.yaml", bad).is_err(), "{bad:?}");
        }
        assert!(parse("x.yaml", &" ".repeat(MAX_BYTES + 1)).is_err());
    }
}
