//! Which collector takes which lane: `worker collect --egress LABEL --lanes A,B`.

use serde::{Deserialize, Serialize};

/// The lanes that a collector takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneChoice {
    /// `--egress`
    pub egress: Option<String>,
    /// `--lanes`; empty: all.
    pub lanes: Vec<String>,
}

impl LaneChoice {
    /// Whether `lane` (`provider` or `provider@egress`) is taken.
    pub fn takes(&self, lane: &str) -> bool {
        let (provider, label) = parts(lane);
        let wanted = self.lanes.is_empty() || self.lanes.iter().any(|l| l == lane || l == provider);
        wanted && label.is_none_or(|label| self.egress.as_deref() == Some(label))
    }
}

/// Whether one of the collectors takes `lane`.
pub fn is_taken(lane: &str, takers: &[LaneChoice]) -> bool {
    takers.iter().any(|taker| taker.takes(lane))
}

/// The provider of a lane, and the label that its workers need.
pub fn parts(lane: &str) -> (&str, Option<&str>) {
    match lane.split_once('@') {
        Some((provider, label)) => (provider, Some(label)),
        None => (lane, None),
    }
}

/// The command that starts a collector for `lane`.
pub fn taker_of(lane: &str) -> String {
    match parts(lane) {
        (_, Some(label)) => format!("worker collect --egress {label}"),
        (_, None) => "worker collect".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_with_an_egress_needs_its_label() {
        let choice = |egress: Option<&str>, lanes: &[&str]| LaneChoice {
            egress: egress.map(str::to_owned),
            lanes: lanes.iter().map(|l| (*l).to_owned()).collect(),
        };
        assert!(choice(None, &[]).takes("fare-search"));
        assert!(!choice(None, &[]).takes("coupang@static"));
        assert!(choice(Some("static"), &[]).takes("coupang@static"));
        assert!(choice(Some("static"), &[]).takes("fare-search"));
        assert!(!choice(None, &["other"]).takes("fare-search"));
        assert!(choice(Some("static"), &["coupang"]).takes("coupang@static"));
        assert_eq!(taker_of("coupang@static"), "worker collect --egress static");
        assert_eq!(taker_of("fare-search"), "worker collect");
    }
}
