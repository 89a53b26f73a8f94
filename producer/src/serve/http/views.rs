//! `/api/v1/views/{job}`: what the page draws, from the run that is live.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use super::Shared;
use super::problem::{Answer, Problem};
use crate::serve::Server;
use crate::serve::views::View;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/v1/views/{job}", get(view))
}

#[derive(Deserialize)]
struct Choice {
    of: Option<String>,
}

async fn view(
    State(server): Shared,
    Path(job): Path<String>,
    Query(choice): Query<Choice>,
    headers: HeaderMap,
) -> Answer<Response> {
    let Some(loaded) = server.spec.job(&job) else {
        return Err(Problem::missing(format!("there is no job `{job}`")));
    };
    let Some(view) = &loaded.job.view else {
        return Err(Problem::missing(format!("job `{job}` has no view")));
    };
    let archive = &server.stores.archive;
    let shown = server
        .views
        .show(archive, &job, view, choice.of.as_deref())
        .await?;
    let (body, tag) = match shown {
        View::Here(body, tag) => (body, format!("\"{tag}\"")),
        View::Missing(why) => return Err(Problem::missing(why)),
    };
    let known = headers.get(header::IF_NONE_MATCH);
    let same = known
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| is_known(known, &tag));
    let tags = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    if same {
        return Ok((StatusCode::NOT_MODIFIED, tags).into_response());
    }
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((tags, kind, body).into_response())
}

/// Whether `If-None-Match` names the tag, weakly compared.
fn is_known(known: &str, tag: &str) -> bool {
    let mut named = known.split(',').map(str::trim);
    named.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_among_several() {
        let tag = "\"ab\"";
        assert!(is_known("\"ab\"", tag) && is_known("\"x\", W/\"ab\"", tag) && is_known("*", tag));
        assert!(!is_known("\"abc\"", tag) && !is_known("", tag));
    }
}
