//! Who comes in: the token and its role, how large a body and how long a request may be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::auth::{Role, Tokens};
use super::problem::{PROBLEM, Problem};

/// The largest body, in bytes.
pub(super) const LARGEST: usize = 64 << 10;
/// The largest body of an event of S3, in bytes: it may name many objects.
pub(super) const LARGEST_EVENT: usize = 512 << 10;
/// How long a body may take to arrive.
const BODY_LONGEST: Duration = Duration::from_secs(30);
/// How long a request may take until its answer begins; a stream of events may last.
const LONGEST: Duration = Duration::from_secs(60);
/// The same for what only looks: a server that is away is said to be away while somebody still waits for it.
pub(in crate::serve) const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// What is said of a body that is too large.
const TOO_LARGE: &str =
    "the body is too large: 64 KiB at most, and 512 KiB for an event of S3 (/api/v1/hooks/s3)";
/// What is said then.
pub(in crate::serve) const SLOW: &str = "a server that is needed for it is away or slow";

/// Lets in who may; nobody is kept waiting for ever.
pub(super) async fn admit(
    State(tokens): State<Arc<Tokens>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let role = needed(request.method(), request.uri().path());
    if let Err(problem) = tokens.admit(request.headers(), peer.ip(), role) {
        return problem.into_response();
    }
    // A plan may read other runs' records.
    let only_looks = role == Role::Read && !request.uri().path().ends_with("/plan");
    let longest = if only_looks { LONGEST_LOOK } else { LONGEST };
    let request = match arrived(request).await {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => told(response).await,
        Err(_) => {
            let said = match role {
                Role::Read => SLOW,
                _ => "it took too long; what was started goes on",
            };
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, said).into_response()
        }
    }
}

/// The request with its whole body.
async fn arrived(request: Request) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_LONGEST, to_bytes(body, LARGEST_EVENT)).await;
    match body {
        Ok(Ok(body)) => Ok(Request::from_parts(head, body.into())),
        Ok(Err(_)) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE)),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the body did not arrive within {} s",
                BODY_LONGEST.as_secs()
            ),
        )),
    }
}

/// Every error is a problem (RFC 9457), also one of the framework's own.
async fn told(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !status.is_client_error() && !status.is_server_error()
        || kind.is_some_and(|kind| kind == PROBLEM)
    {
        return response;
    }
    let text = to_bytes(response.into_body(), LARGEST).await;
    let mut text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        text = TOO_LARGE.to_owned();
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        text = "this path does not take that method; the header `allow` names those that it takes"
            .to_owned();
    }
    Problem::new(status, text).into_response()
}

/// What somebody must be for this.
fn needed(method: &Method, path: &str) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::Read,
        _ if path.starts_with("/api/v1/limits") => Role::Admin,
        _ => Role::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_changes_something_needs_a_greater_role() {
        assert_eq!(needed(&Method::GET, "/api/v1/limits"), Role::Read);
        assert_eq!(needed(&Method::POST, "/api/v1/runs"), Role::Run);
        assert_eq!(needed(&Method::PUT, "/api/v1/limits/p/l"), Role::Admin);
    }
}
