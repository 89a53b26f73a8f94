//! Redis remembers a start until it is whole: whoever dies in its middle, or loses RabbitMQ, leaves a run that is open
//! and not all published. `serve` goes on with such a run by itself, `resume` and `retry` when they are asked.

use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::stores::state::State;

use crate::stores::Stores;

/// A start whose note is so old is taken for left.
pub const LEFT_AFTER: Duration = Duration::from_secs(30);
/// Who waits for a provider that is not ready says so often that it is still there.
const AGAIN: Duration = Duration::from_secs(10);

/// Does `start`, which publishes `run` (boxed: it is large), with a note of it; `is_left` tells of its outcome whether somebody has to go on.
///
/// # Errors
/// Those of `start`, and when Redis is away before it.
pub async fn noted<T>(
    stores: &Stores,
    run: &RunRef,
    start: BoxFuture<'_, Result<T>>,
    is_left: impl FnOnce(&Result<T>) -> bool,
) -> Result<T> {
    let name = run.to_string();
    note(stores, &name).await?;
    let again = async {
        loop {
            tokio::time::sleep(AGAIN).await;
            // Redis may be away for a moment: the next one is soon enough.
            drop(note(stores, &name).await);
        }
    };
    let outcome = tokio::select! {
        outcome = start => outcome,
        never = again => never,
    };
    let noted = match is_left(&outcome) {
        true => stores.state.note_start(&name, 0).await,
        false => stores.state.forget_start(&name).await,
    };
    if let Err(error) = noted {
        tracing::debug!(%error, "the start is looked at again");
    }
    outcome
}

/// By Redis' clock, as whoever looks after starts has it.
async fn note(stores: &Stores, name: &str) -> Result<()> {
    let (now_us, ..) = stores.limiter.clock().await?;
    Ok(stores.state.note_start(name, now_us / 1_000_000).await?)
}

/// Whether the start of `run` was left half made; by this machine's clock, since it is told to people.
///
/// # Errors
/// When Redis does not answer.
pub async fn is_left(state: &State, run: &RunRef) -> Result<bool> {
    let since = state.start_noted(&run.to_string()).await?;
    let after = i64::try_from(LEFT_AFTER.as_secs()).unwrap_or(i64::MAX);
    Ok(since.is_some_and(|since| since + after < Timestamp::now().as_second()))
}
