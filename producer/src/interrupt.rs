//! Ctrl-C and SIGTERM. The producer holds nothing that must be handed back: dropping the command is
//! enough, since every step can be done again.

use tokio::signal::unix::{SignalKind, signal};

/// Ends at the first Ctrl-C or SIGTERM.
pub async fn asked_to_stop() {
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        // Without a handler the default action of the signal ends the process as well.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        heard = tokio::signal::ctrl_c() => {
            if heard.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
