//! The answer to a `_bulk`, read without copying what is fine.

use std::borrow::Cow;

use serde::Deserialize;

use super::{IndexError, Item};

/// What is asked back. Every item keeps its status, so that positions stay those of the request.
pub(super) const ASKED: &str = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason";

/// Documents in a body of index actions: two lines each.
pub(super) fn documents(body: &[u8]) -> usize {
    lines(body) / 2
}

/// Lines of a body: actions that only delete have one each.
pub(super) fn lines(body: &[u8]) -> usize {
    body.iter().filter(|byte| **byte == b'\n').count()
}

#[derive(Deserialize)]
struct Answer<'a> {
    errors: bool,
    #[serde(borrow, default)]
    items: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, alias = "create", alias = "delete")]
    index: Outcome<'a>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    status: u16,
    #[serde(borrow)]
    error: Option<Fault<'a>>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    caused_by: Option<Cause<'a>>,
}

#[derive(Deserialize)]
struct Cause<'a> {
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// One [`Item`] for each of the `sent` documents, in their order.
pub(super) fn read(text: &[u8], sent: usize) -> Result<Vec<Item>, IndexError> {
    let odd = |why: String| IndexError::Refused { status: 200, why };
    let answer: Answer<'_> = serde_json::from_slice(text)
        .map_err(|e| odd(format!("a _bulk answer that cannot be read: {e}")))?;
    if answer.items.len() != sent {
        return Err(odd(format!(
            "a _bulk answer for {} of {sent} documents",
            answer.items.len()
        )));
    }
    if !answer.errors {
        return Ok(vec![Item::Stored; sent]);
    }
    answer
        .items
        .into_iter()
        .map(|entry| item(entry.index))
        .collect()
}

/// 409: the same version or a newer one is there, which is what external versions are for.
fn item(outcome: Outcome<'_>) -> Result<Item, IndexError> {
    let Some(fault) = outcome.error else {
        return Ok(Item::Stored);
    };
    if fault.kind == "cluster_block_exception" {
        return Err(IndexError::Busy(text(&fault)));
    }
    match outcome.status {
        409 => Ok(Item::Stored),
        429 | 503 => Ok(Item::Again),
        404 => Err(IndexError::Refused {
            status: 404,
            why: text(&fault),
        }),
        _ => Ok(Item::Rejected(text(&fault))),
    }
}

fn text(fault: &Fault<'_>) -> String {
    let cause = fault
        .caused_by
        .as_ref()
        .and_then(|cause| cause.reason.as_deref());
    let parts = [Some(fault.kind.as_ref()), fault.reason.as_deref(), cause];
    let text: Vec<&str> = parts.into_iter().flatten().collect();
    text.join(": ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_judged_alone() {
        let text = br#"{"errors":true,"items":[{"index":{"status":201}},{"index":{"status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"index":{"status":429,"error":{"type":"es_rejected_execution_exception"}}},{"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"say \"no\""}}}]}"#;
        let items = read(text, 4).expect("readable");
        let rejected = Item::Rejected("mapper_parsing_exception: say \"no\"".into());
        assert_eq!(items, [Item::Stored, Item::Stored, Item::Again, rejected]);
    }

    #[test]
    fn a_block_rejects_no_document() {
        let text = br#"{"errors":true,"items":[{"index":{"status":403,"error":{"type":"cluster_block_exception"}}}]}"#;
        assert!(matches!(read(text, 1), Err(IndexError::Busy(_))));
    }

    #[test]
    fn a_short_answer_is_no_success() {
        assert!(read(br#"{"errors":false,"items":[]}"#, 1).is_err());
    }
}
