//! Limits: every window as a bar, keys, what is closed and when it opens; changed by an admin, with a reason.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use paceline_protocol::spec::{Provider, span};
use serde::Deserialize;

use super::board::Seen;
use super::html::{Head, Trouble, moment, page};
use super::runs::head;
use super::{Page, Shared, Who};
use crate::limits::{Budget, Budgets, Slowed, budgets, change};
use crate::show;

/// One limit in one scope.
struct Line {
    name: String,
    scope: String,
    allowed: String,
    /// Who says so, when it is not the file.
    by: &'static str,
    file: String,
    /// What is left and when it opens.
    said: String,
    /// What is used, in hundredths.
    share: Option<u64>,
    is_full: bool,
}

/// What an answer closed.
struct Shut {
    whom: String,
    length: String,
    reason: String,
}

/// One provider.
struct Shown {
    name: String,
    runs: usize,
    speed: Option<String>,
    limits: Vec<Line>,
    closed: Vec<Shut>,
    slowed: Vec<String>,
    held: Option<String>,
    is_closed: bool,
    /// Limits that can be changed.
    names: Vec<String>,
    /// Why there is nothing.
    instead: Option<String>,
}

#[derive(Template)]
#[template(path = "limits.html")]
struct Limits {
    head: Head,
    providers: Vec<Shown>,
    may_change: bool,
}

#[derive(Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    did: String,
}

/// All providers that a job names, those with open runs first.
pub(super) async fn list(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Query(told): Query<Told>,
) -> Response {
    let seen = shared.board.seen();
    let mut shown = Vec::new();
    for provider in providers(&shared, &seen).values() {
        shown.push(of(&shared, &seen, provider).await);
    }
    shown.sort_by_key(|provider| std::cmp::Reverse(provider.runs));
    let mut head = head("limits", &who, &seen);
    head.told = match told.did.as_str() {
        "set" => Some("The limit holds for the whole fleet from now on.".to_owned()),
        "reset" => Some("The limit is what its file says.".to_owned()),
        "hold" => Some("The hold is set.".to_owned()),
        _ => None,
    };
    let template = Limits {
        head,
        providers: shown,
        may_change: who.may_change(),
    };
    page(StatusCode::OK, &template)
}

/// As the open runs have them, else as the spec folder does.
fn providers(shared: &Page, seen: &Seen) -> BTreeMap<String, Provider> {
    let mut all = BTreeMap::new();
    for loaded in shared.server.spec.jobs().values() {
        all.extend(loaded.providers.clone());
    }
    for going in seen.going.iter().rev() {
        all.extend(going.files.plan.providers.clone());
    }
    all
}

async fn of(shared: &Page, seen: &Seen, provider: &Provider) -> Shown {
    let stores = &shared.server.stores;
    let read = budgets(&stores.limiter, provider, &shared.server.context.env).await;
    let going = seen
        .going
        .iter()
        .filter(|going| going.files.plan.providers.contains_key(&provider.name));
    let going: Vec<_> = going.collect();
    let speeds: Vec<f64> = going.iter().filter_map(|going| going.speed).collect();
    let mut shown = Shown {
        name: provider.name.clone(),
        runs: going.len(),
        speed: (!speeds.is_empty()).then(|| show::rate(speeds.iter().sum())),
        limits: Vec::new(),
        closed: Vec::new(),
        slowed: Vec::new(),
        held: None,
        is_closed: false,
        names: provider
            .limits
            .iter()
            .map(|limit| limit.name.clone())
            .collect(),
        instead: None,
    };
    match read {
        Ok(budgets) => shown.take(budgets, Timestamp::now()),
        Err(error) => shown.instead = Some(format!("{error:#}")),
    }
    shown
}

impl Shown {
    fn take(&mut self, budgets: Budgets, now: Timestamp) {
        self.is_closed = budgets.held.is_some() || !budgets.closed.is_empty();
        self.held = budgets
            .held
            .map(|held| format!("until {} UTC: {}", moment(held.until), held.reason));
        self.closed = budgets
            .closed
            .into_iter()
            .map(|closed| Shut {
                whom: closed.name.unwrap_or_else(|| "Every call".to_owned()),
                length: show::closed(Duration::from_secs(closed.for_s)),
                reason: closed.reason,
            })
            .collect();
        self.slowed = budgets.slowed.iter().map(Slowed::told).collect();
        self.limits = budgets
            .limits
            .into_iter()
            .map(|budget| line(budget, now))
            .collect();
    }
}

fn line(budget: Budget, now: Timestamp) -> Line {
    let share = budget.used.zip(budget.remaining).map(|(used, remaining)| {
        let all = (used + remaining).max(1);
        (used * 100 / all).min(100)
    });
    let is_full = budget.remaining == Some(0);
    let by = match (&budget.set, &budget.learned) {
        (Some(_), _) => "set",
        (None, Some(_)) => "learned",
        (None, None) => "",
    };
    Line {
        said: said(&budget, now),
        name: budget.limit,
        scope: budget.scope,
        allowed: budget.set.or(budget.learned).unwrap_or(budget.allowed),
        by,
        file: budget.file,
        share,
        is_full,
    }
}

/// `12 used, 38 left; opens in 3s`
fn said(budget: &Budget, now: Timestamp) -> String {
    let mut said = match (budget.used, budget.remaining) {
        (Some(used), Some(left)) => {
            format!("{} used, {} left", show::count(used), show::count(left))
        }
        (Some(used), None) => format!("{} used", show::count(used)),
        _ => "a budget for each value, none used lately".to_owned(),
    };
    if let Some(holders) = budget.holders.filter(|holders| *holders > 0) {
        said += &format!(" by {holders} workers");
    }
    let opens = budget.opens_at.map(|at| at.duration_since(now));
    // What opens within a moment is open to people.
    if let Some(opens) = opens.filter(|opens| opens.as_millis() >= 1_000) {
        let opens = Duration::try_from(opens).unwrap_or_default();
        said += &format!("; opens in {}", show::span(opens));
    }
    said
}

/// Sets, resets or holds.
pub(super) async fn set(
    State(shared): Shared,
    Extension(who): Extension<Who>,
    Path(provider): Path<String>,
    body: Bytes,
) -> Result<Response, Trouble> {
    if !who.may_change() {
        return Err(Trouble::forbidden("that needs a token with the role admin"));
    }
    let provider = providers(&shared, &shared.board.seen()).remove(&provider);
    let provider = provider.ok_or_else(|| Trouble::missing("no job names this provider"))?;
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| {
        form.get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    };
    let reason = field("reason").ok_or_else(|| Trouble::bad("say why: others will ask"))?;
    let reason = Some(format!("{reason} ({})", who.name));
    let stores = &shared.server.stores;
    let did = match (field("hold"), field("limit"), field("value")) {
        (Some(hold), _, _) => {
            let length = span(hold).map_err(|why| Trouble::bad(why.to_string()))?;
            change::hold(stores, &provider, length.0, reason).await?;
            "hold"
        }
        (None, Some(limit), Some(value)) => {
            change::set(stores, &provider, limit, value, reason).await?;
            "set"
        }
        (None, Some(limit), None) => {
            change::reset(stores, &provider, Some(limit), reason).await?;
            "reset"
        }
        (None, None, _) => return Err(Trouble::bad("say which limit")),
    };
    tracing::info!(
        provider.name = provider.name,
        did,
        who = who.name,
        "limits, by the page"
    );
    Ok(Redirect::to(&format!("/limits?did={did}")).into_response())
}
