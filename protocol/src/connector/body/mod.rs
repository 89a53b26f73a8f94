//! Reading an answer's body: its bytes become text by their charset, and the text what paths and selectors
//! look into.
//!
//! JSON, NDJSON, XML, CSV and TSV become one tree of JSON values, so that one kind of path reads them
//! all; HTML stays a document, read by CSS selectors. A body that cannot be read whole is not read at all:
//! a half answer is worth another attempt, never half of its records.

mod charset;
mod html;
mod json;
mod path;
mod place;
#[cfg(test)]
mod properties;
mod table;
mod xml;

pub use html::Page;
pub(super) use path::JsonPath;
pub(super) use place::{Found, Spot};

use serde_json::Value;

use super::CompileError;
use crate::spec::{Format, FormatKind};

/// No list, object or element lies deeper than this.
pub const MOST_DEPTH: usize = 64;
/// The most lists and objects of one body: each costs far more memory than it has bytes.
pub const MOST_NODES: usize = 1_000_000;

/// Whether `label` names a charset that bodies can be in.
pub fn is_charset(label: &str) -> bool {
    charset::by_label(label).is_some()
}

/// Whether `selector` is a CSS selector.
///
/// # Errors
/// What is wrong with it.
pub fn css_selector(selector: &str) -> Result<(), String> {
    html::selector(selector).map(drop)
}

/// A body that was read.
#[derive(Debug)]
pub enum Body {
    /// Anything that became a tree.
    Tree(Value),
    /// HTML.
    Page(Page),
}

impl Body {
    /// The tree for paths; null for HTML, in which no path finds anything.
    pub fn tree(&self) -> &Value {
        const NOTHING: &Value = &Value::Null;
        match self {
            Body::Tree(tree) => tree,
            Body::Page(_) => NOTHING,
        }
    }
}

impl From<Value> for Body {
    fn from(tree: Value) -> Self {
        Body::Tree(tree)
    }
}

/// Why a body could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not {kind}: {why}")]
pub struct Unreadable {
    kind: &'static str,
    why: String,
}

/// Reads the bodies of one provider.
#[derive(Debug)]
pub(super) struct BodyReader {
    kind: FormatKind,
    charset: Option<charset::Charset>,
    force_array: Vec<String>,
}

impl BodyReader {
    pub(super) fn compile(format: &Format) -> Result<Self, CompileError> {
        let charset = match &format.charset {
            None => None,
            Some(label) => Some(
                charset::by_label(label)
                    .ok_or_else(|| CompileError::syntax(label, "no such charset"))?,
            ),
        };
        Ok(BodyReader {
            kind: format.kind,
            charset,
            force_array: format.force_array.clone(),
        })
    }

    /// Whether places in the body are CSS selectors.
    pub(super) fn is_html(&self) -> bool {
        self.kind == FormatKind::Html
    }

    /// Reads `bytes`, whose answer said `content_type`.
    pub(super) fn read(
        &self,
        bytes: &[u8],
        content_type: Option<&str>,
    ) -> Result<Body, Unreadable> {
        let result = charset::text_of(bytes, self.charset, content_type, self.kind)
            .and_then(|text| self.read_text(&text));
        result.map_err(|why| Unreadable {
            kind: word(self.kind),
            why,
        })
    }

    fn read_text(&self, text: &str) -> Result<Body, String> {
        match self.kind {
            FormatKind::Json => json::value(text).map(Body::Tree),
            FormatKind::Ndjson => json::lines(text).map(Body::Tree),
            FormatKind::Xml => xml::tree(text, &self.force_array).map(Body::Tree),
            FormatKind::Csv => table::rows(text, b',').map(Body::Tree),
            FormatKind::Tsv => table::rows(text, b'\t').map(Body::Tree),
            FormatKind::Html => Page::read(text).map(Body::Page),
        }
    }
}

fn word(kind: FormatKind) -> &'static str {
    match kind {
        FormatKind::Json => "JSON",
        FormatKind::Ndjson => "NDJSON",
        FormatKind::Xml => "XML",
        FormatKind::Csv => "CSV",
        FormatKind::Tsv => "TSV",
        FormatKind::Html => "HTML",
    }
}
