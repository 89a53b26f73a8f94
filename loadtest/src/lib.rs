//! What Paceline is measured against: a provider simulator that enforces its limits strictly, a referee
//! that reads the simulator's own log, and the parts that the benchmarks share.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bench;
pub mod chance;
pub mod fares;
pub mod providers;
pub mod referee;
pub mod simulator;
