//! JSONPath (RFC 9535) into a tree.

use serde_json::Value;
use serde_json_path::JsonPath as Rfc9535;

use crate::connector::CompileError;

/// A JSONPath; the plain ones (`$.a.b`) are walked without the query engine.
#[derive(Debug)]
pub(crate) enum JsonPath {
    /// `$.a.b`
    Names(Vec<String>),
    /// `$.a.b[*]`
    ItemsOf(Vec<String>),
    /// Anything else of RFC 9535.
    Query(Box<Rfc9535>),
}

impl JsonPath {
    /// `$`
    pub(crate) fn root() -> Self {
        JsonPath::Names(Vec::new())
    }

    pub(crate) fn compile(source: &str) -> Result<Self, CompileError> {
        let query = Rfc9535::parse(source).map_err(|e| CompileError::syntax(source, e))?;
        let (plain, items) = match source.strip_suffix("[*]") {
            Some(plain) => (plain, true),
            None => (source, false),
        };
        Ok(match (plain_names(plain), items) {
            (Some(names), false) => JsonPath::Names(names),
            (Some(names), true) => JsonPath::ItemsOf(names),
            (None, _) => JsonPath::Query(Box::new(query)),
        })
    }

    /// The first node.
    pub(crate) fn first<'v>(&self, body: &'v Value) -> Option<&'v Value> {
        match self {
            JsonPath::Names(names) => walk(names, body),
            JsonPath::ItemsOf(names) => items(walk(names, body)?).next(),
            JsonPath::Query(query) => query.query(body).first(),
        }
    }

    /// Every node.
    pub(crate) fn all<'v>(&self, body: &'v Value) -> Vec<&'v Value> {
        match self {
            JsonPath::Names(names) => walk(names, body).into_iter().collect(),
            JsonPath::ItemsOf(names) => walk(names, body)
                .map(|v| items(v).collect())
                .unwrap_or_default(),
            JsonPath::Query(query) => query.query(body).all(),
        }
    }
}

fn plain_names(source: &str) -> Option<Vec<String>> {
    let rest = source.strip_prefix('$')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let legal = |name: &str| {
        !name.is_empty()
            && !name.as_bytes()[0].is_ascii_digit()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let names: Vec<&str> = rest.strip_prefix('.')?.split('.').collect();
    names
        .iter()
        .all(|n| legal(n))
        .then(|| names.into_iter().map(str::to_owned).collect())
}

fn walk<'v>(names: &[String], body: &'v Value) -> Option<&'v Value> {
    names
        .iter()
        .try_fold(body, |value, name| value.as_object()?.get(name))
}

fn items(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_need_no_query_engine() {
        assert!(matches!(
            JsonPath::compile("$.data[*]"),
            Ok(JsonPath::ItemsOf(_))
        ));
        assert!(matches!(
            JsonPath::compile("$.price.total"),
            Ok(JsonPath::Names(_))
        ));
        assert!(matches!(
            JsonPath::compile("$.location[0]"),
            Ok(JsonPath::Query(_))
        ));
    }
}
