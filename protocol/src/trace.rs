//! Trace contexts (W3C Trace Context): which trace a message, a log line or a span belongs to.
//!
//! A run's trace is made of its name and the instant at which it was planned, a shard's of that and its number: so
//! whoever works on one knows its trace, also where the context was lost on the way. A shard has a trace of its own,
//! linked to its run's: a run of 100,000 shards in one trace is of no use to anybody.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::ids::RunRef;
use crate::plan::Plan;

/// The name of the header that carries a context.
pub const TRACEPARENT: &str = "traceparent";

/// A span's place: its trace, itself, and whether the trace is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// Whether whoever began the trace records it.
    pub sampled: bool,
}

impl TraceContext {
    /// The root of a run's trace; `share` of all traces (0 to 1) are recorded.
    pub fn of_run(run: &RunRef, planned_at: Timestamp, share: f64) -> Self {
        let (trace, span) = ids(&format!("{run}\n{planned_at}"));
        TraceContext {
            trace,
            span,
            sampled: is_sampled(trace, share),
        }
    }

    /// The same of a run whose plan is at hand.
    pub fn of_plan(plan: &Plan, share: f64) -> Self {
        Self::of_run(&plan.run_ref(), plan.planned_at, share)
    }

    /// The trace of one of the run's shards in one of its rounds.
    pub fn shard(&self, shard: u64, round: u32) -> u128 {
        ids(&format!("{:032x}\n{shard}\n{round}", self.trace)).0
    }

    /// As the header says it.
    pub fn traceparent(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }

    /// Reads the header's value; `None` for what is none. Of versions to come the four fields that are known count.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let mut hex = |digits: usize| {
            let field = fields.next().filter(|field| field.len() == digits)?;
            let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            field.chars().all(lower).then_some(field)
        };
        let version = u8::from_str_radix(hex(2)?, 16).ok()?;
        let trace = u128::from_str_radix(hex(32)?, 16).ok()?;
        let span = u64::from_str_radix(hex(16)?, 16).ok()?;
        let flags = u8::from_str_radix(hex(2)?, 16).ok()?;
        let whole = version != 0 || fields.next().is_none();
        (whole && version != 0xff && trace != 0 && span != 0).then_some(TraceContext {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

/// Two ids made of a name.
fn ids(name: &str) -> (u128, u64) {
    let digest = Sha256::digest(name.as_bytes());
    let (trace, span) = digest.split_at(16);
    let trace = trace.iter().fold(0, |all, b| all << 8 | u128::from(*b));
    let span = span[..8].iter().fold(0, |all, b| all << 8 | u64::from(*b));
    (trace.max(1), span.max(1))
}

/// The same answer everywhere for one trace, as samplers by the trace's id do.
fn is_sampled(trace: u128, share: f64) -> bool {
    let place = (trace as u64 >> 1) as f64 / (1u64 << 63) as f64;
    place < share
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(share: f64) -> TraceContext {
        let run = RunRef {
            job: "fares".into(),
            run: "2026-11-21".parse().expect("a run id"),
        };
        TraceContext::of_run(&run, Timestamp::UNIX_EPOCH, share)
    }

    #[test]
    fn a_runs_trace_is_the_same_everywhere_and_a_shards_another() {
        let run = run(1.0);
        assert_eq!(run, super::tests::run(1.0));
        assert!(run.sampled && !super::tests::run(0.0).sampled);
        assert_ne!(run.shard(0, 0), run.trace);
        assert_ne!(run.shard(0, 0), run.shard(1, 0));
        assert_ne!(run.shard(0, 0), run.shard(0, 1));
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let good = run(1.0).traceparent();
        assert_eq!(TraceContext::parse(&good), Some(run(1.0)));
        let cases = [
            String::new(),
            good.to_uppercase(),
            format!("ff{}", &good[2..]),
            format!("{good}-more"),
            format!("00-{:032x}-{:016x}-01", 0, 5),
            format!("00-{:032x}-{:016x}-01", 5, 0),
            good[..54].to_owned(),
        ];
        for text in cases {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
        let later = format!("cc{}-what-comes-later", &good[2..]);
        assert_eq!(TraceContext::parse(&later), Some(run(1.0)));
    }

    proptest! {
        #[test]
        fn a_context_reads_back(trace in 1u128.., span in 1u64.., sampled: bool) {
            let context = TraceContext { trace, span, sampled };
            prop_assert_eq!(TraceContext::parse(&context.traceparent()), Some(context));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,80}") {
            TraceContext::parse(&text);
        }

        #[test]
        fn who_records_less_records_nothing_else(trace in 1u128.., less in 0.0f64..1.0, more in 0.0f64..1.0) {
            let (less, more) = (less.min(more), less.max(more));
            prop_assert!(!is_sampled(trace, less) || is_sampled(trace, more));
        }
    }
}
