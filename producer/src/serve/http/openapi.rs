//! `/api/v1/openapi.json`: what is served here, as OpenAPI 3.1. Written by hand in `openapi.json`; a test
//! compares it with the routes.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::problem::Answer;
use crate::serve::Server;

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/v1/openapi.json", get(document))
}

async fn document() -> Answer<Json<Value>> {
    let mut document: Value = serde_json::from_str(DOCUMENT).map_err(anyhow::Error::from)?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(Json(document))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// `GET /api/v1/runs`, ... as the sources of this folder route them.
    fn routed() -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve/http");
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder).expect("the sources") {
            let path = entry.expect("a source").path();
            if path.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(path).expect("a source");
            let text = text.split("#[cfg(test)]").next().expect("the code");
            let of_module = text.split("fn routes()").nth(1).unwrap_or_default();
            let of_module = of_module.split("\n}\n").next().expect("the routes");
            for route in of_module.split(".route(").skip(1) {
                let path = route.split('"').nth(1).expect("a path");
                // A method may be made on a line before.
                let methods = ["get(", "post(", "put(", "delete("];
                let here: Vec<_> = methods.iter().filter(|m| route.contains(**m)).collect();
                let named = if here.is_empty() { of_module } else { route };
                for method in methods.iter().filter(|method| named.contains(**method)) {
                    let method = method.trim_end_matches('(').to_uppercase();
                    found.insert(format!("{method} {path}"));
                }
            }
        }
        found
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let mut described = BTreeSet::new();
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().expect("methods") {
                described.insert(format!("{} {path}", method.to_uppercase()));
                let named = path.matches('{').count();
                let given = operation["parameters"].as_array().map_or(0, |all| {
                    let in_path = |p: &&Value| {
                        p["in"] == "path"
                            || p["$ref"]
                                .as_str()
                                .is_some_and(|r| r.contains("/parameters/"))
                    };
                    all.iter().filter(in_path).count()
                });
                assert_eq!(named, given, "{method} {path}");
            }
        }
        assert_eq!(routed(), described);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let mut rest = DOCUMENT;
        while let Some((_, tail)) = rest.split_once("\"$ref\": \"#") {
            let (pointer, after) = tail.split_once('"').expect("a reference");
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            rest = after;
        }
        assert_eq!(document["openapi"], "3.1.0");
    }
}
