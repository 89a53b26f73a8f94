//! One HTTP attempt: no redirects, no hidden retries, no proxies, a time limit and a cap on the body.

mod in_time;
mod judged;
mod passed;
mod unpacked;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

pub use self::in_time::TooLate;
use self::in_time::{InTimeLayer, send_by};
use self::passed::{Opening, watch};
use self::unpacked::Unpacked;
use crate::connector::HttpRequest;
use crate::spec::{Method, Timeout};

/// The client of one provider.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    total: Duration,
}

/// A request that only has to be sent.
#[derive(Debug)]
pub struct Ready(reqwest::Request);

/// An answer with its body.
#[derive(Debug)]
pub struct HttpAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The decompressed body.
    pub body: Vec<u8>,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request itself cannot be sent; asking again gives the same.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// The connection was open too late for the call's grant: nothing was sent.
    #[error("not sent: {TooLate}")]
    TooLate,
    /// The time limit passed.
    #[error("no whole answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The body is too large; asking again gives the same.
    #[error("the body is larger than {most} bytes")]
    TooLarge {
        /// The status that it came with.
        status: u16,
        /// So much is read.
        most: u64,
    },
}

impl HttpClient {
    /// A client with the provider's time limits.
    ///
    /// # Errors
    /// When TLS cannot be set up on this machine.
    pub fn new(timeout: Timeout) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("paceline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .gzip(false)
            .no_proxy()
            .tcp_nodelay(true)
            .connector_layer(InTimeLayer)
            .connect_timeout(timeout.connect.0)
            .pool_idle_timeout(Duration::from_secs(90))
            .pool_max_idle_per_host(usize::MAX)
            .build()?;
        Ok(HttpClient {
            client,
            total: timeout.total.0,
        })
    }

    /// Sends once, at the latest at `latest`, and reads the answer, at most `max_body` bytes of it.
    ///
    /// # Errors
    /// See [`HttpError`]; whether the provider saw the call is unknown then, unless it says so.
    pub async fn send(
        &self,
        request: HttpRequest,
        latest: Instant,
        max_body: u64,
    ) -> Result<HttpAnswer, HttpError> {
        let request = self.build(request)?;
        self.send_ready(request, latest, max_body, |_| {}).await
    }

    /// As [`HttpClient::send`], with a request that was made before its time. `passed` is told
    /// an instant at which the request had surely left.
    ///
    /// # Errors
    /// See [`HttpError`]; whether the provider saw the call is unknown then, unless it says so.
    pub async fn send_ready(
        &self,
        request: Ready,
        latest: Instant,
        max_body: u64,
        passed: impl Fn(Instant),
    ) -> Result<HttpAnswer, HttpError> {
        let deadline = Instant::now() + self.total;
        let answer = self.receive(request.0, latest, max_body, passed);
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::Timeout(self.total)),
        }
    }

    /// Makes everything of a request that can be made before its time.
    ///
    /// # Errors
    /// When it cannot be sent at all.
    pub fn build(&self, request: HttpRequest) -> Result<Ready, HttpError> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let url = reqwest::Url::parse(&request.url)
            .map_err(|e| HttpError::Request(format!("its URL: {e}")))?;
        let mut built = reqwest::Request::new(method, url);
        for (name, value) in &request.headers {
            let name = HeaderName::try_from(name.as_str())
                .map_err(|e| HttpError::Request(e.to_string()))?;
            let value = HeaderValue::from_str(value)
                .or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
                .map_err(|_| HttpError::Request(format!("the value of header {name}")))?;
            built.headers_mut().append(name, value);
        }
        built
            .headers_mut()
            .entry(ACCEPT_ENCODING)
            .or_insert(HeaderValue::from_static(unpacked::ACCEPTED));
        if let Some((content_type, body)) = request.body {
            // What the provider's file says comes first: SOAP wants text/xml.
            built
                .headers_mut()
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static(content_type));
            *built.body_mut() = Some(body.into());
        }
        Ok(Ready(built))
    }

    async fn receive(
        &self,
        request: reqwest::Request,
        latest: Instant,
        max_body: u64,
        passed: impl Fn(Instant),
    ) -> Result<HttpAnswer, HttpError> {
        let opening = Arc::new(Opening::default());
        let sending = send_by(latest, opening.clone(), self.client.execute(request));
        let (sent, left) = watch(sending, &opening, &passed).await;
        let mut response = sent.map_err(broken)?;
        left.into_iter().for_each(passed);
        let status = response.status().as_u16();
        let length = response.content_length();
        let mut headers = std::mem::take(response.headers_mut());
        let mut body = Unpacked::of(status, &mut headers, max_body);
        body.expect(length)?;
        let mut received = 0;
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            received += chunk.len() as u64;
            body.push(&chunk)?;
        }
        Ok(HttpAnswer {
            status,
            headers,
            body: body.whole(received)?,
        })
    }
}

/// The innermost reason, without the URL, which may hold a key.
fn broken(error: reqwest::Error) -> HttpError {
    if TooLate::is_reason_of(&error) {
        return HttpError::TooLate;
    }
    let error = error.without_url();
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    HttpError::Broken(format!("the connection failed: {reason}"))
}
