//! CSV and TSV with a header row: a list of objects whose values are text.

use std::collections::BTreeSet;

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::MOST_NODES;

/// The rows of `text`, whose columns `delimiter` parts.
pub(super) fn rows(text: &str, delimiter: u8) -> Result<Value, String> {
    quotes_close(text, delimiter)?;
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(text.as_bytes());
    let headers = headers(reader.headers().map_err(|e| e.to_string())?)?;
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| e.to_string())?;
        if rows.len() == MOST_NODES {
            return Err(format!("more than {MOST_NODES} rows"));
        }
        rows.push(object(&headers, &row)?);
    }
    Ok(Value::Array(rows))
}

fn headers(row: &StringRecord) -> Result<Vec<String>, String> {
    if row.is_empty() {
        return Err("it has no header row".into());
    }
    let names: Vec<String> = row.iter().map(|name| name.trim().to_owned()).collect();
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(double) => Err(format!("line 1: two columns are called `{double}`")),
        None => Ok(names),
    }
}

fn object(headers: &[String], row: &StringRecord) -> Result<Value, String> {
    if row.len() != headers.len() {
        let line = row.position().map_or(0, csv::Position::line);
        let (found, wanted) = (row.len(), headers.len());
        return Err(format!(
            "line {line} has {found} columns, the header {wanted}"
        ));
    }
    let values = row.iter().map(|value| Value::String(value.to_owned()));
    let fields: Map<String, Value> = headers.iter().cloned().zip(values).collect();
    Ok(Value::Object(fields))
}

/// The parser takes the end of the text for the end of a quoted value: half a table would look whole.
fn quotes_close(text: &str, delimiter: u8) -> Result<(), String> {
    let (mut in_quotes, mut at_start) = (false, true);
    for byte in text.bytes() {
        if in_quotes {
            // A doubled quote closes and opens again.
            in_quotes = byte != b'"';
            at_start = !in_quotes;
        } else if byte == b'"' && at_start {
            in_quotes = true;
        } else {
            at_start = byte == delimiter || byte == b'\n' || byte == b'\r';
        }
    }
    match in_quotes {
        true => Err("a quote is never closed".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv(text: &str) -> Result<String, String> {
        rows(text, b',').map(|rows| rows.to_string())
    }

    #[test]
    fn rows_are_objects_of_text() {
        let text = "id, name\r\n1,\"a \"\"b\"\", c\"\r\n\r\n2,\n";
        let shown = r#"[{"id":"1","name":"a \"b\", c"},{"id":"2","name":""}]"#;
        assert_eq!(csv(text).as_deref(), Ok(shown));
        assert_eq!(csv("id,name\n").as_deref(), Ok("[]"));
        let tabs = rows("a\tb\n1,5\t2\n", b'\t').expect("reads").to_string();
        assert_eq!(tabs, r#"[{"a":"1,5","b":"2"}]"#);
    }

    #[test]
    fn what_is_no_table() {
        for (text, why) in [
            ("", "no header"),
            ("a,b\n1,2\n3\n", "line 3 has 1 columns, the header 2"),
            ("a,b\n1,2,3\n", "line 2 has 3"),
            ("a,b,a\n1,2,3\n", "two columns are called `a`"),
            ("a,b\n1,\"2\n3,4\n", "never closed"),
        ] {
            assert!(
                csv(text).is_err_and(|found| found.contains(why)),
                "{text:?}"
            );
        }
        // A quote inside a value that does not begin with one.
        assert!(csv("a,b\n5\" disk,2\n").is_ok());
        assert!(csv("a,b\n\"5\"\"\",\"\"\n").is_ok());
    }
}
