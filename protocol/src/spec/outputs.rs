//! Reads `outputs:`.

use indexmap::IndexMap;
use serde_json::Value;

use super::model::*;
use super::reader::Reader;
use super::scope::Spot;
use super::tree::{Data, Node};

/// Keys of `outputs`.
pub const OUTPUTS: &[&str] = &["s3", "rankings", "index"];
/// Keys of `outputs.s3`.
pub const S3: &[&str] = &["format", "compress", "columns", "key", "merged", "bucket"];
/// Keys of a ranking.
pub const RANKING: &[&str] = &["key", "member", "score", "keep", "expire", "normalise"];
/// Keys of `normalise`.
pub const NORMALISE: &[&str] = &["by", "within", "weights"];
/// Keys of `outputs.index`.
pub const INDEX: &[&str] = &["name", "mode", "id", "keep", "mapping"];

/// What a job writes.
pub(super) fn outputs(r: &Reader, node: &Node) -> Option<Outputs> {
    let f = r.fields(node, OUTPUTS)?;
    Some(Outputs {
        s3: f.take("s3", s3).unwrap_or_default(),
        rankings: f
            .take("rankings", |r, n| {
                let read = r.list(n, ranking)?;
                one_score_each(r, n, &read);
                Some(read)
            })
            .unwrap_or_default(),
        index: f.take("index", index),
    })
}

fn s3(r: &Reader, node: &Node) -> Option<S3Output> {
    const FORMATS: &[(&str, OutputFormat)] = &[
        ("ndjson", OutputFormat::Ndjson),
        ("csv", OutputFormat::Csv),
        ("parquet", OutputFormat::Parquet),
    ];
    const COMPRESS: &[(&str, Compression)] = &[
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ];
    let f = r.fields(node, S3)?;
    let format = f
        .take("format", |r, n| r.choice(n, FORMATS))
        .unwrap_or_default();
    let usual = if format == OutputFormat::Ndjson {
        Compression::Zstd
    } else {
        Compression::None
    };
    let compress = f.take("compress", |r, n| {
        let chosen = r.choice(n, COMPRESS)?;
        if format == OutputFormat::Parquet && chosen != Compression::None {
            return r.fault(n.at, "Parquet is compressed inside", "take `compress` out");
        }
        Some(chosen)
    });
    Some(S3Output {
        format,
        compress: compress.unwrap_or(usual),
        columns: f
            .take("columns", |r, n| r.list(n, Reader::text))
            .unwrap_or_default(),
        key: f.take("key", |r, n| r.template(n, &Spot::ObjectKey)),
        merged: f.take("merged", |r, n| r.template(n, &Spot::RunOnly)),
        bucket: f.take("bucket", Reader::text),
    })
}

fn ranking(r: &Reader, node: &Node) -> Option<Ranking> {
    const KEEP: &[(&str, KeepScore)] = &[
        ("min", KeepScore::Min),
        ("max", KeepScore::Max),
        ("last", KeepScore::Last),
        ("sum", KeepScore::Sum),
    ];
    let f = r.fields(node, RANKING)?;
    let template = |r: &Reader, n: &Node| r.template(n, &Spot::Record);
    let (key, member, score) = (
        f.need("key", template),
        f.need("member", template),
        f.need("score", score),
    );
    let keep = f
        .take("keep", |r, n| r.choice(n, KEEP))
        .unwrap_or(KeepScore::Last);
    let expire = f.take("expire", Reader::some_span);
    let normalise = f.take("normalise", normalise);
    Some(Ranking {
        key: key?,
        member: member?,
        score: score?,
        keep,
        expire,
        normalise,
    })
}

/// A score is a number, or a template that gives one.
fn score(r: &Reader, node: &Node) -> Option<Template> {
    let score = r.template(node, &Spot::Record)?;
    let literal = !score.contains("{{") && !score.contains("{%");
    if literal && score.trim().parse::<f64>().is_err() {
        return r.fault(
            node.at,
            format!("`{score}` is no number, so no record would have a score"),
            "the field that holds it: \"{{ price }}\"",
        );
    }
    Some(score)
}

/// Warns of a text that no record changes.
pub(super) fn same_for_all(r: &Reader, node: &Node, text: &str, what: &str) {
    if !text.contains("{{") && !text.contains("{%") {
        r.warn(
            node.at,
            format!("`{text}` is the same for all records: {what}"),
            "the fields that tell records apart: \"{{ id }}\"",
        );
    }
}

/// Two rankings may fill one set, but then a member that comes in both needs one rule.
fn one_score_each(r: &Reader, node: &Node, rankings: &[Ranking]) {
    let Data::List(nodes) = &node.data else {
        return;
    };
    if nodes.len() != rankings.len() {
        return;
    }
    for (place, ranking) in rankings.iter().enumerate() {
        let other = |other: &&Ranking| other.key == ranking.key && other.keep != ranking.keep;
        if rankings[..place].iter().any(|known| other(&known)) {
            r.fault::<()>(
                nodes[place].at,
                format!(
                    "two rankings keep different scores in one set, `{}`",
                    ranking.key
                ),
                "give each a key of its own, or one `keep`",
            );
        }
    }
}

fn normalise(r: &Reader, node: &Node) -> Option<Normalise> {
    const BY: &[(&str, NormaliseBy)] = &[
        ("share", NormaliseBy::Share),
        ("minmax", NormaliseBy::Minmax),
        ("zscore", NormaliseBy::Zscore),
        ("rank", NormaliseBy::Rank),
    ];
    let f = r.fields(node, NORMALISE)?;
    let (by, within) = (
        f.need("by", |r, n| r.choice(n, BY)),
        f.need("within", |r, n| r.template(n, &Spot::Record)),
    );
    let weights = f
        .take("weights", |r, n| r.map(n, Reader::number))
        .unwrap_or_default();
    Some(Normalise {
        by: by?,
        within: within?,
        weights,
    })
}

fn index(r: &Reader, node: &Node) -> Option<IndexOutput> {
    const MODES: &[(&str, IndexMode)] = &[
        ("snapshot", IndexMode::Snapshot),
        ("upsert", IndexMode::Upsert),
    ];
    let f = r.fields(node, INDEX)?;
    let name = f.need("name", index_name);
    let mode = f.need("mode", |r, n| r.choice(n, MODES));
    let id = f.need("id", |r, n| {
        let id = r.template(n, &Spot::Record)?;
        same_for_all(r, n, &id, "every record would be the same document");
        Some(id)
    });
    let keep = f.take("keep", |r, n| r.count(n, 1, 100)).unwrap_or(2);
    let mapping = f.need("mapping", mapping).unwrap_or_default();
    Some(IndexOutput {
        name: name?,
        mode: mode?,
        id: id?,
        keep,
        mapping,
    })
}

/// What Elasticsearch takes as an index' name, with room for the run behind it.
fn index_name(r: &Reader, node: &Node) -> Option<String> {
    let name = r.text(node)?;
    let legal = |c: char| !c.is_uppercase() && !c.is_whitespace() && !"\\/*?\"<>|,#:".contains(c);
    let good = !name.is_empty()
        && name.len() <= 150
        && name.chars().all(legal)
        && !name.starts_with(['-', '_', '+', '.']);
    if good {
        return Some(name);
    }
    r.fault(
        node.at,
        format!("`{name}` cannot be an index"),
        "lower case, no spaces and none of \\ / * ? \" < > | , # :, not led by - _ + .",
    )
}

fn mapping(r: &Reader, node: &Node) -> Option<IndexMap<String, Value>> {
    /// Types that a field of a flat record can have.
    const TYPES: &[(&str, ())] = &[
        ("keyword", ()),
        ("text", ()),
        ("date", ()),
        ("integer", ()),
        ("long", ()),
        ("short", ()),
        ("byte", ()),
        ("double", ()),
        ("float", ()),
        ("half_float", ()),
        ("scaled_float", ()),
        ("unsigned_long", ()),
        ("boolean", ()),
        ("ip", ()),
        ("geo_point", ()),
        ("wildcard", ()),
        ("constant_keyword", ()),
        ("match_only_text", ()),
        ("version", ()),
    ];
    r.map(node, |r, n| match n.data {
        Data::Map(_) => r.value(n),
        _ => {
            r.choice(n, TYPES)?;
            r.value(n)
        }
    })
}
