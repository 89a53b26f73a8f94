//! Errors of the API as RFC 9457 has them.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::exit::{Exit, Refusal};
use crate::inputs::NotYet;
use crate::plan::PlanError;
use crate::serve::starting::is_other_plan;

/// An answer of the API, or what is wrong.
pub(super) type Answer<T> = Result<T, Problem>;

/// The media type of a problem.
pub(super) const PROBLEM: &str = "application/problem+json";

/// What is wrong, in the form of RFC 9457.
#[derive(Debug)]
pub(in crate::serve) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// What it says, for whoever says it in another form.
    pub(in crate::serve) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.detail)
    }

    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Problem { status, detail }
    }

    pub(super) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(super) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Why a run was not started: what was asked for does not fit its job (422), unless its id stands for
    /// another plan, or what it reads is not there yet (409).
    pub(super) fn of_start(error: anyhow::Error) -> Self {
        let conflicts = is_other_plan(&error) || error.is::<NotYet>();
        let problem = Self::from(error);
        if problem.status == StatusCode::CONFLICT && !conflicts {
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, problem.detail);
        }
        problem
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        let detail = format!("{error:#}");
        if is_other_plan(&error) || error.is::<NotYet>() {
            return Self::new(StatusCode::CONFLICT, detail);
        }
        if error.is::<PlanError>() {
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        }
        match error.downcast_ref::<Refusal>().map(|refusal| refusal.exit) {
            Some(Exit::Usage) if detail.starts_with("there is no") => Self::missing(detail),
            Some(Exit::Usage) => Self::new(StatusCode::CONFLICT, detail),
            Some(Exit::StoppedByProvider) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            Some(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
            None => {
                tracing::warn!("a request of the API failed: {detail}");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let kind = [(header::CONTENT_TYPE, PROBLEM)];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let realm = header::HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, realm);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_param_that_the_job_does_not_have_is_no_conflict() {
        let error = Refusal::usage("job `fares` has no param `x`; its params: origin");
        let problem = Problem::of_start(error);
        assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
        let error = Refusal::usage("there is no job `fairs`; there are fares");
        assert_eq!(Problem::of_start(error).status, StatusCode::NOT_FOUND);
    }
}
