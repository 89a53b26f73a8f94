//! Rows of a dimension that lie neither in the job's files nor in another job's run: the documents that a query finds
//! in Elasticsearch (`documents`), and a list that somebody else puts into S3 (`object`). They are read once, when the
//! run is planned, and kept in the plan, so that going on later sees the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use paceline_protocol::inputs::ReadObject;
use paceline_protocol::plan::{PlannedDimension, PlannedValues};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Compression, DimensionValues, DocumentsOf, ObjectOf, Table};
use paceline_protocol::stores::index::Index;
use paceline_protocol::template::environment;
use serde_json::{Map, Value};

use super::objects::newest;
use crate::plan::RunNames;
use crate::stores::{Archive, index};

/// Rows that are kept in a plan.
const MOST_ROWS: usize = 100_000;
/// The largest list in S3, as it lies there and as it is read.
const LARGEST: u64 = 64 << 20;

/// Whether a dimension's rows are looked up here.
pub(super) fn is_looked_up(values: &DimensionValues) -> bool {
    matches!(
        values,
        DimensionValues::Documents(_) | DimensionValues::Object(_)
    )
}

/// A dimension whose rows an earlier plan of the run did not look up.
pub(super) fn none(values: &DimensionValues) -> Option<PlannedDimension> {
    let columns = match values {
        DimensionValues::Documents(asked) => &asked.columns,
        DimensionValues::Object(asked) => &asked.columns,
        _ => return None,
    };
    Some(PlannedDimension {
        names: columns.iter().map(|c| Arc::from(c.as_str())).collect(),
        values: PlannedValues::Rows(Vec::new()),
    })
}

/// The rows of dimension `name`.
///
/// # Errors
/// When a server does not answer, there is no such index or object, or it holds what makes no rows.
pub(super) async fn rows(
    archive: &Archive,
    env: &(impl Environment + Sync),
    name: &str,
    values: &DimensionValues,
    names: &RunNames,
) -> Result<Option<PlannedDimension>> {
    let (columns, rows) = match values {
        DimensionValues::Documents(asked) => {
            let rows = documents(&index(env).await?, asked, names).await;
            let rows = rows.with_context(|| format!("split.{name}.documents"))?;
            (&asked.columns, rows)
        }
        DimensionValues::Object(asked) => {
            let rows = object(archive, asked, names).await;
            (
                &asked.columns,
                rows.with_context(|| format!("split.{name}.object"))?,
            )
        }
        _ => return Ok(None),
    };
    Ok(Some(PlannedDimension {
        names: columns.iter().map(|c| Arc::from(c.as_str())).collect(),
        values: PlannedValues::Rows(rows),
    }))
}

async fn documents(
    index: &Index,
    asked: &DocumentsOf,
    names: &RunNames,
) -> Result<Vec<Vec<Value>>> {
    let query = rendered(&asked.query, names)?;
    let mut rows = Vec::new();
    let mut fault = None;
    let mut each = |document: &Value| {
        match row_of(document.as_object(), &asked.columns) {
            Ok(row) if rows.len() < MOST_ROWS => rows.push(row),
            Ok(_) => fault = Some(format!("more than {MOST_ROWS} documents: narrow the query")),
            Err(why) => fault = Some(why),
        }
        fault.is_none()
    };
    let there = index
        .documents(&asked.index, &query, &asked.columns, &mut each)
        .await?;
    if let Some(why) = fault {
        bail!("{}: {why}", asked.index);
    }
    if !there {
        bail!("there is no index or alias `{}`", asked.index);
    }
    // A scroll has no order of its own, and cells need one.
    rows.sort_by_cached_key(|row| Value::from(row.clone()).to_string());
    Ok(rows)
}

/// The values of `columns`; one that is missing is null.
fn row_of(record: Option<&Map<String, Value>>, columns: &[String]) -> Result<Vec<Value>, String> {
    let record = record.ok_or("what is there is no object")?;
    let value = |column: &String| match record.get(column) {
        None => Ok(Value::Null),
        Some(Value::Array(_) | Value::Object(_)) => {
            Err(format!("`{column}` holds no single value"))
        }
        Some(value) => Ok(value.clone()),
    };
    columns.iter().map(value).collect()
}

/// Every text of `value` as the template that it is.
fn rendered(value: &Value, names: &RunNames) -> Result<Value> {
    Ok(match value {
        Value::String(template) => Value::String(text(template, names)?),
        Value::Array(items) => items
            .iter()
            .map(|item| rendered(item, names))
            .collect::<Result<Vec<_>>>()?
            .into(),
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(k, v)| Ok((k.clone(), rendered(v, names)?)));
            Value::Object(fields.collect::<Result<_>>()?)
        }
        other => other.clone(),
    })
}

fn text(template: &str, names: &RunNames) -> Result<String> {
    let context: BTreeMap<String, minijinja::Value> = names.pairs().into_iter().collect();
    environment()
        .render_str(template, minijinja::Value::from_pairs(context))
        .with_context(|| template.to_owned())
}

async fn object(archive: &Archive, asked: &ObjectOf, names: &RunNames) -> Result<Vec<Vec<Value>>> {
    let bucket = asked.bucket.as_deref().unwrap_or(&archive.fleet.bucket);
    let pattern = text(&asked.key, names)?;
    let found = newest(archive, bucket, &pattern).await?;
    let found = found.with_context(|| format!("no object {pattern} in bucket {bucket}"))?;
    let ReadObject { key, size, .. } = found;
    if size > LARGEST {
        bail!("{key} has {size} bytes, a list at most {LARGEST}");
    }
    let object = archive.objects.with_bucket(bucket).get(&key).await?;
    let object = object.with_context(|| format!("{key} is gone"))?;
    let listed = listed(&key, &object.body, &asked.columns, LARGEST);
    listed.map_err(|why| anyhow::anyhow!("{key}: {why}"))
}

/// The rows of a list; its name says how it is written.
fn listed(
    key: &str,
    body: &[u8],
    columns: &[String],
    most: u64,
) -> Result<Vec<Vec<Value>>, String> {
    let (name, compress) = match key.rsplit_once('.') {
        Some((name, "gz")) => (name, Compression::Gzip),
        Some((name, "zst")) => (name, Compression::Zstd),
        _ => (key, Compression::None),
    };
    let plain = paceline_protocol::part::plain_within(compress, body, most);
    let plain = plain.map_err(|e| e.to_string())?;
    let plain = plain.ok_or_else(|| format!("it holds more than {most} bytes"))?;
    let text = String::from_utf8(plain).map_err(|_| "it is not UTF-8")?;
    let text = text.trim_start_matches('\u{feff}');
    let rows = match name.rsplit_once('.').map(|(_, kind)| kind) {
        Some("csv") => of_table(&Table::parse(text)?, columns)?,
        Some("ndjson" | "jsonl") => of_lines(text, columns)?,
        _ => return Err("a list ends in .csv or .ndjson, perhaps with .gz or .zst behind".into()),
    };
    match rows.len() > MOST_ROWS {
        true => Err(format!(
            "it has {} rows, a list at most {MOST_ROWS}",
            rows.len()
        )),
        false => Ok(rows),
    }
}

fn of_table(table: &Table, columns: &[String]) -> Result<Vec<Vec<Value>>, String> {
    let place = |column: &String| {
        let known = table.columns.join(", ");
        let missing = || format!("it has no column `{column}` but {known}");
        table.column(column).ok_or_else(missing)
    };
    let places: Vec<usize> = columns.iter().map(place).collect::<Result<_, _>>()?;
    let row = |row: &[String]| places.iter().map(|p| row[*p].clone().into()).collect();
    Ok(table.rows.iter().map(|(_, cells)| row(cells)).collect())
}

fn of_lines(text: &str, columns: &[String]) -> Result<Vec<Vec<Value>>, String> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let wrong = |why: String| format!("line {}: {why}", at + 1);
            let record: Value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            row_of(record.as_object(), columns).map_err(wrong)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::part::PartFormat;
    use paceline_protocol::spec::OutputFormat;

    fn rows(key: &str, body: &[u8]) -> Result<String, String> {
        let columns = ["a".to_owned(), "b".to_owned()];
        let rows = listed(key, body, &columns, 4_096)?;
        Ok(serde_json::to_string(&rows).expect("JSON"))
    }

    #[test]
    fn a_list_is_read_as_its_name_says() {
        let csv = "\u{feff}b,a\r\n1,x\r\n2,\"y, z\"\r\n".as_bytes();
        let right = Ok(r#"[["x","1"],["y, z","2"]]"#.to_owned());
        assert_eq!(rows("l/1.csv", csv), right);
        let lines = b"{\"a\":80000.50,\"b\":true,\"c\":[1]}\n\n{\"a\":\"x\"}\n";
        let right = Ok(r#"[[80000.50,true],["x",null]]"#.to_owned());
        assert_eq!(rows("1.ndjson", lines), right);
    }

    #[test]
    fn a_list_is_no_larger_than_it_may_be_however_small_it_lies_there() {
        let large = format!("a,b\n{}", "1,2\n".repeat(4_096));
        for compress in [Compression::Gzip, Compression::Zstd] {
            let format = PartFormat::new(OutputFormat::Ndjson, compress, Vec::new());
            let body = format.write(&large).expect("packed");
            assert!(body.len() < 4_096);
            let end = if compress == Compression::Gzip {
                "gz"
            } else {
                "zst"
            };
            let error = rows(&format!("l.csv.{end}"), &body).expect_err("too large");
            assert_eq!(error, "it holds more than 4096 bytes");
        }
    }

    #[test]
    fn a_list_that_is_none_says_why() {
        for (key, body, why) in [
            ("l.csv", "a\n1\n", "it has no column `b` but a"),
            ("l.csv", "a,b\n1\n", "found record with 1 fields"),
            (
                "l.ndjson",
                "{\"a\":1}\n[1]\n",
                "line 2: what is there is no object",
            ),
            (
                "l.ndjson",
                "{\"a\":[]}\n",
                "line 1: `a` holds no single value",
            ),
            ("l.xlsx", "", "a list ends in .csv"),
            ("l.csv.gz", "a,b\n", ""),
        ] {
            let error = rows(key, body.as_bytes()).expect_err(key);
            assert!(error.contains(why), "{key}: {error}");
        }
    }
}
