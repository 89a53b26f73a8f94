//! What a worker tells in traces: a shard from its claim to its ack, in it each call and each block, the load of its
//! receipt, and the finish of the run. Shards have traces of their own, linked to their run's.

use std::time::Duration;

use paceline_protocol::message::{Receipt, ShardMessage};
use paceline_protocol::outcome::{Outcome, Verdict};
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::traces::{self, Kind, Span};

/// A shard in hand. What its message says of its run's trace counts; without it (an older build published it) the
/// trace is known all the same.
pub fn shard(plan: &Plan, message: &ShardMessage, exchange: &str) -> Span {
    let Some(run) = message.trace.or_else(|| traces::of_plan(plan)) else {
        return Span::none();
    };
    let trace = run.shard(message.shard, message.round);
    of_message(
        Span::linked(trace, Some(&run), "collect shard", Kind::Consumer),
        exchange,
    )
    .with("paceline.job", message.job.as_str())
    .with("paceline.run", message.run.to_string())
    .with("paceline.lane", message.lane.as_str())
    .with("paceline.shard", message.shard)
    .with("paceline.round", message.round)
}

/// What is told of a call.
pub struct Called<'a> {
    /// At which provider.
    pub provider: &'a str,
    /// Which of its endpoints.
    pub endpoint: &'a str,
    /// For which cell.
    pub cell: u64,
    /// Which of the cell's attempts.
    pub attempt: u32,
    /// HTTP status; 0 for none.
    pub status: u16,
    /// What it was judged to be.
    pub verdict: &'a Verdict,
    /// From sending to the answer's last byte.
    pub took: Duration,
}

/// A call that has ended.
pub fn call(shard: &Span, called: &Called<'_>) {
    if !shard.is_some() {
        return;
    }
    let name = format!("call {}", called.endpoint);
    let span = Span::child(shard.context().as_ref(), name, Kind::Client)
        .ago(called.took)
        .with("paceline.provider", called.provider)
        .with("paceline.endpoint", called.endpoint)
        .with("paceline.cell", called.cell)
        .with("paceline.attempt", called.attempt)
        .with("paceline.outcome", called.verdict.outcome.as_str());
    if called.status > 0 {
        span.set("http.response.status_code", called.status);
    }
    if !matches!(called.verdict.outcome, Outcome::Ok | Outcome::Empty) {
        span.failed(called.verdict.reason.clone());
    }
}

/// A block that is made durable.
pub fn block(shard: &Span, number: u32) -> Span {
    let parent = shard.context();
    Span::child(parent.as_ref(), "settle block", Kind::Internal).with("paceline.block", number)
}

/// A receipt that is loaded: a step of what collected the shard.
pub fn load(plan: &Plan, receipt: &Receipt, queue: &str) -> Span {
    let span = match (receipt.trace, receipt.shard) {
        (Some(of_shard), _) => Span::child(Some(&of_shard), "load shard", Kind::Consumer),
        (None, Some(shard)) => {
            let Some(run) = traces::of_plan(plan) else {
                return Span::none();
            };
            let trace = run.shard(shard, receipt.round);
            Span::linked(trace, Some(&run), "load shard", Kind::Consumer)
        }
        (None, None) => Span::none(),
    };
    let span = of_message(span, queue)
        .with("paceline.job", receipt.job.as_str())
        .with("paceline.run", receipt.run.to_string())
        .with("paceline.round", receipt.round);
    match receipt.shard {
        Some(shard) => span.with("paceline.shard", shard),
        None => span,
    }
}

/// The finish of a run, in the run's trace.
pub fn finish(plan: &Plan, round: u32) -> Span {
    let root = traces::of_plan(plan);
    Span::child(root.as_ref(), "finish run", Kind::Internal)
        .with("paceline.job", plan.job.name.as_str())
        .with("paceline.run", plan.run.to_string())
        .with("paceline.round", round)
}

fn of_message(span: Span, from: &str) -> Span {
    span.with("messaging.system", "rabbitmq")
        .with("messaging.destination.name", from)
        .with("messaging.operation.type", "process")
}
