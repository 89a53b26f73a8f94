//! Values out of a record's line, with their digits.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::Column;
use crate::record::Scalar;

/// The values of a line in the order of `columns`; one that the line lacks is null, one that no column
/// names is left out.
///
/// # Errors
/// When the line is not an object.
pub fn read_line(line: &str, columns: &[Column]) -> Result<Vec<Scalar>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let values = InColumns(columns).deserialize(&mut reader)?;
    reader.end()?;
    Ok(values)
}

struct InColumns<'c>(&'c [Column]);

impl<'de> DeserializeSeed<'de> for InColumns<'_> {
    type Value = Vec<Scalar>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InColumns<'_> {
    type Value = Vec<Scalar>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![Scalar::Null; self.0.len()];
        // Lines have their names in the order of the columns, so the next one is looked at first.
        let mut next = 0;
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            let value = fields.next_value::<&RawValue>()?;
            let is_called = |column: &Column| *column.name == *name;
            let place = match self.0.get(next).filter(|column| is_called(column)) {
                Some(_) => Some(next),
                None => self.0.iter().position(is_called),
            };
            if let Some(place) = place {
                values[place] = scalar(value.get()).map_err(serde::de::Error::custom)?;
                next = place + 1;
            }
        }
        Ok(values)
    }
}

/// A JSON value; an object or list stays as its JSON.
fn scalar(json: &str) -> Result<Scalar, serde_json::Error> {
    Ok(match json.as_bytes() {
        b"null" => Scalar::Null,
        b"true" => Scalar::Boolean(true),
        b"false" => Scalar::Boolean(false),
        [b'"', ..] => Scalar::Text(serde_json::from_str(json)?),
        [b'{' | b'[', ..] => Scalar::Text(json.to_owned()),
        _ => Scalar::Number(json.to_owned()),
    })
}

/// Whether `text` is a JSON number.
pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && text.ends_with(|c: char| c.is_ascii_digit())
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}
