//! Stands before Elasticsearch and refuses one document of the first `_bulk` with 429, as a full write
//! queue does; everything else passes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

/// No body of a test is larger.
const LARGEST: usize = 64 << 20;

/// The listener.
pub struct BusyIndex {
    url: String,
    front: Front,
    serving: AbortHandle,
}

#[derive(Clone)]
struct Front {
    server: String,
    client: reqwest::Client,
    refused: Arc<AtomicBool>,
    bulks: Arc<Mutex<Vec<Vec<String>>>>,
}

impl BusyIndex {
    /// Listens for `server`.
    pub async fn before(server: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let front = Front {
            server: server.trim_end_matches('/').to_owned(),
            client: reqwest::Client::new(),
            refused: Arc::default(),
            bulks: Arc::default(),
        };
        let router = Router::new().fallback(pass).with_state(front.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        BusyIndex {
            url,
            front,
            serving: serving.abort_handle(),
        }
    }

    /// For `ELASTICSEARCH_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The document ids of every `_bulk` that came.
    pub fn bulks(&self) -> Vec<Vec<String>> {
        let bulks = self.front.bulks.lock();
        bulks.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for BusyIndex {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(State(front): State<Front>, request: Request) -> Response {
    let is_bulk = request.uri().path().ends_with("/_bulk");
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST).await.expect("a body");
    if is_bulk {
        let mut bulks = front.bulks.lock().unwrap_or_else(PoisonError::into_inner);
        bulks.push(ids(&body));
    }
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let target = format!("{}{target}", front.server);
    let mut forward = front.client.request(parts.method, target);
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        forward = forward.header(CONTENT_TYPE, kind);
    }
    let refuse = is_bulk && !front.refused.swap(true, Ordering::Relaxed);
    let sent = if refuse { without_first(&body) } else { body };
    let answer = forward
        .body(sent)
        .send()
        .await
        .expect("Elasticsearch answers");
    let status = answer.status();
    let text = answer.bytes().await.expect("a body");
    let text = if refuse { with_refusal(&text) } else { text };
    let answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    answer.body(Body::from(text)).expect("an answer")
}

/// The ids of the action lines: every document has one and its own line.
fn ids(body: &[u8]) -> Vec<String> {
    let id = |line: &[u8]| {
        let action: Value = serde_json::from_slice(line).expect("an action");
        action["index"]["_id"].as_str().expect("an id").to_owned()
    };
    let lines = body.split(|byte| *byte == b'\n');
    lines.filter(|l| !l.is_empty()).step_by(2).map(id).collect()
}

fn without_first(body: &Bytes) -> Bytes {
    let mut ends = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let (end, _) = ends.nth(1).expect("two lines");
    body.slice(end + 1..)
}

fn with_refusal(answer: &[u8]) -> Bytes {
    let mut answer: Value = serde_json::from_slice(answer).expect("an answer to _bulk");
    let error = json!({"type": "es_rejected_execution_exception", "reason": "queue is full"});
    let item = json!({"index": {"status": 429, "error": error}});
    let items = answer["items"].as_array_mut().expect("items");
    items.insert(0, item);
    answer["errors"] = Value::Bool(true);
    Bytes::from(answer.to_string())
}
