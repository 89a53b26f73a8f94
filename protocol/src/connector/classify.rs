//! What an answer means: the provider's rules in order, then the built-in list.
//!
//! The built-in list: 2xx is ok (204 and 205 empty), 401 auth_expired, 429 throttled (by `Retry-After`),
//! 408, 425 and 5xx retryable, a redirect and anything else permanent. A 2xx whose body does not parse
//! is retryable.

use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use super::body::{Body, BodyReader, JsonPath, Spot, Unreadable};
use super::{CompileError, Connector, wait};
use crate::outcome::{Outcome, Verdict};
use crate::spec::{BodyPlace, Place, Provider, ValueTest, Wait, When};

/// The most bytes of a body, counted after decompression, unless `format: {max_body}` says otherwise.
pub const MAX_BODY_DEFAULT: u64 = 32 << 20;

/// How long a scope waits when neither the answer nor the rule says.
const WAIT_THROTTLED: Duration = Duration::from_secs(1);
const WAIT_MAINTENANCE: Duration = Duration::from_secs(600);
/// A key that is not accepted stays out until somebody looks: as long as anything can be closed.
const WAIT_AUTH: Duration = Duration::from_secs(400 * 86_400);

/// An answer as it came over the wire.
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// The value of a header, by lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<String>,
    /// Its decompressed body.
    pub body: &'a [u8],
    /// The fleet's clock when it had come, microseconds since 1970.
    pub now_us: i64,
}

/// A verdict, with the parsed body where there is one.
#[derive(Debug)]
pub struct Judged {
    /// What the answer means.
    pub verdict: Verdict,
    /// The body, when it parsed.
    pub body: Option<Body>,
    /// The place of the rule of the provider's file that decided; `None`: the built-in list.
    pub rule: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    max_body: u64,
}

#[derive(Debug)]
struct Rule {
    when: When,
    header: Option<Test>,
    body: Option<(Spot, Option<Test>)>,
    then: Outcome,
    wait: Option<Wait>,
    wait_path: Option<JsonPath>,
}

/// Characters of a body's word in a reason.
const LONGEST_SAID: usize = 60;

#[derive(Debug)]
pub(super) enum Test {
    Is(Value),
    Matches(Regex),
}

impl Test {
    pub(super) fn compile(test: &ValueTest) -> Result<Self, CompileError> {
        Ok(match test {
            ValueTest::Is(value) => Test::Is(value.clone()),
            ValueTest::Matches(source) => {
                Test::Matches(Regex::new(source).map_err(|e| CompileError::syntax(source, e))?)
            }
        })
    }

    pub(super) fn holds(&self, value: &Value) -> bool {
        match self {
            Test::Is(wanted) => wanted == value || shown(wanted) == shown(value),
            Test::Matches(regex) => regex.is_match(&shown(value)),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Rules {
    pub(super) fn compile(provider: &Provider, reader: &BodyReader) -> Result<Self, CompileError> {
        let rules = provider
            .outcomes
            .iter()
            .map(|rule| Rule::compile(rule, reader))
            .collect::<Result<_, _>>()?;
        Ok(Rules {
            rules,
            max_body: provider.format.max_body.unwrap_or(MAX_BODY_DEFAULT),
        })
    }
}

impl Rule {
    fn compile(rule: &crate::spec::OutcomeRule, reader: &BodyReader) -> Result<Self, CompileError> {
        let when = rule.when.clone();
        let header = when
            .header
            .as_ref()
            .and_then(|h| h.test.as_ref())
            .map(Test::compile)
            .transpose()?;
        let body = match &when.body {
            None => None,
            Some(test) => Some((
                Spot::compile(&test.at, reader)?,
                test.test.as_ref().map(Test::compile).transpose()?,
            )),
        };
        let wait_path = match &rule.wait {
            Some(Wait::From {
                place: Place::Path(path),
                ..
            }) => Some(JsonPath::compile(path)?),
            _ => None,
        };
        Ok(Rule {
            when,
            header,
            body,
            then: rule.then,
            wait: rule.wait.clone(),
            wait_path,
        })
    }

    fn matches(&self, answer: &Answer<'_>, body: Option<&Body>) -> bool {
        self.status_matches(answer.status) && self.header_matches(answer) && self.body_matches(body)
    }

    fn status_matches(&self, status: u16) -> bool {
        self.when.status.is_empty()
            || self
                .when
                .status
                .iter()
                .any(|r| (r.first..=r.last).contains(&status))
    }

    fn header_matches(&self, answer: &Answer<'_>) -> bool {
        let Some(wanted) = &self.when.header else {
            return true;
        };
        match ((answer.header)(&wanted.name), &self.header) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(test)) => test.holds(&Value::String(value)),
        }
    }

    fn body_matches(&self, body: Option<&Body>) -> bool {
        let Some((spot, test)) = &self.body else {
            return true;
        };
        let holds = |found: &Value| test.as_ref().is_none_or(|test| test.holds(found));
        body.is_some_and(|body| spot.any(body, holds))
    }

    /// What of the body the rule went by, where the status says that all is well.
    fn body_said(&self, status: u16, body: Option<&Body>) -> Option<String> {
        let (spot, test) = self.body.as_ref()?;
        let at = match &self.when.body.as_ref()?.at {
            BodyPlace::Path(path) => path,
            BodyPlace::Css(css) => css,
        };
        let mut said = None;
        spot.any(body.filter(|_| (200..300).contains(&status))?, |found| {
            let holds = test.as_ref().is_none_or(|test| test.holds(found));
            if holds {
                said = Some(shown(found));
            }
            holds
        });
        let said: String = said?.chars().take(LONGEST_SAID).collect();
        Some(format!("{at} is {said}"))
    }

    /// How long the scope waits by this rule and answer.
    fn wait(&self, answer: &Answer<'_>, body: Option<&Body>) -> Option<Duration> {
        match self.wait.as_ref()? {
            Wait::Fixed(span) => Some(span.0),
            Wait::From {
                place,
                fallback,
                at_most,
            } => {
                let text = match place {
                    Place::Header(name) => (answer.header)(name),
                    Place::Path(_) => body
                        .and_then(|b| self.wait_path.as_ref()?.first(b.tree()))
                        .map(shown),
                };
                let cap = at_most.map_or(wait::LONGEST, |span| span.0);
                let hinted = text
                    .and_then(|text| wait::pause(&text, answer.now_us))
                    .map(|span| span.min(cap));
                hinted.or(fallback.map(|span| span.0))
            }
        }
    }
}

impl Connector {
    /// The most bytes of a body that may be read, counted after decompression.
    pub fn max_body(&self) -> u64 {
        self.rules.max_body
    }

    /// Judges an answer.
    pub fn judge(&self, answer: &Answer<'_>) -> Judged {
        let content_type = (answer.header)("content-type");
        let parsed = self.bodies.read(answer.body, content_type.as_deref());
        let body = parsed.as_ref().ok();
        let rules = &self.rules.rules;
        let place = rules.iter().position(|rule| rule.matches(answer, body));
        let verdict = match place.and_then(|place| rules.get(place)) {
            Some(rule) => Verdict {
                outcome: rule.then,
                wait: rule.wait(answer, body).or(default_wait(rule.then)),
                reason: match rule.body_said(answer.status, body) {
                    Some(said) => format!("status {}, {said}", answer.status),
                    None => format!("status {}", answer.status),
                },
            },
            None => built_in(answer),
        };
        let verdict = match &parsed {
            Err(error) if verdict.outcome == Outcome::Ok => unreadable(error),
            _ => verdict,
        };
        Judged {
            verdict,
            rule: place,
            body: parsed.ok(),
        }
    }
}

fn unreadable(error: &Unreadable) -> Verdict {
    Verdict {
        outcome: Outcome::Retryable,
        wait: None,
        reason: error.to_string(),
    }
}

fn default_wait(outcome: Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Throttled => Some(WAIT_THROTTLED),
        Outcome::Maintenance => Some(WAIT_MAINTENANCE),
        Outcome::AuthExpired => Some(WAIT_AUTH),
        _ => None,
    }
}

fn built_in(answer: &Answer<'_>) -> Verdict {
    let hinted = || {
        let text = (answer.header)("retry-after")?;
        wait::pause(&text, answer.now_us).map(|span| span.min(wait::LONGEST))
    };
    let (outcome, wait) = match answer.status {
        204 | 205 => (Outcome::Empty, None),
        200..=299 => (Outcome::Ok, None),
        401 => (Outcome::AuthExpired, default_wait(Outcome::AuthExpired)),
        429 => (
            Outcome::Throttled,
            hinted().or(default_wait(Outcome::Throttled)),
        ),
        408 | 425 => (Outcome::Retryable, None),
        500..=599 => (Outcome::Retryable, hinted()),
        _ => (Outcome::Permanent, None),
    };
    let reason = match answer.status {
        304 => "status 304: not modified, though nothing was asked on a condition".to_owned(),
        300..=399 => format!("status {}: redirects are not followed", answer.status),
        status => format!("status {status}"),
    };
    Verdict {
        outcome,
        wait,
        reason,
    }
}
