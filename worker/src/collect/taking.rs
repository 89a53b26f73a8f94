//! Tells the fleet which lanes this collector takes, so that a lane that nobody takes is seen.

use std::time::Duration;

use paceline_protocol::lanes::LaneChoice;
use paceline_protocol::stores::state::State;

use crate::shutdown::Shutdown;

/// How often.
const EVERY: Duration = Duration::from_secs(5);

/// Tells until the drain. That it is known is worth no more than a try.
pub(super) async fn keep_telling(state: State, choice: LaneChoice, shutdown: Shutdown) {
    while !shutdown.is_draining() {
        if let Err(error) = state.tell_taker(&choice).await {
            tracing::debug!(%error, "the fleet is not told which lanes are taken");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.draining() => {}
        }
    }
}
