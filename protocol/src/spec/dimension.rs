//! Reads the dimensions of `split:`.

use indexmap::IndexMap;
use serde_json::Value;

use super::model::*;
use super::reader::{Fields, IDENTIFIER_RULE, Reader, is_identifier};
use super::scope::Spot;
use super::tree::{Data, Node};
use super::words;

/// Keys of a dimension.
pub const DIMENSION: &[&str] = &[
    "file",
    "column",
    "rows",
    "dates",
    "range",
    "values",
    "records_of",
    "documents",
    "object",
    "add",
    "where",
    "distinct",
];
/// Keys of `rows`.
pub const ROWS: &[&str] = &["file"];
/// Keys of `dates`.
pub const DATES: &[&str] = &["from", "days", "every"];
/// Keys of `records_of`.
pub const RECORDS_OF: &[&str] = &["job", "where", "columns"];
/// Keys of `documents`.
pub const DOCUMENTS: &[&str] = &["index", "query", "columns"];
/// Keys of `object`.
pub const OBJECT: &[&str] = &["bucket", "key", "columns"];
/// Keys of an added column that is no template.
pub const ADDED: &[&str] = &["nearest"];
/// Keys of `nearest`.
pub const NEAREST: &[&str] = &["file", "by", "take"];

/// Sources of values, of which a dimension has one.
const SOURCES: &[&str] = &[
    "file",
    "rows",
    "dates",
    "range",
    "values",
    "records_of",
    "documents",
    "object",
];

/// A dimension; a wrong one is reported and stays as an empty list, so that its name is known.
pub(super) fn dimension(r: &Reader, node: &Node) -> Dimension {
    let read = match &node.data {
        Data::List(_) => list(r, node).map(bare),
        _ => full(r, node),
    };
    read.unwrap_or_else(|| bare(DimensionValues::List(Vec::new())))
}

fn bare(values: DimensionValues) -> Dimension {
    Dimension {
        values,
        add: IndexMap::new(),
        filter: None,
        distinct: Vec::new(),
    }
}

/// The dimension's own name: the last step of its path.
fn name_of(node: &Node) -> &str {
    node.path.rsplit('.').next().unwrap_or(&node.path)
}

fn full(r: &Reader, node: &Node) -> Option<Dimension> {
    let f = r.fields(node, DIMENSION)?;
    let name = name_of(node).to_owned();
    let source = f.one_of(SOURCES);
    let add = f.take("add", |r, n| added(r, n, &name)).unwrap_or_default();
    let filter = f.take("where", |r, n| {
        r.expression(
            n,
            &Spot::RowFilter {
                dimension: name.clone(),
            },
        )
    });
    let distinct = f
        .take("distinct", |r, n| r.one_or_more(n, Reader::text))
        .unwrap_or_default();
    Some(Dimension {
        values: values(r, &f, source?, &name)?,
        add,
        filter,
        distinct,
    })
}

fn values(r: &Reader, f: &Fields, source: &str, name: &str) -> Option<DimensionValues> {
    if source != "file"
        && let Some(column) = f.node("column")
    {
        return r.fault(
            column.key_at,
            "`column` without `file`",
            "{file: sellers.csv, column: seller} takes one column, {rows: {file: sellers.csv}} all",
        );
    }
    match source {
        "file" => {
            let file = f.need("file", Reader::neighbour);
            let column = f.need("column", Reader::text);
            Some(DimensionValues::File {
                file: file?,
                column: column?,
            })
        }
        "rows" => f.take("rows", |r, n| {
            let file = r.fields(n, ROWS)?.need("file", Reader::neighbour)?;
            Some(DimensionValues::Rows { file })
        }),
        "documents" => f
            .take("documents", documents)
            .map(DimensionValues::Documents),
        "object" => f.take("object", object).map(DimensionValues::Object),
        "dates" => f.take("dates", dates),
        "range" => f.take("range", range),
        "values" => f.take("values", list),
        _ => f.take("records_of", |r, n| {
            let spot = Spot::RowFilter {
                dimension: name.to_owned(),
            };
            records_of(r, n, &spot).map(DimensionValues::RecordsOf)
        }),
    }
}

fn list(r: &Reader, node: &Node) -> Option<DimensionValues> {
    let values = r.list(node, |r, n| {
        r.no_template(n);
        r.scalar(n)
    })?;
    if matches!(&node.data, Data::List(items) if items.is_empty()) {
        r.warn(
            node.key_at,
            "a list without values gives no cells",
            "write at least one value, or take the dimension out",
        );
    }
    no_doubles(r, node, &values);
    Some(DimensionValues::List(values))
}

fn no_doubles(r: &Reader, node: &Node, values: &[Value]) {
    let Data::List(items) = &node.data else {
        return;
    };
    for (i, item) in items.iter().enumerate().take(values.len()) {
        if values[..i].contains(&values[i]) {
            r.fault::<()>(
                item.at,
                format!("{} is in the list twice", values[i]),
                "each value makes cells of its own; keep one",
            );
        }
    }
}

fn dates(r: &Reader, node: &Node) -> Option<DimensionValues> {
    let f = r.fields(node, DATES)?;
    let from = f.need("from", |r, n| {
        r.parsed(n, "day", words::day)?;
        r.text(n)
    });
    let days = f.need("days", |r, n| r.count(n, 1, 36_600));
    let every = f.take("every", |r, n| r.count(n, 1, 36_600));
    Some(DimensionValues::Dates {
        from: from?,
        days: days?,
        every,
    })
}

fn range(r: &Reader, node: &Node) -> Option<DimensionValues> {
    const RIGHT: &str = "two whole numbers, the first not above the second, both included: [1, 14]";
    let Data::List(items) = &node.data else {
        return r.fault(
            node.at,
            format!("{} where a range belongs", node.kind()),
            RIGHT,
        );
    };
    let ends: Vec<i64> = items
        .iter()
        .filter_map(|item| match &item.data {
            Data::Scalar(Value::Number(n)) => n.as_i64(),
            _ => None,
        })
        .collect();
    match (items.len(), ends.as_slice()) {
        (2, &[first, last]) if first <= last => Some(DimensionValues::Range { first, last }),
        _ => r.fault(node.at, "this is no range", RIGHT),
    }
}

/// `records_of:`; its `where` sees the other job's records.
pub(super) fn records_of(r: &Reader, node: &Node, spot: &Spot) -> Option<RecordsOf> {
    let f = r.fields(node, RECORDS_OF)?;
    let job = f.need("job", Reader::name);
    let spot = match (spot, &job) {
        (Spot::Source, _) => Spot::Source,
        (_, Some(job)) => Spot::RecordsOf { job: job.clone() },
        (_, None) => Spot::Free,
    };
    let filter = f.take("where", |r, n| r.expression(n, &spot));
    let columns = f
        .take("columns", |r, n| r.list(n, Reader::text))
        .unwrap_or_default();
    Some(RecordsOf {
        job: job?,
        filter,
        columns,
    })
}

fn documents(r: &Reader, node: &Node) -> Option<DocumentsOf> {
    let f = r.fields(node, DOCUMENTS)?;
    let index = f.need("index", |r, n| {
        let name = r.text(n)?;
        if name.is_empty() || name.starts_with(['_', '-', '+']) || name.contains(['*', '?', ',']) {
            return r.fault(
                n.at,
                "this names no single index",
                "an index or an alias: events",
            );
        }
        Some(name)
    });
    let query = f.take("query", |r, n| match n.data {
        Data::Map(_) => r.templates_in(n, &Spot::LookUp),
        _ => r.fault(
            n.at,
            format!("{} where a query belongs", n.kind()),
            "as Elasticsearch takes it: {range: {rating: {gte: 4}}}",
        ),
    });
    Some(DocumentsOf {
        index: index?,
        query: query.unwrap_or_else(|| serde_json::json!({"match_all": {}})),
        columns: f.need("columns", columns)?,
    })
}

fn object(r: &Reader, node: &Node) -> Option<ObjectOf> {
    let f = r.fields(node, OBJECT)?;
    let bucket = f.take("bucket", Reader::text);
    let key = f.need("key", |r, n| r.template(n, &Spot::LookUp));
    Some(ObjectOf {
        bucket,
        key: key?,
        columns: f.need("columns", columns)?,
    })
}

/// Columns that become names.
fn columns(r: &Reader, node: &Node) -> Option<Vec<String>> {
    let columns = r.list(node, Reader::text)?;
    if columns.is_empty() || !columns.iter().all(|column| is_identifier(column)) {
        return r.fault(
            node.at,
            "these columns are no names",
            format!("at least one, {IDENTIFIER_RULE}"),
        );
    }
    Some(columns)
}

fn added(r: &Reader, node: &Node, dimension: &str) -> Option<IndexMap<String, AddedColumn>> {
    let before = std::cell::RefCell::new(Vec::new());
    r.keyed(node, is_identifier, IDENTIFIER_RULE, |r, n| {
        let spot = Spot::Row {
            dimension: dimension.to_owned(),
            added: before.borrow().clone(),
        };
        before.borrow_mut().push(name_of(n).to_owned());
        match n.data {
            Data::Map(_) => r.fields(n, ADDED)?.need("nearest", nearest),
            _ => r.template(n, &spot).map(AddedColumn::Template),
        }
    })
}

fn nearest(r: &Reader, node: &Node) -> Option<AddedColumn> {
    let f = r.fields(node, NEAREST)?;
    let file = f.need("file", Reader::neighbour);
    let by = f.need("by", |r, n| {
        let by = r.list(n, Reader::text)?;
        if by.len() == 2 {
            Some(by)
        } else {
            r.fault(
                n.at,
                "`by` names two columns",
                "latitude, then longitude: [lat, lon]",
            )
        }
    });
    Some(AddedColumn::Nearest {
        file: file?,
        by: by?,
        take: f.need("take", Reader::text)?,
    })
}
