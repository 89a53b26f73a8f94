//! Whether a run counts as good, and whether it publishes: a pure judgement with its reasons.

use paceline_protocol::plan::Plan;
use paceline_protocol::spec::IndexMode;

use super::tally::Tally;

/// From so many rejected documents, or scores that are none, on, their share counts.
const FEW: u64 = 10;

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Inside its gate.
    pub(super) passed: bool,
    /// It may take alias and sets.
    pub(super) publish: bool,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

impl Verdict {
    fn good() -> Self {
        Verdict {
            passed: true,
            publish: true,
            notes: Vec::new(),
        }
    }

    /// Outside the gate from the start.
    pub(super) fn failed(why: String) -> Self {
        let mut verdict = Verdict::good();
        verdict.fail(why);
        verdict
    }

    /// Outside the gate.
    pub(super) fn fail(&mut self, why: String) {
        self.passed = false;
        self.withhold(why);
    }

    /// Good, but nothing is published.
    pub(super) fn withhold(&mut self, why: String) {
        self.publish = false;
        self.notes.push(why);
    }
}

/// Judges a run that is complete. `base` is the records of the last good run, when there is one.
pub(super) fn judge(plan: &Plan, tally: &Tally, base: Option<u64>) -> Verdict {
    let mut verdict = Verdict::good();
    if tally.cells == 0 {
        verdict.withhold("the run has no cells: nothing is published".to_owned());
        return verdict;
    }
    judge_cells(plan, tally, &mut verdict);
    let most = tally.rejected * 2 > tally.records;
    let rejected = too_many_rejected(tally.rejected, tally.records)
        .or_else(|| most.then(|| rejected(tally.rejected, tally.records)));
    if let Some(why) = rejected {
        verdict.fail(why);
    }
    judge_scores(tally, &mut verdict);
    if !plan.only.is_empty() {
        verdict.withhold("narrowed by --only: neither alias nor sets are published".to_owned());
    } else if publishes(plan) && !plan.allow_shrink {
        judge_records(plan, tally, base, &mut verdict);
    }
    verdict
}

fn judge_cells(plan: &Plan, tally: &Tally, verdict: &mut Verdict) {
    let good = tally.succeeded + tally.empty;
    let share = good as f64 / tally.cells as f64;
    if share < plan.job.gate.cells {
        verdict.fail(format!(
            "outside the gate: {good} of {} cells succeeded or were empty ({:.2} %), {:.2} % are asked for",
            tally.cells,
            share * 100.0,
            plan.job.gate.cells * 100.0,
        ));
    }
}

/// A few scores that are no numbers are named; many mean that the template is wrong, not a record.
fn judge_scores(tally: &Tally, verdict: &mut Verdict) {
    let (unscored, records) = (tally.unscored, tally.records);
    if unscored == 0 {
        return;
    }
    let what = format!(
        "{unscored} scores of {records} records are no numbers and in no sorted set: see `score` in the job's `rankings`"
    );
    let many = unscored >= FEW && unscored * 100 > records;
    match many || unscored >= records {
        true => verdict.fail(format!("outside the gate: {what}")),
        false => verdict.notes.push(what),
    }
}

fn judge_records(plan: &Plan, tally: &Tally, base: Option<u64>, verdict: &mut Verdict) {
    let hint = "use --allow-shrink if that is right";
    let records = tally.records;
    if records == 0 {
        verdict.fail(format!(
            "outside the gate: there are no records at all; {hint}"
        ));
        return;
    }
    let Some(base) = base else { return };
    if (records as f64) < base as f64 * plan.job.gate.records {
        verdict.fail(format!(
            "outside the gate: {records} records are fewer than {:.0} % of the last good run's {base}; {hint}",
            plan.job.gate.records * 100.0,
        ));
    }
}

/// Whether the job publishes an alias or sets at all.
fn publishes(plan: &Plan) -> bool {
    let outputs = &plan.job.outputs;
    let alias = outputs
        .index
        .as_ref()
        .is_some_and(|index| index.mode == IndexMode::Snapshot);
    alias || !outputs.rankings.is_empty()
}

/// Why so many rejected documents are too many: more than 1 % of the records so far, and not just a few.
pub(super) fn too_many_rejected(documents: u64, records: u64) -> Option<String> {
    let too_many = documents >= FEW && documents * 100 > records;
    too_many.then(|| rejected(documents, records))
}

fn rejected(documents: u64, records: u64) -> String {
    format!(
        "Elasticsearch rejected {documents} of {records} documents, more than 1 %: see failures/documents-*.ndjson, and the job's `mapping`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::{plan, snapshot};

    fn tally(succeeded: u64, empty: u64, failed: u64, records: u64) -> Tally {
        let cells = succeeded + empty + failed;
        Tally {
            cells,
            succeeded,
            empty,
            failed,
            records,
            ..Tally::default()
        }
    }

    fn snapshot_plan() -> Plan {
        let mut plan = plan(100);
        plan.job.outputs.index = Some(snapshot("{{ night }}"));
        plan.job.gate.cells = 0.99;
        plan
    }

    #[test]
    fn the_share_of_cells_decides() {
        let plan = snapshot_plan();
        assert_eq!(judge(&plan, &tally(90, 9, 1, 90), None), Verdict::good());
        let failed = judge(&plan, &tally(90, 8, 2, 90), None);
        assert!(!failed.passed && !failed.publish && failed.notes[0].contains("98 of 100"));
    }

    #[test]
    fn a_run_that_shrank_is_outside_unless_allowed() {
        let mut plan = snapshot_plan();
        assert!(judge(&plan, &tally(100, 0, 0, 50), Some(100)).passed);
        assert!(!judge(&plan, &tally(100, 0, 0, 49), Some(100)).passed);
        assert!(!judge(&plan, &tally(0, 100, 0, 0), None).passed);
        plan.allow_shrink = true;
        assert!(judge(&plan, &tally(0, 100, 0, 0), Some(100)).publish);
    }

    #[test]
    fn a_job_that_publishes_nothing_needs_no_records() {
        assert!(judge(&plan(100), &tally(0, 100, 0, 0), Some(100)).passed);
    }

    #[test]
    fn narrowed_and_empty_runs_pass_without_publishing() {
        let mut plan = snapshot_plan();
        plan.only.insert("city".into(), vec!["NRT".into()]);
        let narrowed = judge(&plan, &tally(100, 0, 0, 0), Some(1000));
        assert!(narrowed.passed && !narrowed.publish);
        let empty = judge(&plan, &tally(0, 0, 0, 0), None);
        assert!(empty.passed && !empty.publish);
    }

    #[test]
    fn scores_that_are_no_numbers_are_named_and_many_fail_the_run() {
        let judged = |unscored, records| {
            let tally = Tally {
                unscored,
                ..tally(records, 0, 0, records)
            };
            let mut verdict = Verdict::good();
            judge_scores(&tally, &mut verdict);
            (verdict.passed, verdict.notes.len())
        };
        assert_eq!(judged(0, 9), (true, 0));
        assert_eq!(judged(9, 100), (true, 1));
        assert_eq!(judged(10, 1_000), (true, 1));
        assert_eq!(judged(11, 1_000), (false, 1));
        assert_eq!(judged(3, 3), (false, 1));
    }

    #[test]
    fn one_percent_of_rejected_documents_is_too_many_but_a_few_are_not() {
        assert_eq!(too_many_rejected(9, 9), None);
        assert_eq!(too_many_rejected(10, 1000), None);
        assert!(too_many_rejected(11, 1000).is_some());
    }

    #[test]
    fn a_small_run_whose_documents_were_all_rejected_replaces_nothing() {
        let judged = |rejected| {
            let tally = Tally {
                rejected,
                ..tally(4, 0, 0, 4)
            };
            judge(&snapshot_plan(), &tally, None).passed
        };
        assert!(judged(1) && judged(2), "some are listed");
        assert!(!judged(3) && !judged(4));
    }
}
