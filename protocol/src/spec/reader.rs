//! The combinators that turn a tree into the model and collect every fault on the way. A reader of a
//! part returns `None` after a fault; a caller falls back to a default and goes on, so that a file's
//! faults come all at once.

use std::cell::RefCell;
use std::fmt::Display;

use indexmap::IndexMap;
use serde_json::Value;

use super::diagnostic::{Diagnostic, Position, choose};
use super::environment::{is_variable, names_in};
use super::jinja;
use super::scope::{Spot, TemplateUse};
use super::tree::{Data, Entry, Node};
use super::words;
use super::{Path, Span, Template};
use crate::ids::is_name;

/// The file in hand: what was found wrong, and the templates that it uses.
pub(super) struct Reader<'f> {
    file: &'f str,
    found: RefCell<Vec<Diagnostic>>,
    uses: RefCell<Vec<TemplateUse>>,
}

/// A mapping whose keys have been checked.
pub(super) struct Fields<'r, 'n> {
    reader: &'r Reader<'r>,
    keys: &'static [&'static str],
    entries: &'n [Entry],
    /// Where the mapping's own key stands, for what is missing in it.
    key_at: Position,
}

impl<'f> Reader<'f> {
    pub fn new(file: &'f str) -> Self {
        Reader {
            file,
            found: RefCell::default(),
            uses: RefCell::default(),
        }
    }

    /// What was found.
    pub fn into_parts(self) -> (Vec<Diagnostic>, Vec<TemplateUse>) {
        (self.found.into_inner(), self.uses.into_inner())
    }

    /// Reports an error; always `None`, to be returned.
    pub fn fault<T>(
        &self,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Option<T> {
        self.report(Diagnostic::error(self.file, at, message).hint(hint));
        None
    }

    /// Reports a warning.
    pub fn warn(&self, at: Position, message: impl Into<String>, hint: impl Into<String>) {
        self.report(
            Diagnostic::error(self.file, at, message)
                .hint(hint)
                .warning(),
        );
    }

    fn report(&self, found: Diagnostic) {
        self.found.borrow_mut().push(found);
    }

    fn wanted<T>(&self, node: &Node, what: &str) -> Option<T> {
        self.fault(
            node.at,
            format!("{} where {what} belongs", node.kind()),
            format!("write {what}"),
        )
    }

    // ------------------------------------------------------------------------------------ mappings

    /// A mapping of exactly these keys, each at most once.
    pub fn fields<'r, 'n>(
        &'r self,
        node: &'n Node,
        keys: &'static [&'static str],
    ) -> Option<Fields<'r, 'n>> {
        let Data::Map(entries) = &node.data else {
            let what = format!("{} where a mapping belongs", node.kind());
            return self.fault(node.at, what, format!("its keys: {}", keys.join(", ")));
        };
        self.no_doubles(entries);
        for entry in entries.iter().filter(|e| !keys.contains(&e.key.as_str())) {
            let message = format!("unknown key `{}`", entry.key);
            self.fault::<()>(entry.key_at, message, choose(&entry.key, keys, "keys here"));
        }
        Some(Fields {
            reader: self,
            keys,
            entries,
            key_at: node.key_at,
        })
    }

    fn no_doubles(&self, entries: &[Entry]) {
        for (i, entry) in entries.iter().enumerate() {
            if let Some(first) = entries[..i].iter().find(|e| e.key == entry.key) {
                let message = format!("`{}` is written twice", entry.key);
                let hint = format!(
                    "the first one stands in line {}; keep one of them",
                    first.key_at.line
                );
                self.fault::<()>(entry.key_at, message, hint);
            }
        }
    }

    /// A mapping of any keys, in the order of the file.
    pub fn map<T>(
        &self,
        node: &Node,
        read: impl Fn(&Self, &Node) -> Option<T>,
    ) -> Option<IndexMap<String, T>> {
        let Data::Map(entries) = &node.data else {
            return self.wanted(node, "a mapping");
        };
        self.no_doubles(entries);
        Some(
            entries
                .iter()
                .filter_map(|e| Some((e.key.clone(), read(self, &e.node)?)))
                .collect(),
        )
    }

    /// The same, and each key checked.
    pub fn keyed<T>(
        &self,
        node: &Node,
        legal: fn(&str) -> bool,
        rule: &str,
        read: impl Fn(&Self, &Node) -> Option<T>,
    ) -> Option<IndexMap<String, T>> {
        if let Data::Map(entries) = &node.data {
            for entry in entries.iter().filter(|e| !legal(&e.key)) {
                self.fault::<()>(
                    entry.key_at,
                    format!("`{}` cannot be a name here", entry.key),
                    rule,
                );
            }
        }
        self.map(node, read)
    }

    /// A list; what cannot be read is reported and left out.
    pub fn list<T>(&self, node: &Node, read: impl Fn(&Self, &Node) -> Option<T>) -> Option<Vec<T>> {
        match &node.data {
            Data::List(items) => Some(items.iter().filter_map(|item| read(self, item)).collect()),
            _ => self.wanted(node, "a list"),
        }
    }

    /// A list, or one value that stands for a list of one.
    pub fn one_or_more<T>(
        &self,
        node: &Node,
        read: impl Fn(&Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &node.data {
            Data::List(_) => self.list(node, read),
            _ => Some(vec![read(self, node)?]),
        }
    }

    // ------------------------------------------------------------------------------------- scalars

    /// Text. A number is not text: whoever means digits puts them in quotes.
    pub fn text(&self, node: &Node) -> Option<String> {
        match &node.data {
            Data::Scalar(Value::String(text)) => {
                self.variables_fit(node, text).then(|| text.clone())
            }
            Data::Scalar(Value::Number(n)) => self.fault(
                node.at,
                "a number where text belongs",
                format!("put it in quotes: \"{n}\""),
            ),
            Data::Scalar(Value::Bool(b)) => self.fault(
                node.at,
                format!("{b} where text belongs"),
                format!("put it in quotes: \"{b}\""),
            ),
            _ => self.wanted(node, "text"),
        }
    }

    /// Text, or a number as its digits.
    pub fn word(&self, node: &Node) -> Option<String> {
        match &node.data {
            Data::Scalar(Value::Number(n)) => Some(n.to_string()),
            _ => self.text(node),
        }
    }

    fn variables_fit(&self, node: &Node, text: &str) -> bool {
        let Err(broken) = names_in(text) else {
            return true;
        };
        let message = format!("`${{{broken}` is no name of the environment");
        self.fault::<()>(
            node.at,
            message,
            "write ${NAME}: capital letters, digits and _, closed by }",
        );
        false
    }

    /// true or false.
    pub fn boolean(&self, node: &Node) -> Option<bool> {
        match node.data {
            Data::Scalar(Value::Bool(b)) => Some(b),
            _ => self.wanted(node, "true or false"),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn whole(&self, node: &Node, least: u64, most: u64) -> Option<u64> {
        let Data::Scalar(Value::Number(n)) = &node.data else {
            return self.wanted(node, "a whole number");
        };
        match n.as_u64().filter(|n| (least..=most).contains(n)) {
            Some(n) => Some(n),
            None if most == u64::MAX => self.fault(
                node.at,
                format!("{n} does not fit"),
                format!("a whole number from {least} on"),
            ),
            None => self.fault(
                node.at,
                format!("{n} does not fit"),
                format!("a whole number from {least} to {most}"),
            ),
        }
    }

    /// A whole number that fits 32 bits.
    pub fn count(&self, node: &Node, least: u32, most: u32) -> Option<u32> {
        let n = self.whole(node, least.into(), most.into())?;
        u32::try_from(n).ok()
    }

    /// A number from 0 to 1.
    pub fn share(&self, node: &Node) -> Option<f64> {
        let Data::Scalar(Value::Number(n)) = &node.data else {
            return self.wanted(node, "a share from 0 to 1");
        };
        match n.as_f64().filter(|n| (0.0..=1.0).contains(n)) {
            Some(share) => Some(share),
            None => self.fault(
                node.at,
                format!("{n} is no share"),
                "a number from 0 to 1: 0.99 is 99 %",
            ),
        }
    }

    /// Any number.
    pub fn number(&self, node: &Node) -> Option<f64> {
        match &node.data {
            Data::Scalar(Value::Number(n)) => n.as_f64(),
            _ => self.wanted(node, "a number"),
        }
    }

    /// Anything, as JSON.
    pub fn value(&self, node: &Node) -> Option<Value> {
        match &node.data {
            Data::Scalar(Value::String(text)) => self
                .variables_fit(node, text)
                .then(|| Value::String(text.clone())),
            Data::Scalar(value) => Some(value.clone()),
            Data::List(items) => Some(items.iter().filter_map(|item| self.value(item)).collect()),
            Data::Map(_) => {
                let fields = self.map(node, Self::value)?;
                Some(Value::Object(fields.into_iter().collect()))
            }
        }
    }

    /// Warns of a scalar that looks like a template where none is made: it is used as it stands.
    pub fn no_template(&self, node: &Node) {
        if let Data::Scalar(Value::String(text)) = &node.data
            && text.contains("{{")
        {
            self.warn(
                node.at,
                format!("`{text}` is used as it stands: there is no template here"),
                "give the plain value here, and write the template where it is used",
            );
        }
    }

    /// A scalar.
    pub fn scalar(&self, node: &Node) -> Option<Value> {
        match &node.data {
            Data::Scalar(Value::Null) | Data::List(_) | Data::Map(_) => {
                self.wanted(node, "text or a number")
            }
            _ => self.value(node),
        }
    }

    // --------------------------------------------------------------------------------------- words

    /// Text that `parse` understands; `what` names it in the message.
    pub fn parsed<T, E: Display>(
        &self,
        node: &Node,
        what: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.word(node)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(right) => self.fault(node.at, format!("`{text}` is no {what}"), right.to_string()),
        }
    }

    /// A length of time.
    pub fn span(&self, node: &Node) -> Option<Span> {
        self.parsed(node, "length of time", words::span)
    }

    /// A length of time that is not nothing.
    pub fn some_span(&self, node: &Node) -> Option<Span> {
        let span = self.span(node)?;
        if span.0.is_zero() {
            return self.fault(
                node.at,
                "no time at all",
                "a length of time above zero, such as 30s",
            );
        }
        Some(span)
    }

    /// One of the words of `known`.
    pub fn choice<T: Copy>(&self, node: &Node, known: &[(&str, T)]) -> Option<T> {
        let text = self.text(node)?;
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        self.fault(
            node.at,
            format!("`{text}` is not known here"),
            choose(&text, &words, "one of"),
        )
    }

    /// A name of a job, provider, endpoint or limit.
    pub fn name(&self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if is_name(&text) {
            return Some(text);
        }
        self.fault(node.at, format!("`{text}` cannot be a name"), NAME_RULE)
    }

    /// A name of the environment, without `${}`.
    pub fn variable(&self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if is_variable(&text) {
            return Some(text);
        }
        self.fault(
            node.at,
            format!("`{text}` is no name of the environment"),
            "the bare name in capital letters, such as FARE_SEARCH_KEYS",
        )
    }

    /// A header's name, in lower case.
    pub fn header(&self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !text.is_empty() && text.bytes().all(legal) {
            return Some(text.to_ascii_lowercase());
        }
        self.fault(
            node.at,
            format!("`{text}` cannot be a header's name"),
            "letters, digits and -, such as x-api-key",
        )
    }

    /// A file beside this one: relative, and not above it.
    pub fn neighbour(&self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if text.is_empty() || text.contains('\0') {
            return self.fault(
                node.at,
                "no file's name",
                "a path relative to the job's file, such as destinations.csv",
            );
        }
        Some(text)
    }

    // ----------------------------------------------------------------------- templates, paths, tests

    /// A template that will see the names of `spot`.
    pub fn template(&self, node: &Node, spot: &Spot) -> Option<Template> {
        let text = self.word(node)?;
        self.uses_of(node, spot, jinja::template(&text))
            .then_some(text)
    }

    /// An expression that will see the names of `spot`.
    pub fn expression(&self, node: &Node, spot: &Spot) -> Option<String> {
        let text = self.text(node)?;
        self.uses_of(node, spot, jinja::expression(&text))
            .then_some(text)
    }

    /// Any value whose texts are templates.
    pub fn templates_in(&self, node: &Node, spot: &Spot) -> Option<Value> {
        node.walk(&mut |part| {
            if let Data::Scalar(Value::String(_)) = part.data {
                self.template(part, spot);
            }
        });
        self.value(node)
    }

    fn uses_of(&self, node: &Node, spot: &Spot, names: Result<Vec<String>, jinja::Fault>) -> bool {
        match names {
            Ok(names) => {
                let used = TemplateUse {
                    at: node.at,
                    names,
                    spot: spot.clone(),
                };
                self.uses.borrow_mut().push(used);
                true
            }
            Err(fault) => {
                self.fault::<()>(node.at, fault.message, fault.hint);
                false
            }
        }
    }

    /// A JSONPath.
    pub fn path(&self, node: &Node) -> Option<Path> {
        let text = self.text(node)?;
        match serde_json_path::JsonPath::parse(&text) {
            Ok(_) => Some(text),
            Err(error) => {
                let why = format!(
                    "`{text}` is no JSONPath: {} at character {}",
                    error.message(),
                    error.position() + 1
                );
                self.fault(
                    node.at,
                    why,
                    "a path begins with $: $.data[*], $.price.total, $['odd name']",
                )
            }
        }
    }

    /// A CSS selector.
    pub fn css(&self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        match crate::connector::css_selector(&text) {
            Ok(()) => Some(text),
            Err(why) => self.fault(
                node.at,
                format!("`{text}` is no CSS selector: {why}"),
                "as in a style sheet: table.reviews tbody tr",
            ),
        }
    }

    /// A regular expression.
    pub fn regex(&self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        match regex::Regex::new(&text) {
            Ok(_) => Some(text),
            Err(error) => {
                let why = error.to_string();
                let last = why
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
                    .to_owned();
                self.fault(
                    node.at,
                    format!("`{text}` is no regular expression: {last}"),
                    "escape signs with a backslash, close what is opened",
                )
            }
        }
    }
}

/// What a name may look like.
pub(super) const NAME_RULE: &str = "1 to 48 of a-z 0-9 - _, a letter or digit first";

/// Whether templates can use `name` as one of theirs.
pub fn is_identifier(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(legal)
        && !name.as_bytes()[0].is_ascii_digit()
}

/// What an identifier may look like.
pub(super) const IDENTIFIER_RULE: &str =
    "letters, digits and _, no digit first, so that templates can use it";

impl<'r, 'n> Fields<'r, 'n> {
    /// The value of `key`, when it is there.
    pub fn node(&self, key: &str) -> Option<&'n Node> {
        debug_assert!(
            self.keys.contains(&key),
            "{key} is missing in the list of keys"
        );
        self.entries.iter().find(|e| e.key == key).map(|e| &e.node)
    }

    /// Whether `key` is there.
    pub fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// What `read` makes of `key`; `None` when it is absent or wrong.
    pub fn take<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'r Reader<'r>, &'n Node) -> Option<T>,
    ) -> Option<T> {
        read(self.reader, self.node(key)?)
    }

    /// What `read` makes of `key`, which must be there.
    pub fn need<T>(
        &self,
        key: &str,
        read: impl FnOnce(&'r Reader<'r>, &'n Node) -> Option<T>,
    ) -> Option<T> {
        match self.node(key) {
            Some(node) => read(self.reader, node),
            None => self.reader.fault(
                self.key_at,
                format!("`{key}` is missing"),
                format!("add `{key}:` here"),
            ),
        }
    }

    /// Exactly one of `keys` is there: which one.
    pub fn one_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        let there: Vec<&'static str> = keys.iter().copied().filter(|k| self.has(k)).collect();
        match there.as_slice() {
            [one] => Some(one),
            [] => self.reader.fault(
                self.key_at,
                format!("one of `{}` is missing", keys.join("`, `")),
                "write one of them",
            ),
            [_, second, ..] => {
                let at = self.node(second)?.key_at;
                self.reader.fault(
                    at,
                    format!("`{}` together", there.join("` and `")),
                    "keep one of them",
                )
            }
        }
    }

    /// At most one of `keys` is there: which one.
    pub fn at_most_one_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        if keys.iter().any(|k| self.has(k)) {
            self.one_of(keys)
        } else {
            None
        }
    }
}
