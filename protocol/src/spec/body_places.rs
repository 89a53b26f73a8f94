//! Places in bodies fit the format: paths read trees, CSS selectors read HTML.

use super::model::FormatKind;
use super::reader::Reader;
use super::tree::{Data, Node};

/// Looks at every place that `root`, a provider, names in a body of `kind`.
pub(super) fn fit(r: &Reader, root: &Node, kind: FormatKind) {
    for rule in items(child(root, "outcomes")) {
        let when = child(Some(rule), "when");
        place(r, child(when, "body"), kind);
        path_in(r, child(Some(rule), "wait"), kind);
    }
    for endpoint in values(child(root, "endpoints")) {
        of_endpoint(r, endpoint, kind);
    }
}

fn of_endpoint(r: &Reader, endpoint: &Node, kind: FormatKind) {
    place(r, child(endpoint, "records"), kind);
    for field in values(child(endpoint, "fields")) {
        place(r, Some(field), kind);
        local_time(r, field);
    }
    let page = child(endpoint, "page");
    for key in ["next", "total", "stop"] {
        match child(page, key) {
            Some(node) if key != "stop" || matches!(node.data, Data::Map(_)) => {
                place(r, Some(node), kind);
            }
            _ => {}
        }
    }
}

/// A path, `{path}` or `{css}`.
fn place(r: &Reader, node: Option<&Node>, kind: FormatKind) {
    let Some(node) = node else {
        return;
    };
    let css = child(node, "css");
    if let (Some(css), true) = (css, kind != FormatKind::Html) {
        r.fault::<()>(
            css.key_at,
            "a CSS selector, but the answers are no HTML",
            "write a path ($.data[*]), or say format: {type: html}",
        );
    }
    match &node.data {
        Data::Scalar(_) => no_path(r, node, kind),
        _ => path_in(r, Some(node), kind),
    }
}

fn path_in(r: &Reader, node: Option<&Node>, kind: FormatKind) {
    if let Some(path) = child(node, "path") {
        no_path(r, path, kind);
    }
}

fn no_path(r: &Reader, node: &Node, kind: FormatKind) {
    if kind == FormatKind::Html {
        r.fault::<()>(
            node.at,
            "a path, but the answers are HTML",
            "write a CSS selector: {css: \"table.reviews tbody tr\"}",
        );
    }
}

/// A `format` without an offset needs the zone, else no text at all is an instant.
fn local_time(r: &Reader, field: &Node) {
    let text = |key: &str| match child(field, key).map(|n| &n.data) {
        Some(Data::Scalar(serde_json::Value::String(text))) => Some(text.as_str()),
        _ => None,
    };
    let Some(format) = text("format") else {
        return;
    };
    let knows_offset = ["%z", "%:z", "%Q", "%:Q", "%s", "%c", "%Z"]
        .iter()
        .any(|directive| format.contains(directive));
    let is_instant = text("as") == Some("datetime");
    if is_instant && text("zone").is_none() && !knows_offset {
        let at = child(field, "format").map_or(field.at, |n| n.key_at);
        r.fault::<()>(
            at,
            "a local time without a zone is no instant",
            "add the zone that the provider means: zone: Asia/Seoul",
        );
    }
}

fn child<'n>(node: impl Into<Option<&'n Node>>, key: &str) -> Option<&'n Node> {
    match &node.into()?.data {
        Data::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
        _ => None,
    }
}

fn values(node: Option<&Node>) -> Vec<&Node> {
    match node.map(|n| &n.data) {
        Some(Data::Map(entries)) => entries.iter().map(|e| &e.node).collect(),
        _ => Vec::new(),
    }
}

fn items(node: Option<&Node>) -> Vec<&Node> {
    match node.map(|n| &n.data) {
        Some(Data::List(items)) => items.iter().collect(),
        _ => Vec::new(),
    }
}
