//! Who has only less urgent runs in hand leaves the lane's calls to the workers that have a more urgent one: it plans
//! half as far ahead ([`Group::yields`]), but for its run's share of the turns.
//!
//! [`Group::yields`]: paceline_protocol::limit::Group::yields

use paceline_protocol::ids::RunRef;
use paceline_protocol::stores::state::OpenRun;

/// A run in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Which one.
    pub run: RunRef,
    /// Its weight, 1 to 9.
    pub priority: u8,
}

/// Those of the runs in hand that yield this time; `chance` is in 0..1.
pub fn yielding<'a>(
    ours: &'a [Ours],
    lane: &str,
    open: &[OpenRun],
    chance: f64,
) -> Vec<&'a RunRef> {
    let in_lane = open
        .iter()
        .filter(|open| !open.paused && open.lanes.iter().any(|l| l == lane));
    let others = in_lane.filter(|open| !ours.iter().any(|one| one.run == open.run));
    // Runs in hand take turns among themselves.
    let here = ours.iter().map(|one| one.priority).max().unwrap_or(0);
    let Some(there) = others.map(|open| open.priority).max().filter(|p| *p > here) else {
        return Vec::new();
    };
    let (here, there) = (f64::from(here.max(1)), f64::from(there));
    match chance < here / (here + there) {
        true => Vec::new(),
        false => ours.iter().map(|one| &one.run).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> RunRef {
        format!("job/{name}").parse().expect("a run")
    }

    fn open(name: &str, priority: u8, paused: bool) -> OpenRun {
        OpenRun {
            run: run(name),
            lanes: vec!["lane".into()],
            priority,
            paused,
            reason: None,
            round: 0,
            opened_at: None,
        }
    }

    #[test]
    fn who_has_nothing_urgent_yields_to_whoever_has_but_for_its_share() {
        let ours = [("low", 1), ("mid", 3)].map(|(name, priority)| Ours {
            run: run(name),
            priority,
        });
        let yields = |open: &[OpenRun], chance| yielding(&ours, "lane", open, chance).len();
        let urgent = [open("low", 1, false), open("high", 9, false)];
        assert_eq!(yields(&urgent, 0.26), 2);
        assert_eq!(yields(&urgent, 0.24), 0, "three of twelve turns");
        assert_eq!(yields(&urgent[..1], 0.9), 0, "alone");
        assert_eq!(yields(&[open("equal", 3, false)], 0.9), 0);
        assert_eq!(yields(&[open("high", 9, true)], 0.9), 0, "paused");
        assert_eq!(yields(&[open("mid", 9, false)], 0.9), 0, "in hand");
        assert!(yielding(&ours, "other", &urgent, 0.9).is_empty());
    }
}
