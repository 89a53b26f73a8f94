//! What keeps a run from being faster, in one sentence. Pure.

use paceline_protocol::lanes::taker_of;

use crate::run::StateWord;
use crate::show;
use crate::watch::REFUSES_MORE_THAN;

/// From this share of the allowed speed on, the limit is what binds.
const FULL: f64 = 0.85;

/// What is known of an open run.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    pub(super) state: StateWord,
    /// Why it is paused.
    pub(super) reason: Option<&'a str>,
    /// The limit that binds by the limiter's books, or what is closed.
    pub(super) binds: Option<&'a str>,
    /// Calls a second of this run.
    pub(super) speed: Option<f64>,
    /// Calls a second of all runs at the same providers.
    pub(super) together: Option<f64>,
    pub(super) allowed: Option<f64>,
    /// Open runs at the same providers, beside this one.
    pub(super) others: usize,
    /// Grants so far.
    pub(super) granted: u64,
    /// A lane with work that no running worker takes.
    pub(super) untaken: Option<&'a str>,
}

/// Who holds the run back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Nobody has begun.
    Waiting,
    Operator,
    Provider,
    Limit,
    Workers,
    /// Only the end is left to be made.
    Finishing,
}

impl By {
    pub(super) fn word(self) -> &'static str {
        match self {
            By::Waiting => "no worker yet",
            By::Operator => "paused",
            By::Provider => "provider",
            By::Limit => "limit",
            By::Workers => "workers",
            By::Finishing => "finishing",
        }
    }

    /// A sign that needs no colour.
    pub(super) fn sign(self) -> &'static str {
        match self {
            By::Waiting => "\u{25cc}",
            By::Operator => "\u{2016}",
            By::Provider => "\u{2298}",
            By::Limit => "\u{2713}",
            By::Workers => "\u{25bd}",
            By::Finishing => "\u{25d4}",
        }
    }
}

/// Who holds the run back, and how that is said.
pub(super) fn verdict(facts: &Facts<'_>) -> (By, String) {
    match facts.state {
        StateWord::Paused => {
            let why = facts.reason.unwrap_or("by order");
            return (
                By::Operator,
                format!("it is paused ({why}); resume goes on with it"),
            );
        }
        StateWord::Planned => {
            return (
                By::Waiting,
                "it is planned, but its shards were not published yet".into(),
            );
        }
        StateWord::Finishing => {
            return (
                By::Finishing,
                "every cell has ended; results are being loaded and checked".into(),
            );
        }
        _ => {}
    }
    if let Some(closed) = facts.binds.filter(|binds| binds.contains(" closed (")) {
        return (
            By::Provider,
            format!("{closed}: it opens by itself, or at once with resume"),
        );
    }
    if let Some(slowed) = facts.binds.filter(|b| b.contains(REFUSES_MORE_THAN)) {
        let what = "less than its limits allow; a lower limit in its file saves the refusals";
        return (By::Provider, format!("{slowed}, {what}"));
    }
    let idle = facts.speed.is_none_or(|speed| speed < 0.05);
    if facts.granted == 0 || facts.state == StateWord::Queued && idle {
        let why = match facts.untaken {
            Some(lane) => nobody(lane),
            None => "no worker has asked for a call yet: is `worker collect` running?".into(),
        };
        return (By::Waiting, why);
    }
    if let Some(lane) = facts.untaken {
        return (By::Workers, nobody(lane));
    }
    let limit = facts.binds.unwrap_or("no limit is known");
    let (Some(speed), Some(allowed)) = (facts.speed, facts.allowed) else {
        return (By::Limit, limit.to_owned());
    };
    let together = facts.together.unwrap_or(speed);
    if together >= FULL * allowed && facts.others > 0 {
        let others = facts.others;
        let plural = if others == 1 { "" } else { "s" };
        return (
            By::Limit,
            format!(
                "{limit} ({}), shared with {others} other run{plural}",
                show::rate(allowed)
            ),
        );
    }
    if together >= FULL * allowed {
        return (
            By::Limit,
            format!("{limit}: as fast as {} allows", show::rate(allowed)),
        );
    }
    (
        By::Workers,
        format!("slower than {limit} allows: too few workers, slow answers, or little left to do"),
    )
}

fn nobody(lane: &str) -> String {
    format!(
        "no running worker takes lane {lane}: start `{}`",
        taker_of(lane)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            state: StateWord::Running,
            reason: None,
            binds: Some("fare-search/second"),
            speed: Some(49.0),
            together: Some(49.0),
            allowed: Some(50.0),
            others: 0,
            granted: 7,
            untaken: None,
        }
    }

    #[test]
    fn what_binds_is_said_by_what_is_known() {
        let by = |facts: Facts<'_>| verdict(&facts).0;
        assert_eq!(by(facts()), By::Limit);
        assert_eq!(
            by(Facts {
                speed: Some(20.0),
                together: Some(20.0),
                ..facts()
            }),
            By::Workers
        );
        assert_eq!(
            by(Facts {
                speed: Some(20.0),
                others: 1,
                ..facts()
            }),
            By::Limit
        );
        assert_eq!(
            by(Facts {
                granted: 0,
                ..facts()
            }),
            By::Waiting
        );
        assert_eq!(
            by(Facts {
                state: StateWord::Queued,
                speed: Some(0.0),
                ..facts()
            }),
            By::Waiting
        );
        assert_eq!(
            by(Facts {
                state: StateWord::Paused,
                ..facts()
            }),
            By::Operator
        );
        assert_eq!(
            by(Facts {
                state: StateWord::Finishing,
                ..facts()
            }),
            By::Finishing
        );
        let closed = Facts {
            binds: Some("fare-search closed (every key: day used up)"),
            ..facts()
        };
        assert_eq!(by(closed), By::Provider);
    }

    #[test]
    fn a_lane_that_nobody_takes_is_named_with_its_remedy() {
        let untaken = Some("coupang@static");
        for (granted, by) in [(0, By::Waiting), (7, By::Workers)] {
            let facts = Facts {
                granted,
                untaken,
                ..facts()
            };
            let (found, why) = verdict(&facts);
            assert_eq!(found, by);
            assert!(why.contains("coupang@static: start `worker collect --egress static`"));
        }
    }
}
