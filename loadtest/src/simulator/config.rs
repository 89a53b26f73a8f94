//! Everything that a simulator is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::faults::{Faults, Latency};
use super::limits::Limits;
use crate::fares::{Answer, Offer, Search, World};

/// How a simulator behaves. The default serves keys `a` and `b` without limits, at once, without faults.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// Where to listen; port 0 is any free one.
    pub listen: SocketAddr,
    /// The keys that it knows; others get 401.
    pub keys: Vec<String>,
    /// What it allows.
    pub limits: Limits,
    /// How long answers take.
    pub latency: Latency,
    /// What goes wrong.
    pub faults: Faults,
    /// The prices and gaps; its seed is the seed of faults and latency too.
    pub world: World,
    /// Takes any text as a destination, so that hostile values can be tried.
    pub lenient: bool,
    /// Writes every finished call here as NDJSON.
    pub log_file: Option<PathBuf>,
    /// Asks the system to prefer the simulator's thread (`renice`), so that answers stay prompt on a busy
    /// machine. Needs the right to do so; without it nothing changes. Arrival times do not depend on it.
    pub prefer: bool,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            keys: vec!["a".to_owned(), "b".to_owned()],
            limits: Limits::none(),
            latency: Latency::default(),
            faults: Faults::default(),
            world: World {
                seed: 1,
                empty_share: 0.03,
                missing_share: 0.01,
            },
            lenient: false,
            log_file: None,
            prefer: false,
        }
    }
}

/// How a cell must end in a fleet that does nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// With these records, in this order.
    Records(Vec<Offer>),
    /// Without records.
    Empty,
    /// As a failure: every attempt meets this fault, or the search itself is wrong.
    Failed(String),
}

impl SimulatorConfig {
    /// How a search must end. Faults that strike at random may exhaust a fleet's attempts as well; that is
    /// not foreseen here.
    pub fn expected(&self, search: &Search) -> Expected {
        let answer = self.world.answer(search);
        let name = search.to_string();
        match (self.faults.that_spoils(self.world.seed, &name), answer) {
            (Some(fault), answer) if fault.touches(&answer) => {
                Expected::Failed(fault.word().to_owned())
            }
            (_, Answer::Offers(offers)) => Expected::Records(offers),
            (_, Answer::EmptyList | Answer::NotFound) => Expected::Empty,
        }
    }

    /// The same from the texts of a call.
    pub fn truth(&self, origin: &str, destination: &str, depart: &str, back: &str) -> Expected {
        match Search::new(origin, destination, depart, back, self.lenient) {
            Ok(search) => self.expected(&search),
            Err(error) => Expected::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Fault, FaultRule};
    use super::*;

    #[test]
    fn the_truth_knows_cells_that_never_work() {
        let mut config = SimulatorConfig::default();
        let truth =
            |config: &SimulatorConfig| config.truth("ICN", "NRT", "2026-11-22", "2026-11-25");
        assert!(matches!(truth(&config), Expected::Records(_)));
        config.faults = Faults(vec![FaultRule::cells(Fault::Status(400), "NRT")]);
        assert_eq!(truth(&config), Expected::Failed("status".into()));
        config.faults = Faults(vec![FaultRule::cells(Fault::Status(503), "NRT").first(2)]);
        assert!(matches!(truth(&config), Expected::Records(_)));
    }
}
