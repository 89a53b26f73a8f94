//! The two search engines: Naver (offsets up to 1,000, a total) and Kakao (pages up to 50, a flag).

use std::collections::BTreeMap;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::server::{Log, Server};

/// How many posts an engine has for each keyword.
pub type Posts = BTreeMap<String, usize>;

#[derive(Clone)]
struct Engine {
    posts: Posts,
    log: Log,
    key: String,
}

type Answer = (StatusCode, Json<Value>);
type Asked = Query<BTreeMap<String, String>>;

/// A Naver that accepts the one key `id:secret`.
///
/// # Errors
/// When no port can be had.
pub fn naver(posts: Posts, key: &str) -> anyhow::Result<Server> {
    start(posts, key, "/v1/search/blog.json", get(naver_search))
}

/// A Kakao that accepts one key.
///
/// # Errors
/// When no port can be had.
pub fn kakao(posts: Posts, key: &str) -> anyhow::Result<Server> {
    start(posts, key, "/v2/search/blog", get(kakao_search))
}

fn start(
    posts: Posts,
    key: &str,
    path: &str,
    search: axum::routing::MethodRouter<Engine>,
) -> anyhow::Result<Server> {
    Server::start(|log| {
        let engine = Engine {
            posts,
            log,
            key: key.to_owned(),
        };
        Router::new()
            .route(path, search)
            .route("/health", get(|| async { "ok" }))
            .with_state(engine)
    })
}

/// The post `n` (from 1) of a keyword.
pub fn link(keyword: &str, n: usize) -> String {
    format!("https://blog.test/{keyword}/{n}")
}

/// The links that a collection of `keyword` must find at Naver, in order.
pub fn naver_links(posts: &Posts, keyword: &str) -> Vec<String> {
    let there = posts.get(keyword).copied().unwrap_or(0).min(1000);
    (1..=there).map(|n| link(keyword, n)).collect()
}

/// The links that a collection of `keyword` must find at Kakao, in order.
pub fn kakao_links(posts: &Posts, keyword: &str) -> Vec<String> {
    let there = posts.get(keyword).copied().unwrap_or(0).min(50 * 50);
    (1..=there).map(|n| link(keyword, n)).collect()
}

impl Engine {
    fn answer(&self, call: String, status: StatusCode, body: Value) -> Answer {
        self.log.note(call, status.as_u16());
        (status, Json(body))
    }

    fn refuse(&self, call: String, body: Value) -> Answer {
        self.answer(call, StatusCode::UNAUTHORIZED, body)
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
}

fn number(asked: &BTreeMap<String, String>, name: &str) -> usize {
    asked.get(name).and_then(|n| n.parse().ok()).unwrap_or(0)
}

async fn naver_search(
    State(engine): State<Engine>,
    Query(asked): Asked,
    headers: HeaderMap,
) -> Answer {
    let keyword = asked.get("query").cloned().unwrap_or_default();
    let (start, display) = (number(&asked, "start"), number(&asked, "display"));
    let call = format!("{keyword} {start}");
    let key = format!(
        "{}:{}",
        header(&headers, "x-naver-client-id"),
        header(&headers, "x-naver-client-secret")
    );
    if key != engine.key {
        return engine.refuse(call, json!({ "errorCode": "024" }));
    }
    if !(1..=1000).contains(&start) || !(1..=100).contains(&display) {
        let fault = json!({ "errorCode": "SE02" });
        return engine.answer(call, StatusCode::BAD_REQUEST, fault);
    }
    let total = engine.posts.get(&keyword).copied().unwrap_or(0);
    let items: Vec<Value> = (start..start + display)
        .take_while(|n| *n <= total)
        .map(|n| {
            json!({ "title": format!("<b>{keyword}</b> &amp; {n}"), "link": link(&keyword, n), "postdate": "20261121" })
        })
        .collect();
    let body = json!({ "total": total, "start": start, "display": items.len(), "items": items });
    engine.answer(call, StatusCode::OK, body)
}

async fn kakao_search(
    State(engine): State<Engine>,
    Query(asked): Asked,
    headers: HeaderMap,
) -> Answer {
    let keyword = asked.get("query").cloned().unwrap_or_default();
    let (page, size) = (number(&asked, "page"), number(&asked, "size"));
    let call = format!("{keyword} {page}");
    if header(&headers, "authorization") != format!("KakaoAK {}", engine.key) {
        return engine.refuse(call, json!({ "errorType": "AccessDeniedError" }));
    }
    if !(1..=50).contains(&page) || !(1..=50).contains(&size) {
        let fault = json!({ "code": -2, "errorType": "InvalidArgument" });
        return engine.answer(call, StatusCode::BAD_REQUEST, fault);
    }
    let total = engine.posts.get(&keyword).copied().unwrap_or(0);
    let first = (page - 1) * size + 1;
    let documents: Vec<Value> = (first..first + size)
        .take_while(|n| *n <= total)
        .map(|n| {
            json!({ "title": format!("<b>{keyword}</b> &amp; {n}"), "url": link(&keyword, n), "datetime": "2026-11-21T01:00:00.000+09:00" })
        })
        .collect();
    let is_end = page * size >= total;
    let meta = json!({ "is_end": is_end, "total_count": total, "pageable_count": total.min(2500) });
    let body = json!({ "meta": meta, "documents": documents });
    engine.answer(call, StatusCode::OK, body)
}
