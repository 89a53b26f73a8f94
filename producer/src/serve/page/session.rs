//! Coming in: the token is entered once and kept in a cookie that scripts cannot read and other sites cannot
//! send. What a request with a cookie changes has to come from our own page.

use std::net::SocketAddr;
use std::sync::Arc;

use askama::Template;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::html::{Trouble, page};
use super::{Page, Shared};

/// The cookie's name.
const COOKIE: &str = "paceline_token";
/// How long a browser remembers it: 30 days.
const REMEMBERED_S: u64 = 30 * 24 * 3600;

/// The token that the request's cookie holds.
pub(in crate::serve) fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let value = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()
}

/// Whether a browser says that the request comes from a page of ours. Browsers say so by themselves and no
/// page can make them lie; a request that says nothing is none of ours.
pub(in crate::serve) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if is_of_another_site(headers) || text("sec-fetch-site") == Some("none") {
        return false;
    }
    let (Some(origin), Some(host)) = (text("origin"), text("host")) else {
        return false;
    };
    let named = origin
        .strip_prefix("https://")
        .or(origin.strip_prefix("http://"));
    named.is_some_and(|named| named.eq_ignore_ascii_case(host))
}

/// Whether a browser says that a page of another site made the request.
pub(in crate::serve) fn is_of_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

/// Leads to the login page, and from there back.
pub(super) fn to_login(to: &str) -> Response {
    let to = utf8_percent_encode(to, NON_ALPHANUMERIC);
    Redirect::to(&format!("/login?to={to}")).into_response()
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    to: &'a str,
    wrong: bool,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    to: String,
}

/// The form.
pub(super) async fn ask(
    State(shared): Shared,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    let to = ours(&wanted.to);
    if shared.tokens.who(&headers, peer.ip()).is_ok() {
        return Redirect::to(to).into_response();
    }
    if shared.tokens.none() {
        return Trouble::forbidden(
            "without PACELINE_API_TOKENS the page is shown on this machine alone",
        )
        .into_response();
    }
    page(StatusCode::OK, &Login { to, wrong: false })
}

/// Takes the token.
pub(super) async fn enter(State(shared): Shared, headers: HeaderMap, body: Bytes) -> Response {
    if !is_same_origin(&headers) {
        return Trouble::forbidden("the token has to be entered on this page itself")
            .into_response();
    }
    let (mut token, mut to) = (String::new(), String::new());
    for (name, value) in url::form_urlencoded::parse(&body) {
        match &*name {
            "token" => token = value.trim().to_owned(),
            "to" => to = value.into_owned(),
            _ => {}
        }
    }
    let to = ours(&to);
    if shared.tokens.of(&token).is_none() {
        return page(StatusCode::UNAUTHORIZED, &Login { to, wrong: true });
    }
    let kept = URL_SAFE_NO_PAD.encode(token);
    with_cookie(
        &shared,
        &headers,
        to,
        &format!("{COOKIE}={kept}; Max-Age={REMEMBERED_S}"),
    )
}

/// Forgets the token.
pub(super) async fn leave(State(shared): Shared, headers: HeaderMap) -> Response {
    if !is_same_origin(&headers) {
        return Trouble::forbidden("a change has to come from this page itself").into_response();
    }
    with_cookie(
        &shared,
        &headers,
        "/login",
        &format!("{COOKIE}=; Max-Age=0"),
    )
}

fn with_cookie(_shared: &Arc<Page>, headers: &HeaderMap, to: &str, cookie: &str) -> Response {
    let by_tls = headers
        .get(header::ORIGIN)
        .is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if by_tls { "; Secure" } else { "" };
    let cookie = format!("{cookie}; Path=/; HttpOnly; SameSite=Strict{secure}");
    let mut response = Redirect::to(to).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// A path of our own, never another site (`//host`, `/\host`).
fn ours(to: &str) -> &str {
    let plain = |c: char| c.is_ascii_graphic() && c != '\\';
    if to.starts_with('/') && !to.starts_with("//") && to.chars().all(plain) {
        to
    } else {
        "/"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                value.parse().expect("a value"),
            )
        });
        pairs.collect()
    }

    #[test]
    fn only_our_own_page_may_change_things() {
        let ours = [("host", "fleet:9100"), ("origin", "http://fleet:9100")];
        assert!(is_same_origin(&headers(&ours)));
        for other in [
            &[("host", "fleet:9100")][..],
            &[("host", "fleet:9100"), ("origin", "http://fleet:9101")],
            &[("host", "fleet:9100"), ("origin", "null")],
            &[
                ("host", "fleet:9100"),
                ("origin", "http://fleet:9100"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            assert!(!is_same_origin(&headers(other)), "{other:?}");
        }
    }

    #[test]
    fn a_token_is_read_back_from_its_cookie() {
        let kept = format!("a=b; {COOKIE}={}", URL_SAFE_NO_PAD.encode("t;ö k"));
        assert_eq!(
            token(&headers(&[("cookie", &kept)])).as_deref(),
            Some("t;ö k")
        );
        assert_eq!(token(&headers(&[("cookie", "paceline_token=%%")])), None);
        assert_eq!(token(&headers(&[])), None);
    }

    #[test]
    fn the_way_back_never_leads_to_another_site() {
        assert_eq!(ours("/limits?a=1"), "/limits?a=1");
        for bad in [
            "//evil.example",
            "https://evil.example",
            "/\\evil",
            "",
            "/a b",
        ] {
            assert_eq!(ours(bad), "/", "{bad}");
        }
    }
}
