//! Pages: what asks for one, and what an answer says of the next.

use serde_json::Value;
use url::Url;

use super::{Asked, Cursor, Position, StepAnswer, StepError};
use crate::connector::CompileError;
use crate::connector::body::Body;
use crate::connector::body::JsonPath;
use crate::connector::classify::Test;
use crate::spec::{BodyPlace, Page, PageStyle, Place, Stop};

/// What follows a page.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Turn {
    /// Another page.
    Next(Cursor),
    /// It was the last one.
    End,
    /// It was the last one that the engine serves, and there is more.
    Truncated,
}

/// A compiled `page:`.
#[derive(Debug)]
pub(super) struct Pager {
    style: PageStyle,
    query: String,
    next: Vec<(String, NextPlace)>,
    first: u64,
    step: u64,
    last: Option<u64>,
    total: Option<JsonPath>,
    stop: Option<StopRule>,
    max_pages: u32,
    pub(super) resume: bool,
    base_url: String,
    /// What is read of a page are all its records: a path that chooses among them says nothing of how many came.
    counts_all: bool,
}

#[derive(Debug)]
enum NextPlace {
    Header(String),
    Path(JsonPath),
}

#[derive(Debug)]
enum StopRule {
    Empty,
    Short,
    Test(JsonPath, Option<Test>),
}

impl Pager {
    pub(super) fn compile(
        page: &Page,
        base_url: &str,
        records: Option<&BodyPlace>,
    ) -> Result<Self, CompileError> {
        let query = page.query.clone().unwrap_or_default();
        let mut next = Vec::new();
        for (name, place) in &page.next {
            let place = match place {
                Place::Header(header) => NextPlace::Header(header.clone()),
                Place::Path(path) => NextPlace::Path(JsonPath::compile(path)?),
            };
            // One place fills the parameter that `query` names.
            let alone = name == "next" && page.next.len() == 1 && page.query.is_some();
            let name = if alone { &query } else { name };
            next.push((name.clone(), place));
        }
        Ok(Pager {
            style: page.style,
            query,
            next,
            first: page.first,
            step: page.step.unwrap_or(1),
            last: page.last,
            total: page.total.as_deref().map(JsonPath::compile).transpose()?,
            stop: page.stop.as_ref().map(StopRule::compile).transpose()?,
            max_pages: page.max_pages,
            resume: page.resume,
            base_url: base_url.to_owned(),
            counts_all: matches!(records, Some(BodyPlace::Path(path)) if !path.contains('?')),
        })
    }

    /// Adds to a request what asks for the page.
    pub(super) fn ask(&self, cursor: &Cursor, asked: &mut Asked) {
        match cursor {
            Cursor::First if self.counts() => {
                asked.set.push((self.query.clone(), self.first.into()));
            }
            Cursor::First => {}
            Cursor::At(value) => asked.set.push((self.query.clone(), (*value).into())),
            Cursor::Params(params) => asked.set.extend(params.iter().cloned()),
            Cursor::Url(url) => asked.url = Some(url.clone()),
        }
    }

    fn counts(&self) -> bool {
        matches!(self.style, PageStyle::Page | PageStyle::Offset)
    }

    /// What follows a page with `count` records.
    pub(super) fn turn(
        &self,
        position: &Position,
        count: u64,
        answer: &StepAnswer<'_>,
        first_url: impl FnOnce() -> String,
    ) -> Result<Turn, StepError> {
        let stops = match &self.stop {
            Some(stop) => stop.stops(position, count, self.full(), answer.body.map(Body::tree)),
            None => false,
        };
        if stops || answer.body.is_none() || self.has_all(position, count, answer) {
            return Ok(self.end(position, count, answer));
        }
        let turn = match self.style {
            PageStyle::Page | PageStyle::Offset => self.counted(position, count),
            PageStyle::Cursor => self.cursor(answer)?,
            PageStyle::NextUrl => self.next_url(position, answer, first_url)?,
            PageStyle::Link => self.link(position, answer, first_url)?,
        };
        match turn {
            Turn::Next(_) if position.page + 1 >= self.max_pages => {
                Err(StepError::MaxPages(self.max_pages))
            }
            Turn::End => Ok(self.end(position, count, answer)),
            turn => Ok(turn),
        }
    }

    /// The last page: of fewer records than the answer announces, some were held back.
    fn end(&self, position: &Position, count: u64, answer: &StepAnswer<'_>) -> Turn {
        let announced = self.announced(answer).filter(|_| self.counts_all);
        match announced.is_some_and(|total| position.records + count < total) {
            true => Turn::Truncated,
            false => Turn::End,
        }
    }

    /// How many records there are, as the answer says.
    fn announced(&self, answer: &StepAnswer<'_>) -> Option<u64> {
        let body = answer.body.map(Body::tree)?;
        whole(self.total.as_ref()?.first(body)?)
    }

    /// Records of a full page, where the file says it.
    fn full(&self) -> Option<u64> {
        (self.style == PageStyle::Offset).then_some(self.step)
    }

    fn at(&self, position: &Position) -> u64 {
        match position.cursor {
            Cursor::At(value) => value,
            _ => self.first,
        }
    }

    /// The pages so far hold as many as the answer says there are.
    fn has_all(&self, position: &Position, count: u64, answer: &StepAnswer<'_>) -> bool {
        let Some(total) = self.announced(answer) else {
            return false;
        };
        let covered = match self.style {
            PageStyle::Offset => self.at(position).saturating_add(self.step) - self.first,
            _ => position.records + count,
        };
        covered >= total
    }

    fn counted(&self, position: &Position, count: u64) -> Turn {
        // A flag decides alone; else a page without records is beyond the end.
        if count == 0 && !matches!(self.stop, Some(StopRule::Test(..))) {
            return Turn::End;
        }
        let next = self.at(position).saturating_add(self.step);
        if self.last.is_some_and(|last| next > last) {
            let short = self.full().is_some_and(|full| count < full) && self.total.is_none();
            return if short { Turn::End } else { Turn::Truncated };
        }
        Turn::Next(Cursor::At(next))
    }

    fn cursor(&self, answer: &StepAnswer<'_>) -> Result<Turn, StepError> {
        let mut params = Vec::new();
        for (name, place) in &self.next {
            match place.value(answer) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(Value::String(text)) if text.is_empty() => {}
                Some(value @ (Value::String(_) | Value::Number(_))) => {
                    params.push((name.clone(), value));
                }
                Some(_) => return Err(StepError::BadCursor("cursor")),
            }
        }
        Ok(match params.is_empty() {
            true => Turn::End,
            false => Turn::Next(Cursor::Params(params)),
        })
    }

    fn next_url(
        &self,
        position: &Position,
        answer: &StepAnswer<'_>,
        first_url: impl FnOnce() -> String,
    ) -> Result<Turn, StepError> {
        let Some((_, place)) = self.next.first() else {
            return Ok(Turn::End);
        };
        match place.value(answer) {
            None | Some(Value::Null) => Ok(Turn::End),
            Some(Value::String(text)) if text.is_empty() => Ok(Turn::End),
            Some(Value::String(text)) => self.follow(position, &text, first_url),
            Some(_) => Err(StepError::BadCursor("URL")),
        }
    }

    fn link(
        &self,
        position: &Position,
        answer: &StepAnswer<'_>,
        first_url: impl FnOnce() -> String,
    ) -> Result<Turn, StepError> {
        match (answer.header)("link").as_deref().and_then(next_link) {
            Some(target) if !target.is_empty() => self.follow(position, target, first_url),
            _ => Ok(Turn::End),
        }
    }

    /// A URL that an answer gave is followed only within the provider's scheme, host and port.
    fn follow(
        &self,
        position: &Position,
        target: &str,
        first_url: impl FnOnce() -> String,
    ) -> Result<Turn, StepError> {
        let bad = |_| StepError::BadCursor("URL");
        let current = match &position.cursor {
            Cursor::Url(url) => url.clone(),
            _ => first_url(),
        };
        let base = Url::parse(&self.base_url).map_err(bad)?;
        let mut next = Url::parse(&current)
            .map_err(bad)?
            .join(target)
            .map_err(bad)?;
        next.set_fragment(None);
        let same = next.scheme() == base.scheme()
            && next.host() == base.host()
            && next.port_or_known_default() == base.port_or_known_default()
            && next.username() == base.username()
            && next.password() == base.password();
        if !same {
            return Err(StepError::ForeignUrl);
        }
        Ok(Turn::Next(Cursor::Url(next.into())))
    }
}

impl NextPlace {
    fn value(&self, answer: &StepAnswer<'_>) -> Option<Value> {
        match self {
            NextPlace::Header(name) => (answer.header)(name).map(Value::String),
            NextPlace::Path(path) => path.first(answer.body?.tree()).cloned(),
        }
    }
}

impl StopRule {
    fn compile(stop: &Stop) -> Result<Self, CompileError> {
        Ok(match stop {
            Stop::Empty => StopRule::Empty,
            Stop::Short => StopRule::Short,
            Stop::Test { path, test } => StopRule::Test(
                JsonPath::compile(path)?,
                test.as_ref().map(Test::compile).transpose()?,
            ),
        })
    }

    fn stops(&self, at: &Position, count: u64, full: Option<u64>, body: Option<&Value>) -> bool {
        match self {
            StopRule::Empty => count == 0,
            StopRule::Short => {
                let first = (at.page > 0).then_some(at.first_page);
                count == 0 || full.or(first).is_some_and(|full| count < full)
            }
            StopRule::Test(path, test) => {
                let found = body.and_then(|body| path.first(body));
                found.is_some_and(|value| match test {
                    Some(test) => test.holds(value),
                    None => !value.is_null(),
                })
            }
        }
    }
}

/// A count, as a number or its digits.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288, section 3 and appendix B.2): links with parameters, whose
/// values may be in quotes; of several `rel` of one link the first counts.
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some(open) = rest.find('<') {
        let close = open + rest[open..].find('>')?;
        let target = rest[open + 1..close].trim();
        let (relation, after) = relation(&rest[close + 1..]);
        let mut words = relation.split_ascii_whitespace();
        if words.any(|rel| rel.eq_ignore_ascii_case("next")) {
            return Some(target);
        }
        rest = after;
    }
    None
}

/// The value of the first `rel` among a link's parameters, and what follows the link.
fn relation(params: &str) -> (&str, &str) {
    let mut relation = None;
    let mut rest = params;
    loop {
        let (name, after) = rest.split_at(rest.find([';', ',', '=']).unwrap_or(rest.len()));
        rest = after.get(1..).unwrap_or_default();
        if after.starts_with('=') {
            let (value, after) = value(rest.trim_start());
            if name.trim().eq_ignore_ascii_case("rel") {
                relation.get_or_insert(value);
            }
            let end = after.find([';', ',']).unwrap_or(after.len());
            rest = after.get(end + 1..).unwrap_or_default();
            if after[end..].starts_with(';') {
                continue;
            }
            return (relation.unwrap_or_default(), rest);
        }
        if !after.starts_with(';') {
            return (relation.unwrap_or_default(), rest);
        }
    }
}

/// A parameter's value, in quotes or bare, and what follows it.
fn value(text: &str) -> (&str, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        return text.split_at(text.find([';', ',']).unwrap_or(text.len()));
    };
    let mut escaped = false;
    let end = quoted.find(|c| match c {
        _ if escaped => {
            escaped = false;
            false
        }
        '\\' => {
            escaped = true;
            false
        }
        c => c == '"',
    });
    let end = end.unwrap_or(quoted.len());
    (&quoted[..end], quoted.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_among_others() {
        let header =
            r#"<https://a/x?p=1>; rel="prev", <https://a/x?p=3>; title="a, b"; rel="next last""#;
        assert_eq!(next_link(header), Some("https://a/x?p=3"));
        assert_eq!(next_link("</x?p=2>;rel=next"), Some("/x?p=2"));
        assert_eq!(next_link(r#"<https://a>; rel="last""#), None);
        assert_eq!(next_link("<<<;;,,"), None);
        assert_eq!(next_link("<a>, <b>; flag; rel=next"), Some("b"));
        assert_eq!(next_link("<a>; rel, <b>; rel = \"NEXT\""), Some("b"));
    }

    #[test]
    fn a_relation_in_another_parameters_text_is_none() {
        let quoted =
            r#"</first>; title="see; rel=next, \"<x>\"; rel=next"; rel="first", </n>; rel="next""#;
        assert_eq!(next_link(quoted), Some("/n"));
        let twice = r#"</last>; rel="last"; rel="next", </n>; rel="next"; rel="last""#;
        assert_eq!(next_link(twice), Some("/n"));
        assert_eq!(next_link(r#"<a>; title="open; rel=next"#), None);
    }
}
