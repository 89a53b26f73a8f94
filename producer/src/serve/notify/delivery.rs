//! Calling one webhook, and coming back to it when it fails.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::spec::{Notify, expand_env};
use paceline_protocol::stores::broker::{Hear, Letter};
use paceline_protocol::topology::DelayLevel;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::sign::Signer;
use super::{address, body, told};
use crate::run::RunFiles;
use crate::serve::Server;

/// Webhooks called at a time.
const AT_A_TIME: u16 = 16;
/// How long one may take to answer.
const LONGEST: Duration = Duration::from_secs(15);
/// Tries: those below, then every 10 minutes for about a day.
const TRIES: u32 = 150;
/// How long it is remembered that a webhook was told.
const REMEMBERED: Duration = Duration::from_secs(8 * 24 * 3600);

/// A webhook to be called.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Delivery {
    /// The same for every try.
    pub(super) id: String,
    /// `run.completed`, ...
    pub(super) topic: String,
    /// Whose.
    pub(super) run: RunRef,
    /// Its place in the job's `notify`.
    pub(super) hook: usize,
    /// Tries so far.
    pub(super) attempt: u32,
    /// When the event was taken.
    pub(super) at: Timestamp,
    /// The event.
    pub(super) data: Value,
}

/// What came of a try.
enum Told {
    Yes,
    /// Nothing more will help.
    Never(String),
    /// It may be cured by waiting.
    Later(String),
}

/// Calls webhooks until the process stops.
pub(super) async fn deliver(server: Arc<Server>, signer: Arc<Signer>) {
    let Ok(mut inbox) = server.inbox(Hear::Deliveries, AT_A_TIME) else {
        return;
    };
    let room = Arc::new(Semaphore::new(usize::from(AT_A_TIME)));
    loop {
        let letter = tokio::select! {
            letter = inbox.next() => letter,
            () = server.stop.cancelled() => break,
        };
        let Some(letter) = letter else { continue };
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (server, signer) = (server.clone(), signer.clone());
        tokio::spawn(async move {
            if let Err(error) = one(&server, &signer, letter).await {
                // Unacked: it comes again with the next connection, and is told once.
                tracing::warn!("a delivery waits: {error:#}");
            }
            drop(permit);
        });
    }
    // What is on its way ends.
    let _ = room.acquire_many(u32::from(AT_A_TIME)).await;
}

async fn one(server: &Server, signer: &Signer, letter: Letter) -> Result<()> {
    let Ok(mut delivery) = serde_json::from_slice::<Delivery>(&letter.body) else {
        server.gauges.dead_letter("delivery");
        return Ok(letter
            .bury(&server.stores.publisher, "not a delivery")
            .await?);
    };
    delivery.attempt += 1;
    let mut to = String::new();
    let tried = attempt(server, signer, &delivery, &mut to).await;
    let tried = tried.unwrap_or_else(|error| Told::Later(format!("{error:#}")));
    let why = match tried {
        Told::Yes => {
            told::note(server, &delivery, &to, "ok", None).await;
            server.gauges.delivery("ok");
            letter.ack().await;
            return Ok(());
        }
        Told::Later(why) if delivery.attempt < TRIES => {
            told::note(server, &delivery, &to, "retried", Some(&why)).await;
            server.gauges.delivery("retried");
            tracing::warn!(run.id = %delivery.run, attempt = delivery.attempt, why, "a webhook is called again later");
            let body = serde_json::to_value(&delivery)?;
            let level = pause(delivery.attempt);
            server.stores.publisher.delivery(&body, Some(level)).await?;
            letter.ack().await;
            return Ok(());
        }
        Told::Later(why) | Told::Never(why) => why,
    };
    told::note(server, &delivery, &to, "failed", Some(&why)).await;
    server.gauges.delivery("failed");
    server.gauges.dead_letter("webhook");
    tracing::error!(run.id = %delivery.run, why, "a webhook was not told; its delivery is with the dead letters");
    Ok(letter.bury(&server.stores.publisher, &why).await?)
}

/// How long to wait after so many tries.
fn pause(attempt: u32) -> DelayLevel {
    let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let level = DelayLevel::ALL.get(place);
    level.copied().unwrap_or(DelayLevel::M10)
}

async fn attempt(
    server: &Server,
    signer: &Signer,
    delivery: &Delivery,
    to: &mut String,
) -> Result<Told> {
    if server.stores.state.was_told(&delivery.id).await? {
        return Ok(Told::Yes);
    }
    let Some(files) = RunFiles::read(&server.stores.archive, &delivery.run).await? else {
        return Ok(Told::Never("its run is gone".into()));
    };
    let Some(hook) = files.plan.job.notify.get(delivery.hook) else {
        return Ok(Told::Never("its job has no such webhook any more".into()));
    };
    *to = told::whom(hook);
    let url = match expand_env(&hook.webhook, &server.context.env) {
        Ok(url) => url,
        Err(missing) => return Ok(Told::Never(missing.to_string())),
    };
    let trusted = address::is_operators(hook, &server.context.env);
    let client = match address::client(&url, trusted, LONGEST).await {
        Ok(client) => client,
        Err(address::Refused::Never(why)) => return Ok(Told::Never(why)),
        Err(address::Refused::Later(why)) => return Ok(Told::Later(why)),
    };
    let (kind, body) = match body::of(hook, delivery, &files, &server.context.env) {
        Ok(made) => made,
        Err(why) => return Ok(Told::Never(format!("its template: {why}"))),
    };
    let told = post(&client, &url, kind, body, signer, delivery).await;
    if matches!(told, Told::Yes) {
        server
            .stores
            .state
            .set_told(&delivery.id, REMEMBERED)
            .await?;
    }
    Ok(told)
}

async fn post(
    client: &reqwest::Client,
    url: &str,
    kind: &str,
    body: String,
    signer: &Signer,
    delivery: &Delivery,
) -> Told {
    let now = Timestamp::now().as_second();
    let mut request = client
        .post(url)
        .header("content-type", kind)
        .header("webhook-id", &delivery.id)
        .header("webhook-timestamp", now.to_string());
    if let Some(signature) = signer.sign(&delivery.id, now, body.as_bytes()) {
        request = request.header("webhook-signature", signature);
    }
    // An error's text may hold the URL, which may hold a secret.
    match request.body(body).send().await {
        Ok(answer) if answer.status().is_success() => Told::Yes,
        Ok(answer) if answer.status().as_u16() == 410 => {
            Told::Never("it answered 410: gone for good".into())
        }
        Ok(answer) => Told::Later(format!("it answered {}", answer.status().as_u16())),
        Err(error) if error.is_timeout() => Told::Later("it did not answer in time".into()),
        Err(error) if error.is_connect() => Told::Later("it cannot be reached".into()),
        Err(error) if error.is_builder() => Told::Never("its URL cannot be read".into()),
        Err(_) => Told::Later("it broke off".into()),
    }
}

/// The hook of a delivery, for its body.
pub(super) type Hook = Notify;
