//! `/api/v1/events`: the fleet's events as they come by, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event as Said, KeepAlive, Sse};
use axum::routing::get;
use futures::{Stream, stream};
use tokio::sync::broadcast::error::RecvError;

use super::Shared;
use crate::serve::Server;

pub(super) fn routes() -> Router<Arc<Server>> {
    Router::new().route("/api/v1/events", get(events))
}

async fn events(State(server): Shared) -> Sse<impl Stream<Item = Result<Said, Infallible>>> {
    let heard = server.events.subscribe();
    let stop = server.stop.clone();
    let said = stream::unfold((heard, stop), |(mut heard, stop)| async move {
        loop {
            let event = tokio::select! {
                event = heard.recv() => event,
                () = stop.cancelled() => return None,
            };
            match event {
                Ok(event) => {
                    let said = Said::default()
                        .event(&event.topic)
                        .data(event.body.replace(['\r', '\n'], " "));
                    return Some((Ok(said), (heard, stop)));
                }
                // What was missed is seen by asking for the runs.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(said).keep_alive(KeepAlive::default())
}
