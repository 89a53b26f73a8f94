//! The marketplace whose every request is signed: `Authorization: CEA ...` over date, method, path and query. A
//! request for each status, a cursor, days in Korea; more than ten calls in a second of one vendor are a ban.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::get;
use hmac::{Hmac, KeyInit, Mac};
use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use sha2::Sha256;

use super::form::fields;
use super::server::{Log, Server};
use crate::chance;
use crate::simulator::TrailingWindow;

/// The states of an order, each asked for by itself.
pub const STATUS: [&str; 5] = [
    "ACCEPT",
    "INSTRUCT",
    "DEPARTURE",
    "DELIVERING",
    "FINAL_DELIVERY",
];
/// So many calls in a second are allowed; one more is a ban.
const ALLOWED: u32 = 10;
/// Calls are stamped when they are read, not when they arrived.
const SECOND_US: u64 = 900_000;
/// How far a signature's date may be off.
const DATE_GOOD: Duration = Duration::from_secs(300);

/// A vendor's account.
#[derive(Clone, Debug)]
pub struct Vendor {
    /// `vendorId`
    pub id: String,
    /// The access key.
    pub access_key: String,
    /// The secret.
    pub secret: String,
}

/// What the marketplace is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seller -> its account.
    pub vendors: BTreeMap<String, Vendor>,
    /// Orders on one page at most (50).
    pub page: usize,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Draws the orders.
    pub seed: u64,
}

/// One order, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// `orderId`, a number.
    pub id: u64,
    /// `orderedAt`, Korean time without a zone.
    pub at: DateTime,
    /// `status`
    pub status: &'static str,
    /// `orderItems[0].orderPrice`
    pub price: String,
}

/// The orders of one seller on one day, in the order of their numbers.
pub fn orders(seed: u64, seller: &str, day: Date) -> Vec<Order> {
    let day_text = day.to_string();
    let draw =
        |words: &[&str]| chance::hash(seed, &[&["coupang", seller, &day_text], words].concat());
    let first = draw(&["number"]) % 1_000_000_000_000 * 1000 + 9_000_000_000_000_000;
    let count = draw(&["count"]) % 12;
    (0..count)
        .map(|n| {
            let n_text = n.to_string();
            let second = draw(&["second", &n_text]) % 86_400;
            let won = draw(&["won", &n_text]) % 1_000_000;
            Order {
                id: first + n,
                at: day.at(0, 0, 0, 0) + (second as i64).seconds(),
                status: STATUS[(draw(&["status", &n_text]) % 5) as usize],
                price: match n % 4 {
                    0 => format!("{won}.{:02}", n * 10 % 100),
                    _ => won.to_string(),
                },
            }
        })
        .collect()
}

#[derive(Default)]
struct Guard {
    calls: BTreeMap<String, TrailingWindow>,
    banned_until: BTreeMap<String, Instant>,
}

#[derive(Clone)]
struct Desk {
    config: Arc<Config>,
    log: Log,
    started: Instant,
    guard: Arc<Mutex<Guard>>,
}

/// Starts the marketplace.
///
/// # Errors
/// When no port can be had.
pub fn start(config: Config) -> anyhow::Result<Server> {
    Server::start(|log| {
        let desk = Desk {
            config: Arc::new(config),
            log,
            started: Instant::now(),
            guard: Arc::default(),
        };
        let path = "/v2/providers/openapi/apis/api/v5/vendors/{vendor}/ordersheets";
        Router::new()
            .route(path, get(order_sheets))
            .with_state(desk)
    })
}

/// The signature over a request's date, method, path and query (without its `?`).
pub fn signature(secret: &str, date: &str, method: &str, path: &str, query: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(format!("{date}{method}{path}{query}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

async fn order_sheets(
    State(desk): State<Desk>,
    Path(vendor): Path<String>,
    RawQuery(query): RawQuery,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let query = query.unwrap_or_default();
    let asked = fields(query.as_bytes());
    let field = |name: &str| asked.get(name).map_or("", String::as_str);
    let shown = [field("createdAtFrom"), field("status"), field("nextToken")].join(" ");
    let seller = match desk.signed(&headers, &vendor, uri.path(), &query) {
        Ok(seller) => seller,
        Err(why) => {
            let fault = json!({ "code": "ERROR", "message": why });
            return desk.answer(format!("refused {why} {shown}"), 401, &fault);
        }
    };
    let call = format!("orders {seller} {shown}");
    if !desk.in_time(&vendor) {
        return desk.answer(call, 429, &json!({ "code": "ERROR", "message": "blocked" }));
    }
    match desk.page(&seller, &asked) {
        Ok(body) => desk.answer(call, 200, &body),
        Err(why) => desk.answer(call, 400, &json!({ "code": 400, "message": why })),
    }
}

impl Desk {
    fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, call: String, status: u16, body: &Value) -> Response<Body> {
        self.log.note(call, status);
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/json;charset=utf-8");
        response
            .body(Body::from(body.to_string()))
            .expect("a response")
    }

    /// Whose request it is, when it is signed as it has to be.
    fn signed(
        &self,
        headers: &HeaderMap,
        vendor: &str,
        path: &str,
        query: &str,
    ) -> Result<String, &'static str> {
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or("")
        };
        let found = self.config.vendors.iter().find(|(_, v)| v.id == vendor);
        let (seller, account) = found.ok_or("vendor")?;
        if header("x-requested-by") != vendor {
            return Err("requested-by");
        }
        let given = header("authorization")
            .strip_prefix("CEA ")
            .ok_or("scheme")?;
        let parts: BTreeMap<&str, &str> = given
            .split(", ")
            .filter_map(|part| part.split_once('='))
            .collect();
        let part = |name: &str| parts.get(name).copied().unwrap_or("");
        if part("algorithm") != "HmacSHA256" || part("access-key") != account.access_key {
            return Err("key");
        }
        let date = part("signed-date");
        let at = DateTime::strptime("%y%m%dT%H%M%SZ", date).map_err(|_| "date")?;
        let at = at.in_tz("UTC").map_err(|_| "date")?.timestamp();
        if at.duration_since(Timestamp::now()).unsigned_abs() > DATE_GOOD {
            return Err("expired");
        }
        let wanted = signature(&account.secret, date, "GET", path, query);
        (part("signature") == wanted)
            .then(|| seller.clone())
            .ok_or("signature")
    }

    /// Whether the vendor is not banned; who comes too often is from now on.
    fn in_time(&self, vendor: &str) -> bool {
        let at = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut guard = self.guard();
        if guard
            .banned_until
            .get(vendor)
            .is_some_and(|until| *until > Instant::now())
        {
            return false;
        }
        let window = guard
            .calls
            .entry(vendor.to_owned())
            .or_insert_with(|| TrailingWindow::new(ALLOWED, SECOND_US));
        let free = window.check(at).is_ok();
        window.take(at);
        if !free {
            let until = Instant::now() + self.config.ban;
            guard.banned_until.insert(vendor.to_owned(), until);
        }
        free
    }

    fn page(&self, seller: &str, asked: &BTreeMap<String, String>) -> Result<Value, &'static str> {
        let field = |name: &str| asked.get(name).map_or("", String::as_str);
        let day = |name: &str| field(name).parse::<Date>().map_err(|_| "a day");
        let (from, to) = (day("createdAtFrom")?, day("createdAtTo")?);
        let status = STATUS
            .iter()
            .find(|s| **s == field("status"))
            .ok_or("status")?;
        let most: usize = field("maxPerPage").parse().map_err(|_| "maxPerPage")?;
        let span = to.since(from).map_err(|_| "days")?.get_days();
        if !(0..=31).contains(&span) || !(1..=50).contains(&most) {
            return Err("range");
        }
        let days = from.series(1.days()).take_while(|day| *day <= to);
        let all: Vec<Order> = days
            .flat_map(|day| orders(self.config.seed, seller, day))
            .filter(|order| order.status == *status)
            .collect();
        let skipped = match field("nextToken") {
            "" => 0,
            token => token
                .strip_prefix("n/")
                .and_then(|n| n.parse().ok())
                .ok_or("nextToken")?,
        };
        let most = most.min(self.config.page);
        let shown: Vec<Value> = all.iter().skip(skipped).take(most).map(sheet).collect();
        let next = match skipped + most < all.len() {
            true => format!("n/{}", skipped + most),
            false => String::new(),
        };
        Ok(json!({ "code": 200, "message": "OK", "data": shown, "nextToken": next }))
    }
}

fn sheet(order: &Order) -> Value {
    let price: Value = serde_json::from_str(&order.price).expect("a number");
    json!({
        "orderId": order.id,
        "orderedAt": order.at.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        "status": order.status,
        "orderItems": [{ "vendorItemName": "겨울 양말", "orderPrice": price }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_form_is_signed_so() {
        let path = "/v2/providers/openapi/apis/api/v4/vendors/A00012345/ordersheets";
        let query = "createdAtFrom=2026-05-20&createdAtTo=2026-05-20&status=ACCEPT&maxPerPage=50";
        assert_eq!(
            signature("secret", "260520T143022Z", "GET", path, query),
            "6757950d98fe59646226e2a3154b9120efdf033776a0c53100aa69a5a8a6e283"
        );
    }
}
