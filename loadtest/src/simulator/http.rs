//! As much of HTTP/1.1 as a provider needs, by hand: the broken answers that a fleet must survive are the
//! ones that a proper server library refuses to send.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use super::limits::RetryAfter;

/// Longest head of a request, in bytes; a query may carry hostile values of some kilobytes.
pub const LONGEST_HEAD: usize = 128 * 1024;

/// Longest body of a request, in bytes; only control requests have one.
const LONGEST_BODY: usize = 16 * 1024 * 1024;

/// A request that has come in completely.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query, still encoded.
    pub target: String,
    /// The header `x-api-key`.
    pub key: Option<String>,
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// Bytes that are no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP/1.1 request: {0}")]
pub struct NotHttp(String);

impl Request {
    /// Reads the request at the start of `bytes`: none while it is incomplete, else with its length.
    ///
    /// # Errors
    /// When the bytes can never become a request.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, NotHttp> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        let status = head.parse(bytes).map_err(|e| NotHttp(e.to_string()))?;
        let httparse::Status::Complete(head_len) = status else {
            return match bytes.len() > LONGEST_HEAD {
                true => Err(NotHttp("the head is too long".to_owned())),
                false => Ok(None),
            };
        };
        let header = |name: &str| {
            let found = head
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok()
        };
        let body_len = header("content-length").map_or(Ok(0), body_length)?;
        let Some(body) = bytes[head_len..].get(..body_len) else {
            return Ok(None);
        };
        let request = Self {
            method: head.method.unwrap_or_default().to_owned(),
            target: head.path.unwrap_or_default().to_owned(),
            key: header("x-api-key").map(str::to_owned),
            keep_alive: !header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")),
            body: body.to_vec(),
        };
        Ok(Some((request, head_len + body_len)))
    }

    /// The path, without query.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&*self.target, |(path, _)| path)
    }

    /// The first value of a query parameter, decoded.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }
}

fn body_length(text: &str) -> Result<usize, NotHttp> {
    let length = text.trim().parse().ok().filter(|&n| n <= LONGEST_BODY);
    length.ok_or_else(|| NotHttp(format!("content-length {text:?}")))
}

/// Percent-decoding as of forms, where `+` is a space.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// An answer that goes out whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// Headers beside `content-type` and `content-length`.
    pub headers: Vec<(&'static str, String)>,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answered {
    /// A JSON answer.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: "application/json",
            body: body.into(),
        }
    }

    /// An error in the provider's envelope.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = serde_json::json!({"error": {"code": code, "message": message}});
        Self::json(status, error.to_string())
    }

    /// The same with one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The bytes on the wire; `chunked` announces no length and leaves the body to the caller.
    pub fn head(&self, chunked: bool) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {}\r\n",
            self.status,
            reason(self.status),
            self.content_type
        );
        for (name, value) in &self.headers {
            head.extend([*name, ": ", value, "\r\n"]);
        }
        match chunked {
            true => head.push_str("transfer-encoding: chunked\r\n\r\n"),
            false => head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len())),
        }
        head.into_bytes()
    }
}

/// The value of `Retry-After`, if there is one; `now_us` is microseconds since 1970.
pub fn retry_after(form: RetryAfter, wait: Duration, now_us: i64) -> Option<String> {
    match form {
        RetryAfter::None => None,
        RetryAfter::Zero => Some("0".to_owned()),
        RetryAfter::Seconds => Some(wait.as_secs_f64().ceil().to_string()),
        RetryAfter::Float => Some(format!("{:.3}", (wait.as_secs_f64() * 1e3).ceil() / 1e3)),
        RetryAfter::Date => Some(http_date(now_us + wait.as_micros() as i64)),
    }
}

/// `Sun, 22 Nov 2026 09:35:00 GMT`, rounded up to the second.
fn http_date(us: i64) -> String {
    let second = us.div_euclid(1_000_000) + i64::from(us.rem_euclid(1_000_000) > 0);
    let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &[u8] =
        b"GET /v1/fares?destination=A%2F%22+b&x=1 HTTP/1.1\r\nHost: h\r\nX-Api-Key: k\r\n\r\n";

    #[test]
    fn a_request_is_read_once_it_is_complete() {
        for cut in 0..FULL.len() {
            assert_eq!(Request::parse(&FULL[..cut]).unwrap(), None);
        }
        let (request, used) = Request::parse(FULL).unwrap().unwrap();
        assert_eq!(used, FULL.len());
        assert_eq!(request.path(), "/v1/fares");
        assert_eq!(request.key.as_deref(), Some("k"));
        assert_eq!(request.parameter("destination").unwrap(), "A/\" b");
        assert_eq!(request.parameter("y"), None);
    }

    #[test]
    fn a_body_belongs_to_its_request() {
        let bytes = b"POST /_sim/reset HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}GET";
        let (request, used) = Request::parse(bytes).unwrap().unwrap();
        assert_eq!((&*request.body, used), (&b"{}"[..], bytes.len() - 3));
        assert!(Request::parse(b"\x16\x03\x01 nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn waits_come_in_every_form() {
        let wait = Duration::from_millis(1_500);
        let value = |form| retry_after(form, wait, 1_795_340_099_500_000).unwrap_or_default();
        assert_eq!(value(RetryAfter::None), "");
        assert_eq!(value(RetryAfter::Seconds), "2");
        assert_eq!(value(RetryAfter::Float), "1.500");
        assert_eq!(value(RetryAfter::Zero), "0");
        assert_eq!(value(RetryAfter::Date), "Sun, 22 Nov 2026 09:35:01 GMT");
    }
}
