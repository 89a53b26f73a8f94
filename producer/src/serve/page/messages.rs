//! Whom the fleet told lately, and the dead letters: with their reason, to be published again or dropped.

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use paceline_protocol::stores::broker::{DeadKind, DeadLetter, Fate};
use serde::Deserialize;

use super::html::{Head, Trouble, page};
use super::runs::head;
use super::{Shared, Who};
use crate::serve::notify::Delivered;

/// Dead letters that are looked at.
const LOOKED_AT: usize = 50;
/// Deliveries that are shown.
const SHOWN: usize = 100;
/// The longest text of a letter.
const LONGEST: usize = 600;

/// A delivery as its row shows it.
struct Row {
    at: String,
    run: String,
    topic: String,
    to: String,
    attempt: u32,
    sign: &'static str,
    result: String,
    is_bad: bool,
}

impl Row {
    fn new(told: Delivered) -> Self {
        let (sign, is_bad) = match told.result.as_str() {
            "ok" => ("\u{2713}", false),
            "retried" => ("\u{21bb}", false),
            _ => ("\u{2717}", true),
        };
        let why = told.why.map(|why| format!(": {why}")).unwrap_or_default();
        Row {
            at: super::html::moment(told.at),
            run: told.run,
            topic: told.topic,
            to: told.to,
            attempt: told.attempt,
            sign,
            is_bad,
            result: format!("{}{why}", told.result),
        }
    }
}

/// A dead letter as it is shown.
struct Letter {
    id: String,
    kind: &'static str,
    reason: String,
    body: String,
    can_again: bool,
    hint: &'static str,
}

impl Letter {
    fn new(letter: DeadLetter) -> Self {
        let (kind, hint) = match letter.kind {
            DeadKind::Shard => (
                "shard",
                "its cells are failures of the run: retry the run to send them again",
            ),
            DeadKind::Request => ("request", ""),
            DeadKind::Delivery => ("webhook", ""),
            DeadKind::Other => ("message", ""),
        };
        let text = String::from_utf8_lossy(&letter.body);
        let body: String = text.chars().take(LONGEST).collect();
        Letter {
            id: letter.id,
            kind,
            reason: letter.reason,
            body,
            can_again: matches!(letter.kind, DeadKind::Request | DeadKind::Delivery),
            hint,
        }
    }
}

#[derive(Template)]
#[template(path = "messages.html")]
struct Messages {
    head: Head,
    told: Vec<Row>,
    dead: Vec<Letter>,
    /// There may be more of the dead.
    more: bool,
    /// Why the dead are not seen.
    unseen: String,
    may_settle: bool,
}

#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    did: String,
}

/// Deliveries and dead letters.
pub(super) async fn list(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Query(told): Query<Told>,
) -> Result<Response, Trouble> {
    let mut head = head("messages", &who, &shared.board.seen());
    head.told = match told.did.as_str() {
        "again" => Some("It was published again.".to_owned()),
        "drop" => Some("It was dropped.".to_owned()),
        "gone" => Some("It is not there any more.".to_owned()),
        _ => None,
    };
    let delivered = crate::serve::notify::delivered(&shared.server, SHOWN)
        .await
        .unwrap_or_default();
    let (dead, unseen) = match shared.dead.look(LOOKED_AT).await {
        Ok(dead) => (dead, String::new()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    let template = Messages {
        head,
        told: delivered.into_iter().map(Row::new).collect(),
        more: dead.len() == LOOKED_AT,
        dead: dead.into_iter().map(Letter::new).collect(),
        unseen,
        may_settle: who.may_change(),
    };
    Ok(page(StatusCode::OK, &template))
}

/// Publishes a dead letter again, or drops it.
pub(super) async fn settle(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path((id, fate)): Path<(String, String)>,
    _body: Bytes,
) -> Result<Response, Trouble> {
    if !who.may_change() {
        return Err(Trouble::forbidden("that needs a token with the role admin"));
    }
    let wanted = match fate.as_str() {
        "again" => Fate::Again,
        "drop" => Fate::Dropped,
        _ => return Err(Trouble::missing("there are again and drop")),
    };
    let publisher = &shared.server.stores.publisher;
    let settled = shared.dead.settle(publisher, &id, wanted, LOOKED_AT).await;
    let settled = settled.map_err(anyhow::Error::from)?;
    tracing::info!(
        dead.id = id,
        fate,
        settled,
        who = who.name,
        "a dead letter, by the page"
    );
    let did = if settled { fate.as_str() } else { "gone" };
    Ok(Redirect::to(&format!("/messages?did={did}")).into_response())
}
