//! The page: what runs, how fast against what is allowed, and what keeps it from being faster. HTML made here
//! from templates, one style sheet and one small script out of the binary; nothing comes from elsewhere, nothing
//! is inline (see [`POLICY`]), and without the script everything works but the refreshing.

mod audits;
mod board;
mod cause;
mod cells;
mod ended;
mod failures;
mod grid;
mod heat;
mod html;
mod jobs;
mod limits;
mod live;
mod messages;
mod run;
mod runs;
pub(super) mod session;
mod timeline;
mod verdict;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use paceline_protocol::stores::broker::DeadLetters;
use paceline_protocol::topology::Topology;

use self::board::Board;
use self::html::Trouble;
use super::Server;
use super::http::auth::{Role, Tokens};
use super::http::door::{LONGEST_LOOK, SLOW};

/// Nothing from elsewhere, nothing inline, no framing, forms to ourselves alone.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The largest form.
const LARGEST: usize = 16 << 10;

/// What the page's parts share.
struct Page {
    server: Arc<Server>,
    tokens: Arc<Tokens>,
    board: Arc<Board>,
    audits: audits::Audits,
    failures: failures::Found,
    lately: ended::Lately,
    dead: DeadLetters,
}

type Shared = State<Arc<Page>>;

/// Who looks.
#[derive(Clone, Debug)]
struct Who {
    /// The token's name.
    name: String,
    role: Role,
    /// There is a cookie to be forgotten.
    can_leave: bool,
}

impl Who {
    fn may_run(&self) -> bool {
        self.role >= Role::Run
    }

    /// Limits and dead letters.
    fn may_change(&self) -> bool {
        self.role >= Role::Admin
    }
}

/// The page's routes. From now on the fleet is looked at until the process stops.
///
/// # Errors
/// When the broker's URL cannot be read.
pub(super) fn routes(server: Arc<Server>, tokens: Arc<Tokens>) -> Result<Router> {
    let topology = Topology::new(server.stores.archive.fleet.namespace.clone());
    let dead = DeadLetters::new(&server.amqp, topology)?;
    let board = Arc::new(Board::default());
    tokio::spawn(board::keep_looking(server.clone(), board.clone()));
    tokio::spawn(board::keep_listing(server.clone(), board.clone()));
    let page = Arc::new(Page {
        server,
        tokens,
        board,
        audits: audits::Audits::default(),
        failures: failures::Found::default(),
        lately: ended::Lately::default(),
        dead,
    });
    let inside = Router::new()
        .route("/", get(runs::list))
        .route("/runs/{job}/{run}", get(run::one))
        .route("/runs/{job}/{run}/file/{name}", get(run::file))
        .route("/runs/{job}/{run}/{action}", post(run::act))
        .route("/limits", get(limits::list))
        .route("/limits/{provider}", post(limits::set))
        .route("/jobs", get(jobs::list))
        .route("/jobs/{job}", get(jobs::one))
        .route("/jobs/{job}/start", post(jobs::start))
        .route("/views", get(views::list))
        .route("/views/{job}", get(views::one))
        .route("/messages", get(messages::list))
        .route("/messages/{id}/{fate}", post(messages::settle))
        .layer(from_fn_with_state(page.clone(), guard));
    let outside = Router::new()
        .route("/login", get(session::ask).post(session::enter))
        .route("/logout", post(session::leave))
        .route("/assets/{name}", get(html::asset));
    Ok(inside
        .merge(outside)
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn(harden))
        .with_state(page))
}

/// Lets in who may look; a change must come from our own page.
async fn guard(
    State(page): Shared,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let who = match page.tokens.who(headers, peer.ip()) {
        Ok((name, role)) => Who {
            name,
            role,
            can_leave: !page.tokens.none(),
        },
        Err(_) if !page.tokens.none() && request.method() == Method::GET => {
            let to = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            return session::to_login(to);
        }
        Err(problem) => return Trouble::from(problem).into_response(),
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        if !session::is_same_origin(headers) {
            return Trouble::forbidden("a change has to come from this page itself")
                .into_response();
        }
        if !who.may_run() {
            return Trouble::forbidden("your token may look, but not change anything")
                .into_response();
        }
    }
    request.extensions_mut().insert(who);
    if request.method() != Method::GET || request.uri().path().starts_with("/jobs/") {
        return next.run(request).await;
    }
    let shown = tokio::time::timeout(LONGEST_LOOK, next.run(request)).await;
    shown.unwrap_or_else(|_| Trouble::away(SLOW).into_response())
}

/// What every answer of the page says to the browser.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let said = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` a browser does not say where a form comes from.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    let headers = response.headers_mut();
    for (name, value) in said {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
