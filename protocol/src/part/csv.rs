//! CSV (RFC 4180) with a header. A null is nothing at all and an empty text is `""`; a text that would read as
//! a number or truth in its column is quoted: so types and nulls come back.

use super::BodyError;
use super::columns::{Column, ColumnKind};
use super::line::is_number;
use crate::record::{Columns, Record, Scalar};

/// Appends the header.
pub(super) fn write_header(columns: &[Column], into: &mut Vec<u8>) {
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            into.push(b',');
        }
        write_text(&column.name, column.name.is_empty(), into);
    }
    into.push(b'\n');
}

/// Appends a row.
pub(super) fn write_row(columns: &[Column], values: &[Scalar], into: &mut Vec<u8>) {
    for (i, (column, value)) in columns.iter().zip(values).enumerate() {
        if i > 0 {
            into.push(b',');
        }
        match value {
            Scalar::Null => {}
            Scalar::Boolean(truth) => into.extend_from_slice(truth.to_string().as_bytes()),
            Scalar::Number(digits) => into.extend_from_slice(digits.as_bytes()),
            Scalar::Text(text) => write_text(text, misread(text, column.kind), into),
        }
    }
    into.push(b'\n');
}

/// Whether a text without quotes would come back as something else.
fn misread(text: &str, kind: ColumnKind) -> bool {
    text.is_empty() || (!is_textual(kind) && (is_number(text) || text == "true" || text == "false"))
}

fn is_textual(kind: ColumnKind) -> bool {
    matches!(
        kind,
        ColumnKind::Text | ColumnKind::Date | ColumnKind::Datetime
    )
}

fn write_text(text: &str, quoted: bool, into: &mut Vec<u8>) {
    if !quoted && !text.contains(['"', ',', '\n', '\r']) {
        into.extend_from_slice(text.as_bytes());
        return;
    }
    into.push(b'"');
    into.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    into.push(b'"');
}

/// The records of a CSV that this run has written, as lines.
pub(super) fn read(body: &str, columns: &[Column]) -> Result<String, BodyError> {
    let mut rows = Rows { rest: body };
    let header = rows
        .next()
        .transpose()?
        .ok_or_else(|| BodyError::Csv("it has no header".to_owned()))?;
    let expected = columns.iter().map(|column| &*column.name);
    if !header.iter().map(|field| field.text.as_str()).eq(expected) {
        return Err(BodyError::Csv(
            "its header is not that of the run's plan".to_owned(),
        ));
    }
    let names: Columns = columns.iter().map(|column| column.name.clone()).collect();
    let mut lines = Vec::with_capacity(body.len() * 2);
    for row in rows {
        let row = row?;
        if row.len() != columns.len() {
            return Err(BodyError::Csv(format!(
                "a row has {} fields, the header {}",
                row.len(),
                columns.len()
            )));
        }
        let fields = columns.iter().zip(row);
        let values = fields
            .map(|(column, field)| field.value(column.kind))
            .collect();
        let columns = names.clone();
        Record { columns, values }.write_ndjson(&mut lines);
    }
    super::text(lines)
}

struct Field {
    text: String,
    quoted: bool,
}

impl Field {
    fn value(self, kind: ColumnKind) -> Scalar {
        match self.text.as_str() {
            _ if self.quoted => Scalar::Text(self.text),
            "" => Scalar::Null,
            _ if is_textual(kind) => Scalar::Text(self.text),
            "true" => Scalar::Boolean(true),
            "false" => Scalar::Boolean(false),
            text if is_number(text) => Scalar::Number(self.text),
            _ => Scalar::Text(self.text),
        }
    }
}

/// The rows of a text, and of each field whether it was quoted: the reader that the fleet uses for others'
/// CSV does not tell.
struct Rows<'a> {
    rest: &'a str,
}

impl Rows<'_> {
    fn field(&mut self) -> Result<Field, BodyError> {
        let Some(inside) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n', '\r']).unwrap_or(self.rest.len());
            let (text, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(Field {
                text: text.to_owned(),
                quoted: false,
            });
        };
        let mut text = String::new();
        let mut rest = inside;
        loop {
            let end = rest
                .find('"')
                .ok_or_else(|| BodyError::Csv("a quote is not closed".to_owned()))?;
            text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(after) => {
                    text.push('"');
                    rest = after;
                }
                None => break,
            }
        }
        self.rest = rest;
        Ok(Field { text, quoted: true })
    }

    fn row(&mut self) -> Result<Vec<Field>, BodyError> {
        let mut row = Vec::new();
        loop {
            row.push(self.field()?);
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            let end = self
                .rest
                .strip_prefix("\r\n")
                .or_else(|| self.rest.strip_prefix('\n'));
            match end {
                Some(rest) => self.rest = rest,
                None if self.rest.is_empty() => {}
                None => return Err(BodyError::Csv("text follows a closing quote".to_owned())),
            }
            return Ok(row);
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Vec<Field>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.rest.is_empty()).then(|| self.row())
    }
}
