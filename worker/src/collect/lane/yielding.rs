//! Who has only less urgent runs in hand leaves the lane's calls to the workers that have a more urgent one: it plans
//! half as far ahead ([`Group::yields`]), but for its share of the turns.
//!
//! [`Group::yields`]: paceline_protocol::limit::Group::yields

use paceline_protocol::stores::state::OpenRun;

/// Whether a worker yields this time whose most urgent run in `lane` has the priority `here` (runs in hand take turns among
/// themselves); `chance` is in 0..1.
pub fn yields(here: u8, lane: &str, open: &[OpenRun], chance: f64) -> bool {
    let in_lane = |open: &&OpenRun| !open.paused && open.lanes.iter().any(|l| l == lane);
    let there = open.iter().filter(in_lane).map(|open| open.priority).max();
    let Some(there) = there.filter(|there| *there > here) else {
        return false;
    };
    let (here, there) = (f64::from(here.max(1)), f64::from(there));
    chance >= here / (here + there)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(priority: u8, paused: bool) -> OpenRun {
        OpenRun {
            run: format!("job/of-{priority}").parse().expect("a run"),
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
        let urgent = [open(1, false), open(9, false)];
        let of_three = |open: &[OpenRun], chance| yields(3, "lane", open, chance);
        assert!(of_three(&urgent, 0.26));
        assert!(!of_three(&urgent, 0.24), "three of twelve turns");
        assert!(!of_three(&urgent[..1], 0.9), "alone");
        assert!(!of_three(&[open(3, false)], 0.9), "equal");
        assert!(!of_three(&[open(9, true)], 0.9), "paused");
        assert!(!yields(9, "lane", &urgent, 0.9), "in hand");
        assert!(!yields(3, "other", &urgent, 0.9));
    }
}
