//! Records: one flat object each, with values whose digits are kept.

use std::sync::Arc;

/// A value of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Missing where that is allowed.
    Null,
    /// true or false.
    Boolean(bool),
    /// A number by its JSON digits, as found: `80000.50` stays so.
    Number(String),
    /// Text.
    Text(String),
}

/// The names of a record's values, shared by all records of an endpoint.
pub type Columns = Arc<[Arc<str>]>;

/// One record: the cell's dimensions, then the endpoint's fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Names, in order.
    pub columns: Columns,
    /// As many values.
    pub values: Vec<Scalar>,
}

impl Record {
    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&Scalar> {
        let place = self.columns.iter().position(|c| &**c == name)?;
        self.values.get(place)
    }

    /// Appends the record as one JSON object and a newline.
    pub fn write_ndjson(&self, into: &mut Vec<u8>) {
        into.push(b'{');
        for (i, (name, value)) in self.columns.iter().zip(&self.values).enumerate() {
            if i > 0 {
                into.push(b',');
            }
            write_text(name, into);
            into.push(b':');
            match value {
                Scalar::Null => into.extend_from_slice(b"null"),
                Scalar::Boolean(true) => into.extend_from_slice(b"true"),
                Scalar::Boolean(false) => into.extend_from_slice(b"false"),
                Scalar::Number(digits) => into.extend_from_slice(digits.as_bytes()),
                Scalar::Text(text) => write_text(text, into),
            }
        }
        into.extend_from_slice(b"}\n");
    }
}

fn write_text(text: &str, into: &mut Vec<u8>) {
    serde_json::to_writer(into, text).expect("writing text into memory cannot fail");
}
