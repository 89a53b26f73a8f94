//! Reads `outcomes:` and the places in an answer.

use super::model::*;
use super::reader::Reader;
use super::tree::{Data, Node};
use super::words;
use crate::outcome::Outcome;

/// Keys of a rule.
pub const OUTCOME: &[&str] = &["when", "then", "wait"];
/// Keys of `when`.
pub const WHEN: &[&str] = &["status", "header", "body"];
/// Keys of `when.header`.
pub const HEADER_TEST: &[&str] = &["name", "is", "matches"];
/// Keys of `when.body`.
pub const BODY_TEST: &[&str] = &["path", "css", "is", "matches"];
/// Keys of `wait`.
pub const WAIT: &[&str] = &["header", "path", "fallback", "at_most"];
/// Keys of a place.
pub const PLACE: &[&str] = &["header", "path"];
/// Keys of `records` when it is no path.
pub const RECORDS: &[&str] = &["path", "css"];

/// All rules, in order.
pub(super) fn outcomes(r: &Reader, node: &Node) -> Option<Vec<OutcomeRule>> {
    r.list(node, rule)
}

fn rule(r: &Reader, node: &Node) -> Option<OutcomeRule> {
    let f = r.fields(node, OUTCOME)?;
    let when = f.need("when", when);
    let then = f.need("then", |r, n| {
        r.choice(n, &Outcome::ALL.map(|o| (o.as_str(), o)))
    });
    let wait = f.take("wait", wait);
    let waits = matches!(
        then,
        Some(
            Outcome::Throttled
                | Outcome::QuotaExhausted
                | Outcome::Maintenance
                | Outcome::Retryable
        ) | None
    );
    if let (Some(node), false) = (f.node("wait"), waits) {
        return r.fault(
            node.key_at,
            "nothing waits after this outcome",
            "`wait` goes with throttled, quota_exhausted, maintenance and retryable",
        );
    }
    Some(OutcomeRule {
        when: when?,
        then: then?,
        wait,
    })
}

fn when(r: &Reader, node: &Node) -> Option<When> {
    let f = r.fields(node, WHEN)?;
    if !WHEN.iter().any(|key| f.has(key)) {
        return r.fault(
            node.at,
            "a rule that holds for every answer",
            "say a status, a header or something in the body",
        );
    }
    Some(When {
        status: f
            .take("status", |r, n| {
                r.one_or_more(n, |r, n| r.parsed(n, "status", words::status))
            })
            .unwrap_or_default(),
        header: f.take("header", header_test),
        body: f.take("body", body_test),
    })
}

fn header_test(r: &Reader, node: &Node) -> Option<HeaderTest> {
    let f = r.fields(node, HEADER_TEST)?;
    Some(HeaderTest {
        test: value_test(&f),
        name: f.need("name", Reader::header)?,
    })
}

fn body_test(r: &Reader, node: &Node) -> Option<BodyTest> {
    let f = r.fields(node, BODY_TEST)?;
    let test = value_test(&f);
    let at = match f.one_of(&["path", "css"])? {
        "path" => BodyPlace::Path(f.take("path", Reader::path)?),
        _ => BodyPlace::Css(f.take("css", Reader::css)?),
    };
    Some(BodyTest { at, test })
}

pub(super) fn value_test(f: &super::reader::Fields) -> Option<ValueTest> {
    match f.at_most_one_of(&["is", "matches"])? {
        "is" => f.take("is", Reader::scalar).map(ValueTest::Is),
        _ => f.take("matches", Reader::regex).map(ValueTest::Matches),
    }
}

fn wait(r: &Reader, node: &Node) -> Option<Wait> {
    if !matches!(node.data, Data::Map(_)) {
        return r.some_span(node).map(Wait::Fixed);
    }
    let f = r.fields(node, WAIT)?;
    let fallback = f.take("fallback", Reader::some_span);
    let at_most = f.take("at_most", Reader::some_span);
    let place = match f.one_of(PLACE)? {
        "header" => Place::Header(f.take("header", Reader::header)?),
        _ => Place::Path(f.take("path", Reader::path)?),
    };
    let has_built_in =
        matches!(&place, Place::Header(name) if name.eq_ignore_ascii_case("retry-after"));
    if fallback.is_none() && !has_built_in {
        r.warn(
            node.at,
            "nothing says how long to wait for an answer that does not tell it",
            "add a fallback: {header: x-reset-in, fallback: 30s}",
        );
    }
    Some(Wait::From {
        place,
        fallback,
        at_most,
    })
}

/// `{header: name}` or `{path: $.x}`
pub(super) fn place(r: &Reader, node: &Node) -> Option<Place> {
    let f = r.fields(node, PLACE)?;
    match f.one_of(PLACE)? {
        "header" => f.take("header", Reader::header).map(Place::Header),
        _ => f.take("path", Reader::path).map(Place::Path),
    }
}

/// `$.data[*]` or `{css: "tr"}`
pub(super) fn body_place(r: &Reader, node: &Node) -> Option<BodyPlace> {
    if !matches!(node.data, Data::Map(_)) {
        return r.path(node).map(BodyPlace::Path);
    }
    let f = r.fields(node, RECORDS)?;
    match f.one_of(RECORDS)? {
        "path" => f.take("path", Reader::path).map(BodyPlace::Path),
        _ => f.take("css", Reader::css).map(BodyPlace::Css),
    }
}
