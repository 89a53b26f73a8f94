//! Files of secrets, `name -> fields`, in YAML or JSON. A message names the place of a fault, never what
//! stands there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tree::{Data, Entry, Node, parse};

/// A name with its fields.
pub type NamedFields = (String, BTreeMap<String, String>);

/// The entries of `text` in order, every field as text.
///
/// # Errors
/// Where it is something else.
pub fn mapping_of_fields(text: &str) -> Result<Vec<NamedFields>, String> {
    // The parser's own words may repeat what it read.
    let root = parse("", text).map_err(|fault| {
        format!(
            "line {}, column {}: this is neither YAML nor JSON",
            fault.line, fault.column
        )
    })?;
    let Data::Map(entries) = &root.data else {
        return Err(format!("{} where a mapping belongs", root.kind()));
    };
    entries.iter().map(named).collect()
}

fn named(entry: &Entry) -> Result<NamedFields, String> {
    let Data::Map(fields) = &entry.node.data else {
        return Err(wrong(&entry.node, "a mapping"));
    };
    let mut values = BTreeMap::new();
    for field in fields {
        let value = match &field.node.data {
            Data::Scalar(Value::String(text)) => text.clone(),
            Data::Scalar(Value::Number(number)) => number.to_string(),
            Data::Scalar(Value::Bool(flag)) => flag.to_string(),
            _ => return Err(wrong(&field.node, "text")),
        };
        if values.insert(field.key.clone(), value).is_some() {
            return Err(format!(
                "line {}: a field is there twice",
                field.key_at.line
            ));
        }
    }
    Ok((entry.key.clone(), values))
}

fn wrong(node: &Node, wanted: &str) -> String {
    format!(
        "line {}, column {}: {} where {wanted} belongs",
        node.at.line,
        node.at.column,
        node.kind()
    )
}
