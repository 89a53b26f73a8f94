//! Which runs go: a plain function of what S3 knows of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use paceline_protocol::ids::{RunId, RunRef};

/// A run as cleaning sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which one.
    pub run: RunRef,
    /// When it was planned: decides which one is newer.
    pub planned_at: Timestamp,
    /// When it ended, or was planned if it never did.
    pub ended_at: Timestamp,
    /// Whether somebody collects, finishes or rebuilds it.
    pub open: bool,
    /// Inside its gate, and not narrowed.
    pub good: bool,
    /// `retention:` of its job, as it was planned.
    pub retention: Option<Duration>,
    /// Whether its job has `changes`.
    pub changes: bool,
    /// The job whose runs start those of its job.
    pub after: Option<String>,
    /// The run that started it.
    pub parent: Option<RunRef>,
    /// The runs that its plan names, with when they were planned.
    pub reads: Vec<(RunRef, Timestamp)>,
    /// The run that it was compared with.
    pub base: Option<RunRef>,
}

/// What becomes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays, and why.
    Kept(Why),
    /// All of it goes but for its ledger, plan and manifest.
    Ledger,
    /// All of it goes.
    Gone,
}

/// Why a run stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Somebody works on it.
    Open,
    /// It ended too lately, or nobody said how long its job keeps runs.
    Young,
    /// What it published is live.
    Live,
    /// It is the last good one of its job.
    LastGood,
    /// It is the newest one of its job: schedules and triggers go by it.
    Newest,
    /// The plan of a run that stays names it.
    Named(RunRef),
    /// The run that started it stays, and would start it again.
    Parent(RunRef),
    /// The job behind it has not read it yet.
    Unread(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "open"),
            Self::Young => write!(f, "young"),
            Self::Live => write!(f, "live"),
            Self::LastGood => write!(f, "the last good one"),
            Self::Newest => write!(f, "the newest one"),
            Self::Named(by) => write!(f, "the plan of {by} names it"),
            Self::Parent(parent) => write!(f, "{parent}, which started it, stays"),
            Self::Unread(job) => write!(f, "{job} has not read it yet"),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The instant.
    pub now: Timestamp,
    /// How long runs stay whose job does not say so itself.
    pub older_than: Option<Duration>,
    /// How long ledgers stay: the longest quota's window and a day.
    pub ledgers: Duration,
    /// The live run of each job.
    pub live: &'a BTreeMap<String, RunId>,
}

/// The fate of each run, in their order.
pub fn choose(runs: &[Seen], ask: &Ask<'_>) -> Vec<Fate> {
    let mut kept: BTreeMap<&RunRef, Why> = BTreeMap::new();
    let heads = heads(runs);
    for seen in runs {
        if let Some(why) = by_itself(seen, &heads, ask) {
            kept.insert(&seen.run, why);
        }
    }
    for (run, why) in named(runs, &kept) {
        kept.entry(run).or_insert(why);
    }
    for (run, why) in unread(runs, &heads) {
        kept.entry(run).or_insert(why);
    }
    // A child may have children itself.
    loop {
        let more = children(runs, &kept);
        if more.is_empty() {
            break;
        }
        kept.extend(more);
    }
    let fate = |seen: &Seen| match kept.get(&seen.run) {
        Some(why) => Fate::Kept(why.clone()),
        None if age(seen, ask.now) < ask.ledgers => Fate::Ledger,
        None => Fate::Gone,
    };
    runs.iter().map(fate).collect()
}

fn age(seen: &Seen, now: Timestamp) -> Duration {
    let age: SignedDuration = now.duration_since(seen.ended_at);
    Duration::try_from(age).unwrap_or(Duration::ZERO)
}

/// The newest run of a job, and the newest good one.
#[derive(Clone, Copy)]
struct Heads<'a> {
    newest: &'a Seen,
    good: Option<&'a Seen>,
}

fn heads(runs: &[Seen]) -> BTreeMap<&str, Heads<'_>> {
    let mut heads: BTreeMap<&str, Heads<'_>> = BTreeMap::new();
    for seen in runs {
        let good = seen.good.then_some(seen);
        let of_job = heads.entry(&seen.run.job).or_insert(Heads {
            newest: seen,
            good: None,
        });
        if order(seen) > order(of_job.newest) {
            of_job.newest = seen;
        }
        if good.map(order) > of_job.good.map(order) {
            of_job.good = good;
        }
    }
    heads
}

fn order(seen: &Seen) -> (Timestamp, &RunRef) {
    (seen.planned_at, &seen.run)
}

/// Why a run stays whatever becomes of all others.
fn by_itself(seen: &Seen, heads: &BTreeMap<&str, Heads<'_>>, ask: &Ask<'_>) -> Option<Why> {
    let of_job = heads.get(seen.run.job.as_str())?;
    let stays_for = of_job.newest.retention.or(ask.older_than);
    if seen.open {
        Some(Why::Open)
    } else if stays_for.is_none_or(|limit| age(seen, ask.now) < limit) {
        Some(Why::Young)
    } else if ask.live.get(&seen.run.job) == Some(&seen.run.run) {
        Some(Why::Live)
    } else if of_job.good.is_some_and(|good| good.run == seen.run) {
        Some(Why::LastGood)
    } else if of_job.newest.run == seen.run {
        Some(Why::Newest)
    } else {
        None
    }
}

/// The runs that plans of kept ones name. What those name in turn is not kept for it: else every run with
/// `changes` would keep all that there ever were.
fn named<'a>(runs: &'a [Seen], kept: &BTreeMap<&'a RunRef, Why>) -> Vec<(&'a RunRef, Why)> {
    let by_kept = runs.iter().filter(|seen| kept.contains_key(&seen.run));
    let names = |seen: &'a Seen| {
        let reads = seen.reads.iter().map(|(run, _)| run);
        let all = reads.chain(&seen.parent).chain(&seen.base);
        all.map(|run| (run, Why::Named(seen.run.clone())))
    };
    by_kept.flat_map(names).collect()
}

/// The good runs of a parent with `changes` that its child still has to read: all since the newest one that the
/// child's last good run has read.
fn unread<'a>(runs: &'a [Seen], heads: &BTreeMap<&str, Heads<'_>>) -> Vec<(&'a RunRef, Why)> {
    let mut unread = Vec::new();
    for (child, of_child) in heads {
        let Some(parent) = of_child.newest.after.as_deref() else {
            continue;
        };
        if !heads.get(parent).is_some_and(|p| p.newest.changes) {
            continue;
        }
        let read = of_child.good.and_then(|good| {
            let of_parent = good.reads.iter().filter(|(run, _)| run.job == parent);
            of_parent.map(|(_, planned_at)| *planned_at).max()
        });
        let waiting = runs.iter().filter(|seen| {
            seen.run.job == parent && seen.good && read.is_none_or(|read| seen.planned_at > read)
        });
        unread.extend(waiting.map(|seen| (&seen.run, Why::Unread((*child).to_owned()))));
    }
    unread
}

/// The runs whose parent stays and that are not kept yet: without them it would start them once more.
fn children<'a>(runs: &'a [Seen], kept: &BTreeMap<&'a RunRef, Why>) -> BTreeMap<&'a RunRef, Why> {
    let stays: BTreeSet<&RunRef> = kept.keys().copied().collect();
    let child = |seen: &'a Seen| {
        let parent = seen
            .parent
            .as_ref()
            .filter(|parent| stays.contains(parent))?;
        let is_new = !stays.contains(&seen.run);
        is_new.then(|| (&seen.run, Why::Parent(parent.clone())))
    };
    runs.iter().filter_map(child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).expect("in range")
    }

    fn name(job: &str, day: i64) -> RunRef {
        RunRef {
            job: job.into(),
            run: format!("d{day:03}").parse().expect("a run id"),
        }
    }

    fn seen(job: &str, day: i64) -> Seen {
        Seen {
            run: name(job, day),
            planned_at: at(day),
            ended_at: at(day),
            open: false,
            good: true,
            retention: None,
            changes: false,
            after: None,
            parent: None,
            reads: Vec::new(),
            base: None,
        }
    }

    /// What goes on day 100, after 30 days, with ledgers of 32.
    fn fates(runs: &[Seen], live: &[(&str, i64)]) -> Vec<Fate> {
        let live = live
            .iter()
            .map(|(job, day)| ((*job).to_owned(), name(job, *day).run))
            .collect();
        let ask = Ask {
            now: at(100),
            older_than: Some(30 * DAY),
            ledgers: 32 * DAY,
            live: &live,
        };
        choose(runs, &ask)
    }

    #[test]
    fn old_runs_go_and_ledgers_stay_longer() {
        let runs = [50, 69, 71, 99].map(|day| seen("fares", day));
        let young = Fate::Kept(Why::Young);
        assert_eq!(
            fates(&runs, &[("fares", 99)]),
            [Fate::Gone, Fate::Ledger, young.clone(), young]
        );
    }

    #[test]
    fn the_live_the_last_good_the_newest_and_the_open_one_stay() {
        let mut runs = [10, 20, 30, 40, 50].map(|day| seen("fares", day));
        runs[0].open = true;
        runs[3].good = false;
        runs[4].good = false;
        let fates = fates(&runs, &[("fares", 20)]);
        let why = |fate: &Fate| match fate {
            Fate::Kept(why) => why.to_string(),
            other => format!("{other:?}"),
        };
        let why: Vec<String> = fates.iter().map(why).collect();
        assert_eq!(
            why,
            [
                "open",
                "live",
                "the last good one",
                "Gone",
                "the newest one"
            ]
        );
    }

    #[test]
    fn a_base_stays_and_its_own_base_goes() {
        let mut runs = [10, 20, 30].map(|day| seen("events", day));
        runs[1].base = Some(name("events", 10));
        runs[2].base = Some(name("events", 20));
        assert_eq!(
            fates(&runs, &[("events", 30)]),
            [
                Fate::Gone,
                Fate::Kept(Why::Named(name("events", 30))),
                Fate::Kept(Why::Live)
            ]
        );
    }

    #[test]
    fn what_a_child_has_not_read_yet_stays() {
        let mut runs: Vec<Seen> = [10, 20, 30, 40].map(|day| seen("events", day)).into();
        runs.iter_mut().for_each(|seen| seen.changes = true);
        let mut child = seen("nearby", 21);
        child.after = Some("events".into());
        child.parent = Some(name("events", 20));
        child.reads = vec![(name("events", 20), at(20))];
        runs.push(child);
        let fates = fates(&runs, &[("events", 40)]);
        assert_eq!(fates[0], Fate::Gone);
        assert_eq!(fates[1], Fate::Kept(Why::Named(name("nearby", 21))));
        assert_eq!(fates[2], Fate::Kept(Why::Unread("nearby".into())));
    }

    #[test]
    fn a_child_stays_as_long_as_what_started_it() {
        let mut runs: Vec<Seen> = [10, 20].map(|day| seen("events", day)).into();
        for day in [11, 21, 22] {
            let mut child = seen("nearby", day);
            child.parent = Some(name("events", day / 10 * 10));
            runs.push(child);
        }
        let fates = fates(&runs, &[("events", 20)]);
        assert_eq!(fates[0], Fate::Gone);
        assert_eq!(fates[2], Fate::Gone, "its parent goes too");
        assert_eq!(fates[3], Fate::Kept(Why::Parent(name("events", 20))));
    }

    #[test]
    fn the_jobs_own_word_counts_more() {
        let mut runs: Vec<Seen> = [80, 90, 99].map(|day| seen("short", day)).into();
        runs[2].retention = Some(5 * DAY);
        let fates = fates(&runs, &[("short", 99)]);
        assert_eq!(fates[0], Fate::Ledger);
        let live = BTreeMap::new();
        let ask = Ask {
            now: at(100),
            older_than: None,
            ledgers: DAY,
            live: &live,
        };
        let silent = [seen("a", 1), seen("a", 2)];
        assert_eq!(choose(&silent, &ask)[0], Fate::Kept(Why::Young));
    }
}
