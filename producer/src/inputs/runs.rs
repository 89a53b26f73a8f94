//! Which runs of a job are good, and which of them a run that follows reads.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::inputs::ReadRun;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::plan::Plan;

use crate::run::all_runs;
use crate::stores::Archive;

/// How many runs are asked for at a time.
const AT_A_TIME: usize = 32;

/// So many good runs of a child tell what it has read of runs that were retried.
const LOOK_BACK: usize = 30;

/// The good runs of a job (those with `_SUCCESS`, not narrowed by `--only`), planned last first.
///
/// # Errors
/// When S3 does not answer.
pub async fn good_runs(archive: &Archive, job: &str) -> Result<Vec<ReadRun>> {
    let runs = all_runs(archive, Some(job)).await?;
    let found: Vec<Option<ReadRun>> = stream::iter(runs)
        .map(|run| good_run(archive, run))
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    let mut good: Vec<ReadRun> = found.into_iter().flatten().collect();
    good.sort_by(|a, b| (b.planned_at, &b.id).cmp(&(a.planned_at, &a.id)));
    Ok(good)
}

async fn good_run(archive: &Archive, run: RunRef) -> Result<Option<ReadRun>> {
    let key = RunLayout::new(&archive.fleet.prefix, &run).success();
    let Some(said) = archive.objects.head(&key).await? else {
        return Ok(None);
    };
    let (narrowed, found) = match of_success(&run, &said) {
        Some(found) => found,
        None => of_plan(&read_plan(archive, &run).await?),
    };
    Ok((!narrowed).then_some(found))
}

/// What the mark of success says of its run beside being there: whether it was narrowed, and when it was planned.
fn of_success(run: &RunRef, said: &HashMap<String, String>) -> Option<(bool, ReadRun)> {
    let narrowed = said.get("narrowed")?.parse().ok()?;
    let found = ReadRun {
        job: run.job.clone(),
        id: run.run.clone(),
        date: said.get("date")?.parse().ok()?,
        planned_at: said.get("planned")?.parse().ok()?,
        round: said.get("round").map_or(Some(0), |r| r.parse().ok())?,
        after_round: None,
    };
    Some((narrowed, found))
}

fn of_plan(plan: &Plan) -> (bool, ReadRun) {
    let found = ReadRun {
        job: plan.job.name.clone(),
        id: plan.run.clone(),
        date: plan.date,
        planned_at: plan.planned_at,
        round: 0,
        after_round: None,
    };
    (!plan.only.is_empty(), found)
}

async fn read_plan(archive: &Archive, run: &RunRef) -> Result<Plan> {
    let key = RunLayout::new(&archive.fleet.prefix, run).plan();
    let object = archive.objects.get(&key).await?;
    let object = object.with_context(|| format!("run {run} has no plan ({key})"))?;
    serde_json::from_slice(&object.body).with_context(|| format!("{key} is not what it should be"))
}

/// The plan of a run that was found.
///
/// # Errors
/// When S3 does not answer, or the plan is gone.
pub async fn plan_of(archive: &Archive, run: &ReadRun) -> Result<Plan> {
    let run = RunRef {
        job: run.job.clone(),
        run: run.id.clone(),
    };
    read_plan(archive, &run).await
}

/// A run that was found, as others read it.
///
/// # Errors
/// When S3 does not answer, or the plan is gone.
pub async fn run_of(archive: &Archive, run: &RunRef) -> Result<ReadRun> {
    Ok(of_plan(&read_plan(archive, run).await?).1)
}

/// The runs up to the one called `named`, which may itself have failed (`after: {on_failure: true}`).
///
/// # Errors
/// When there is no such run.
pub async fn up_to(
    archive: &Archive,
    job: &str,
    good: Vec<ReadRun>,
    named: &RunId,
) -> Result<Vec<ReadRun>> {
    let first = match good.iter().find(|run| run.id == *named) {
        Some(found) => found.clone(),
        None => {
            let run = RunRef {
                job: job.to_owned(),
                run: named.clone(),
            };
            of_plan(&read_plan(archive, &run).await?).1
        }
    };
    let older = good
        .into_iter()
        .filter(|run| run.id != *named && run.planned_at <= first.planned_at);
    Ok(std::iter::once(first.clone()).chain(older).collect())
}

/// The runs of `read` that the good runs of `child` have read, the newest reading first.
pub struct Readings(Vec<Vec<ReadRun>>);

impl Readings {
    /// Reads what the last good run of `child` has read, and where one of `runs` was retried, what those before it have.
    ///
    /// # Errors
    /// When S3 does not answer.
    pub async fn of(archive: &Archive, child: &str, runs: &[ReadRun]) -> Result<Self> {
        let Some(newest) = runs.first() else {
            return Ok(Readings(Vec::new()));
        };
        let looks = match runs.iter().any(|run| run.round > 0) {
            true => LOOK_BACK,
            false => 1,
        };
        let mut readings = Vec::new();
        for good in good_runs(archive, child).await?.into_iter().take(looks) {
            let mut read = plan_of(archive, &good).await?.inputs.runs;
            read.retain(|run| run.job == newest.job);
            readings.push(read);
        }
        Ok(Readings(readings))
    }

    /// When the newest run was planned that was read last.
    fn last(&self) -> Option<Timestamp> {
        self.0.first()?.iter().map(|run| run.planned_at).max()
    }

    /// The round of a run that was read last.
    fn round_of(&self, id: &RunId) -> Option<u32> {
        let reading = |runs: &Vec<ReadRun>| runs.iter().find(|run| run.id == *id).map(|r| r.round);
        self.0.iter().find_map(reading)
    }

    /// Of `runs` (newest first) those planned after what was read last, the newest in any case; and what retries have
    /// added since to those that were read before.
    pub fn unread(&self, runs: Vec<ReadRun>) -> Vec<ReadRun> {
        let last = self.last();
        let new = |run: &ReadRun| last.is_none_or(|last| run.planned_at > last);
        let count = runs.iter().take_while(|run| new(run)).count().max(1);
        let mut unread = runs;
        let older = unread.split_off(count.min(unread.len()));
        unread.extend(older.into_iter().filter_map(|run| {
            let read = self.round_of(&run.id)?;
            (run.round > read).then_some(ReadRun {
                after_round: Some(read),
                ..run
            })
        }));
        unread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(day: u8) -> ReadRun {
        ReadRun {
            job: "events".into(),
            id: format!("d{day}").parse().expect("a run id"),
            date: "2026-11-21".parse().expect("a date"),
            planned_at: at(day),
            round: 0,
            after_round: None,
        }
    }

    fn at(day: u8) -> Timestamp {
        format!("2026-11-{day:02}T00:00:00Z")
            .parse()
            .expect("an instant")
    }

    #[test]
    fn a_child_that_failed_loses_no_run_of_its_parent() {
        let days = |last: Option<u8>| {
            let read = Readings(last.into_iter().map(|day| vec![run(day)]).collect());
            let read = read.unread(vec![run(9), run(8), run(7)]);
            read.iter().map(|r| r.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(days(Some(8)), ["d9"], "the child read the 8th");
        assert_eq!(days(Some(7)), ["d9", "d8"], "the child of the 8th failed");
        assert_eq!(days(None), ["d9", "d8", "d7"], "no child was ever good");
        assert_eq!(days(Some(9)), ["d9"], "read again by hand");
    }

    #[test]
    fn what_a_retry_added_to_a_run_that_was_read_is_read_once() {
        let retried = |day, round| ReadRun { round, ..run(day) };
        let read = |readings: Vec<Vec<ReadRun>>| {
            let unread = Readings(readings).unread(vec![run(9), retried(8, 2), retried(7, 1)]);
            let told = unread.iter().map(|r| (r.id.to_string(), r.after_round));
            told.collect::<Vec<_>>()
        };
        let nine = ("d9".to_owned(), None);
        let before = vec![vec![run(8)], vec![run(7)]];
        assert_eq!(
            read(before.clone()),
            [nine.clone(), ("d8".into(), Some(0)), ("d7".into(), Some(0))]
        );
        let last = vec![retried(8, 1), retried(7, 1)];
        assert_eq!(
            read([vec![last], before].concat()),
            [nine, ("d8".into(), Some(1))]
        );
    }

    #[test]
    fn the_mark_of_success_says_what_a_reader_asks() {
        let id = RunRef {
            job: "events".into(),
            run: "d9".parse().expect("a run id"),
        };
        let said = [
            ("planned", "2026-11-09T00:00:00Z"),
            ("date", "2026-11-21"),
            ("narrowed", "false"),
        ];
        let said: HashMap<String, String> = said.map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(of_success(&id, &said), Some((false, run(9))));
        assert_eq!(
            of_success(&id, &HashMap::new()),
            None,
            "then the plan is read"
        );
    }
}
