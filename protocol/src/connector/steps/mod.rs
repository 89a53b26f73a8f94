//! A cell that needs more than one call: which one is next, and what the calls so far gathered.
//!
//! The state is plain data: it goes to `open/` when a shard is handed back, and whoever goes on makes the
//! next call as if nothing had happened. What an answer means for it is a pure function,
//! [`Connector::advance`].

mod detail;
mod page;
mod progress;
mod split;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::body::{Body, Found};
use super::{CallContext, CompileError, Connector, Misfit, NotRequestable};
use crate::record::Record;
use crate::spec::{Endpoint, FormatKind, Provider};
use crate::template::Templates;

pub(super) use detail::DetailStep;
use detail::Details;
use page::{Pager, Turn};
pub use progress::{Gathered, Progress};
use split::Splitter;

/// The call that is next for a cell. The default is its first one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// Which item of `each`.
    item: usize,
    /// Calls of the cell that were answered before this one.
    call: u32,
    /// Which page of the item (or stretch of days), from 0.
    page: u32,
    /// Records on the pages before.
    records: u64,
    /// Records on the first page, which a short one is measured by.
    first_page: u64,
    /// What asks for this page.
    cursor: Cursor,
    /// Stretches of days yet to cover, the current one last; empty before an overflow.
    windows: Vec<Window>,
    /// An overflow was bisected in this item.
    split: bool,
    /// Cursors and bodies that were seen since the first page, by their digests.
    seen: Vec<u64>,
    /// [`Position::call`] at the first page.
    began: u32,
    /// Details of the page that are yet to be asked for.
    detail: Option<Details>,
}

/// What asks for a page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cursor {
    /// The first one.
    #[default]
    First,
    /// A page number or an offset.
    At(u64),
    /// Parameters that an answer gave.
    Params(Vec<(String, Value)>),
    /// A whole URL that an answer gave.
    Url(String),
}

/// Days, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    from: Date,
    to: Date,
}

impl Position {
    /// Which page of the cell the call is for the ledger: how many of its calls were answered before.
    pub fn call(&self) -> u32 {
        self.call
    }

    /// Whether it is a second step.
    pub fn is_detail(&self) -> bool {
        self.detail.is_some()
    }

    /// The first page of the same item and stretch.
    fn restarted(&self) -> Position {
        Position {
            item: self.item,
            call: self.began,
            began: self.began,
            windows: self.windows.clone(),
            split: self.split,
            ..Position::default()
        }
    }

    /// The first page of what follows this stretch: the next stretch, the next item, or nothing.
    fn following(mut self, items: usize) -> Option<Position> {
        self.windows.pop();
        if self.windows.is_empty() {
            self.item += 1;
            self.split = false;
            if self.item >= items {
                return None;
            }
        }
        self.began = self.call;
        Some(self.restarted())
    }
}

/// What one answer brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advance {
    /// Its records' lines.
    pub lines: String,
    /// How many.
    pub records: u64,
    /// The engine's documented end was reached with more behind it.
    pub truncated: bool,
    /// Ids without an answer that are only to be counted.
    pub missing: u64,
    /// What this stretch gathered so far is covered again.
    drop: bool,
    /// The next call; `None` when the cell is done.
    next: Option<Position>,
}

impl Advance {
    /// The cell needs no further call.
    pub fn is_done(&self) -> bool {
        self.next.is_none()
    }
}

/// Why a cell cannot go on, although its call was answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A field that does not fit.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A next URL that leaves the provider.
    #[error("the next URL leads to another host, port or scheme")]
    ForeignUrl,
    /// A next URL or cursor that is none.
    #[error("the answer's next page is no {0}")]
    BadCursor(&'static str),
    /// The provider goes in circles.
    #[error("the provider gave the same page or cursor twice")]
    Repeated,
    /// More pages than the file allows.
    #[error("more than max_pages ({0}) pages")]
    MaxPages(u32),
    /// A single day overflows.
    #[error("the day {0} alone overflows")]
    Overflow(Date),
    /// The first day of a bisection is none.
    #[error("split_on: {0}")]
    NoFirstDay(String),
    /// Ids without an answer.
    #[error("{count} ids got no detail, {first} among them")]
    MissingIds {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
}

impl StepError {
    /// A word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            StepError::Misfit(_) => "misfit",
            StepError::ForeignUrl => "foreign_url",
            StepError::BadCursor(_) => "bad_cursor",
            StepError::Repeated => "repeated",
            StepError::MaxPages(_) => "max_pages",
            StepError::Overflow(_) | StepError::NoFirstDay(_) => "overflow",
            StepError::MissingIds { .. } => "missing_ids",
        }
    }
}

/// An answer that was judged ok or empty.
pub struct StepAnswer<'a> {
    /// Its body; `None` when it is empty.
    pub body: Option<&'a Body>,
    /// The value of a header, by lower-case name; several lines are joined by a comma.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// [`digest`] of the body's bytes.
    pub digest: u64,
}

/// What tells two bodies or cursors apart, the same on every machine.
pub fn digest(bytes: &[u8]) -> u64 {
    let sum = Sha256::digest(bytes);
    sum.iter()
        .take(8)
        .fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The steps of an endpoint, compiled.
#[derive(Debug)]
pub(super) struct Steps {
    each: Vec<Value>,
    pager: Option<Pager>,
    splitter: Option<Splitter>,
    detail: Option<DetailStep>,
}

impl Steps {
    pub(super) fn compile(
        provider: &Provider,
        name: &str,
        endpoint: &Endpoint,
        templates: &mut Templates,
    ) -> Result<Self, CompileError> {
        if endpoint.detail.is_some() && provider.format.kind == FormatKind::Html {
            return Err(CompileError::NotBuilt("details of HTML pages".into()));
        }
        let base_url = provider.base_url.as_deref().unwrap_or_default();
        let page = endpoint.page.as_ref();
        let split = endpoint.split_on.as_ref();
        let detail = endpoint.detail.as_ref();
        Ok(Steps {
            each: endpoint.each.clone(),
            pager: page
                .map(|p| Pager::compile(p, base_url, endpoint.records.as_ref()))
                .transpose()?,
            splitter: split.map(Splitter::compile).transpose()?,
            detail: detail
                .map(|d| DetailStep::compile(provider, name, d, templates))
                .transpose()?,
        })
    }

    pub(super) fn detail(&self) -> Option<&DetailStep> {
        self.detail.as_ref()
    }
}

/// What a step adds to the names and parameters of its cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Asked {
    /// The item of `each`.
    pub(super) item: Option<Value>,
    /// The ids of a batch.
    pub(super) ids: Option<Value>,
    /// The second step's request.
    pub(super) detail: bool,
    /// Parameters that take the place of the file's.
    pub(super) set: Vec<(String, Value)>,
    /// The whole URL.
    pub(super) url: Option<String>,
}

impl Connector {
    /// The endpoint that a step calls, as ledger and limits name it.
    pub fn endpoint_of(&self, position: Option<&Position>) -> &str {
        match &self.steps.detail {
            Some(detail) if position.is_some_and(Position::is_detail) => &detail.endpoint,
            _ => &self.endpoint,
        }
    }

    /// Whether a cursor may be used by whoever goes on with the shard.
    pub fn resumes(&self) -> bool {
        self.steps.pager.as_ref().is_none_or(|pager| pager.resume)
    }

    /// Whether bodies are compared, so that [`StepAnswer::digest`] matters.
    pub fn compares_bodies(&self) -> bool {
        self.steps.pager.is_some()
    }

    /// The names and parameters of the cell's call at `position`.
    pub fn step(&self, context: CallContext, position: &Position) -> CallContext {
        let mut asked = Asked {
            item: self.steps.each.get(position.item).cloned(),
            ..Asked::default()
        };
        if let (Some(step), Some(details)) = (&self.steps.detail, &position.detail) {
            asked.detail = true;
            asked.ids = Some(details.batch(step).map(|asked| asked.id.clone()).collect());
        } else {
            if let (Some(splitter), Some(window)) = (&self.steps.splitter, position.windows.last())
            {
                asked.set.extend(splitter.set(window));
            }
            if let Some(pager) = &self.steps.pager {
                pager.ask(&position.cursor, &mut asked);
            }
        }
        let endpoint = self.endpoint_of(Some(position)).to_owned();
        context.asking(asked).of_endpoint(&endpoint)
    }

    /// What an answer to the call at `position` brings, and which call is next. `context` is the one that
    /// [`Connector::step`] made for the call.
    ///
    /// # Errors
    /// When the cell cannot go on: it fails for good.
    pub fn advance(
        &self,
        position: &Position,
        context: &CallContext,
        answer: &StepAnswer<'_>,
    ) -> Result<Advance, StepError> {
        let mut position = position.clone();
        position.call += 1;
        match (&self.steps.detail, position.detail.take()) {
            (Some(step), Some(details)) => {
                self.after_detail(position, context, step, details, answer)
            }
            _ => self.after_page(position, context, answer),
        }
    }

    fn after_page(
        &self,
        mut position: Position,
        context: &CallContext,
        answer: &StepAnswer<'_>,
    ) -> Result<Advance, StepError> {
        if let (Some(splitter), Some(body)) = (&self.steps.splitter, answer.body)
            && splitter.overflows(body.tree())
        {
            return self.split(splitter, position, context);
        }
        let found = answer.body.map(|body| self.found(body)).unwrap_or_default();
        let count = found.len() as u64;
        if self.steps.pager.is_some() && count > 0 {
            see(&mut position, answer.digest)?;
        }
        let turn = match &self.steps.pager {
            Some(pager) => pager.turn(&position, count, answer, || self.first_url(context))?,
            None => Turn::End,
        };
        if let (Some(step), true) = (&self.steps.detail, count > 0) {
            let tree = |found: Found<'_>| match found {
                Found::Value(value) => Some(value.clone()),
                Found::Element(_) => None,
            };
            let left = found.into_iter().filter_map(tree).collect();
            position.detail = Some(Details::of(step, left, turn)?);
            return Ok(Advance {
                next: Some(position),
                ..Advance::default()
            });
        }
        let records = self.records_of(context, found.into_iter())?;
        self.brought(position, &records, turn, count)
    }

    fn after_detail(
        &self,
        mut position: Position,
        context: &CallContext,
        step: &DetailStep,
        mut details: Details,
        answer: &StepAnswer<'_>,
    ) -> Result<Advance, StepError> {
        details.answered(step, answer.body.map(Body::tree));
        if details.asks_more() {
            position.detail = Some(details);
            return Ok(Advance {
                next: Some(position),
                ..Advance::default()
            });
        }
        let missing = details.missing(step)?;
        let joined = details.joined(step);
        let records = self.records_of(context, joined.iter().map(Found::Value))?;
        let count = details.left();
        let mut advance = self.brought(position, &records, details.into_turn(), count)?;
        advance.missing = missing;
        Ok(advance)
    }

    /// A page is complete: its records and what follows it.
    fn brought(
        &self,
        mut position: Position,
        records: &[Record],
        turn: Turn,
        count: u64,
    ) -> Result<Advance, StepError> {
        let mut advance = Advance {
            lines: lines_of(records),
            records: records.len() as u64,
            ..Advance::default()
        };
        advance.next = match turn {
            Turn::Next(cursor) => {
                if matches!(cursor, Cursor::Params(_) | Cursor::Url(_)) {
                    see(&mut position, cursor.digest())?;
                }
                if position.page == 0 {
                    position.first_page = count;
                }
                position.page += 1;
                position.records += count;
                position.cursor = cursor;
                Some(position)
            }
            Turn::End | Turn::Truncated => {
                advance.truncated = turn == Turn::Truncated;
                position.following(self.steps.each.len().max(1))
            }
        };
        Ok(advance)
    }

    /// Covers the stretch that overflowed in halves.
    fn split(
        &self,
        splitter: &Splitter,
        mut position: Position,
        context: &CallContext,
    ) -> Result<Advance, StepError> {
        let overflowed = match position.windows.pop() {
            Some(window) => window,
            None => splitter.whole(&self.first_day(splitter, context)?)?,
        };
        let (first, second) = split::halves(overflowed)?;
        position.windows.extend([second, first]);
        position.split = true;
        position.began = position.call;
        Ok(Advance {
            drop: true,
            next: Some(position.restarted()),
            ..Advance::default()
        })
    }

    fn first_day(&self, splitter: &Splitter, context: &CallContext) -> Result<String, StepError> {
        let day = self.parameter(&splitter.from, context);
        day.map_err(|NotRequestable(why)| StepError::NoFirstDay(why))
    }
}

fn see(position: &mut Position, digest: u64) -> Result<(), StepError> {
    if position.seen.contains(&digest) {
        return Err(StepError::Repeated);
    }
    position.seen.push(digest);
    Ok(())
}

impl Cursor {
    fn digest(&self) -> u64 {
        let text = serde_json::to_string(self).unwrap_or_default();
        digest(text.as_bytes())
    }
}

fn lines_of(records: &[Record]) -> String {
    let mut lines = Vec::with_capacity(records.len() * 160);
    records
        .iter()
        .for_each(|record| record.write_ndjson(&mut lines));
    String::from_utf8(lines).expect("JSON is UTF-8")
}
