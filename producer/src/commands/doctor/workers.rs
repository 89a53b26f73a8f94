//! Whether somebody takes the lanes: those of open runs, and those that the spec folder's providers allow to
//! workers with a label alone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use paceline_protocol::ids::RunRef;
use paceline_protocol::lanes::{LaneChoice, is_taken, parts, taker_of};
use paceline_protocol::stores::state::{OpenRun, QUEUE_GONE, State};

use super::Finding;
use crate::commands::load;
use crate::context::Context;
use crate::run::open_entries;
use crate::stores::Archive;

const WHAT: &str = "lanes";
/// Names in one line.
const NAMED: usize = 5;

/// What was seen of the fleet.
pub(super) struct Fleet {
    takers: Vec<LaneChoice>,
    open: Vec<OpenRun>,
    /// Runs that a collector cannot serve, and why.
    unserved: Vec<(RunRef, String)>,
    /// Runs that a loader, or a collector with its receipt, waits for a server with, and why.
    waiting: Vec<(RunRef, String)>,
}

impl Fleet {
    /// Asks Redis.
    ///
    /// # Errors
    /// When it does not answer, or S3, which knows the open runs where Redis does not.
    pub(super) async fn look(state: &State, context: &Context) -> Result<Self> {
        let open = match state.open_runs().await? {
            Some(open) => open,
            None => open_entries(&Archive::connect(&context.env).await?).await?,
        };
        let (mut unserved, mut waiting) = (Vec::new(), Vec::new());
        for run in open.iter().filter(|run| !run.paused) {
            let why = state.unserved(&run.run).await?;
            unserved.extend(why.map(|why| (run.run.clone(), why)));
            let why = state.loader_waits(&run.run).await?;
            waiting.extend(why.map(|why| (run.run.clone(), why)));
        }
        Ok(Fleet {
            takers: state.takers().await?,
            open,
            unserved,
            waiting,
        })
    }

    /// Whether any run waits for workers.
    pub(super) fn has_work(&self) -> bool {
        self.open.iter().any(|run| !run.paused)
    }

    /// A line for each label that nobody has, else one that all is well.
    pub(super) fn findings(&self, context: &Context) -> Vec<Finding> {
        let mut all = findings(&self.takers, &self.open, &labelled(context));
        all.extend(
            self.unserved
                .iter()
                .map(|(run, why)| match why.strip_prefix(QUEUE_GONE) {
                    Some(rest) => Finding::warn(
                        "queues",
                        format!("the shards of {run} are lost: {QUEUE_GONE}{rest}"),
                        "do so: nothing that is finished is called again",
                    ),
                    None => Finding::warn(
                        "workers",
                        format!("a running worker cannot serve {run}: {why}"),
                        "start the workers with what it lacks; the others go on without it",
                    ),
                }),
        );
        all.extend(self.waiting.iter().map(|(run, why)| {
            Finding::warn(
                "loaders",
                format!("the results of {run} are not loaded: {why}"),
                "mend that; loading goes on by itself then",
            )
        }));
        all
    }
}

/// Lanes of the spec folder that ask for a label. A job that cannot be read is told of elsewhere.
fn labelled(context: &Context) -> BTreeSet<String> {
    let Ok(folder) = load::folder(context) else {
        return BTreeSet::new();
    };
    let names: Vec<String> = folder.job_names().into_iter().map(str::to_owned).collect();
    let jobs = names.iter().filter_map(|name| folder.job(name).ok());
    let lanes = jobs.flat_map(|job| {
        let of_job = job.providers.into_values().filter_map(|provider| {
            let label = provider.egress?;
            Some(format!("{}@{label}", provider.name))
        });
        of_job.collect::<Vec<_>>()
    });
    lanes.collect()
}

fn findings(takers: &[LaneChoice], open: &[OpenRun], labelled: &BTreeSet<String>) -> Vec<Finding> {
    let going = open.iter().filter(|run| !run.paused);
    let mut asked: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for run in going {
        for lane in &run.lanes {
            let waiting = asked.entry(lane).or_default();
            waiting.insert(run.run.to_string());
        }
    }
    for lane in labelled {
        asked.entry(lane).or_default();
    }
    let all = asked.len();
    asked.retain(|lane, _| !is_taken(lane, takers));
    let mut by_label: BTreeMap<Option<&str>, Vec<(&str, BTreeSet<String>)>> = BTreeMap::new();
    for (lane, runs) in asked {
        let (_, label) = parts(lane);
        by_label.entry(label).or_default().push((lane, runs));
    }
    if by_label.is_empty() {
        let found = match all {
            0 => "nothing waits for a worker".to_owned(),
            _ => "each has a running worker that takes it".to_owned(),
        };
        return vec![Finding::ok(WHAT, found)];
    }
    let untaken = by_label.into_iter();
    untaken
        .map(|(label, lanes)| nobody(label, &lanes, takers))
        .collect()
}

fn nobody(
    label: Option<&str>,
    lanes: &[(&str, BTreeSet<String>)],
    takers: &[LaneChoice],
) -> Finding {
    let names: Vec<&str> = lanes.iter().map(|(lane, _)| *lane).collect();
    let runs: BTreeSet<&str> = lanes
        .iter()
        .flat_map(|(_, runs)| runs.iter().map(String::as_str))
        .collect();
    let runs: Vec<&str> = runs.into_iter().collect();
    let mut found = format!("no running worker takes {}", list(&names));
    if !runs.is_empty() {
        found += &format!("; {} waits for one", list(&runs));
    }
    let has_label = |taker: &&LaneChoice| label.is_none_or(|l| taker.egress.as_deref() == Some(l));
    let left_out = takers.iter().find(has_label);
    let remedy = match (left_out, lanes.first()) {
        (Some(taker), _) => format!(
            "the workers that could take only `--lanes {}`: name it there, or start one without",
            taker.lanes.join(",")
        ),
        (None, Some((lane, _))) => format!("start `{}`", taker_of(lane)),
        (None, None) => String::new(),
    };
    Finding::warn(WHAT, found, remedy)
}

fn list(names: &[&str]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    fn run(name: &str, lanes: &[&str]) -> OpenRun {
        let run = serde_json::json!({
            "run": {"job": name, "run": "r1"}, "lanes": lanes, "priority": 5, "paused": false,
            "reason": null, "round": 0,
        });
        serde_json::from_value(run).expect("an open run")
    }

    fn worker(egress: Option<&str>, lanes: &[&str]) -> LaneChoice {
        LaneChoice {
            egress: egress.map(str::to_owned),
            lanes: lanes.iter().map(|lane| (*lane).to_owned()).collect(),
        }
    }

    #[test]
    fn a_lane_that_nobody_takes_is_seen() {
        let spec = BTreeSet::from(["coupang@static".to_owned()]);
        let ok = |found: &[Finding]| found.iter().all(|finding| finding.mark == Mark::Ok);
        assert!(ok(&findings(&[], &[], &BTreeSet::new())));
        assert!(ok(&findings(
            &[worker(Some("static"), &[])],
            &[run("orders", &["coupang@static", "other"])],
            &spec
        )));

        let idle = findings(&[worker(None, &[])], &[], &spec);
        assert_eq!(idle[0].mark, Mark::Warn);
        assert_eq!(idle[0].found, "no running worker takes coupang@static");
        assert_eq!(
            idle[0].remedy.as_deref(),
            Some("start `worker collect --egress static`")
        );

        let open = [run("orders", &["coupang@static", "other"])];
        let both = findings(&[], &open, &spec);
        assert_eq!(both.len(), 2);
        assert_eq!(
            both[0].found,
            "no running worker takes other; orders/r1 waits for one"
        );
        assert_eq!(both[0].remedy.as_deref(), Some("start `worker collect`"));
        let narrow = findings(&[worker(Some("static"), &["coupang"])], &open, &spec);
        assert_eq!(narrow.len(), 1);
        let remedy = narrow[0].remedy.as_deref().expect("a remedy");
        assert!(remedy.contains("--lanes coupang"), "{remedy}");
    }
}
