//! A shop whose refresh tokens rotate: each is good once, and who uses one twice has lost the account. The client says who it
//! is by HTTP basic, tokens stand in a header of the shop's own. Some orders have no detail.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::form::fields;
use super::server::{Log, Server};

/// The orders of every day.
pub const ORDERS: u64 = 3;

/// What the shop is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// `client:secret`
    pub client: String,
    /// The first refresh token, which people have consented to.
    pub refresh_token: String,
    /// An access token ends when it has served so many calls.
    pub token_calls: u32,
}

struct Account {
    /// The refresh token that is good; none when one was used twice.
    refresh: Option<String>,
    issued: u32,
    access: String,
    served: u32,
}

#[derive(Clone)]
struct Desk {
    config: Arc<Config>,
    log: Log,
    account: Arc<Mutex<Account>>,
}

/// Starts the shop.
///
/// # Errors
/// When no port can be had.
pub fn start(config: Config) -> anyhow::Result<Server> {
    Server::start(|log| {
        let account = Account {
            refresh: Some(config.refresh_token.clone()),
            issued: 0,
            access: String::new(),
            served: 0,
        };
        let desk = Desk {
            config: Arc::new(config),
            log,
            account: Arc::new(Mutex::new(account)),
        };
        Router::new()
            .route("/oauth/token", post(token))
            .route("/orders", get(orders))
            .route("/details", post(details))
            .with_state(desk)
    })
}

/// The order `place` of a day; every fifth number has no detail.
pub fn number(day: u64, place: u64) -> u64 {
    day * ORDERS + place
}

impl Desk {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, call: String, status: u16, body: &Value) -> Response<Body> {
        self.log.note(call, status);
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/json");
        response
            .body(Body::from(body.to_string()))
            .expect("a response")
    }

    /// A new pair of tokens, or why not.
    fn issue(&self, headers: &HeaderMap, form: &[u8]) -> Result<Value, &'static str> {
        let given = headers.get("authorization").and_then(|v| v.to_str().ok());
        let wanted = format!("Basic {}", STANDARD.encode(&self.config.client));
        if given != Some(wanted.as_str()) {
            return Err("client");
        }
        let form = fields(form);
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if field("grant_type") != "refresh_token" {
            return Err("grant");
        }
        let mut account = self.account();
        if account.refresh.as_deref() != Some(field("refresh_token")) {
            account.refresh = None;
            return Err("reused");
        }
        account.issued += 1;
        let refresh = format!("canary-refresh-{}", account.issued);
        account.refresh = Some(refresh.clone());
        account.access = format!("canary-access-{}", account.issued);
        account.served = 0;
        Ok(json!({
            "access_token": account.access, "expires_in": 7200, "refresh_token": refresh,
            "token_type": "Bearer",
        }))
    }

    fn enters(&self, headers: &HeaderMap) -> bool {
        let given = headers.get("x-shop-token").and_then(|v| v.to_str().ok());
        let mut account = self.account();
        if given != Some(account.access.as_str()) || account.served >= self.config.token_calls {
            return false;
        }
        account.served += 1;
        true
    }
}

async fn token(State(desk): State<Desk>, headers: HeaderMap, form: Bytes) -> Response<Body> {
    match desk.issue(&headers, &form) {
        Ok(tokens) => desk.answer("token".into(), 200, &tokens),
        Err(why) => desk.answer(
            format!("token {why}"),
            400,
            &json!({ "error": "invalid_grant" }),
        ),
    }
}

async fn orders(
    State(desk): State<Desk>,
    Query(asked): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response<Body> {
    let day: u64 = asked.get("day").and_then(|d| d.parse().ok()).unwrap_or(0);
    let call = format!("orders {day}");
    if !desk.enters(&headers) {
        return desk.answer(call, 401, &json!({ "error": "invalid_token" }));
    }
    let all: Vec<Value> = (0..ORDERS)
        .map(|place| json!({ "id": number(day, place), "amount": day * 100 + place }))
        .collect();
    desk.answer(call, 200, &json!({ "orders": all }))
}

async fn details(
    State(desk): State<Desk>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response<Body> {
    if !desk.enters(&headers) {
        return desk.answer("details".into(), 401, &json!({ "error": "invalid_token" }));
    }
    let ids = asked["ids"].as_array().into_iter().flatten();
    let known: Vec<Value> = ids
        .filter_map(Value::as_u64)
        .filter(|id| id % 5 != 0)
        .map(|id| json!({ "id": id, "status": "paid" }))
        .collect();
    desk.answer("details".into(), 200, &json!({ "orders": known }))
}
