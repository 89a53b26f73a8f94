//! Reads the entries of `limits:`.

use indexmap::IndexMap;

use super::model::*;
use super::outcomes::place;
use super::reader::{Fields, Reader};
use super::scope::Spot;
use super::tree::{Data, Node};
use super::words;
use crate::limit::Numbers;

/// Keys of a limit.
pub const LIMIT: &[&str] = &[
    "name",
    "rate",
    "burst",
    "spacing",
    "concurrency",
    "quota",
    "resets",
    "cost",
    "actual",
    "per",
    "endpoints",
    "shared",
    "learn",
];
/// Keys of `learn`.
pub const LEARN: &[&str] = &["rate", "burst", "remaining", "limit", "reset", "at_most"];

/// What a limit can be.
const KINDS: &[&str] = &["rate", "spacing", "concurrency", "quota"];

/// All limits of a provider, each with a name of its own.
pub(super) fn limits(
    r: &Reader,
    node: &Node,
    endpoints: &IndexMap<String, Endpoint>,
) -> Option<Vec<Limit>> {
    let limits = r.list(node, |r, n| limit(r, n, endpoints))?;
    if let Data::List(items) = &node.data {
        no_doubles(r, items);
        one_shared_name(r, items);
        if items.is_empty() {
            r.warn(
                node.at,
                "an empty `limits`: the fleet will call as fast as it can",
                "add what its documentation allows",
            );
        }
    }
    Some(limits)
}

fn no_doubles(r: &Reader, items: &[Node]) {
    let names: Vec<Option<&Node>> = items.iter().map(name_node).collect();
    for (i, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let text = |n: &Node| match &n.data {
            Data::Scalar(value) => value.to_string(),
            _ => String::new(),
        };
        if let Some(first) = names[..i].iter().flatten().find(|n| text(n) == text(name)) {
            r.fault::<()>(
                name.at,
                format!("two limits are named {}", text(name)),
                format!(
                    "the first one stands in line {}; each needs a name of its own",
                    first.at.line
                ),
            );
        }
    }
}

/// All of a provider's counters lie together, so it can share limits under one name alone.
fn one_shared_name(r: &Reader, items: &[Node]) {
    let mut first: Option<String> = None;
    for item in items {
        let Data::Map(entries) = &item.data else {
            continue;
        };
        let shared = entries.iter().find(|e| e.key == "shared");
        let Some((node, Data::Scalar(name))) = shared.map(|e| (&e.node, &e.node.data)) else {
            continue;
        };
        let name = name.to_string();
        match &first {
            Some(first) if *first != name => {
                r.fault::<()>(
                    node.at,
                    format!("limits shared under two names, {first} and {name}"),
                    format!("write `shared: {first}`: limits of one name are told apart by kind and period"),
                );
            }
            _ => first = Some(name),
        }
    }
}

fn name_node(item: &Node) -> Option<&Node> {
    let Data::Map(entries) = &item.data else {
        return None;
    };
    entries.iter().find(|e| e.key == "name").map(|e| &e.node)
}

fn limit(r: &Reader, node: &Node, known: &IndexMap<String, Endpoint>) -> Option<Limit> {
    let f = r.fields(node, LIMIT)?;
    let name = f.need("name", Reader::name);
    let endpoints = f
        .take("endpoints", |r, n| {
            r.one_or_more(n, |r, n| endpoint_name(r, n, known))
        })
        .unwrap_or_default();
    let spot = Spot::Limit {
        endpoints: endpoints.clone(),
    };
    let per = f.take("per", |r, n| per(r, n, &spot));
    let rule = rule(r, &f, &spot);
    let learn = f.take("learn", learn);
    Some(Limit {
        name: name?,
        rule: rule?,
        per,
        endpoints,
        shared: f.take("shared", Reader::name),
        learn,
    })
}

/// An endpoint of the file, its second step, or one of the requests that the fleet makes by itself.
fn endpoint_name(r: &Reader, node: &Node, known: &IndexMap<String, Endpoint>) -> Option<String> {
    let text = r.text(node)?;
    let own = ["token", "login", "ready"];
    let mut names: Vec<String> = known.keys().cloned().collect();
    names.extend(
        known
            .iter()
            .filter(|(_, e)| e.detail.is_some())
            .map(|(name, _)| details_of(name)),
    );
    names.extend(own.map(str::to_owned));
    if names.contains(&text) {
        return Some(text);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    r.fault(
        node.at,
        format!("no endpoint `{text}`"),
        super::diagnostic::choose(&text, &names, "endpoints"),
    )
}

/// A scope's template; without a name in it there would be one scope only.
fn per(r: &Reader, node: &Node, spot: &Spot) -> Option<Template> {
    let template = r.template(node, spot)?;
    if super::jinja::template(&template).is_ok_and(|names| names.is_empty()) {
        let meant = match template.trim() {
            "" => "credential",
            text => text,
        };
        return r.fault(
            node.at,
            format!("`per: {template}` names nothing, so there is one scope for all"),
            format!("write \"{{{{ {meant} }}}}\" for one of each, or take `per` out"),
        );
    }
    Some(template)
}

fn rule(r: &Reader, f: &Fields, spot: &Spot) -> Option<LimitRule> {
    only_with(r, f, "burst", &["rate"]);
    only_with(r, f, "resets", &["quota"]);
    only_with(r, f, "actual", &["cost"]);
    if f.has("cost") {
        return cost(r, f, spot);
    }
    match f.one_of(KINDS)? {
        "rate" => f.take("rate", |r, n| {
            let (calls, period) = opens(r, n, r.parsed(n, "rate", words::rate)?)?;
            Some(LimitRule::Rate {
                calls,
                period,
                burst: f.take("burst", |r, n| r.whole(n, 1, u64::MAX)),
            })
        }),
        "spacing" => f.take("spacing", |r, n| {
            Some(LimitRule::Spacing {
                least: r.some_span(n)?,
            })
        }),
        "concurrency" => f.take("concurrency", |r, n| {
            let calls = r.whole(n, 0, u64::MAX)?;
            if calls == 0 {
                never(r, n)
            } else {
                Some(LimitRule::Concurrency { calls })
            }
        }),
        _ => quota(f),
    }
}

fn only_with(r: &Reader, f: &Fields, key: &str, kinds: &[&str]) {
    if let Some(node) = f.node(key)
        && !kinds.iter().any(|k| f.has(k))
    {
        r.fault::<()>(
            node.key_at,
            format!("`{key}` goes with `{}` only", kinds.join("`, `")),
            "take it out",
        );
    }
}

fn never<T>(r: &Reader, node: &Node) -> Option<T> {
    r.fault(
        node.at,
        "this limit can never open: no call would ever start",
        "a number above zero; `producer pause` stops a run for a while",
    )
}

fn opens(r: &Reader, node: &Node, (calls, period): (u64, Span)) -> Option<(u64, Span)> {
    if calls == 0 {
        never(r, node)
    } else if period.0.is_zero() {
        r.fault(node.at, "a rate needs a period", "50/s, 300/min, 1/5s")
    } else {
        Some((calls, period))
    }
}

fn quota(f: &Fields) -> Option<LimitRule> {
    let (calls, window) = f.take("quota", |r, n| {
        let (calls, window) = r.parsed(n, "quota", words::quota)?;
        if calls == 0 {
            never(r, n)
        } else {
            Some((calls, window))
        }
    })?;
    let (resets_at, zone) = f
        .take("resets", |r, n| r.parsed(n, "time of reset", words::resets))
        .unwrap_or((0, "UTC".into()));
    Some(LimitRule::Quota {
        calls,
        window,
        resets_at,
        zone,
    })
}

/// `{cost: <points of a call>, rate: 100/s, burst: 2000, actual: <path>}`
fn cost(r: &Reader, f: &Fields, spot: &Spot) -> Option<LimitRule> {
    let points = f.take("cost", |r, n| r.template(n, spot));
    let rate = f.need("rate", |r, n| {
        opens(r, n, r.parsed(n, "rate", words::rate)?)
    });
    let burst = f.need("burst", |r, n| r.whole(n, 1, u64::MAX));
    let actual = f.take("actual", Reader::path);
    let (rate, period) = rate?;
    let (points, burst) = (points?, burst?);
    if let Some(node) = f.node("cost")
        && points.trim().parse::<f64>().is_ok_and(|n| n <= 0.0)
    {
        return r.fault(
            node.at,
            "a call that costs nothing: this limit would hold nobody back",
            "the points of a call (cost: 1), or no such limit",
        );
    }
    if let Some(node) = f.node("cost")
        && points.trim().parse::<f64>().is_ok_and(|n| n > burst as f64)
    {
        return never_enough(r, node, burst);
    }
    Some(LimitRule::Cost {
        points,
        rate,
        period,
        burst,
        actual,
    })
}

fn micros(span: Span) -> u64 {
    u64::try_from(span.0.as_micros()).unwrap_or(u64::MAX)
}

fn count(text: &str, right: &str) -> Result<u64, String> {
    match text.trim().parse::<u64>() {
        Ok(0) => Err("a number above zero: `producer limits hold` lets nothing start".into()),
        Ok(calls) => Ok(calls),
        Err(_) => Err(right.to_owned()),
    }
}

/// Number and period of `20/s`, and the bucket of `20/s burst 5`.
fn words_of_rate(value: &str) -> Result<((u64, u64), Option<u64>), String> {
    let mut words = value.split([' ', ',', '=']).filter(|word| !word.is_empty());
    let (calls, period) = words::rate(words.next().unwrap_or_default())?;
    let size = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("burst"), Some(size), None) => {
            Some(count(size, "a bucket is written as `20/s burst 5`")?)
        }
        _ => return Err("a rate is calls per period: 50/s, 300/min, `20/s burst 5`".into()),
    };
    let calls = count(&calls.to_string(), "")?;
    if period.0.is_zero() {
        return Err("a rate needs a period: 50/s, 300/min, 1/5s".into());
    }
    Ok(((calls, micros(period)), size))
}

/// Checks the text of a rate: `20/s`, `300/min`.
///
/// # Errors
/// What would be right.
pub fn check_rate(value: &str) -> Result<(), String> {
    let (_, period) = words::rate(value)?;
    match period.0.is_zero() {
        true => Err("a rate needs a period: 50/s, 300/min, 1/5s".into()),
        false => Ok(()),
    }
}

/// The numbers of `value`, written as the file of a limit of this `rule` would say them: `20/s`, `300/min burst 10`,
/// `250ms`, `64`, `20000/day`. A rate keeps the burst of the file unless it says another one.
///
/// # Errors
/// What would be right.
pub fn limit_numbers(rule: &LimitRule, value: &str) -> Result<Numbers, String> {
    match rule {
        LimitRule::Rate { burst, .. } => {
            let ((calls, period_us), size) = words_of_rate(value)?;
            Ok(Numbers::Rate {
                calls,
                period_us,
                burst: size.or(*burst),
            })
        }
        LimitRule::Spacing { .. } => match words::span(value)? {
            span if span.0.is_zero() => Err("a time above zero: 100ms, 2s".into()),
            span => Ok(Numbers::Spacing {
                least_us: micros(span),
            }),
        },
        LimitRule::Concurrency { .. } => {
            let right = "calls in flight are a whole number: 64";
            Ok(Numbers::Calls(count(value, right)?))
        }
        LimitRule::Quota { window, .. } => {
            let calls = match value.contains('/') {
                true => {
                    let (calls, of) = words::quota(value)?;
                    if of != *window {
                        let own = format!("{window:?}").to_lowercase();
                        return Err(format!(
                            "its window is a {own}, which cannot be changed: {calls}/{own}"
                        ));
                    }
                    calls.to_string()
                }
                false => value.to_owned(),
            };
            let right = "a quota is calls per window: 25000/day, or the number alone";
            Ok(Numbers::Calls(count(&calls, right)?))
        }
        LimitRule::Cost { burst, .. } => {
            let (rate, size) = words_of_rate(value)?;
            let (points, period_us) = rate;
            Ok(Numbers::Points {
                points,
                period_us,
                burst: size.unwrap_or(*burst),
            })
        }
    }
}

fn never_enough<T>(r: &Reader, node: &Node, burst: u64) -> Option<T> {
    r.fault(
        node.at,
        format!("a call costs more than the bucket ever holds ({burst}): it would never start"),
        "a larger `burst`, or fewer points for a call",
    )
}

fn learn(r: &Reader, node: &Node) -> Option<Learn> {
    if !matches!(node.data, Data::Map(_)) {
        r.choice(node, &[("standard", ())])?;
        return Some(Learn {
            standard: true,
            from: IndexMap::new(),
            at_most: None,
        });
    }
    let f = r.fields(node, LEARN)?;
    let from = LEARN
        .iter()
        .filter(|key| **key != "at_most")
        .filter_map(|key| Some(((*key).to_owned(), f.take(key, place)?)))
        .collect();
    Some(Learn {
        standard: false,
        from,
        at_most: f.take("at_most", |r, n| r.whole(n, 1, u64::MAX)),
    })
}
