//! Requests and answers: time limits, who we are, and what a refusal means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, Url, redirect};
use serde_json::Value;

use super::IndexError;
use crate::settings::shown_url;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The HTTP client with its address and key.
#[derive(Clone)]
pub(super) struct Wire {
    client: Client,
    root: Arc<str>,
    pub(super) shown: Arc<str>,
    user: Option<(String, String)>,
    api_key: Option<HeaderValue>,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Wire {
    pub(super) fn new(url: &str, api_key: Option<&str>) -> Result<Self, IndexError> {
        let shown: Arc<str> = shown_url(url).trim_end_matches('/').into();
        let bad = |why: &str| IndexError::Unreachable {
            url: shown.to_string(),
            why: why.to_owned(),
        };
        let mut root = Url::parse(url).map_err(|_| bad("this is not an http URL"))?;
        let user = user_of(&root);
        root.set_username("")
            .map_err(|()| bad("this is not an http URL"))?;
        root.set_password(None)
            .map_err(|()| bad("this is not an http URL"))?;
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(5))
            .timeout(LIMIT)
            .build()
            .map_err(|e| bad(&e.to_string()))?;
        let api_key = api_key
            .map(secret_header)
            .transpose()
            .map_err(|()| bad("its API key is no text for a header"))?;
        Ok(Wire {
            client,
            root: root.as_str().trim_end_matches('/').into(),
            shown: shown.clone(),
            user,
            api_key,
        })
    }

    pub(super) fn unreachable(&self, why: &str) -> IndexError {
        IndexError::Unreachable {
            url: self.shown.to_string(),
            why: why.to_owned(),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}/{path}", self.root));
        match (&self.api_key, &self.user) {
            (Some(key), _) => request.header(AUTHORIZATION, key.clone()),
            (None, Some((user, password))) => request.basic_auth(user, Some(password)),
            (None, None) => request,
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, IndexError> {
        self.get_within(path, LIMIT).await
    }

    pub(super) async fn get_within(
        &self,
        path: &str,
        limit: Duration,
    ) -> Result<Answer, IndexError> {
        let request = self.request(Method::GET, path).timeout(limit);
        self.answer(request).await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<Answer, IndexError> {
        let request = self.request(method, path);
        let request = if body.is_null() {
            request
        } else {
            request.json(body)
        };
        self.answer(request).await
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, IndexError> {
        let (status, text) = self.read(request.send().await).await?;
        let body = serde_json::from_slice(&text)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&text).into_owned()));
        Ok(Answer { status, body })
    }

    /// The text of a successful `_bulk`; the body has a known length, so it is not sent in chunks.
    pub(super) async fn bulk(&self, path: &str, body: Bytes) -> Result<Bytes, IndexError> {
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        let (status, text) = self.read(request.send().await).await?;
        if !(200..300).contains(&status) {
            good(
                status,
                &serde_json::from_slice(&text).unwrap_or(Value::Null),
            )?;
        }
        Ok(text)
    }

    async fn read(&self, sent: reqwest::Result<Response>) -> Result<(u16, Bytes), IndexError> {
        let lost = |e: reqwest::Error| self.unreachable(&reason(&e.without_url()));
        let response = sent.map_err(lost)?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await.map_err(lost)?))
    }
}

/// The error with its causes: the outermost text alone says only that sending failed.
fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn user_of(url: &Url) -> Option<(String, String)> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = plain(url.username());
    (!user.is_empty()).then(|| (user, plain(url.password().unwrap_or(""))))
}

fn secret_header(key: &str) -> Result<HeaderValue, ()> {
    let mut value = HeaderValue::from_str(&format!("ApiKey {key}")).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A name as one segment of a path; `*` and `-` stay for patterns.
pub(super) fn segment(name: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'*');
    utf8_percent_encode(name, KEPT).to_string()
}

/// Ok for a success; a full or read-only server is busy, everything else is a refusal.
pub(super) fn good(status: u16, body: &Value) -> Result<(), IndexError> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let error = &body["error"];
    let kind = error["type"].as_str().unwrap_or("");
    let text = error["reason"]
        .as_str()
        .or_else(|| error.as_str())
        .or_else(|| body.as_str());
    let why: String = format!("{kind} {}", text.unwrap_or(""))
        .trim()
        .chars()
        .take(300)
        .collect();
    if matches!(status, 429 | 503) || kind == "cluster_block_exception" {
        return Err(IndexError::Busy(why));
    }
    Err(IndexError::Refused { status, why })
}
