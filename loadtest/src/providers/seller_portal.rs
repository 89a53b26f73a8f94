//! A seller's portal without an API: a form with a one-time code, a cookie that ends, tables in HTML. One session for
//! each account: a new log-in ends the one before. A code works once, and three wrong log-ins lock the account.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ToSpan};
use totp_rs::{Algorithm, Builder, Secret};

use super::bucket::TokenBucket;
use super::form::fields;
use super::server::{Log, Server};
use crate::chance;

/// A code is good for so many seconds.
const STEP_S: u64 = 30;
/// Wrong log-ins until the account is locked.
const LOCKED_AFTER: u32 = 3;

/// One account.
#[derive(Clone, Debug)]
pub struct Account {
    /// The seller that it belongs to.
    pub seller: String,
    /// Its password.
    pub password: String,
    /// Its secret for one-time codes, in base32.
    pub totp_secret: String,
}

/// What the portal is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Log-in -> account.
    pub accounts: BTreeMap<String, Account>,
    /// Reviews on one page.
    pub page: usize,
    /// Calls that a session lasts for.
    pub session_calls: Option<u32>,
    /// Draws the reviews.
    pub seed: u64,
}

/// One review, as its row shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// `td.id`
    pub id: String,
    /// Where `td.product a` leads.
    pub product: String,
    /// `td.stars`
    pub stars: u64,
    /// What `td.text` says.
    pub text: String,
    /// The same in HTML.
    markup: String,
    /// `td.at`, Korean time to the minute.
    pub at: DateTime,
}

/// The reviews of one seller on one day, in the order of their numbers.
pub fn reviews(seed: u64, seller: &str, day: Date) -> Vec<Review> {
    const TEXTS: [(&str, &str); 4] = [
        ("배송이 빨라요", "배송이 빨라요"),
        ("Tom & Jerry, 좋아요", "Tom &amp; Jerry, <b>좋아요</b>"),
        (
            "\"별로\" 그저 그래요",
            "&quot;별로&quot; <i>그저</i> 그래요",
        ),
        ("5 > 4", "5 &gt; 4"),
    ];
    let day_text = day.to_string();
    let draw =
        |words: &[&str]| chance::hash(seed, &[&["portal", seller, &day_text], words].concat());
    let count = 2 + draw(&["count"]) % 6;
    (0..count)
        .map(|n| {
            let n_text = n.to_string();
            let minute = draw(&["minute", &n_text]) % 1440;
            let (text, markup) = TEXTS[(draw(&["text", &n_text]) % 4) as usize];
            Review {
                id: format!("{seller}-{day_text}-{n}"),
                product: format!(
                    "/product/{}?ref=a&b=1",
                    draw(&["product", &n_text]) % 100_000
                ),
                stars: 1 + draw(&["stars", &n_text]) % 5,
                text: text.to_owned(),
                markup: markup.to_owned(),
                at: day.at(0, 0, 0, 0) + (minute as i64).minutes(),
            }
        })
        .collect()
}

#[derive(Default)]
struct Visitor {
    session: Option<(String, u32)>,
    last_step: Option<u64>,
    wrong: u32,
    calls: Option<TokenBucket>,
    logins: Option<TokenBucket>,
}

#[derive(Clone)]
struct Desk {
    config: Arc<Config>,
    log: Log,
    started: Instant,
    visitors: Arc<Mutex<BTreeMap<String, Visitor>>>,
}

/// Starts the portal.
///
/// # Errors
/// When no port can be had.
pub fn start(config: Config) -> anyhow::Result<Server> {
    Server::start(|log| {
        let desk = Desk {
            config: Arc::new(config),
            log,
            started: Instant::now(),
            visitors: Arc::default(),
        };
        Router::new()
            .route("/login", post(login))
            .route("/reviews", get(show))
            .with_state(desk)
    })
}

impl Desk {
    fn visitors(&self) -> MutexGuard<'_, BTreeMap<String, Visitor>> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Why a log-in is wrong; else the step of its code.
    fn checked(
        &self,
        id: &str,
        password: &str,
        code: &str,
        last: Option<u64>,
    ) -> Result<u64, &'static str> {
        let account = self.config.accounts.get(id).ok_or("nobody")?;
        if account.password != password {
            return Err("password");
        }
        let now = Timestamp::now().as_second().unsigned_abs();
        let steps = [now / STEP_S, now / STEP_S - 1];
        let step = steps
            .into_iter()
            .find(|step| code_at(&account.totp_secret, *step) == code)
            .ok_or("code")?;
        match last.is_some_and(|last| step <= last) {
            true => Err("code again"),
            false => Ok(step),
        }
    }

    fn page(
        &self,
        call: String,
        status: u16,
        location: Option<&str>,
        cookies: &[String],
        body: &str,
    ) -> Response<Body> {
        self.log.note(call, status);
        let mut response = Response::builder()
            .status(status)
            .header("content-type", "text/html; charset=utf-8");
        if let Some(location) = location {
            response = response.header("location", location);
        }
        for cookie in cookies {
            response = response.header("set-cookie", cookie);
        }
        response
            .body(Body::from(body.to_owned()))
            .expect("a response")
    }
}

fn code_at(secret: &str, step: u64) -> String {
    let secret = Secret::try_from_base32(secret).expect("base32");
    let codes = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(STEP_S)
        .with_secret(secret)
        .build_noncompliant();
    codes.generate(step * STEP_S).to_string()
}

async fn login(State(desk): State<Desk>, form: Bytes) -> Response<Body> {
    let given = fields(&form);
    let field = |name: &str| given.get(name).map_or("", String::as_str);
    let (id, now) = (field("id").to_owned(), desk.now_us());
    let mut visitors = desk.visitors();
    let visitor = visitors.entry(id.clone()).or_default();
    let logins = visitor
        .logins
        .get_or_insert_with(|| TokenBucket::new(4.0 / 60.0, 4.0));
    if !logins.take(now) {
        drop(visitors);
        return desk.page(
            format!("login {id} too often"),
            429,
            None,
            &[],
            "<p>천천히</p>",
        );
    }
    let checked = desk.checked(&id, field("password"), field("otp"), visitor.last_step);
    let checked = checked.and_then(|step| match visitor.wrong >= LOCKED_AFTER {
        true => Err("locked"),
        false => Ok(step),
    });
    match checked {
        Err(why) => {
            visitor.wrong += 1;
            drop(visitors);
            desk.page(
                format!("login {id} {why}"),
                302,
                Some("/login?error=1"),
                &[],
                "",
            )
        }
        Ok(step) => {
            let session = format!("canary-session-{id}-{step}");
            visitor.last_step = Some(step);
            visitor.session = Some((session.clone(), 0));
            drop(visitors);
            let cookies = [
                "old=; Path=/; Max-Age=0".to_owned(),
                format!("PORTAL={session}; Path=/; HttpOnly"),
                "lang=ko; Path=/".to_owned(),
            ];
            desk.page(
                format!("login {id} step {step}"),
                302,
                Some("/home"),
                &cookies,
                "",
            )
        }
    }
}

async fn show(
    State(desk): State<Desk>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = fields(query.unwrap_or_default().as_bytes());
    let field = |name: &str| asked.get(name).map_or("", String::as_str);
    let cookies = headers
        .get("cookie")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("");
    let mut pairs = cookies.split("; ").filter_map(|pair| pair.split_once('='));
    let session = pairs
        .find(|(name, _)| *name == "PORTAL")
        .map_or("", |(_, value)| value);
    let shown = format!("{} {}", field("day"), field("p"));
    let now = desk.now_us();
    let mut visitors = desk.visitors();
    let most = desk.config.session_calls.unwrap_or(u32::MAX);
    let found = visitors.iter_mut().find_map(|(id, visitor)| {
        let (known, calls) = visitor.session.as_mut()?;
        (known == session && *calls < most).then(|| {
            *calls += 1;
            let bucket = visitor
                .calls
                .get_or_insert_with(|| TokenBucket::new(2.0, 2.0));
            (id.clone(), bucket.take(now))
        })
    });
    drop(visitors);
    let Some((id, in_time)) = found else {
        return desk.page(
            format!("reviews ? {shown}"),
            302,
            Some("/login?next=%2Freviews"),
            &[],
            "",
        );
    };
    let seller = &desk.config.accounts[&id].seller;
    let call = format!("reviews {seller} {shown}");
    if !in_time {
        return desk.page(call, 429, None, &[], "<p>천천히</p>");
    }
    let (Ok(day), Ok(page)) = (field("day").parse::<Date>(), field("p").parse::<usize>()) else {
        return desk.page(call, 400, None, &[], "<p>?</p>");
    };
    let rows: String = reviews(desk.config.seed, seller, day)
        .iter()
        .skip(page.saturating_sub(1) * desk.config.page)
        .take(desk.config.page)
        .map(row)
        .collect();
    let body = format!(
        "<!doctype html>\n<html><head><title>리뷰</title></head><body>\n<p class=\"notice\">공지: 즐거운 하루</p>\n\
         <table class=\"reviews\"><thead><tr><th>번호</th></tr></thead>\n<tbody>\n{rows}</tbody></table>\n</body></html>\n"
    );
    desk.page(call, 200, None, &[], &body)
}

fn row(review: &Review) -> String {
    let Review {
        id,
        product,
        stars,
        markup,
        at,
        ..
    } = review;
    let link = product.replace('&', "&amp;");
    let at = at.strftime("%Y.%m.%d %H:%M");
    format!(
        "<tr><td class=\"id\"> {id} </td><td class=\"product\"><a href=\"{link}\">상품</a></td>\
         <td class=\"stars\">{stars}</td><td class=\"text\">{markup}</td><td class=\"at\">{at}</td></tr>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238, appendix B, the last six of its eight digits.
        assert_eq!(
            code_at("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", 59 / 30),
            "287082"
        );
    }
}
