//! Messages on `<ns>.requests` start runs as the command line does; a bad one goes to the dead letters with
//! a reason.

use std::sync::Arc;
use std::time::Duration;

use paceline_protocol::ids::RunId;
use paceline_protocol::stores::broker::{Hear, Letter};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::Server;
use super::starting::{Ask, hopeless};

/// Requests in hand at a time.
const AT_A_TIME: u16 = 16;
/// Between two tries while a server is away.
const AGAIN: Duration = Duration::from_secs(2);
/// The largest request.
const LARGEST: usize = 64 << 10;

/// What starts a run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    job: String,
    #[serde(default)]
    run_id: Option<RunId>,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    only: Map<String, Value>,
    #[serde(default)]
    date: Option<jiff::civil::Date>,
    #[serde(default)]
    allow_shrink: bool,
    #[serde(default)]
    force: bool,
}

impl Request {
    /// Reads one; says what is wrong with it.
    pub(super) fn read(body: &[u8]) -> Result<Ask, String> {
        if body.len() > LARGEST {
            return Err(format!("a request of {} bytes", body.len()));
        }
        let request: Request =
            serde_json::from_slice(body).map_err(|error| format!("not a request: {error}"))?;
        Ok(Ask {
            job: request.job,
            run: request.run_id,
            date: request.date,
            parent: None,
            params: pairs(&request.params)?,
            only: several(&request.only)?,
            allow_shrink: request.allow_shrink,
            force: request.force,
        })
    }
}

fn pairs(values: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    values
        .iter()
        .map(|(name, value)| Ok((name.clone(), text(name, value)?)))
        .collect()
}

/// A dimension's value, or a list of them.
fn several(values: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for (name, value) in values {
        let list = value
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![value.clone()]);
        for value in &list {
            all.push((name.clone(), text(name, value)?));
        }
    }
    Ok(all)
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(format!("`{name}` is neither text nor a number")),
    }
}

/// Starts what is asked for until the process stops.
pub(super) async fn answer(server: Arc<Server>) {
    let Ok(mut inbox) = server.inbox(Hear::Requests, AT_A_TIME) else {
        return;
    };
    let room = Arc::new(Semaphore::new(usize::from(AT_A_TIME)));
    loop {
        let letter = tokio::select! {
            letter = inbox.next() => letter,
            () = server.stop.cancelled() => return,
        };
        let Some(letter) = letter else { continue };
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let server = server.clone();
        tokio::spawn(async move {
            one(&server, letter).await;
            drop(permit);
        });
    }
}

async fn one(server: &Server, letter: Letter) {
    let mut ask = match Request::read(&letter.body) {
        Ok(ask) => ask,
        Err(why) => return bury(server, letter, &why).await,
    };
    // A message that comes again is the same run, as far as its publisher named it.
    ask.run = ask.run.or_else(|| letter.id.as_deref().map(of_message));
    let mut told = false;
    loop {
        match server.start_run(ask.clone()).await {
            Ok(_) => return letter.ack().await,
            Err(error) if hopeless(&error) => {
                return bury(server, letter, &format!("{error:#}")).await;
            }
            Err(error) => {
                if !told {
                    tracing::warn!(job = ask.job, "a request waits: {error:#}");
                    told = true;
                }
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    // Unacked: it comes again.
                    () = server.stop.cancelled() => return,
                }
            }
        }
    }
}

async fn bury(server: &Server, letter: Letter, why: &str) {
    tracing::error!(why, "a request is put to the dead letters");
    server.gauges.dead_letter("request");
    if let Err(error) = letter.bury(&server.stores.publisher, why).await {
        tracing::warn!(%error, "the request comes again");
    }
}

fn of_message(id: &str) -> RunId {
    let digest = hex::encode(Sha256::digest(id));
    format!("m-{}", &digest[..24])
        .parse()
        .expect("letters and digits are a run id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_or_says_what_is_wrong() {
        let ask = Request::read(
            br#"{"job":"fares","run_id":"2026-11-21","params":{"origin":"ICN","n":2}}"#,
        )
        .expect("a request");
        assert_eq!((ask.job.as_str(), ask.params.len()), ("fares", 2));
        for bad in [
            &br#"{"job":"fares","run_id":"../x"}"#[..],
            br#"{"job":"fares","params":{"o":[1]}}"#,
            br#"{"jobs":"fares"}"#,
            b"\xff",
            b"",
        ] {
            assert!(Request::read(bad).is_err());
        }
    }
}
