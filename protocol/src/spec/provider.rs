//! Reads a provider's file.

use super::auth::auth;
use super::body_places;
use super::endpoint::endpoints;
use super::limits::limits;
use super::model::*;
use super::outcomes::outcomes;
use super::reader::{Fields, IDENTIFIER_RULE, Reader, is_identifier};
use super::scope::Spot;
use super::secrets;
use super::tree::Node;
use super::words;

/// Keys of a provider.
pub const PROVIDER: &[&str] = &[
    "provider",
    "version",
    "verified_on",
    "base_url",
    "egress",
    "source",
    "credentials",
    "auth",
    "timeout",
    "format",
    "limits",
    "outcomes",
    "retry",
    "ready",
    "endpoints",
];
/// Keys of `source` of a provider.
pub const SOURCE: &[&str] = &["s3", "redis"];
/// Keys of `source.s3`.
pub const SOURCE_S3: &[&str] = &["bucket", "key", "pick", "max_age"];
/// Keys of `source.redis`.
pub const SOURCE_REDIS: &[&str] = &["url", "sorted_set"];
/// Keys of `credentials`.
pub const CREDENTIALS: &[&str] = &["from_env", "from_file", "fields", "use", "pick"];
/// Keys of `timeout`.
pub const TIMEOUT: &[&str] = &["connect", "total"];
/// Keys of `format`.
pub const FORMAT: &[&str] = &["type", "charset", "force_array", "max_body"];
/// Keys of `retry`.
pub const RETRY: &[&str] = &["attempts", "backoff"];
/// Keys of `retry.backoff`.
pub const BACKOFF: &[&str] = &["from", "to"];
/// Keys of `ready`.
pub const READY: &[&str] = &["get", "auth", "for"];

/// Reads the provider at the root of a file; what is wrong is reported to `r`.
pub(super) fn provider(r: &Reader, root: &Node) -> Option<Provider> {
    let f = r.fields(root, PROVIDER)?;
    let name = f.need("provider", Reader::name);
    let kind = f.one_of(&["base_url", "source"]);
    let is_http = kind == Some("base_url");
    let endpoints = f
        .need("endpoints", |r, n| endpoints(r, n, is_http))
        .unwrap_or_default();
    let limits = f
        .take("limits", |r, n| limits(r, n, &endpoints))
        .unwrap_or_default();
    if is_http && !f.has("limits") {
        unlimited(r, &f);
    }
    let format = f.take("format", format).unwrap_or_default();
    body_places::fit(r, root, format.kind);
    Some(Provider {
        name: name?,
        version: f
            .take("version", |r, n| r.count(n, 1, u32::MAX))
            .unwrap_or(1),
        verified_on: f.take("verified_on", |r, n| r.parsed(n, "date", iso_date)),
        base_url: f.take("base_url", base_url),
        egress: f.take("egress", Reader::name),
        source: f.take("source", source),
        credentials: f.take("credentials", credentials),
        auth: f.take("auth", |r, n| r.list(n, auth)).unwrap_or_default(),
        timeout: f.take("timeout", timeout).unwrap_or_default(),
        format,
        limits,
        outcomes: f
            .take("outcomes", |r, n| outcomes(r, n))
            .unwrap_or_default(),
        retry: f.take("retry", retry).unwrap_or_default(),
        ready: f.take("ready", ready),
        endpoints,
    })
}

fn unlimited(r: &Reader, f: &Fields) {
    let at = f
        .node("provider")
        .map_or(super::Position::START, |n| n.key_at);
    r.warn(
        at,
        "no `limits`: the fleet will call as fast as it can, and the provider may block the account",
        "add what its documentation allows: limits: [{name: second, rate: 10/s}]",
    );
}

fn iso_date(text: &str) -> Result<String, &'static str> {
    match text.parse::<jiff::civil::Date>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("an ISO date: 2026-11-21"),
    }
}

fn base_url(r: &Reader, node: &Node) -> Option<String> {
    let text = r.text(node)?;
    let known = ["http://", "https://", "${"]
        .iter()
        .any(|start| text.starts_with(start));
    if !known {
        return r.fault(
            node.at,
            format!("`{text}` is no base URL"),
            "https://api.example.com or ${NAME}",
        );
    }
    if text.contains('?') || text.contains('#') {
        return r.fault(
            node.at,
            "a base URL has no query",
            "put it under `query:` of the endpoint",
        );
    }
    secrets::in_url(r, node, &text)?;
    Some(text)
}

fn source(r: &Reader, node: &Node) -> Option<serde_json::Value> {
    const PICK: &[(&str, ())] = &[("newest", ()), ("all", ())];
    let f = r.fields(node, SOURCE)?;
    let template = |r: &Reader, n: &Node| r.template(n, &Spot::ProviderSource);
    match f.one_of(SOURCE)? {
        "s3" => f.take("s3", |r, n| {
            let f = r.fields(n, SOURCE_S3)?;
            f.take("pick", |r, n| r.choice(n, PICK));
            f.take("max_age", Reader::some_span);
            (f.need("bucket", template).is_some() & f.need("key", template).is_some()).then_some(())
        }),
        _ => f.take("redis", |r, n| {
            let f = r.fields(n, SOURCE_REDIS)?;
            let url = f.need("url", |r, n| {
                let url = r.text(n)?;
                secrets::in_url(r, n, &url)
            });
            (url.is_some() & f.need("sorted_set", template).is_some()).then_some(())
        }),
    }?;
    r.value(node)
}

fn credentials(r: &Reader, node: &Node) -> Option<Credentials> {
    const USE: &[(&str, PoolUse)] = &[("exhaust", PoolUse::Exhaust), ("spread", PoolUse::Spread)];
    let f = r.fields(node, CREDENTIALS)?;
    let use_ = f.take("use", |r, n| r.choice(n, USE)).unwrap_or_default();
    let fields = f
        .take("fields", |r, n| r.list(n, identifier))
        .filter(|list| !list.is_empty());
    if let (Some(names), Some(node)) = (&fields, f.node("fields"))
        && let Some(twice) = (1..names.len()).find(|i| names[..*i].contains(&names[*i]))
    {
        return r.fault(
            node.at,
            format!("two fields are called `{}`", names[twice]),
            "each part of a key needs a name of its own",
        );
    }
    let pick = f.take("pick", |r, n| r.template(n, &Spot::Pick));
    let from = match f.one_of(&["from_env", "from_file"])? {
        "from_env" => CredentialSource::Env(f.take("from_env", Reader::variable)?),
        _ => CredentialSource::File(f.take("from_file", Reader::text)?),
    };
    if let (CredentialSource::Env(_), Some(node)) = (&from, f.node("pick")) {
        return r.fault(
            node.key_at,
            "`pick` needs names, which a list in the environment does not have",
            "use `from_file`, name -> fields",
        );
    }
    Some(Credentials {
        from,
        fields: fields.unwrap_or_else(|| vec!["key".into()]),
        use_,
        pick,
    })
}

fn identifier(r: &Reader, node: &Node) -> Option<String> {
    let text = r.text(node)?;
    if is_identifier(&text) {
        Some(text)
    } else {
        r.fault(
            node.at,
            format!("`{text}` cannot be a field"),
            IDENTIFIER_RULE,
        )
    }
}

fn timeout(r: &Reader, node: &Node) -> Option<Timeout> {
    let f = r.fields(node, TIMEOUT)?;
    let usual = Timeout::default();
    let timeout = Timeout {
        connect: f
            .take("connect", Reader::some_span)
            .unwrap_or(usual.connect),
        total: f.take("total", Reader::some_span).unwrap_or(usual.total),
    };
    if timeout.total.0 > std::time::Duration::from_secs(480) {
        let at = f.node("total").map_or(node.at, |n| n.at);
        return r.fault(
            at,
            "longer than a shard may be held",
            "at most 480s: a delivery is held for 10 minutes",
        );
    }
    Some(timeout)
}

fn format(r: &Reader, node: &Node) -> Option<Format> {
    const KINDS: &[(&str, FormatKind)] = &[
        ("json", FormatKind::Json),
        ("ndjson", FormatKind::Ndjson),
        ("xml", FormatKind::Xml),
        ("csv", FormatKind::Csv),
        ("tsv", FormatKind::Tsv),
        ("html", FormatKind::Html),
    ];
    let f = r.fields(node, FORMAT)?;
    Some(Format {
        kind: f
            .take("type", |r, n| r.choice(n, KINDS))
            .unwrap_or_default(),
        charset: f.take("charset", |r, n| r.parsed(n, "charset", words::charset)),
        force_array: f
            .take("force_array", |r, n| r.list(n, Reader::text))
            .unwrap_or_default(),
        max_body: f.take("max_body", |r, n| r.parsed(n, "size", words::bytes)),
    })
}

fn retry(r: &Reader, node: &Node) -> Option<Retry> {
    let f = r.fields(node, RETRY)?;
    let usual = Retry::default();
    let (from, to) = f
        .take("backoff", |r, n| backoff(r, n, usual))
        .unwrap_or((usual.from, usual.to));
    let attempts = f
        .take("attempts", |r, n| r.count(n, 1, 100))
        .unwrap_or(usual.attempts);
    Some(Retry { attempts, from, to })
}

fn backoff(r: &Reader, node: &Node, usual: Retry) -> Option<(Span, Span)> {
    let f = r.fields(node, BACKOFF)?;
    let from = f.take("from", Reader::some_span).unwrap_or(usual.from);
    let to = f
        .take("to", Reader::some_span)
        .unwrap_or(usual.to.max(from));
    if from > to {
        return r.fault(
            node.at,
            "`from` is longer than `to`",
            "the first wait, then the longest: {from: 500ms, to: 30s}",
        );
    }
    Some((from, to))
}

fn ready(r: &Reader, node: &Node) -> Option<Ready> {
    let f = r.fields(node, READY)?;
    Some(Ready {
        auth: f.take("auth", Reader::boolean).unwrap_or(false),
        patience: f.take("for", Reader::span).unwrap_or(Span::secs(600)),
        get: f.need("get", ready_path)?,
    })
}

fn ready_path(r: &Reader, node: &Node) -> Option<Template> {
    let path = r.template(node, &Spot::Ready)?;
    if path.contains("://") || !(path.starts_with('/') || path.starts_with("{{")) {
        return r.fault(
            node.at,
            format!("`{path}` is no path below the base URL"),
            "begin it with /: /health",
        );
    }
    Some(path)
}
