//! JSON Schema (2020-12) of job and provider files, for editors.

/// The schema of `jobs/*.yaml`.
pub const JOB_SCHEMA: &str = include_str!("job.schema.json");
/// The schema of `providers/*.yaml`.
pub const PROVIDER_SCHEMA: &str = include_str!("provider.schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::super::tree::{self, Data, Node};
    use super::super::{auth, dimension, endpoint, job, limits, outcomes, outputs, provider};
    use super::*;

    /// What a definition of the schema must have as its properties. The empty name is the file itself.
    type Lists = &'static [(&'static str, &'static [&'static str])];

    const JOB: Lists = &[
        ("", job::JOB),
        ("after", job::AFTER),
        ("trigger", job::TRIGGER),
        ("new_objects", job::NEW_OBJECTS),
        ("source", job::JOB_SOURCE),
        ("shard", job::SHARD),
        ("schedule", job::SCHEDULE),
        ("gate", job::GATE),
        ("dedupe", job::DEDUPE),
        ("changes", job::CHANGES),
        ("notify", job::NOTIFY),
        ("dimension", dimension::DIMENSION),
        ("rows", dimension::ROWS),
        ("dates", dimension::DATES),
        ("records_of", dimension::RECORDS_OF),
        ("added", dimension::ADDED),
        ("documents", dimension::DOCUMENTS),
        ("object", dimension::OBJECT),
        ("nearest", dimension::NEAREST),
        ("outputs", outputs::OUTPUTS),
        ("s3", outputs::S3),
        ("ranking", outputs::RANKING),
        ("normalise", outputs::NORMALISE),
        ("index", outputs::INDEX),
    ];

    const PROVIDER: Lists = &[
        ("", provider::PROVIDER),
        ("source", provider::SOURCE),
        ("source_s3", provider::SOURCE_S3),
        ("source_redis", provider::SOURCE_REDIS),
        ("credentials", provider::CREDENTIALS),
        ("timeout", provider::TIMEOUT),
        ("format", provider::FORMAT),
        ("retry", provider::RETRY),
        ("backoff", provider::BACKOFF),
        ("ready", provider::READY),
        ("auth", auth::AUTH),
        ("basic", auth::BASIC),
        ("post", auth::POST),
        ("limit", limits::LIMIT),
        ("learn", limits::LEARN),
        ("outcome", outcomes::OUTCOME),
        ("when", outcomes::WHEN),
        ("header_test", outcomes::HEADER_TEST),
        ("body_test", outcomes::BODY_TEST),
        ("wait", outcomes::WAIT),
        ("place", outcomes::PLACE),
        ("records", outcomes::RECORDS),
        ("endpoint", endpoint::ENDPOINT),
        ("page", endpoint::PAGE),
        ("stop", endpoint::STOP),
        ("split_on", endpoint::SPLIT_ON),
        ("bisect", endpoint::BISECT),
        ("detail", endpoint::DETAIL),
        ("join", endpoint::JOIN),
        ("field", endpoint::FIELD),
    ];

    fn parsed(schema: &str) -> Value {
        serde_json::from_str(schema).expect("a schema is JSON")
    }

    fn keys_of(schema: &Value) -> BTreeSet<&str> {
        let properties = schema["properties"].as_object();
        properties
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str())
            .collect()
    }

    fn agrees_with_the_reader(schema: &Value, lists: Lists) {
        let mut with_keys: BTreeSet<&str> = schema["$defs"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, definition)| definition["properties"].is_object())
            .map(|(name, _)| name.as_str())
            .collect();
        for (name, known) in lists {
            let definition = if name.is_empty() {
                schema
            } else {
                &schema["$defs"][*name]
            };
            assert_eq!(
                keys_of(definition),
                known.iter().copied().collect(),
                "keys of `{name}`"
            );
            assert_eq!(definition["additionalProperties"], false, "`{name}`");
            with_keys.remove(name);
        }
        assert!(with_keys.is_empty(), "no reader knows {with_keys:?}");
    }

    #[test]
    fn schemas_have_the_keys_that_the_readers_know() {
        agrees_with_the_reader(&parsed(JOB_SCHEMA), JOB);
        agrees_with_the_reader(&parsed(PROVIDER_SCHEMA), PROVIDER);
    }

    #[test]
    fn every_key_is_described() {
        fn undescribed(schema: &Value, at: &str, found: &mut Vec<String>) {
            for (key, value) in schema["properties"].as_object().into_iter().flatten() {
                let here = format!("{at}.{key}");
                let by_reference = value["$ref"].is_string();
                if !by_reference && value["description"].as_str().is_none_or(str::is_empty) {
                    found.push(here.clone());
                }
                undescribed(value, &here, found);
            }
            for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
                if definition["description"].as_str().is_none_or(str::is_empty) {
                    found.push(name.clone());
                }
                undescribed(definition, name, found);
            }
        }
        let mut found = Vec::new();
        undescribed(&parsed(JOB_SCHEMA), "job", &mut found);
        undescribed(&parsed(PROVIDER_SCHEMA), "provider", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    /// The schemas that may hold for a value: the one that is referred to, or each of several.
    fn choices<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
        if let Some(name) = schema["$ref"].as_str() {
            let definition = root.pointer(name.trim_start_matches('#'));
            return choices(root, definition.unwrap_or_else(|| panic!("no {name}")));
        }
        match schema["anyOf"].as_array() {
            Some(several) if schema["properties"].is_null() => {
                several.iter().flat_map(|one| choices(root, one)).collect()
            }
            _ => vec![schema],
        }
    }

    /// Keys of `node` that no schema knows.
    fn unknown(root: &Value, schema: &Value, node: &Node, found: &mut Vec<String>) {
        let choices = choices(root, schema);
        match &node.data {
            Data::Scalar(_) => {}
            Data::List(items) => {
                let of_items = choices.iter().find(|choice| choice["items"].is_object());
                for item in items {
                    if let Some(schema) = of_items {
                        unknown(root, &schema["items"], item, found);
                    }
                }
            }
            Data::Map(entries) => {
                let takes_anything = choices.iter().any(|choice| choice["type"].is_null());
                for entry in entries.iter().filter(|_| !takes_anything) {
                    let known = choices.iter().find_map(|choice| {
                        let own = &choice["properties"][&entry.key];
                        let other = &choice["additionalProperties"];
                        [own, other].into_iter().find(|schema| schema.is_object())
                    });
                    match known {
                        Some(schema) => unknown(root, schema, &entry.node, found),
                        None => found.push(entry.node.path.clone()),
                    }
                }
            }
        }
    }

    fn unknown_in(schema: &str, text: &str) -> Vec<String> {
        let root = parsed(schema);
        let node = tree::parse("test.yaml", text).expect("YAML");
        let mut found = Vec::new();
        unknown(&root, &root, &node, &mut found);
        found
    }

    #[test]
    fn every_key_of_the_example_files_is_in_the_schema() {
        let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
        for (folder, schema) in [("jobs", JOB_SCHEMA), ("providers", PROVIDER_SCHEMA)] {
            let files = std::fs::read_dir(spec.join(folder)).expect("the example files");
            let yaml = files
                .map(|file| file.expect("readable").path())
                .filter(|path| path.extension().is_some_and(|e| e == "yaml"));
            for path in yaml {
                let text = std::fs::read_to_string(&path).expect("readable");
                let found = unknown_in(schema, &text);
                assert_eq!(found, Vec::<String>::new(), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_key_that_no_reader_knows_is_none_of_the_schemas() {
        assert_eq!(
            unknown_in(JOB_SCHEMA, "job: a\nshard: {cell: 3}"),
            ["shard.cell"]
        );
        let provider = "endpoints: {a: {page: {styles: x}, fields: {b: {paths: $.b}}}}";
        assert_eq!(
            unknown_in(PROVIDER_SCHEMA, provider),
            ["endpoints.a.page.styles", "endpoints.a.fields.b.paths"]
        );
    }
}
