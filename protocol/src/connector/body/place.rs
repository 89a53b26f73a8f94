//! Where something is in a body: a path into its tree, or a selector into its document.

use std::borrow::Cow;

use scraper::{ElementRef, Selector};
use serde_json::Value;

use super::{Body, BodyReader, JsonPath, html};
use crate::connector::CompileError;
use crate::spec::BodyPlace;

/// A compiled place.
#[derive(Debug)]
pub(in crate::connector) enum Spot {
    /// Into a tree.
    Path(JsonPath),
    /// Into a document; an attribute instead of the text.
    Css(Selector, Option<String>),
}

/// Something that was found, in which further places may be looked for.
#[derive(Clone, Copy)]
pub(in crate::connector) enum Found<'b> {
    /// A node of a tree.
    Value(&'b Value),
    /// An element of a document.
    Element(ElementRef<'b>),
}

impl Spot {
    pub(in crate::connector) fn compile(
        place: &BodyPlace,
        reader: &BodyReader,
    ) -> Result<Self, CompileError> {
        match place {
            BodyPlace::Path(path) => Self::path(path, reader),
            BodyPlace::Css(css) => Self::css(css, None, reader),
        }
    }

    pub(in crate::connector) fn path(
        path: &str,
        reader: &BodyReader,
    ) -> Result<Self, CompileError> {
        if reader.is_html() {
            return Err(CompileError::syntax(path, "HTML is read by CSS selectors"));
        }
        JsonPath::compile(path).map(Spot::Path)
    }

    pub(in crate::connector) fn css(
        css: &str,
        attribute: Option<&str>,
        reader: &BodyReader,
    ) -> Result<Self, CompileError> {
        if !reader.is_html() {
            return Err(CompileError::syntax(css, "CSS selectors read HTML alone"));
        }
        let selector = html::selector(css).map_err(|why| CompileError::syntax(css, why))?;
        Ok(Spot::Css(selector, attribute.map(str::to_owned)))
    }

    /// Everything that is there in the whole body, in its order.
    pub(in crate::connector) fn all<'b>(&'b self, body: &'b Body) -> Vec<Found<'b>> {
        match (self, body) {
            (Spot::Path(path), body) => path
                .all(body.tree())
                .into_iter()
                .map(Found::Value)
                .collect(),
            (Spot::Css(css, _), Body::Page(page)) => page.select(css).map(Found::Element).collect(),
            (Spot::Css(..), Body::Tree(_)) => Vec::new(),
        }
    }

    /// Whether the value of anything that is there holds.
    pub(in crate::connector) fn any(
        &self,
        body: &Body,
        mut holds: impl FnMut(&Value) -> bool,
    ) -> bool {
        self.all(body).into_iter().any(|found| match found {
            Found::Value(value) => holds(value),
            Found::Element(element) => self.of(element).is_some_and(|text| holds(&text)),
        })
    }

    /// The value of the first that is there below `found`.
    pub(in crate::connector) fn first_in<'b>(&self, found: Found<'b>) -> Option<Cow<'b, Value>> {
        match (self, found) {
            (Spot::Path(path), Found::Value(value)) => path.first(value).map(Cow::Borrowed),
            (Spot::Css(css, _), Found::Element(element)) => {
                self.of(element.select(css).next()?).map(Cow::Owned)
            }
            _ => None,
        }
    }

    fn of(&self, element: ElementRef<'_>) -> Option<Value> {
        match self {
            Spot::Css(_, Some(attribute)) => {
                element.attr(attribute).map(|value| value.trim().into())
            }
            _ => Some(html::text_of(element).into()),
        }
    }
}
