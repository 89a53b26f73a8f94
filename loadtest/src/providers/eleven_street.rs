//! The marketplace that answers EUC-KR XML with status 200 and a result code.
//!
//! `GET /rest/ordservices/complete/{start}/{end}` with the header `openapikey`; times are `YYYYMMDDhhmm` in
//! Korea, at most a week apart. `0` is no orders, `-1000` maintenance, `-3305` too long a window, `-1`
//! everything else. A seller calls once a second; all of them together may have a limit too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use axum::routing::get;
use jiff::civil::{Date, DateTime};
use tokio::task::JoinHandle;

use crate::chance;
use crate::simulator::TrailingWindow;

/// Strictness of "once a second": calls are stamped when they are read, not when they arrived, so two that
/// came a second apart may look a little closer.
const SECOND_US: u64 = 900_000;
/// Minutes of the longest window: seven days.
const LONGEST_MINUTES: i64 = 7 * 24 * 60;

/// What the marketplace is like.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Key -> seller.
    pub keys: BTreeMap<String, String>,
    /// The first so many calls of these sellers meet maintenance.
    pub maintenance: BTreeMap<String, u32>,
    /// Calls a second of all sellers together, beside one of each.
    pub rate: Option<u32>,
    /// Draws the orders.
    pub seed: u64,
}

/// One order, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// `ordNo`
    pub number: String,
    /// `ordDt`: `2026-11-22 09:35:10`, Korean time.
    pub at: String,
    /// `ordPayAmt`
    pub amount: String,
    /// `prdNm`
    pub product: String,
}

/// One call, as the marketplace saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Microseconds since the start.
    pub at_us: u64,
    /// The key's owner; none for an unknown key.
    pub seller: Option<String>,
    /// First and last minute that were asked for.
    pub window: (String, String),
    /// The result code, `orders` when there were some, `429` when it came too soon.
    pub answer: String,
}

/// The orders of one seller on one day: none on about a third of the days.
pub fn orders(seed: u64, seller: &str, day: Date) -> Vec<Order> {
    const PRODUCTS: [&str; 4] = ["똠양꿍 & <면>", "겨울 양말 \"3켤레\"", "책", "커피 원두"];
    let day_text = day.to_string();
    let draw = |words: &[&str]| chance::hash(seed, &[&[seller, &day_text], words].concat());
    let count = (draw(&["count"]) % 9).saturating_sub(2);
    let order = |n: u64| {
        let n_text = n.to_string();
        let second = draw(&["second", &n_text]) % 86_400;
        let (hour, minute) = (second / 3600, second / 60 % 60);
        Order {
            number: format!("{}{n:04}", draw(&["number"]) % 10_000_000_000_000),
            at: format!("{day_text} {hour:02}:{minute:02}:{:02}", second % 60),
            amount: format!("{}.{}0", draw(&["won", &n_text]) % 1_000_000, n % 10),
            product: PRODUCTS[(n % 4) as usize].to_owned(),
        }
    };
    (0..count).map(order).collect()
}

/// A running marketplace; dropping it stops it.
#[derive(Debug)]
pub struct ElevenStreet {
    address: SocketAddr,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Desk {
    config: Config,
    started: Instant,
    state: Mutex<DeskState>,
}

#[derive(Debug, Default)]
struct DeskState {
    calls: Vec<Call>,
    windows: BTreeMap<String, TrailingWindow>,
    all: Option<TrailingWindow>,
}

impl ElevenStreet {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(config: Config) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk {
            config,
            started: Instant::now(),
            state: Mutex::default(),
        });
        let router = Router::new()
            .route("/rest/ordservices/complete/{start}/{end}", get(complete))
            .with_state(desk.clone());
        let serving = tokio::spawn(async move {
            // Ends with the task alone.
            let _ = axum::serve(listener, router).await;
        });
        Ok(ElevenStreet {
            address,
            desk,
            serving,
        })
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every call so far.
    pub fn log(&self) -> Vec<Call> {
        self.desk.state().calls.clone()
    }
}

impl Drop for ElevenStreet {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn complete(
    State(desk): State<Arc<Desk>>,
    Path((start, end)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let key = headers.get("openapikey").and_then(|key| key.to_str().ok());
    let seller = key.and_then(|key| desk.config.keys.get(key)).cloned();
    let (answer, xml) = desk.answer(seller.as_deref(), &start, &end);
    desk.note(seller, (start, end), &answer);
    let status = if answer == "429" { 429 } else { 200 };
    let packed = headers
        .get("accept-encoding")
        .and_then(|accepted| accepted.to_str().ok())
        .is_some_and(|accepted| accepted.contains("zstd"));
    respond(status, &xml, packed && answer == "orders")
}

/// In EUC-KR, as its content type does not always say.
fn respond(status: u16, xml: &str, packed: bool) -> Response<Body> {
    let (bytes, _, _) = encoding_rs::EUC_KR.encode(xml);
    let response = Response::builder()
        .status(status)
        .header("content-type", "text/xml");
    let response = if packed {
        let bytes = zstd::encode_all(bytes.as_ref(), 3).expect("packing memory");
        response
            .header("content-encoding", "zstd")
            .body(Body::from(bytes))
    } else {
        response.body(Body::from(bytes.into_owned()))
    };
    response.expect("a response")
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word for the log and the body.
    fn answer(&self, seller: Option<&str>, start: &str, end: &str) -> (String, String) {
        let Some(seller) = seller else {
            return result("-1", "등록되지 않은 키입니다.");
        };
        if !self.in_time(seller) {
            return ("429".into(), "<error>too many calls</error>".into());
        }
        let parsed = |text: &str| DateTime::strptime("%Y%m%d%H%M", text);
        let (Ok(from), Ok(to)) = (parsed(start), parsed(end)) else {
            return result("-3303", "날짜 형식이 올바르지 않습니다.");
        };
        let minutes = (to - from).total(jiff::Unit::Minute).unwrap_or(f64::MAX);
        if !(0.0..=LONGEST_MINUTES as f64).contains(&minutes) {
            return result("-3305", "조회 기간은 최대 7일입니다.");
        }
        if self.is_closed_for(seller) {
            return result("-1000", "시스템 점검 중입니다.");
        }
        let days = from.date().series(jiff::ToSpan::days(1));
        let days = days.take_while(|day| *day <= to.date());
        let found: Vec<Order> = days
            .flat_map(|day| orders(self.config.seed, seller, day))
            .collect();
        match found.is_empty() {
            true => result("0", "조회된 결과가 없습니다."),
            false => ("orders".into(), document(&found)),
        }
    }

    fn in_time(&self, seller: &str) -> bool {
        let at = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state();
        let window = state
            .windows
            .entry(seller.to_owned())
            .or_insert_with(|| TrailingWindow::new(1, SECOND_US));
        let own = window.check(at).is_ok();
        window.take(at);
        let Some(rate) = self.config.rate else {
            return own;
        };
        let all = state
            .all
            .get_or_insert_with(|| TrailingWindow::new(rate, SECOND_US));
        let free = all.check(at).is_ok();
        all.take(at);
        own && free
    }

    /// Whether this call is among the first ones that meet maintenance.
    fn is_closed_for(&self, seller: &str) -> bool {
        let closed = self.config.maintenance.get(seller).copied().unwrap_or(0);
        let state = self.state();
        let before = state
            .calls
            .iter()
            .filter(|call| call.seller.as_deref() == Some(seller) && call.answer != "429");
        before.count() < closed as usize
    }

    fn note(&self, seller: Option<String>, window: (String, String), answer: &str) {
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.state().calls.push(Call {
            at_us,
            seller,
            window,
            answer: answer.to_owned(),
        });
    }
}

const HEAD: &str = r#"<?xml version="1.0" encoding="EUC-KR" standalone="yes"?>"#;
const NAMESPACE: &str = "http://skt.tmall.business.openapi.spring.service.client.domain/";

fn result(code: &str, text: &str) -> (String, String) {
    let body = format!(
        "{HEAD}<ns2:orders xmlns:ns2=\"{NAMESPACE}\"><ns2:result_code>{code}</ns2:result_code>\
         <ns2:result_text>{text}</ns2:result_text></ns2:orders>"
    );
    (code.to_owned(), body)
}

fn document(orders: &[Order]) -> String {
    let mut xml = format!("{HEAD}\n<ns2:orders xmlns:ns2=\"{NAMESPACE}\">\n");
    for order in orders {
        let product = &order.product;
        xml += &format!(
            "  <ns2:order>\n    <ordNo>{}</ordNo>\n    <ordDt>{}</ordDt>\n    <ordPayAmt>{}</ordPayAmt>\n    \
             <prdNm><![CDATA[{product}]]></prdNm>\n    <addPrdYn/>\n  </ns2:order>\n",
            order.number, order.at, order.amount
        );
    }
    xml + "</ns2:orders>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_has_days_with_orders_and_days_without() {
        let days: Date = "2026-11-01".parse().expect("a date");
        let counts: Vec<usize> = days
            .series(jiff::ToSpan::days(1))
            .take(60)
            .map(|day| orders(1, "seller-001", day).len())
            .collect();
        assert!(
            counts.contains(&0) && counts.iter().any(|n| *n > 3),
            "{counts:?}"
        );
    }
}
