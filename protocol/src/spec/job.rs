//! Reads a job's file.

use indexmap::IndexMap;
use serde_json::Value;

use super::dimension::{dimension, records_of};
use super::model::*;
use super::outputs::{outputs, same_for_all};
use super::reader::{Fields, IDENTIFIER_RULE, Reader, is_identifier};
use super::scope::Spot;
use super::secrets;
use super::tree::{Data, Node};
use super::words;

/// Keys of a job.
pub const JOB: &[&str] = &[
    "job",
    "provider",
    "endpoint",
    "after",
    "trigger",
    "params",
    "split",
    "source",
    "shard",
    "schedule",
    "gate",
    "dedupe",
    "progress_by",
    "changes",
    "fields",
    "outputs",
    "priority",
    "view",
    "notify",
    "retention",
];
/// Keys of `after`.
pub const AFTER: &[&str] = &["job", "on_failure"];
/// Keys of `trigger`.
pub const TRIGGER: &[&str] = &["new_objects"];
/// Keys of `trigger.new_objects`.
pub const NEW_OBJECTS: &[&str] = &["every"];
/// Keys of `source` of a job.
pub const JOB_SOURCE: &[&str] = &["records_of"];
/// Keys of `shard`.
pub const SHARD: &[&str] = &["cells", "checkpoint"];
/// Keys of `view`.
pub const VIEW: &[&str] = &["heatmap"];
/// Keys of `view.heatmap`.
pub const HEATMAP: &[&str] = &["of", "x", "y", "value", "agg"];
/// Keys of `schedule`.
pub const SCHEDULE: &[&str] = &[
    "cron", "timezone", "overlap", "jitter", "catch_up", "deadline",
];
/// Keys of `gate`.
pub const GATE: &[&str] = &["cells", "records"];
/// Keys of `dedupe`.
pub const DEDUPE: &[&str] = &["by", "keep"];
/// Keys of `changes`.
pub const CHANGES: &[&str] = &["id", "ignore", "moved"];
/// Keys of an entry of `notify`.
pub const NOTIFY: &[&str] = &["webhook", "on", "format", "template"];

/// Reads the job at the root of a file; what is wrong is reported to `r`.
pub(super) fn job(r: &Reader, root: &Node) -> Option<Job> {
    let f = r.fields(root, JOB)?;
    let name = f.need("job", Reader::name);
    let (provider, endpoint) = calls(&f);
    both_kinds(&f);
    let split = f
        .take("split", |r, n| {
            r.keyed(n, is_identifier, IDENTIFIER_RULE, |r, n| {
                Some(dimension(r, n))
            })
        })
        .unwrap_or_default();
    Some(Job {
        name: name?,
        provider,
        endpoint,
        after: f.take("after", after),
        trigger: f.take("trigger", trigger),
        params: f.take("params", params).unwrap_or_default(),
        split,
        source: f.take("source", |r, n| {
            r.fields(n, JOB_SOURCE)?
                .need("records_of", |r, n| records_of(r, n, &Spot::Source))
        }),
        shard: f.take("shard", shard).unwrap_or_default(),
        schedule: f.take("schedule", schedule),
        gate: f.take("gate", gate).unwrap_or_default(),
        dedupe: f.take("dedupe", dedupe),
        progress_by: f.take("progress_by", Reader::text),
        changes: f.take("changes", changes),
        fields: f.take("fields", record_fields).unwrap_or_default(),
        outputs: f.need("outputs", outputs).unwrap_or_default(),
        priority: f
            .take("priority", |r, n| r.count(n, 1, 9))
            .map_or(5, |n| n as u8),
        view: f.take("view", view),
        notify: f
            .take("notify", |r, n| r.list(n, notify))
            .unwrap_or_default(),
        retention: f.take("retention", Reader::some_span),
    })
}

/// A job makes calls (`provider`, `endpoint`) or reads another's records (`source`).
fn calls(f: &Fields) -> (Option<Template>, Option<String>) {
    if f.has("source") && !f.has("provider") {
        return (None, None);
    }
    f.one_of(&["provider", "source"]);
    let provider = f.take("provider", |r, n| r.template(n, &Spot::Lane));
    (provider, f.need("endpoint", Reader::name))
}

/// A job without calls has no dimensions; a job with calls has the fields of its endpoint.
fn both_kinds(f: &Fields) {
    let (key, message, hint) = match (f.has("provider"), f.has("source")) {
        (false, true) => (
            "split",
            "a job without calls has no dimensions: it has one cell for each part of its source",
            "narrow the records by `where`, or take `split` out",
        ),
        (true, false) => (
            "fields",
            "a job with calls has the fields of its endpoint",
            "name them in the provider's file; `fields` here belong to a job with `source`",
        ),
        _ => return,
    };
    if let Some(node) = f.node(key) {
        f.take(key, |r, _| r.fault::<()>(node.key_at, message, hint));
    }
}

fn after(r: &Reader, node: &Node) -> Option<After> {
    if !matches!(node.data, Data::Map(_)) {
        return Some(After {
            job: r.name(node)?,
            on_failure: false,
        });
    }
    let f = r.fields(node, AFTER)?;
    let on_failure = f.take("on_failure", Reader::boolean).unwrap_or(false);
    Some(After {
        job: f.need("job", Reader::name)?,
        on_failure,
    })
}

fn trigger(r: &Reader, node: &Node) -> Option<NewObjects> {
    r.fields(node, TRIGGER)?.need("new_objects", |r, n| {
        let every = r.fields(n, NEW_OBJECTS)?.need("every", Reader::some_span)?;
        Some(NewObjects { every })
    })
}

fn params(r: &Reader, node: &Node) -> Option<IndexMap<String, Value>> {
    r.keyed(node, is_identifier, IDENTIFIER_RULE, |r, n| {
        r.no_template(n);
        r.value(n)
    })
}

fn shard(r: &Reader, node: &Node) -> Option<ShardSize> {
    let f = r.fields(node, SHARD)?;
    let cells = f
        .take("cells", |r, n| r.count(n, 1, 100_000))
        .unwrap_or(100);
    let checkpoint = f.take("checkpoint", |r, n| r.count(n, 1, 1000));
    if let (Some(k), Some(node)) = (checkpoint, f.node("checkpoint"))
        && k > cells
    {
        return r.fault(
            node.at,
            format!("a checkpoint of {k} cells is larger than the shard of {cells}"),
            format!("1 to {cells}; 20 is usual"),
        );
    }
    Some(ShardSize {
        cells,
        checkpoint: checkpoint.unwrap_or_else(|| cells.min(20)),
    })
}

fn schedule(r: &Reader, node: &Node) -> Option<Schedule> {
    const OVERLAP: &[(&str, Overlap)] = &[
        ("skip", Overlap::Skip),
        ("queue", Overlap::Queue),
        ("cancel", Overlap::Cancel),
    ];
    let f = r.fields(node, SCHEDULE)?;
    let cron = f.need("cron", |r, n| {
        r.parsed(n, "cron line", words::cron)?;
        r.text(n)
    });
    let timezone = f.take("timezone", |r, n| r.parsed(n, "time zone", words::zone));
    Some(Schedule {
        cron: cron.unwrap_or_default(),
        timezone: timezone.unwrap_or_else(|| "UTC".into()),
        overlap: f
            .take("overlap", |r, n| r.choice(n, OVERLAP))
            .unwrap_or(Overlap::Skip),
        jitter: f.take("jitter", Reader::span),
        catch_up: f.take("catch_up", Reader::boolean).unwrap_or(false),
        deadline: f
            .take("deadline", Reader::some_span)
            .unwrap_or(Span::secs(86_400)),
    })
}

fn gate(r: &Reader, node: &Node) -> Option<Gate> {
    let usual = Gate::default();
    if !matches!(node.data, Data::Map(_)) {
        return Some(Gate {
            cells: r.share(node)?,
            ..usual
        });
    }
    let f = r.fields(node, GATE)?;
    Some(Gate {
        cells: f.take("cells", Reader::share).unwrap_or(usual.cells),
        records: f.take("records", Reader::share).unwrap_or(usual.records),
    })
}

fn dedupe(r: &Reader, node: &Node) -> Option<Dedupe> {
    const KEEP: &[(&str, KeepDouble)] = &[("first", KeepDouble::First), ("last", KeepDouble::Last)];
    if !matches!(node.data, Data::Map(_)) {
        return Some(Dedupe {
            by: dedupe_by(r, node)?,
            keep: KeepDouble::First,
        });
    }
    let f = r.fields(node, DEDUPE)?;
    let keep = f
        .take("keep", |r, n| r.choice(n, KEEP))
        .unwrap_or(KeepDouble::First);
    Some(Dedupe {
        by: f.need("by", dedupe_by)?,
        keep,
    })
}

fn dedupe_by(r: &Reader, node: &Node) -> Option<Template> {
    let by = r.template(node, &Spot::Record)?;
    same_for_all(r, node, &by, "all but one would be doubles");
    Some(by)
}

fn changes(r: &Reader, node: &Node) -> Option<Changes> {
    let f = r.fields(node, CHANGES)?;
    Some(Changes {
        ignore: f
            .take("ignore", |r, n| r.list(n, Reader::text))
            .unwrap_or_default(),
        moved: f
            .take("moved", |r, n| r.list(n, Reader::text))
            .unwrap_or_default(),
        id: f.need("id", |r, n| r.template(n, &Spot::Record))?,
    })
}

/// How the page shows the records; kept as written.
fn view(r: &Reader, node: &Node) -> Option<Value> {
    const AGG: &[(&str, ())] = &[
        ("min", ()),
        ("max", ()),
        ("last", ()),
        ("sum", ()),
        ("avg", ()),
        ("count", ()),
    ];
    r.fields(node, VIEW)?.need("heatmap", |r, n| {
        let f = r.fields(n, HEATMAP)?;
        f.take("of", Reader::text);
        f.take("agg", |r, n| r.choice(n, AGG));
        let needed = ["x", "y", "value"].map(|key| f.need(key, Reader::text).is_some());
        needed.iter().all(|there| *there).then_some(())
    })?;
    r.value(node)
}

fn record_fields(r: &Reader, node: &Node) -> Option<IndexMap<String, Template>> {
    r.keyed(node, is_identifier, IDENTIFIER_RULE, |r, n| {
        r.template(n, &Spot::Source)
    })
}

fn notify(r: &Reader, node: &Node) -> Option<Notify> {
    const ENDS: &[(&str, &str)] = &[
        ("started", "started"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
    ];
    const FORMATS: &[(&str, &str)] = &[
        ("cloudevents", "cloudevents"),
        ("slack", "slack"),
        ("template", "template"),
    ];
    let f = r.fields(node, NOTIFY)?;
    let on = f.take("on", |r, n| r.one_or_more(n, |r, n| r.choice(n, ENDS)));
    let format = f
        .take("format", |r, n| r.choice(n, FORMATS))
        .unwrap_or("cloudevents");
    let template = match format {
        "template" => f.need("template", |r, n| r.template(n, &Spot::Notice)),
        _ => f.take("template", |r, n| r.template(n, &Spot::Notice)),
    };
    Some(Notify {
        webhook: f.need("webhook", webhook)?,
        on: on
            .unwrap_or_else(|| vec!["completed", "failed"])
            .into_iter()
            .map(str::to_owned)
            .collect(),
        format: format.to_owned(),
        template,
    })
}

fn webhook(r: &Reader, node: &Node) -> Option<String> {
    let url = r.text(node)?;
    let known = ["http://", "https://", "${"];
    if !known.iter().any(|start| url.starts_with(start)) {
        return r.fault(
            node.at,
            format!("`{url}` is no URL"),
            "https://example.com/hook or ${RUN_WEBHOOK_URL}",
        );
    }
    // Whoever knows such a URL may post.
    if url.starts_with("https://hooks.slack.com/services/") && !url.contains("${") {
        return r.fault(
            node.at,
            "the URL is a secret, and it stands in the file itself",
            "put it in the environment, and write ${RUN_WEBHOOK_URL} here",
        );
    }
    secrets::in_url(r, node, &url)?;
    Some(url)
}
