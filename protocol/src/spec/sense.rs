//! What reads well and cannot mean what was meant: a call that is made several times for nothing, a page
//! that has no next one, a form of dates that reads no date.

use std::collections::HashSet;

use super::diagnostic::Position;
use super::jinja;
use super::model::{Endpoint, FieldKind, Page, Request, RequestBody, SplitOn, json_parameter};
use super::reader::{Fields, Reader};
use super::tree::{Data, Node};

/// Headers that the client alone knows.
const CLIENTS: [&str; 3] = ["content-length", "transfer-encoding", "connection"];

/// A header that a file may add: its name is one, and not the client's own.
pub(super) fn header_name(r: &Reader, at: Position, name: &str) -> Option<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(legal) {
        return r.fault(
            at,
            format!("`{name}` cannot be a header's name"),
            "letters, digits and -, such as x-api-key",
        );
    }
    if CLIENTS.contains(&name.to_ascii_lowercase().as_str()) {
        return r.fault(
            at,
            format!("`{name}` is set by the client itself"),
            "take it out",
        );
    }
    Some(())
}

/// The names of a request's headers.
pub(super) fn header_names(r: &Reader, headers: &Node) {
    if let Data::Map(entries) = &headers.data {
        for entry in entries {
            header_name(r, entry.key_at, &entry.key);
        }
    }
}

/// The values of a query or a form: scalars, or lists of them.
pub(super) fn flat_values(r: &Reader, node: &Node) {
    let Data::Map(entries) = &node.data else {
        return;
    };
    for entry in entries {
        let unfit = match &entry.node.data {
            Data::Map(_) => Some(&entry.node),
            Data::List(list) => list.iter().find(|n| !matches!(n.data, Data::Scalar(_))),
            Data::Scalar(_) => None,
        };
        if let Some(unfit) = unfit {
            r.fault::<()>(
                unfit.at,
                format!(
                    "{} where text, a number or a list of them belongs",
                    unfit.kind()
                ),
                "write the parameter's text; JSON inside of it is a text too: '{\"a\": 1}'",
            );
        }
    }
}

/// What an endpoint says as a whole.
pub(super) fn endpoint(r: &Reader, f: &Fields, read: &Endpoint) {
    if let (Some(node), Some(request)) = (f.node("each"), &read.request) {
        each(r, node, read, request);
    }
    if let (Some(node), Some(page)) = (f.node("page"), &read.page) {
        pages(r, node, page);
    }
    if let (Some(node), Some(split), Some(request)) =
        (f.node("split_on"), &read.split_on, &read.request)
    {
        bisected(r, node, split, request);
    }
}

fn each(r: &Reader, node: &Node, read: &Endpoint, request: &Request) {
    if read.each.is_empty() {
        r.fault::<()>(
            node.at,
            "nothing to ask for: a cell of this endpoint makes no call",
            "list what is asked for one after the other, or take `each` out",
        );
        return;
    }
    let mut seen = HashSet::new();
    if let Some(twice) = read.each.iter().find(|item| !seen.insert(item.to_string())) {
        r.fault::<()>(
            node.at,
            format!("`{}` is asked for twice", text_of(twice)),
            "keep one of them: the same call would be made and paid for again",
        );
    }
    let texts = templates_of(request);
    let used = |text: &String| {
        jinja::template(text).is_ok_and(|names| names.iter().any(|name| name == "item"))
    };
    if !texts.iter().any(used) {
        r.fault::<()>(
            node.key_at,
            "the request does not use `item`, so the same call would be made for each",
            "put \"{{ item }}\" where the API takes it, or take `each` out",
        );
    }
}

fn text_of(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Every text of a request that may be a template.
fn templates_of(request: &Request) -> Vec<String> {
    let mut texts = vec![request.path.clone()];
    texts.extend(request.query.values().map(text_of));
    texts.extend(request.headers.values().cloned());
    match &request.body {
        Some(RequestBody::Json(json)) => in_json(json, &mut texts),
        Some(RequestBody::Form(form)) => texts.extend(form.values().map(text_of)),
        Some(RequestBody::Xml(xml)) => texts.push(xml.clone()),
        None => {}
    }
    texts
}

fn in_json(json: &serde_json::Value, texts: &mut Vec<String>) {
    match json {
        serde_json::Value::String(text) => texts.push(text.clone()),
        serde_json::Value::Array(list) => list.iter().for_each(|below| in_json(below, texts)),
        serde_json::Value::Object(fields) => {
            texts.extend(fields.keys().cloned());
            fields.values().for_each(|below| in_json(below, texts));
        }
        _ => {}
    }
}

fn pages(r: &Reader, node: &Node, page: &Page) {
    let at = |key: &str| below(node, key).map_or(node.at, |n| n.at);
    if page.last.is_some_and(|last| last < page.first) {
        r.fault::<()>(
            at("last"),
            "the last page lies before the first one",
            "`first` is the number of the first page (1), `last` of the last one that the engine serves",
        );
    }
    if matches!(below(node, "next").map(|n| &n.data), Some(Data::Map(entries)) if entries.is_empty())
    {
        r.fault::<()>(
            at("next"),
            "no cursor, so every page would be the first one again",
            "one path ($.next) with `query`, or a path for each parameter: {after: $.meta.after}",
        );
    }
}

/// What `bisect` narrows must be in the request.
fn bisected(r: &Reader, node: &Node, split: &SplitOn, request: &Request) {
    let at = |key: &str| {
        let bisect = below(node, "bisect");
        bisect.and_then(|n| below(n, key)).map_or(node.at, |n| n.at)
    };
    if split.from == split.to {
        r.fault::<()>(
            at("to"),
            "one parameter is both ends of the stretch",
            "`from` is the parameter of the first day, `to` the one of the last",
        );
    }
    let in_body = match &request.body {
        Some(RequestBody::Json(json)) => json_parameter(json, &split.from).is_some(),
        Some(RequestBody::Form(form)) => form.contains_key(&split.from),
        _ => false,
    };
    if !in_body && !request.query.contains_key(&split.from) {
        r.fault::<()>(
            at("from"),
            format!(
                "the request has no `{}`, so nobody knows where the stretch begins",
                split.from
            ),
            format!("add it to `query`: {}: \"{{{{ run.date }}}}\"", split.from),
        );
    }
}

fn below<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.data {
        Data::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
        _ => None,
    }
}

/// A `format:` reads what it writes.
pub(super) fn time_format(r: &Reader, node: &Node, format: &str, kind: Option<FieldKind>) {
    let sample = jiff::civil::date(2026, 11, 21).at(13, 14, 15, 0);
    let sample = sample.in_tz("UTC").ok();
    let read = sample.and_then(|sample| {
        let text = jiff::fmt::strtime::format(format, &sample).ok()?;
        let parsed = jiff::fmt::strtime::parse(format, &text).ok()?;
        match kind {
            Some(FieldKind::Date) => parsed.to_date().ok().map(|_| ()),
            _ => parsed
                .to_timestamp()
                .map(|_| ())
                .or_else(|_| parsed.to_datetime().map(|_| ()))
                .ok(),
        }
    });
    if read.is_none() {
        let what = match kind {
            Some(FieldKind::Date) => "a date",
            _ => "a date with its time",
        };
        r.fault::<()>(
            node.at,
            format!("`{format}` reads no value as {what}"),
            "as in strptime: %Y-%m-%d, %Y%m%d%H%M, %d.%m.%Y %H:%M:%S",
        );
    }
}
