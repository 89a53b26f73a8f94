//! Reads `endpoints:`.

use indexmap::IndexMap;

use super::model::*;
use super::outcomes::{body_place, place, value_test};
use super::reader::{Fields, IDENTIFIER_RULE, NAME_RULE, Reader, is_identifier};
use super::scope::Spot;
use super::tree::{Data, Node};
use super::words;
use super::{secrets, sense};
use crate::ids::is_name;

/// Keys of an endpoint.
pub const ENDPOINT: &[&str] = &[
    "get", "post", "query", "headers", "json", "form", "xml", "each", "page", "split_on",
    "records", "detail", "fields",
];
/// Keys of `page`.
pub const PAGE: &[&str] = &[
    "style",
    "query",
    "next",
    "first",
    "step",
    "last",
    "total",
    "stop",
    "max_pages",
    "resume",
];
/// Keys of `page.stop`.
pub const STOP: &[&str] = &["path", "is", "matches"];
/// Keys of `split_on`.
pub const SPLIT_ON: &[&str] = &["overflow", "bisect"];
/// Keys of `split_on.bisect`.
pub const BISECT: &[&str] = &["from", "to", "over"];
/// Keys of `detail`.
pub const DETAIL: &[&str] = &[
    "get", "post", "query", "headers", "json", "form", "xml", "batch", "ids", "records", "join",
    "missing",
];
/// Keys of `detail.join`.
pub const JOIN: &[&str] = &["left", "right"];
/// Keys of a field.
pub const FIELD: &[&str] = &[
    "path",
    "css",
    "attribute",
    "value",
    "as",
    "optional",
    "zone",
    "format",
    "scale",
];

/// All endpoints of a provider.
pub(super) fn endpoints(
    r: &Reader,
    node: &Node,
    is_http: bool,
) -> Option<IndexMap<String, Endpoint>> {
    let read = r.keyed(node, is_name, NAME_RULE, |r, n| endpoint(r, n, is_http))?;
    if matches!(&node.data, Data::Map(entries) if entries.is_empty()) {
        return r.fault(
            node.key_at,
            "a provider without endpoints",
            "add one: what is asked, and which fields its records have",
        );
    }
    Some(read)
}

fn endpoint(r: &Reader, node: &Node, is_http: bool) -> Option<Endpoint> {
    let f = r.fields(node, ENDPOINT)?;
    let name = node.path.rsplit('.').next().unwrap_or_default().to_owned();
    let spot = Spot::Endpoint {
        endpoint: name.clone(),
        each: f.has("each"),
        detail: false,
    };
    let request = if is_http { request(&f, &spot) } else { None };
    let records = if is_http {
        f.need("records", body_place)
    } else {
        f.take("records", body_place)
    };
    let detail = f.take("detail", |r, n| {
        detail(
            r,
            n,
            &Spot::Endpoint {
                endpoint: name,
                each: false,
                detail: true,
            },
        )
    });
    let fields = f.need("fields", |r, n| {
        r.keyed(n, is_identifier, IDENTIFIER_RULE, |r, n| field(r, n, &spot))
    });
    if let Some(node) = f.node("fields")
        && fields.as_ref().is_some_and(IndexMap::is_empty)
        && matches!(&node.data, Data::Map(entries) if entries.is_empty())
    {
        r.fault::<()>(
            node.key_at,
            "records without fields",
            "name at least one: price: $.price.total",
        );
    }
    let read = Endpoint {
        request,
        each: f
            .take("each", |r, n| r.list(n, Reader::scalar))
            .unwrap_or_default(),
        page: f.take("page", page),
        split_on: f.take("split_on", split_on),
        records,
        detail,
        fields: fields.unwrap_or_default(),
    };
    sense::endpoint(r, &f, &read);
    Some(read)
}

fn request(f: &Fields, spot: &Spot) -> Option<Request> {
    let template = |r: &Reader, n: &Node| r.template(n, spot);
    let templates = |r: &Reader, n: &Node| r.map(n, |r, n| r.templates_in(n, spot));
    for key in ["query", "form"] {
        f.take(key, |r, n| {
            sense::flat_values(r, n);
            Some(())
        });
    }
    let query = f.take("query", templates).unwrap_or_default();
    for key in ["query", "headers", "json", "form"] {
        f.take(key, |r, n| {
            secrets::in_request(r, n);
            Some(())
        });
    }
    let headers = f
        .take("headers", |r, n| {
            sense::header_names(r, n);
            r.map(n, template)
        })
        .unwrap_or_default();
    let body = body(f, spot);
    let verb = f.one_of(&["get", "post"])?;
    let method = if verb == "get" {
        Method::Get
    } else {
        Method::Post
    };
    let path = f.take(verb, |r, n| path_of(r, n, spot))?;
    no_body_in_get(f, method);
    Some(Request {
        method,
        path,
        query,
        headers,
        body,
    })
}

fn no_body_in_get(f: &Fields, method: Method) {
    for key in ["json", "form", "xml"] {
        if let (Method::Get, Some(node)) = (method, f.node(key)) {
            f.take(key, |r, _| {
                r.fault::<()>(
                    node.key_at,
                    format!("a GET has no body, so no `{key}`"),
                    "use `post`, or put it under `query`",
                )
            });
        }
    }
}

/// A path below the base URL.
fn path_of(r: &Reader, node: &Node, spot: &Spot) -> Option<Template> {
    let path = r.template(node, spot)?;
    if path.contains("://") || !(path.starts_with('/') || path.starts_with("{{")) {
        return r.fault(
            node.at,
            format!("`{path}` is no path below the base URL"),
            "begin it with /: /v1/fares",
        );
    }
    if path.contains('?') {
        return r.fault(
            node.at,
            "a query inside the path",
            "put it under `query:`, which escapes the values",
        );
    }
    secrets::in_path(r, node, &path)?;
    Some(path)
}

fn body(f: &Fields, spot: &Spot) -> Option<RequestBody> {
    match f.at_most_one_of(&["json", "form", "xml"])? {
        "json" => f
            .take("json", |r, n| r.templates_in(n, spot))
            .map(RequestBody::Json),
        "form" => f
            .take("form", |r, n| r.map(n, |r, n| r.templates_in(n, spot)))
            .map(RequestBody::Form),
        _ => f
            .take("xml", |r, n| r.template(n, spot))
            .map(RequestBody::Xml),
    }
}

fn page(r: &Reader, node: &Node) -> Option<Page> {
    const STYLES: &[(&str, PageStyle)] = &[
        ("page", PageStyle::Page),
        ("offset", PageStyle::Offset),
        ("cursor", PageStyle::Cursor),
        ("next_url", PageStyle::NextUrl),
        ("link", PageStyle::Link),
    ];
    let f = r.fields(node, PAGE)?;
    let style = f.need("style", |r, n| r.choice(n, STYLES));
    let next = f.take("next", |r, n| next(r, n, style)).unwrap_or_default();
    needs_by_style(&f, style);
    Some(Page {
        style: style?,
        query: f.take("query", Reader::text),
        next,
        first: f.take("first", |r, n| r.whole(n, 0, u64::MAX)).unwrap_or(1),
        step: f.take("step", |r, n| r.whole(n, 1, u64::MAX)),
        last: f.take("last", |r, n| r.whole(n, 0, u64::MAX)),
        total: f.take("total", Reader::path),
        stop: f.take("stop", stop),
        max_pages: f
            .take("max_pages", |r, n| r.count(n, 1, 1_000_000))
            .unwrap_or(1000),
        resume: f.take("resume", Reader::boolean).unwrap_or(true),
    })
}

/// The name under which a page's one `next` path is kept where it fills no parameter.
const NEXT: &str = "next";

fn next(r: &Reader, node: &Node, style: Option<PageStyle>) -> Option<IndexMap<String, Place>> {
    match (&node.data, style) {
        (Data::Map(_), Some(PageStyle::Cursor)) if is_header(node) => {
            Some(IndexMap::from([(NEXT.to_owned(), place(r, node)?)]))
        }
        (Data::Map(_), Some(PageStyle::Cursor)) => r.map(node, one_next),
        (Data::Map(_), _) => r.fault(
            node.at,
            "several cursors",
            "only `style: cursor` has them; write one path",
        ),
        _ => Some(IndexMap::from([(NEXT.to_owned(), one_next(r, node)?)])),
    }
}

fn one_next(r: &Reader, node: &Node) -> Option<Place> {
    match &node.data {
        Data::Map(_) => place(r, node),
        _ => r.path(node).map(Place::Path),
    }
}

/// `{header: x-next}`: a place, and no parameter called `header`, whose path would begin with `$`.
fn is_header(node: &Node) -> bool {
    let Data::Map(entries) = &node.data else {
        return false;
    };
    let text = |n: &Node| match &n.data {
        Data::Scalar(value) => value.to_string(),
        _ => String::new(),
    };
    matches!(entries.as_slice(), [one] if one.key == "header" && !text(&one.node).contains('$'))
}

fn needs_by_style(f: &Fields, style: Option<PageStyle>) {
    let keys: &[&str] = match style {
        Some(PageStyle::Page) => &["query"],
        Some(PageStyle::Offset) => &["query", "step"],
        Some(PageStyle::Cursor | PageStyle::NextUrl) => &["next"],
        Some(PageStyle::Link) | None => &[],
    };
    for key in keys {
        f.need(key, |_, _| Some(()));
    }
    let one_cursor = f
        .node("next")
        .is_some_and(|n| matches!(n.data, Data::Scalar(_)) || is_header(n));
    if style == Some(PageStyle::Cursor) && one_cursor {
        f.need("query", |_, _| Some(()));
    }
}

fn stop(r: &Reader, node: &Node) -> Option<Stop> {
    if !matches!(node.data, Data::Map(_)) {
        return r
            .choice(node, &[("empty", false), ("short", true)])
            .map(|short| match short {
                true => Stop::Short,
                false => Stop::Empty,
            });
    }
    let f = r.fields(node, STOP)?;
    Some(Stop::Test {
        test: value_test(&f),
        path: f.need("path", Reader::path)?,
    })
}

fn split_on(r: &Reader, node: &Node) -> Option<SplitOn> {
    let f = r.fields(node, SPLIT_ON)?;
    let overflow = f.need("overflow", Reader::path);
    let (from, to, days) = f.need("bisect", |r, n| {
        let f = r.fields(n, BISECT)?;
        let from = f.need("from", Reader::text);
        let to = f.need("to", Reader::text);
        let days = f.need("over", whole_days);
        Some((from?, to?, days?))
    })?;
    Some(SplitOn {
        overflow: overflow?,
        from,
        to,
        days,
    })
}

/// A stretch that is halved by days is a number of them.
fn whole_days(r: &Reader, node: &Node) -> Option<u32> {
    const DAY: u64 = 24 * 3600;
    const MOST: u64 = 366 * 100;
    let span = r.parsed(node, "length of time", words::span)?.0;
    let days = span.as_secs() / DAY;
    if span.as_secs() % DAY != 0 || span.subsec_nanos() != 0 || !(1..=MOST).contains(&days) {
        return r.fault(
            node.at,
            "a stretch that is no number of days",
            "halves share no day: write 365d",
        );
    }
    u32::try_from(days).ok()
}

fn detail(r: &Reader, node: &Node, spot: &Spot) -> Option<Detail> {
    let f = r.fields(node, DETAIL)?;
    let request = request(&f, spot);
    let batch = f.take("batch", |r, n| r.count(n, 1, 10_000));
    let ids = f.need("ids", Reader::path);
    let records = f.need("records", body_place);
    let report_missing = f
        .take("missing", |r, n| {
            r.choice(n, &[("fail", false), ("report", true)])
        })
        .unwrap_or(false);
    let join = f.need("join", |r, n| {
        let f = r.fields(n, JOIN)?;
        let left = f.need("left", Reader::path);
        let right = f.need("right", Reader::path);
        Some((left?, right?))
    });
    let (left, right) = join?;
    Some(Detail {
        request: request?,
        batch,
        ids: ids?,
        records: records?,
        left,
        right,
        report_missing,
    })
}

fn field(r: &Reader, node: &Node, spot: &Spot) -> Option<Field> {
    if !matches!(node.data, Data::Map(_)) {
        let from = FieldSource::Path(r.path(node)?);
        return Some(Field {
            from,
            kind: None,
            optional: false,
            zone: None,
            format: None,
            scale: None,
        });
    }
    let f = r.fields(node, FIELD)?;
    let kind = f.take("as", |r, n| r.choice(n, KINDS));
    only_for(r, &f, "zone", kind, &[FieldKind::Date, FieldKind::Datetime]);
    only_for(
        r,
        &f,
        "format",
        kind,
        &[FieldKind::Date, FieldKind::Datetime],
    );
    only_for(r, &f, "scale", kind, &[FieldKind::Decimal]);
    Some(Field {
        kind,
        optional: f.take("optional", Reader::boolean).unwrap_or(false),
        zone: f.take("zone", |r, n| r.parsed(n, "time zone", words::zone)),
        format: f.take("format", |r, n| {
            let format = r.text(n)?;
            sense::time_format(r, n, &format, kind);
            Some(format)
        }),
        scale: f.take("scale", |r, n| r.count(n, 0, 38)).map(|n| n as u8),
        from: field_source(&f, spot)?,
    })
}

const KINDS: &[(&str, FieldKind)] = &[
    ("string", FieldKind::String),
    ("text", FieldKind::Text),
    ("integer", FieldKind::Integer),
    ("decimal", FieldKind::Decimal),
    ("float", FieldKind::Float),
    ("boolean", FieldKind::Boolean),
    ("date", FieldKind::Date),
    ("datetime", FieldKind::Datetime),
];

fn only_for(r: &Reader, f: &Fields, key: &str, kind: Option<FieldKind>, fits: &[FieldKind]) {
    let unfit = kind.is_none_or(|kind| !fits.contains(&kind));
    if let (Some(node), true, true) = (f.node(key), unfit, kind.is_some() || !f.has("as")) {
        let words: Vec<&str> = KINDS
            .iter()
            .filter(|(_, k)| fits.contains(k))
            .map(|(word, _)| *word)
            .collect();
        r.fault::<()>(
            node.key_at,
            format!("`{key}` without a kind that it belongs to"),
            format!("add `as: {}`, or take it out", words.join("` or `as: ")),
        );
    }
}

fn field_source(f: &Fields, spot: &Spot) -> Option<FieldSource> {
    match f.one_of(&["path", "css", "value"])? {
        "path" => f.take("path", Reader::path).map(FieldSource::Path),
        "css" => {
            let attribute = f.take("attribute", Reader::text);
            Some(FieldSource::Css {
                css: f.take("css", Reader::css)?,
                attribute,
            })
        }
        _ => f.take("value", |r, n| {
            r.scalar(n)?;
            r.templates_in(n, spot).map(FieldSource::Value)
        }),
    }
}
