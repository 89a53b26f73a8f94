//! Ends runs that are past the deadline of their schedule: cells not called fail with reason `deadline`,
//! and the gate decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use paceline_protocol::ids::RunRef;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::message::{Control, ShardMessage};
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::state::OpenRun;
use paceline_protocol::stores::traces;
use paceline_protocol::version;
use uuid::Uuid;

use super::Server;
use super::calendar::planned_in;
use crate::run::{PartsFound, RunFiles, left_to_do, open_runs_since};

/// How often the open runs are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// So long workers have to end their calls and to leave what was answered, before all that is missing fails.
const LEAVING: Duration = Duration::from_secs(8);
/// After so long a run that still has not ended is told again.
const AGAIN: Duration = Duration::from_secs(120);

/// What is known of an open run.
#[derive(Default)]
struct Known {
    /// When its entry was written that this is read from: a retry writes another one.
    entered: Option<Timestamp>,
    /// When it must have ended.
    due: Option<Timestamp>,
    /// When its collection was stopped.
    stopped: Option<Instant>,
    /// When it was ended last.
    told: Option<Instant>,
}

/// Looks for runs past their deadline until the process stops.
pub(super) async fn enforce(server: Arc<Server>) {
    let mut known: HashMap<RunRef, Known> = HashMap::new();
    while server.leads_after(LOOK).await {
        if let Err(error) = look(&server, &mut known).await {
            tracing::warn!("deadlines wait: {error:#}");
        }
    }
}

async fn look(server: &Server, known: &mut HashMap<RunRef, Known>) -> Result<()> {
    let open = open_runs_since(&server.stores.archive).await?;
    known.retain(|run, _| open.iter().any(|(other, _)| other == run));
    for (run, entered) in open {
        let read = known.get(&run).map(|one| one.entered);
        if read != Some(entered) {
            let files = RunFiles::read(&server.stores.archive, &run).await?;
            let due = files.and_then(|files| deadline(&files.plan, files.open.as_ref()?));
            let new = Known {
                entered,
                due,
                ..Known::default()
            };
            known.insert(run.clone(), new);
        }
        let Some(one) = known.get_mut(&run) else {
            continue;
        };
        if one.due.is_none_or(|due| server.clock.now() < due) {
            continue;
        }
        match one.stopped {
            None => {
                stop(server, &run).await?;
                one.stopped = Some(Instant::now());
            }
            Some(stopped) if stopped.elapsed() >= LEAVING => {
                if one.told.is_none_or(|told| told.elapsed() >= AGAIN) {
                    end(server, &run).await?;
                    one.told = Some(Instant::now());
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// When a run must have ended: counted from its planned start, of a retry from when it was asked for. A run
/// without a schedule has no deadline.
fn deadline(plan: &Plan, open: &OpenRun) -> Option<Timestamp> {
    let schedule = plan.job.schedule.as_ref()?;
    let begun = if open.round == 0 {
        planned_in(&plan.run).map_or(plan.planned_at, |planned| planned.max(plan.planned_at))
    } else {
        open.opened_at?
    };
    Some(begun + schedule.deadline.0)
}

/// Whether the run must have ended by `now`.
pub(super) fn is_past(files: &RunFiles, now: Timestamp) -> bool {
    let open = files.open.as_ref();
    let due = open.and_then(|open| deadline(&files.plan, open));
    due.is_some_and(|due| now >= due)
}

/// Nobody begins a call any more; who works on the run leaves what was answered in `open/`. That is a pause in all but
/// its object in S3, which stays: it says since when the run is open.
async fn stop(server: &Server, run: &RunRef) -> Result<()> {
    let stores = &server.stores;
    let files = RunFiles::expect(&stores.archive, run).await?;
    let Some(entry) = files.open else {
        return Ok(());
    };
    tracing::warn!(run.id = %run, "past its deadline: cells not called fail, and the gate decides");
    let stopped = OpenRun {
        paused: true,
        reason: Some("deadline".to_owned()),
        ..entry
    };
    stores.state.set_open_run(&stopped).await?;
    let told = Control::Pause { run: run.clone() };
    Ok(stores.publisher.control(&told).await?)
}

/// What was answered is made parts, what is missing fails: by whoever takes the shards' ends.
async fn end(server: &Server, run: &RunRef) -> Result<()> {
    let stores = &server.stores;
    let files = RunFiles::expect(&stores.archive, run).await?;
    let Some(open) = files.open else {
        return Ok(());
    };
    let plan = &files.plan;
    stores.publisher.end_queues(&plan.lanes(), run).await?;
    let layout = RunLayout::new(stores.prefix(), run);
    let found = PartsFound::list(stores.objects(), &layout).await?;
    let left = left_to_do(stores.objects(), &layout, plan, &found, open.round).await?;
    for shard in left.open.iter().filter_map(|number| plan.shard(*number)) {
        let message = ShardMessage {
            v: version::message(),
            publication: Uuid::now_v7(),
            job: run.job.clone(),
            run: run.run.clone(),
            lane: shard.lane.to_owned(),
            shard: shard.number,
            round: open.round,
            trace: traces::of_plan(plan),
        };
        stores.publisher.shard_is_over(&message, "deadline").await?;
    }
    Ok(())
}
