//! The proof from the ledger: the worst window of every limit, and what the calls were good for.

mod answered;
mod limits;
mod merge;
mod timeline;
mod window;

use std::collections::BTreeMap;

use anyhow::Result;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::limiter::Grants;
use paceline_protocol::stores::objects::{Listed, Objects};
use serde::Serialize;

pub use limits::Audited;
pub use timeline::Timeline;

use answered::Answered;
use limits::Meters;
use merge::Merge;

/// How long a worker may take, beyond a call's own time limit, to write its row.
const WRITING_US: i64 = 30_000_000;

/// What `audit --json` says; the names are a contract.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run's id.
    pub run: String,
    /// Grants that Redis counted; absent when Redis has forgotten the run.
    pub granted: Option<u64>,
    /// Of those, the ones that were dropped without a call: what they drew from had closed meanwhile, or they came too
    /// late to be used.
    pub dropped: u64,
    /// There may have been more: Redis lost its count in the middle of the run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub granted_is_least: bool,
    /// Calls in the ledger.
    pub calls: u64,
    /// Calls that the provider refused as too many: for the moment, or until a quota is reset.
    pub refused: u64,
    /// Pages that were answered again.
    pub repeated: u64,
    /// Every limit and scope that was drawn from.
    pub limits: Vec<Audited>,
    /// Calls without a result, by what they ended in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub wasted: BTreeMap<String, u64>,
    /// The calls by time.
    #[serde(skip)]
    pub timeline: Timeline,
}

impl Report {
    /// Notes that Redis counts `counted` grants. A call is written by its grant alone, so a count below the calls began
    /// after a loss of Redis: then the calls are the least that it was, and how many more is not known.
    pub fn note_grants(&mut self, grants: Grants) {
        let counted = grants.given;
        self.dropped = grants.dropped.min(counted.saturating_sub(self.calls));
        self.granted = (counted > 0 || self.calls == 0).then_some(counted.max(self.calls));
        self.granted_is_least = counted > 0 && counted < self.calls;
    }

    /// Whether some limit was passed.
    pub fn passed(&self) -> bool {
        self.limits.iter().any(Audited::passed)
    }
}

/// Reads a run's ledger and audits it.
///
/// # Errors
/// When S3 does not answer, or an object is not a ledger.
pub async fn audit(objects: &Objects, layout: &RunLayout, plan: &Plan) -> Result<Report> {
    let mut keys = Vec::new();
    let mut each = |listed: Listed| keys.push(listed.key);
    objects.list_each(&layout.ledger(), &mut each).await?;
    let mut rows = Merge::new(keys, longest_call_us(plan));
    let mut audit = Audit::new(plan);
    while let Some(row) = rows.next(objects).await? {
        audit.note(&row);
    }
    Ok(audit.report())
}

fn longest_call_us(plan: &Plan) -> i64 {
    let longest = plan
        .providers
        .values()
        .map(|p| p.timeout.connect.0 + p.timeout.total.0)
        .max();
    let longest = longest.unwrap_or_default().as_micros();
    i64::try_from(longest)
        .unwrap_or(i64::MAX)
        .saturating_add(WRITING_US)
}

/// An audit in the making.
struct Audit<'a> {
    plan: &'a Plan,
    meters: Meters<'a>,
    answered: Answered,
    calls: u64,
    refused: u64,
    wasted: BTreeMap<String, u64>,
    timeline: Timeline,
}

impl<'a> Audit<'a> {
    fn new(plan: &'a Plan) -> Self {
        Audit {
            plan,
            meters: Meters::new(plan),
            answered: Answered::default(),
            calls: 0,
            refused: 0,
            wasted: BTreeMap::new(),
            timeline: Timeline::default(),
        }
    }

    fn note(&mut self, row: &LedgerRow) {
        self.calls += 1;
        let refused = matches!(row.outcome, Outcome::Throttled | Outcome::QuotaExhausted);
        self.refused += u64::from(refused);
        self.meters.call(row);
        self.timeline.note(row);
        self.answered.note(row);
        if !matches!(row.outcome, Outcome::Ok | Outcome::Empty) {
            *self.wasted.entry(waste(row)).or_default() += 1;
        }
    }

    fn report(self) -> Report {
        Report {
            run: self.plan.run.to_string(),
            granted: None,
            dropped: 0,
            granted_is_least: false,
            calls: self.calls,
            refused: self.refused,
            repeated: self.answered.repeated,
            limits: self.meters.audited(),
            wasted: self.wasted,
            timeline: self.timeline,
        }
    }
}

fn waste(row: &LedgerRow) -> String {
    match row.reason.as_str() {
        "" => row.outcome.as_str().to_owned(),
        reason => format!("{}: {reason}", row.outcome.as_str()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_count_that_redis_lost_is_never_below_the_calls() {
        let mut report = Report {
            run: "r".into(),
            granted: None,
            dropped: 0,
            granted_is_least: false,
            calls: 400,
            refused: 0,
            repeated: 0,
            limits: Vec::new(),
            wasted: BTreeMap::new(),
            timeline: Timeline::default(),
        };
        let mut grants = |given, dropped| {
            report.note_grants(Grants { given, dropped });
            (report.granted, report.granted_is_least, report.dropped)
        };
        assert_eq!(grants(0, 0), (None, false, 0));
        assert_eq!(grants(122, 9), (Some(400), true, 0));
        assert_eq!(grants(410, 7), (Some(410), false, 7));
        assert_eq!(grants(410, 30), (Some(410), false, 10));
        report.calls = 0;
        report.note_grants(Grants::default());
        assert_eq!(report.granted, Some(0));
    }

    /// A good call at `sent_us`.
    pub(crate) fn row(sent_us: i64) -> LedgerRow {
        LedgerRow {
            sent_us,
            lane: "fare-search".into(),
            provider: "fare-search".into(),
            endpoint: "fares".into(),
            credential: None,
            scopes: Vec::new(),
            allowed: Vec::new(),
            points: Vec::new(),
            cell: 0,
            page: 0,
            attempt: 1,
            outcome: Outcome::Ok,
            status: 200,
            late_us: 0,
            duration_us: 1_000,
            bytes: 0,
            reason: String::new(),
            trace: None,
        }
    }
}
