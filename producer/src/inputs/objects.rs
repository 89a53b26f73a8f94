//! The objects that the cells of a source in S3 read: listed when the run is planned, named in the plan.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use paceline_protocol::inputs::ReadObject;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::FleetSettings;
use paceline_protocol::spec::{Provider, span};
use paceline_protocol::template::{environment, value_of};
use serde_json::Value;

use crate::stores::Archive;

/// So many older objects stand in for a newest one that is no good.
const STAND_INS: usize = 20;

/// `source: {s3: ...}` of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SourceInS3 {
    bucket: String,
    key: String,
    /// `pick: all`: every object that the key fits.
    all: bool,
    /// Older objects are no good; younger ones stand in for the newest one when that is broken.
    max_age: Option<Duration>,
}

impl SourceInS3 {
    fn of(provider: &Provider) -> Option<Self> {
        let s3 = provider.source.as_ref()?.get("s3")?;
        let text = |name: &str| s3.get(name).and_then(Value::as_str);
        Some(SourceInS3 {
            bucket: text("bucket")?.to_owned(),
            key: text("key")?.to_owned(),
            all: text("pick") == Some("all"),
            max_age: text("max_age")
                .and_then(|span_text| span(span_text).ok())
                .map(|span| span.0),
        })
    }
}

/// Names the objects of every cell in `plan`.
///
/// # Errors
/// When a template cannot be rendered, or S3 does not answer.
pub async fn named_objects(archive: &Archive, plan: &mut Plan) -> Result<()> {
    plan.inputs.objects = listed_now(archive, plan).await?;
    Ok(())
}

/// The objects that a run planned like `plan` would read now, by cell; a cell without any is there too.
///
/// # Errors
/// When a template cannot be rendered, or S3 does not answer.
pub async fn listed_now(archive: &Archive, plan: &Plan) -> Result<BTreeMap<u64, Vec<ReadObject>>> {
    let mut listings = Listings::new(archive);
    let mut objects = BTreeMap::new();
    for segment in &plan.segments {
        let Some(source) = plan
            .providers
            .get(&segment.provider)
            .and_then(SourceInS3::of)
        else {
            continue;
        };
        for cell in segment.first_cell..segment.first_cell + segment.cells {
            let (bucket, key) = place(plan, cell, &source)?;
            let mut fitting = listings.fitting(&bucket, &key).await?;
            fitting.retain(|object| !is_own_result(plan, &archive.fleet, object));
            objects.insert(cell, pick(fitting, &source, plan.planned_at));
        }
    }
    Ok(objects)
}

/// Bucket and key pattern of a cell.
fn place(plan: &Plan, cell: u64, source: &SourceInS3) -> Result<(String, String)> {
    let context = context(plan, Some(cell));
    let render = |text: &str| {
        environment()
            .render_str(text, &context)
            .with_context(|| format!("source.s3 of cell {cell}: {text}"))
    };
    Ok((render(&source.bucket)?, render(&source.key)?))
}

fn context(plan: &Plan, cell: Option<u64>) -> minijinja::Value {
    let names = plan.matrix.names().map(ToString::to_string);
    let values = cell.map(|cell| plan.matrix.cell(cell)).unwrap_or_default();
    let own = names.zip(values.iter().map(value_of).collect::<Vec<_>>());
    let fixed = serde_json::json!({
        "params": plan.job.params,
        "run": {"id": plan.run, "date": plan.date, "started_at": plan.planned_at},
        "today": plan.date,
    });
    let fixed = ["params", "run", "today"].map(|name| (name.to_owned(), value_of(&fixed[name])));
    minijinja::Value::from_pairs(own.chain(fixed))
}

/// Whether the job itself writes this object: a run must not read, or be started by, its own result.
fn is_own_result(plan: &Plan, fleet: &FleetSettings, object: &ReadObject) -> bool {
    let runs = format!("{}/{}/", fleet.prefix.trim_matches('/'), plan.job.name);
    if object.bucket == fleet.bucket && object.key.starts_with(&runs) {
        return true;
    }
    let s3 = &plan.job.outputs.s3;
    let bucket = s3.bucket.as_deref().unwrap_or(&fleet.bucket);
    let params = serde_json::json!(plan.job.params);
    let mut templates = s3.key.iter().chain(&s3.merged);
    object.bucket == bucket
        && templates.any(|template| fits(&own_pattern(template, &params), &object.key))
}

/// The keys that a template of results makes: what the params say stays, everything else may be any text.
fn own_pattern(template: &str, params: &Value) -> String {
    let fixed = minijinja::Value::from_pairs([("params".to_owned(), value_of(params))]);
    let mut pattern = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once("{{") {
        let (inside, after) = tail.split_once("}}").unwrap_or((tail, ""));
        let rendered = environment().render_str(&format!("{{{{{inside}}}}}"), &fixed);
        pattern.push_str(before);
        pattern.push_str(rendered.as_deref().unwrap_or("*"));
        rest = after;
    }
    pattern + rest
}

/// What a cell reads of the objects that fit its key: the newest by time of writing, then by name; with
/// `max_age` younger ones behind it.
fn pick(mut fitting: Vec<ReadObject>, source: &SourceInS3, now: Timestamp) -> Vec<ReadObject> {
    fitting.sort_by(|a, b| (b.time, &b.key).cmp(&(a.time, &a.key)));
    if let Some(max_age) = source.max_age {
        let young = |object: &ReadObject| {
            let age = now.duration_since(object.time);
            age.is_negative() || age.unsigned_abs() <= max_age
        };
        fitting.retain(young);
    }
    if source.all {
        return fitting;
    }
    let wanted = source.max_age.map_or(1, |_| STAND_INS);
    fitting.truncate(wanted);
    fitting
}

/// The newest object whose key `pattern` fits, by time of writing, then by name.
///
/// # Errors
/// When S3 does not answer.
pub(super) async fn newest(
    archive: &Archive,
    bucket: &str,
    pattern: &str,
) -> Result<Option<ReadObject>> {
    let mut listings = Listings::new(archive);
    let fitting = listings.fitting(bucket, pattern).await?;
    Ok(fitting
        .into_iter()
        .max_by(|a, b| (a.time, &a.key).cmp(&(b.time, &b.key))))
}

/// Listings, each made once.
struct Listings<'a> {
    archive: &'a Archive,
    known: HashMap<(String, String), Vec<ReadObject>>,
}

impl<'a> Listings<'a> {
    fn new(archive: &'a Archive) -> Self {
        Listings {
            archive,
            known: HashMap::new(),
        }
    }

    /// The objects whose key `pattern` fits.
    async fn fitting(&mut self, bucket: &str, pattern: &str) -> Result<Vec<ReadObject>> {
        let prefix = pattern.split('*').next().unwrap_or_default().to_owned();
        let place = (bucket.to_owned(), prefix);
        if !self.known.contains_key(&place) {
            let listed = self.list(bucket, &place.1).await?;
            self.known.insert(place.clone(), listed);
        }
        let fits = |object: &&ReadObject| fits(pattern, &object.key);
        Ok(self.known[&place].iter().filter(fits).cloned().collect())
    }

    async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<ReadObject>> {
        let objects = self.archive.objects.with_bucket(bucket);
        let listed = objects.list(prefix).await?;
        let found = listed.into_iter().map(|object| ReadObject {
            bucket: bucket.to_owned(),
            key: object.key,
            time: object.modified.unwrap_or(Timestamp::UNIX_EPOCH),
            size: object.size,
            etag: object.etag,
        });
        Ok(found.collect())
    }
}

/// Whether `key` is `pattern` with any text of one folder for each `*`.
fn fits(pattern: &str, key: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == key;
    };
    let Some(tail) = key.strip_prefix(first) else {
        return false;
    };
    let end = tail.find('/').unwrap_or(tail.len());
    let ends = tail[..end].char_indices().map(|(at, _)| at);
    ends.chain([end]).any(|at| fits(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_of_one_folder() {
        let pattern = "data/104/jp-*.csv";
        for (key, fit) in [
            ("data/104/jp-202611270600.csv", true),
            ("data/104/jp-.csv", true),
            ("data/104/kr-202611270600.csv", false),
            ("data/104/jp-2026.csv.gz", false),
            ("data/104/jp-a/b.csv", false),
            ("data/104/result-global.csv", false),
        ] {
            assert_eq!(fits(pattern, key), fit, "{key}");
        }
        assert!(fits("a*b*c", "aXbYbZc") && !fits("a*b*c", "aXbYbZ"));
        assert!(fits("plain", "plain") && !fits("plain", "plainer"));
    }

    #[test]
    fn a_template_of_results_fits_what_it_makes() {
        let params = serde_json::json!({"event": "104"});
        let pattern = |template| own_pattern(template, &params);
        assert_eq!(
            pattern("data/{{ params.event }}/result-global.csv"),
            "data/104/result-global.csv"
        );
        let dated =
            pattern("d/{{ params.event }}/{{ region }}-{{ run.started_at | date('%Y') }}.csv");
        assert_eq!(dated, "d/104/*-*.csv");
        assert!(fits(&dated, "d/104/jp-2026.csv") && !fits(&dated, "d/105/jp-2026.csv"));
    }

    fn object(key: &str, minute: u8) -> ReadObject {
        ReadObject {
            bucket: "b".into(),
            key: key.into(),
            time: format!("2026-11-27T06:{minute:02}:00Z")
                .parse()
                .expect("an instant"),
            size: 1,
            etag: None,
        }
    }

    fn source(max_age: Option<Duration>, all: bool) -> SourceInS3 {
        SourceInS3 {
            bucket: "b".into(),
            key: "*".into(),
            all,
            max_age,
        }
    }

    #[test]
    fn the_newest_is_picked_and_names_break_ties() {
        let now = "2026-11-27T06:30:00Z".parse().expect("an instant");
        let there = vec![
            object("b", 9),
            object("a", 20),
            object("c", 20),
            object("d", 1),
        ];
        let keys = |source: &SourceInS3| {
            let picked = pick(there.clone(), source, now);
            picked.into_iter().map(|o| o.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&source(None, false)), ["c"]);
        assert_eq!(keys(&source(None, true)), ["c", "a", "b", "d"]);
        let quarter = Duration::from_secs(25 * 60);
        assert_eq!(keys(&source(Some(quarter), false)), ["c", "a", "b"]);
        assert!(keys(&source(Some(Duration::from_secs(60)), false)).is_empty());
    }
}
