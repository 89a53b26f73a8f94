//! What the benchmarks share: real worker and producer processes against a simulator, and their CPU time.

mod audit;
mod changes;
mod cpu;
mod ended;
mod fleet;
mod load;
mod markets;
mod pages;
mod relay;
mod scenes;
mod served;
mod spec;
mod stage;

pub use audit::LedgerOfRun;
pub use changes::ComparedRun;
pub use cpu::{children_cpu, cpu_of, cpu_of_group};
pub use ended::write_ended_runs;
pub use fleet::{Fleet, Programs, Servers};
pub use load::{CollectedRun, RunStores, two_at_once};
pub use markets::{MarketUse, Markets};
pub use pages::{PageFormat, holding_provider, read_page};
pub use relay::Relay;
pub use scenes::Scene;
pub use served::{Served, Times, environment};
pub use spec::{BenchJob, searches};
pub use stage::{all_servers, servers_to_collect, warn_on_stderr};
