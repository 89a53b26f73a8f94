//! The fleet's workers, stateless both: `worker collect` calls the providers, `worker load` fills
//! Elasticsearch and finishes runs. What both roles share lies beside them.

pub mod admin;
pub mod cli;
pub mod collect;
pub mod config;
pub mod crash;
pub mod load;
pub mod metrics;
pub mod output;
pub mod patience;
pub mod servers;
pub mod shutdown;
pub mod telemetry;
pub mod traced;
