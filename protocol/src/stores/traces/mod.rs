//! Traces over OTLP (HTTP, JSON), where `OTEL_EXPORTER_OTLP_ENDPOINT` says whereto. Without it nothing is made,
//! nothing is sent, and a [`Span`] is a null pointer.
//!
//! Spans go into a bounded queue, which a thread of its own empties: whoever ends a span never waits. What does not fit
//! into the queue, and what the receiver does not take, is dropped and counted.

mod otlp;
mod sender;
mod settings;
mod span;

use std::sync::OnceLock;
use std::time::Duration;

pub use self::span::{Kind, Span};

use self::sender::Sender;
use self::settings::Settings;
use crate::ids::RunRef;
use crate::plan::Plan;
use crate::settings::{Environment, SettingError};
use crate::trace::TraceContext;

/// The process' own way out; without one nothing is traced.
static TRACES: OnceLock<Traces> = OnceLock::new();

struct Traces {
    sender: Sender,
    /// The share of runs that is recorded.
    share: f64,
}

/// Starts sending as the environment says; `service` is what this process is called.
///
/// # Errors
/// When a variable makes no sense.
pub fn start(env: &impl Environment, service: &str, version: &str) -> Result<(), SettingError> {
    let Some(settings) = Settings::read(env, service, version)? else {
        return Ok(());
    };
    let share = settings.share;
    // A second start (tests in one process) keeps the first one's.
    TRACES.get_or_init(|| Traces {
        sender: Sender::start(settings),
        share,
    });
    Ok(())
}

/// The root of a run's trace; `None` where nothing is traced.
pub fn of_plan(plan: &Plan) -> Option<TraceContext> {
    Some(TraceContext::of_plan(plan, TRACES.get()?.share))
}

/// Records the whole run, from its planning to this moment: its root span.
pub fn run_ended(plan: &Plan, state: &str, cells: u64, failed: u64) {
    if let Some(root) = of_plan(plan) {
        let RunRef { job, run } = plan.run_ref();
        let whole = Span::root_of(&root, format!("run {job}"), plan.planned_at)
            .with("paceline.job", job)
            .with("paceline.run", run.to_string())
            .with("paceline.state", state)
            .with("paceline.cells", cells)
            .with("paceline.failed", failed);
        drop(whole);
    }
}

/// Sends what has ended so far, for at most `limit`: before the process ends.
pub fn flush(limit: Duration) {
    if let Some(traces) = TRACES.get() {
        traces.sender.flush(limit);
    }
}

/// How many spans were taken by the receiver, and how many were dropped, since the start of the process.
pub fn counts() -> (u64, u64) {
    TRACES.get().map_or((0, 0), |traces| traces.sender.counts())
}
