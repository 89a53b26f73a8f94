//! A span: begun by whoever works, recorded when it is dropped.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::TRACES;
use crate::trace::TraceContext;

/// What a span is to the one behind it, in OTLP's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step within the process.
    Internal = 1,
    /// A call of somebody else.
    Client = 3,
    /// Messages that are sent.
    Producer = 4,
    /// A message that is worked on.
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text; never a secret.
    Text(String),
    /// A whole number.
    Whole(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Whole(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Value::Whole(number.into())
    }
}

/// Everything that is told of a span.
#[derive(Clone, Debug)]
pub(super) struct SpanData {
    pub(super) context: TraceContext,
    pub(super) parent: Option<u64>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) links: Vec<TraceContext>,
    /// Why it went wrong.
    pub(super) error: Option<String>,
}

/// A span that is open until it is dropped; nothing at all where nothing is traced.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Mutex<SpanData>>>);

impl Span {
    /// One that is none.
    pub fn none() -> Self {
        Span(None)
    }

    /// A step of what `parent` is about.
    pub fn child(parent: Option<&TraceContext>, name: impl Into<String>, kind: Kind) -> Self {
        let Some(parent) = parent.filter(|parent| parent.sampled) else {
            return Span::none();
        };
        Self::open(parent.trace, Some(parent.span), name.into(), kind)
    }

    /// The first of a trace of its own, linked to what it belongs to.
    pub fn linked(
        trace: u128,
        to: Option<&TraceContext>,
        name: impl Into<String>,
        kind: Kind,
    ) -> Self {
        let Some(to) = to.filter(|to| to.sampled) else {
            return Span::none();
        };
        let span = Self::open(trace, None, name.into(), kind);
        span.change(|data| data.links.push(*to));
        span
    }

    /// A trace's root, which has its id already, from `began` on.
    pub(super) fn root_of(root: &TraceContext, name: String, began: Timestamp) -> Self {
        if !root.sampled {
            return Span::none();
        }
        let span = Self::open(root.trace, None, name, Kind::Internal);
        span.change(|data| {
            data.context.span = root.span;
            data.began = SystemTime::from(began);
        });
        span
    }

    fn open(trace: u128, parent: Option<u64>, name: String, kind: Kind) -> Self {
        if TRACES.get().is_none() {
            return Span::none();
        }
        Span(Some(Box::new(Mutex::new(SpanData {
            context: TraceContext {
                trace,
                span: rand::random::<u64>().max(1),
                sampled: true,
            },
            parent,
            name,
            kind,
            began: SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        }))))
    }

    /// The same with an attribute.
    #[must_use]
    pub fn with(self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// The same, begun so long ago.
    #[must_use]
    pub fn ago(self, ago: Duration) -> Self {
        self.change(|data| data.began = data.began.checked_sub(ago).unwrap_or(data.began));
        self
    }

    /// Sets an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if self.0.is_some() {
            let value = value.into();
            self.change(|data| data.attributes.push((name, value)));
        }
    }

    /// Says that it went wrong, and why (never a secret).
    pub fn failed(&self, why: impl Into<String>) {
        if self.0.is_some() {
            let why = why.into();
            self.change(|data| data.error = Some(why));
        }
    }

    /// Whether it is recorded.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Its place, for steps of it and for messages.
    pub fn context(&self) -> Option<TraceContext> {
        let data = self.0.as_ref()?;
        Some(data.lock().unwrap_or_else(PoisonError::into_inner).context)
    }

    /// What puts the trace's id into the log lines of a step.
    pub fn lines(&self) -> tracing::Span {
        match self.context() {
            None => tracing::Span::none(),
            Some(context) => tracing::error_span!(
                "trace",
                trace_id = format_args!("{:032x}", context.trace),
                span_id = format_args!("{:016x}", context.span)
            ),
        }
    }

    fn change(&self, change: impl FnOnce(&mut SpanData)) {
        if let Some(data) = &self.0 {
            change(&mut data.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let (Some(data), Some(traces)) = (self.0.take(), TRACES.get()) else {
            return;
        };
        let mut data = data.into_inner().unwrap_or_else(PoisonError::into_inner);
        data.took = data.began.elapsed().unwrap_or_default();
        traces.sender.send(data);
    }
}
