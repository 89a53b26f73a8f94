//! Answers of the page: templates, files out of the binary, and what went wrong, said in HTML.

use askama::Template;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::serve::http::problem::Problem;

const STYLE: &str = include_str!("../../../templates/page.css");
const SCRIPT: &str = include_str!("../../../templates/page.js");
const ICON: &str = include_str!("../../../templates/icon.svg");

/// A rendered template.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(body) => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (status, kind, body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// One of our three files.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let (kind, body) = match name.as_str() {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Trouble::missing("there is no such file").into_response(),
    };
    let etag = format!("\"{}\"", &hex::encode(Sha256::digest(body))[..16]);
    let said = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, etag.clone()),
    ];
    let known = headers.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, said).into_response();
    }
    (said, body).into_response()
}

/// What went wrong.
#[derive(Debug)]
pub(super) struct Trouble {
    status: StatusCode,
    detail: String,
}

impl Trouble {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Trouble { status, detail }
    }

    pub(super) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn away(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        let (status, detail) = problem.into_parts();
        Self::new(status, detail)
    }
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Problem::from(error).into()
    }
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct Told<'a> {
    title: &'a str,
    detail: &'a str,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let told = Told {
            title: self.status.canonical_reason().unwrap_or("Error"),
            detail: &self.detail,
        };
        page(self.status, &told)
    }
}

/// A moment as people read it, in UTC.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// What the head of every page says.
pub(super) struct Head {
    /// Which of the pages it is.
    pub(super) here: &'static str,
    /// Whose token; empty where there are none.
    pub(super) who: String,
    /// Whether there is a token to be forgotten.
    pub(super) can_leave: bool,
    /// When the fleet was seen last.
    pub(super) seen: String,
    /// Why it is not seen now.
    pub(super) away: Option<String>,
    /// What came of what was asked for.
    pub(super) told: Option<String>,
}
