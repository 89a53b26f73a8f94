//! Steering from outside, under `/_sim/`: neither limited nor logged.
//!
//! `GET /_sim/report` (JSON), `GET /_sim/log` (NDJSON), `POST /_sim/faults` (a JSON list of rules),
//! `POST /_sim/limits` (JSON), `POST /_sim/reset`.

use serde::de::DeserializeOwned;

use super::connection::Shared;
use super::http::{Answered, Request};
use super::log;

/// Does what a control request asks for.
pub fn answer(request: &Request, shared: &Shared) -> Answered {
    match (&*request.method, request.path()) {
        ("GET", "/_sim/report") => json(&shared.desk().report()),
        ("GET", "/_sim/log") => whole_log(shared),
        ("GET", "/_sim/limits") => json(&shared.desk().config().limits),
        ("GET", "/_sim/faults") => json(&shared.desk().config().faults),
        ("POST", "/_sim/faults") => set(request, |faults| shared.desk().set_faults(faults)),
        ("POST", "/_sim/limits") => set(request, |limits| shared.desk().set_limits(limits)),
        ("POST", "/_sim/reset") => {
            shared.desk().reset();
            done()
        }
        _ => Answered::error(404, "NOT_FOUND", "report, log, faults, limits or reset"),
    }
}

fn set<T: DeserializeOwned>(request: &Request, apply: impl FnOnce(T)) -> Answered {
    match serde_json::from_slice(&request.body) {
        Ok(value) => {
            apply(value);
            done()
        }
        Err(error) => Answered::error(400, "BAD_REQUEST", &error.to_string()),
    }
}

fn whole_log(shared: &Shared) -> Answered {
    // Copied first: writing a long log out must not keep callers waiting for the desk.
    let calls = shared.desk().calls().to_vec();
    let mut body = Vec::new();
    for call in &calls {
        log::write_line(&mut body, call).expect("writing into memory cannot fail");
    }
    Answered {
        content_type: "application/x-ndjson",
        ..Answered::json(200, body)
    }
}

fn json(value: &impl serde::Serialize) -> Answered {
    match serde_json::to_vec(value) {
        Ok(body) => Answered::json(200, body),
        Err(error) => Answered::error(500, "INTERNAL", &error.to_string()),
    }
}

fn done() -> Answered {
    Answered::json(200, "{}")
}
