//! The marketplace whose tokens are signed by bcrypt: `POST /v1/oauth2/token` by form alone, a list of changed
//! orders with a compound cursor, details by POST with up to 300 ids, a token bucket for each application and API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::bucket::TokenBucket;
use super::form::fields;
use super::server::{Log, Server};
use crate::chance;

/// A timestamp in a token request is good for so long.
const TIMESTAMP_GOOD_MS: i64 = 5 * 60 * 1000;
/// The most ids of one detail request, and changes of one page.
const BATCH: usize = 300;

/// What the marketplace is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Client id -> secret (a bcrypt salt) and seller.
    pub applications: BTreeMap<String, (String, String)>,
    /// How long a token lasts.
    pub lasts: Duration,
    /// A token that lasts longer than this is given again.
    pub again_before: Duration,
    /// Calls a second for each application and API.
    pub rate: f64,
    /// Changes on one page at most (300).
    pub page: usize,
    /// The first so many token requests of each application are answered with status 500.
    pub token_faults: u32,
    /// Every token ends when it has served so many calls.
    pub token_calls: Option<u32>,
    /// These sellers' first call with every token is refused.
    pub distrusted: Vec<String>,
    /// Draws the orders.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            applications: BTreeMap::new(),
            lasts: Duration::from_secs(3 * 3600),
            again_before: Duration::from_secs(30 * 60),
            rate: 2.0,
            page: BATCH,
            token_faults: 0,
            token_calls: None,
            distrusted: Vec::new(),
            seed: 0,
        }
    }
}

/// One order, as the details show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// `productOrderId`
    pub id: String,
    /// When it changed.
    pub changed_at: Timestamp,
    /// `orderDate`
    pub ordered_at: Timestamp,
    /// `productOrderStatus`
    pub status: &'static str,
    /// `totalPaymentAmount`, in whole won or with two digits.
    pub amount: String,
}

/// The changes of one seller on one day in Korea, in their order. Some of them come at the same instant.
pub fn orders(seed: u64, seller: &str, day: Date) -> Vec<Order> {
    const STATUS: [&str; 4] = ["PAYED", "DELIVERING", "DELIVERED", "PURCHASE_DECIDED"];
    let day_text = day.to_string();
    let draw =
        |words: &[&str]| chance::hash(seed, &[&["naver", seller, &day_text], words].concat());
    let midnight = korean_midnight(day);
    let count = draw(&["count"]) % 9;
    let mut orders: Vec<Order> = (0..count)
        .map(|n| {
            let n_text = n.to_string();
            // Pairs of them change at once.
            let second = draw(&["second", &(n / 2).to_string()]) % 86_400;
            let changed_at = midnight + (second as i64).seconds();
            let amount = draw(&["won", &n_text]) % 1_000_000;
            Order {
                id: format!("{}{n:04}", draw(&["id"]) % 1_000_000_000_000),
                changed_at,
                ordered_at: changed_at - ((draw(&["age", &n_text]) % 86_400) as i64).seconds(),
                status: STATUS[(n % 4) as usize],
                amount: match n % 3 {
                    0 => format!("{amount}.50"),
                    _ => amount.to_string(),
                },
            }
        })
        .collect();
    orders.sort_by(|a, b| (a.changed_at, &a.id).cmp(&(b.changed_at, &b.id)));
    orders
}

fn korean_midnight(day: Date) -> Timestamp {
    day.in_tz("Asia/Seoul")
        .expect("a zone that is bundled")
        .timestamp()
}

struct Issued {
    application: String,
    until: Instant,
    served: u32,
}

#[derive(Default)]
struct Gateway {
    tokens: BTreeMap<String, Issued>,
    issued: u32,
    faults: BTreeMap<String, u32>,
    buckets: BTreeMap<(String, &'static str), TokenBucket>,
    /// What was shown to each seller: orders know no day.
    shown: BTreeMap<(String, String), Order>,
}

#[derive(Clone)]
struct Desk {
    config: Arc<Config>,
    log: Log,
    started: Instant,
    gateway: Arc<Mutex<Gateway>>,
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
            gateway: Arc::default(),
        };
        Router::new()
            .route("/v1/oauth2/token", post(token))
            .route(
                "/v1/pay-order/seller/product-orders/last-changed-statuses",
                get(changes),
            )
            .route("/v1/pay-order/seller/product-orders/query", post(details))
            .with_state(desk)
    })
}

/// What a call may do.
struct Caller {
    seller: String,
    headers: Vec<(&'static str, String)>,
}

impl Desk {
    fn gateway(&self) -> MutexGuard<'_, Gateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether a token request is signed as it has to be: the application, or why not.
    fn signed(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
        form: &[u8],
    ) -> Result<String, String> {
        if query.is_some() {
            return Err("parameters in the query".into());
        }
        let kind = headers.get("content-type").and_then(|v| v.to_str().ok());
        if kind != Some("application/x-www-form-urlencoded") {
            return Err("not a form".into());
        }
        let given = fields(form);
        let field = |name: &str| given.get(name).map_or("", String::as_str);
        if field("grant_type") != "client_credentials" || field("type") != "SELF" {
            return Err("grant or type".into());
        }
        let sent: i64 = field("timestamp")
            .parse()
            .map_err(|_| "timestamp".to_owned())?;
        if (Timestamp::now().as_millisecond() - sent).abs() > TIMESTAMP_GOOD_MS {
            return Err("timestamp is too old".into());
        }
        let id = field("client_id");
        let (secret, _) = self.config.applications.get(id).ok_or("no such client")?;
        let wanted = signature(id, sent, secret).ok_or("its secret is no salt")?;
        (field("client_secret_sign") == wanted)
            .then(|| id.to_owned())
            .ok_or_else(|| "client_secret_sign".to_owned())
    }

    /// A token of an application: the one that it has, when that lasts.
    fn issue(&self, application: &str) -> (String, u64) {
        let mut gateway = self.gateway();
        let now = Instant::now();
        let lasting = gateway
            .tokens
            .iter()
            .find(|(_, t)| t.application == application && t.until > now + self.config.again_before)
            .filter(|_| self.config.token_calls.is_none())
            .map(|(token, t)| (token.clone(), t.until));
        let (token, until) = lasting.unwrap_or_else(|| {
            gateway.issued += 1;
            let token = format!("canary-token-{}-{application}", gateway.issued);
            (token, now + self.config.lasts)
        });
        gateway.tokens.entry(token.clone()).or_insert(Issued {
            application: application.to_owned(),
            until,
            served: 0,
        });
        (token, until.saturating_duration_since(now).as_secs())
    }

    /// Who calls `api`; or the refusal.
    fn enter(&self, headers: &HeaderMap, api: &'static str) -> Result<Caller, (u16, Value)> {
        let fault = |status, code: &str| (status, json!({ "code": code, "message": "refused" }));
        let given = headers.get("authorization").and_then(|v| v.to_str().ok());
        let token = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or("");
        let mut gateway = self.gateway();
        let issued = gateway
            .tokens
            .get_mut(token)
            .filter(|t| t.until > Instant::now());
        let Some(issued) = issued else {
            return Err(fault(401, "GW.AUTHN"));
        };
        let (_, seller) = &self.config.applications[&issued.application];
        issued.served += 1;
        let ended = self
            .config
            .token_calls
            .is_some_and(|most| issued.served > most);
        if ended || (issued.served == 1 && self.config.distrusted.contains(seller)) {
            issued.until = Instant::now();
            return Err(fault(401, "GW.AUTHN"));
        }
        let application = issued.application.clone();
        let rate = self.config.rate;
        let bucket = gateway
            .buckets
            .entry((application, api))
            .or_insert_with(|| TokenBucket::new(rate, rate.max(1.0)));
        if !bucket.take(self.now_us()) {
            return Err(fault(429, "GW.RATE_LIMIT"));
        }
        Ok(Caller {
            seller: seller.clone(),
            headers: vec![
                (
                    "gncp-gw-ratelimit-replenish-rate",
                    (rate as u64).to_string(),
                ),
                (
                    "gncp-gw-ratelimit-burst-capacity",
                    (rate as u64).to_string(),
                ),
                ("gncp-gw-ratelimit-remaining", bucket.left().to_string()),
            ],
        })
    }

    fn answer(
        &self,
        call: String,
        status: u16,
        headers: &[(&'static str, String)],
        body: &Value,
    ) -> Response<Body> {
        self.log.note(call, status);
        let mut response = Response::builder()
            .status(status)
            .header("content-type", "application/json");
        for (name, value) in headers {
            response = response.header(*name, value);
        }
        response
            .body(Body::from(body.to_string()))
            .expect("a response")
    }
}

/// The signature that a token request must carry.
pub fn signature(id: &str, timestamp_ms: i64, secret: &str) -> Option<String> {
    let mut parts = secret.strip_prefix("$2a$")?.splitn(2, '$');
    let cost: u32 = parts.next()?.parse().ok()?;
    let alphabet = base64::engine::GeneralPurpose::new(
        &base64::alphabet::BCRYPT,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
    );
    let salt = alphabet.decode(parts.next()?.get(..22)?).ok()?;
    let text = format!("{id}_{timestamp_ms}");
    let hash = bcrypt::hash_with_salt(text, cost, salt.try_into().ok()?).ok()?;
    let hash = hash.format_for_version(bcrypt::Version::TwoA);
    Some(base64::engine::general_purpose::STANDARD.encode(hash))
}

async fn token(
    State(desk): State<Desk>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    form: Bytes,
) -> Response<Body> {
    let application = match desk.signed(query.as_deref(), &headers, &form) {
        Ok(application) => application,
        Err(why) => {
            let fault = json!({ "code": "GW.AUTHN", "message": why });
            return desk.answer("token refused".into(), 403, &[], &fault);
        }
    };
    let call = format!("token {application}");
    let faulty = {
        let mut gateway = desk.gateway();
        let faults = gateway.faults.entry(application.clone()).or_default();
        *faults += 1;
        *faults <= desk.config.token_faults
    };
    if faulty {
        return desk.answer(call, 500, &[], &json!("<html>Internal Server Error</html>"));
    }
    let (token, lasts) = desk.issue(&application);
    let body = json!({ "access_token": token, "expires_in": lasts, "token_type": "Bearer" });
    desk.answer(call, 200, &[], &body)
}

async fn changes(
    State(desk): State<Desk>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let asked = fields(query.unwrap_or_default().as_bytes());
    let field = |name: &str| asked.get(name).map_or("", String::as_str);
    let call = |seller: &str| {
        format!(
            "changes {seller} {} {}",
            field("lastChangedFrom"),
            field("moreSequence")
        )
    };
    let caller = match desk.enter(&headers, "changes") {
        Ok(caller) => caller,
        Err((status, body)) => return desk.answer(call("?"), status, &[], &body),
    };
    let call = call(&caller.seller);
    let bounds = (
        field("lastChangedFrom").parse::<Timestamp>(),
        field("lastChangedTo").parse::<Timestamp>(),
    );
    let limit: usize = field("limitCount").parse().unwrap_or(BATCH);
    let (Ok(from), Ok(to)) = bounds else {
        return desk.answer(call, 400, &caller.headers, &json!({ "code": "BAD_DATE" }));
    };
    if to.duration_since(from).as_hours() > 24 || limit > BATCH {
        return desk.answer(call, 400, &caller.headers, &json!({ "code": "BAD_RANGE" }));
    }
    let sequence = field("moreSequence");
    let there = desk.orders_between(&caller.seller, from, to);
    let left: Vec<&Order> = there
        .iter()
        .filter(|o| sequence.is_empty() || (o.changed_at, o.id.as_str()) >= (from, sequence))
        .collect();
    let most = limit.min(desk.config.page);
    let shown: Vec<Value> = left
        .iter()
        .take(most)
        .map(|o| json!({ "productOrderId": o.id, "lastChangedDate": korean(o.changed_at), "lastChangedType": "PAYED" }))
        .collect();
    {
        let mut gateway = desk.gateway();
        for order in left.iter().take(most) {
            let key = (caller.seller.clone(), order.id.clone());
            gateway.shown.insert(key, (*order).clone());
        }
    }
    let mut data = json!({ "count": shown.len(), "lastChangeStatuses": shown });
    if let Some(next) = left.get(most) {
        data["more"] = json!({ "moreFrom": korean(next.changed_at), "moreSequence": next.id });
    }
    desk.answer(
        call,
        200,
        &caller.headers,
        &json!({ "timestamp": korean(Timestamp::now()), "data": data }),
    )
}

impl Desk {
    fn orders_between(&self, seller: &str, from: Timestamp, to: Timestamp) -> Vec<Order> {
        let day = |at: Timestamp| at.in_tz("Asia/Seoul").expect("bundled").date();
        let days = day(from).series(1.days()).take_while(|d| *d <= day(to));
        days.flat_map(|day| orders(self.config.seed, seller, day))
            .filter(|order| (from..to).contains(&order.changed_at))
            .collect()
    }
}

async fn details(
    State(desk): State<Desk>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response<Body> {
    let ids: Vec<String> = asked["productOrderIds"]
        .as_array()
        .map(|ids| {
            ids.iter()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default();
    let caller = match desk.enter(&headers, "details") {
        Ok(caller) => caller,
        Err((status, body)) => return desk.answer("details ?".into(), status, &[], &body),
    };
    let call = format!("details {} {}", caller.seller, ids.join(","));
    if ids.is_empty() || ids.len() > BATCH {
        return desk.answer(call, 400, &caller.headers, &json!({ "code": "BAD_IDS" }));
    }
    // In another order than they were asked for.
    let shown = desk.gateway().shown.clone();
    let data: Vec<Value> = ids
        .iter()
        .rev()
        .filter_map(|id| shown.get(&(caller.seller.clone(), id.clone())))
        .map(|order| {
            let amount: Value = serde_json::from_str(&order.amount).expect("a number");
            json!({
                "order": { "orderDate": korean(order.ordered_at) },
                "productOrder": {
                    "productOrderId": order.id, "productOrderStatus": order.status, "totalPaymentAmount": amount,
                },
            })
        })
        .collect();
    desk.answer(call, 200, &caller.headers, &json!({ "data": data }))
}

/// `2026-11-21T09:35:10.000+09:00`
fn korean(at: Timestamp) -> String {
    let zoned = at.in_tz("Asia/Seoul").expect("bundled");
    zoned.strftime("%Y-%m-%dT%H:%M:%S.000%:z").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sample_is_signed_so() {
        let signed = signature(
            "aaaabbbbcccc",
            1_643_961_623_299,
            "$2a$10$abcdefghijklmnopqrstuv",
        );
        let wanted =
            "JDJhJDEwJGFiY2RlZmdoaWprbG1ub3BxcnN0dXVCVldZSk42T0VPdEx1OFY0cDQxa2IuTnpVaUEzbmsy";
        assert_eq!(signed.as_deref(), Some(wanted));
    }

    #[test]
    fn an_instant_in_korea() {
        let at: Timestamp = "2026-11-20T15:00:00Z".parse().expect("an instant");
        assert_eq!(korean(at), "2026-11-21T00:00:00.000+09:00");
    }
}
