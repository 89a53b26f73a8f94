//! Reading what an answer tells of a limit (`learn:`): from places that the file names, or from the usual headers.
//!
//! `learn: standard` knows the IETF fields (`RateLimit`, `RateLimit-Policy`, and the older `RateLimit-Limit`,
//! `-Remaining`, `-Reset`) and `X-RateLimit-*` in its usual spellings.

use std::time::Duration;

use super::body::{Body, JsonPath};
use super::{CompileError, wait};
use crate::limit::Told;
use crate::spec::{Learn, Place};

/// Where the quantities of one limit are read.
#[derive(Debug)]
pub struct LearnPlaces {
    standard: bool,
    places: Vec<(Quantity, Where)>,
    /// `at_most:`
    pub at_most: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Calls,
    Burst,
    Remaining,
    Reset,
}

#[derive(Debug)]
enum Where {
    Header(String),
    Path(JsonPath),
}

/// The value of a header, by lower-case name.
type Header<'a> = &'a dyn Fn(&str) -> Option<String>;

impl LearnPlaces {
    pub(super) fn compile(learn: &Learn) -> Result<Self, CompileError> {
        let mut places = Vec::new();
        for (name, place) in &learn.from {
            let quantity = match name.as_str() {
                "rate" | "limit" => Quantity::Calls,
                "burst" => Quantity::Burst,
                "remaining" => Quantity::Remaining,
                _ => Quantity::Reset,
            };
            let place = match place {
                Place::Header(name) => Where::Header(name.clone()),
                Place::Path(path) => Where::Path(JsonPath::compile(path)?),
            };
            places.push((quantity, place));
        }
        Ok(LearnPlaces {
            standard: learn.standard,
            places,
            at_most: learn.at_most,
        })
    }

    /// What an answer tells of the limit, whose period is `period` where it has one.
    pub fn read(
        &self,
        header: Header<'_>,
        body: Option<&Body>,
        now_us: i64,
        period: Option<Duration>,
    ) -> Told {
        if self.standard {
            return standard(header, now_us, period);
        }
        let mut told = Told::default();
        for (quantity, place) in &self.places {
            let Some(text) = place.read(header, body) else {
                continue;
            };
            match quantity {
                Quantity::Calls => told.calls = told.calls.or(number(&text)),
                Quantity::Burst => told.burst = number(&text),
                Quantity::Remaining => told.remaining = remaining(&text),
                Quantity::Reset => told.reset = wait::hint(&text, now_us),
            }
        }
        told
    }
}

impl Where {
    fn read(&self, header: Header<'_>, body: Option<&Body>) -> Option<String> {
        match self {
            Where::Header(name) => header(name),
            Where::Path(path) => path.first(body?.tree()).map(|value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
        }
    }
}

/// The first number of a text: `100`, `100, 100;w=60`, of `32/40` the 40.
fn number(text: &str) -> Option<f64> {
    let first = text.split([',', ';']).next()?.trim();
    let last = first.rsplit('/').next()?.trim();
    last.parse().ok().filter(|n: &f64| n.is_finite())
}

/// What is left: `17`, of `32/40` (used of all) 8.
fn remaining(text: &str) -> Option<f64> {
    let first = text.split([',', ';']).next()?.trim();
    match first.split_once('/') {
        Some((used, all)) => Some(number(all)? - number(used)?),
        None => number(first),
    }
}

/// One policy of the IETF fields.
#[derive(Clone, Debug, Default)]
struct Policy {
    name: String,
    limit: Option<f64>,
    window: Option<Duration>,
    remaining: Option<f64>,
    reset: Option<Duration>,
}

fn standard(header: Header<'_>, now_us: i64, period: Option<Duration>) -> Told {
    let policies = policies(header, now_us);
    let of_period = policies
        .iter()
        .find(|p| p.window.is_some() && p.window == period);
    let shortest = || policies.iter().min_by_key(|p| p.window.unwrap_or_default());
    let policy = of_period.or_else(shortest).cloned().unwrap_or_default();
    let any = |names: &[&str]| names.iter().find_map(|name| header(name));
    let limit = any(&["ratelimit-limit", "x-ratelimit-limit", "x-rate-limit-limit"]);
    let left = any(&[
        "ratelimit-remaining",
        "x-ratelimit-remaining",
        "x-rate-limit-remaining",
    ]);
    let reset = any(&["ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset"]);
    let hint = |text: String| wait::hint(&text, now_us);
    Told {
        calls: policy.limit.or_else(|| number(limit.as_deref()?)),
        window: policy.window.or_else(|| window_of(limit.as_deref()?)),
        of_any_window: true,
        burst: None,
        remaining: policy.remaining.or_else(|| remaining(left.as_deref()?)),
        reset: policy.reset.or_else(|| reset.and_then(hint)),
    }
}

/// The policies of `RateLimit-Policy` and `RateLimit`, joined by name; also `limit=100, remaining=50, reset=30`.
fn policies(header: Header<'_>, now_us: i64) -> Vec<Policy> {
    let mut policies: Vec<Policy> = Vec::new();
    let texts = ["ratelimit-policy", "ratelimit"].map(|name| header(name).unwrap_or_default());
    if texts[1].contains("limit=") || texts[1].contains("remaining=") {
        let mut one = Policy::default();
        texts[1]
            .split(',')
            .for_each(|word| one.take(word.trim(), now_us));
        return vec![one];
    }
    for item in texts.iter().flat_map(|text| text.split(',')) {
        let mut words = item.split(';').map(str::trim);
        let name = words.next().unwrap_or_default().trim_matches('"');
        if name.is_empty() {
            continue;
        }
        let place = policies.iter().position(|p| p.name == name);
        let place = place.unwrap_or_else(|| {
            policies.push(Policy {
                name: name.to_owned(),
                // An older draft has the number itself in the name's place.
                limit: name.parse().ok(),
                ..Policy::default()
            });
            policies.len() - 1
        });
        words.for_each(|word| policies[place].take(word, now_us));
    }
    policies
}

impl Policy {
    fn take(&mut self, word: &str, now_us: i64) {
        let Some((name, value)) = word.split_once('=') else {
            return;
        };
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "q" | "limit" => self.limit = number(value),
            "w" => self.window = seconds(value),
            "r" | "remaining" => self.remaining = number(value),
            "t" | "reset" => self.reset = wait::hint(value, now_us),
            _ => {}
        }
    }
}

/// The window of `100, 100;w=60`.
fn window_of(text: &str) -> Option<Duration> {
    text.split([',', ';'])
        .find_map(|word| seconds(word.trim().strip_prefix("w=")?))
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    (seconds > 0.0 && seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000_000;

    fn told(headers: &[(&str, &str)], period_s: u64) -> Told {
        let header = |name: &str| {
            let found = headers.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        standard(&header, NOW, Some(Duration::from_secs(period_s)))
    }

    #[test]
    fn the_fields_of_the_ietf() {
        let now = told(
            &[
                (
                    "ratelimit-policy",
                    "\"burst\";q=100;w=60,\"day\";q=1000;w=86400",
                ),
                ("ratelimit", "\"burst\";r=50;t=30, \"day\";r=900;t=3600"),
            ],
            60,
        );
        assert_eq!((now.calls, now.remaining), (Some(100.0), Some(50.0)));
        assert_eq!(now.window, Some(Duration::from_secs(60)));
        assert_eq!(now.reset, Some(Duration::from_secs(30)));
        let older = told(
            &[
                ("ratelimit-limit", "100, 100;w=10"),
                ("ratelimit-remaining", "7"),
                ("ratelimit-reset", "4"),
            ],
            1,
        );
        assert_eq!((older.calls, older.remaining), (Some(100.0), Some(7.0)));
        assert_eq!(older.window, Some(Duration::from_secs(10)));
        let oldest = told(&[("ratelimit", "limit=100, remaining=5, reset=2")], 1);
        assert_eq!((oldest.calls, oldest.remaining), (Some(100.0), Some(5.0)));
        assert_eq!(oldest.reset, Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_usual_ones() {
        let usual = told(
            &[
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-remaining", "4999"),
                ("x-ratelimit-reset", "1795000030"),
            ],
            1,
        );
        assert_eq!(usual.calls, Some(5_000.0));
        assert_eq!(usual.reset, Some(Duration::from_secs(30)));
        assert!(told(&[("server", "x")], 1).is_nothing());
    }

    #[test]
    fn numbers_as_they_come() {
        assert_eq!(number("2.5"), Some(2.5));
        assert_eq!(number("32/40"), Some(40.0));
        assert_eq!(remaining("32/40"), Some(8.0));
        assert_eq!(number("many"), None);
        assert_eq!(number("inf"), None);
    }
}
