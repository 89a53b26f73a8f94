//! A provider that answers each path as it is told: for answers that no real one should give.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{Response, Uri};

use super::server::{Log, Server};

/// Makes the body of an answer of the call number of a path (from 1) and its query.
pub type Answers = Box<dyn Fn(usize, &str) -> Vec<u8> + Send + Sync>;

#[derive(Clone)]
struct Desk {
    answers: Arc<BTreeMap<String, Answers>>,
    calls: Arc<std::sync::Mutex<BTreeMap<String, usize>>>,
    log: Log,
}

/// Starts one with its answers by path; anything else is 404.
///
/// # Errors
/// When no port can be had.
pub fn start(answers: BTreeMap<String, Answers>) -> anyhow::Result<Server> {
    Server::start(|log| {
        Router::new().fallback(answer).with_state(Desk {
            answers: Arc::new(answers),
            calls: Arc::default(),
            log,
        })
    })
}

async fn answer(State(desk): State<Desk>, RawQuery(query): RawQuery, uri: Uri) -> Response<Body> {
    let path = uri.path().to_owned();
    let number = {
        let mut calls = desk.calls.lock().unwrap_or_else(|e| e.into_inner());
        let number = calls.entry(path.clone()).or_default();
        *number += 1;
        *number
    };
    let body = desk.answers.get(&path);
    let status = if body.is_some() { 200 } else { 404 };
    let body = body.map(|body| body(number, &query.unwrap_or_default()));
    desk.log.note(path, status);
    Response::builder()
        .status(status)
        .body(Body::from(body.unwrap_or_default()))
        .expect("a response")
}
