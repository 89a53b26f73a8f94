//! What the benchmarks share: real worker and producer processes against a simulator, and their CPU time.

mod audit;
mod changes;
mod cpu;
mod ended;
mod fleet;
mod load;
mod relay;
mod served;
mod spec;
mod stage;

pub use audit::LedgerOfRun;
pub use changes::ComparedRun;
pub use cpu::{children_cpu, cpu_of};
pub use ended::write_ended_runs;
pub use fleet::{Fleet, Programs, Servers};
pub use load::{CollectedRun, RunStores, two_at_once};
pub use relay::Relay;
pub use served::{Served, Times, environment};
pub use spec::{BenchJob, searches};
pub use stage::{servers_to_collect, warn_on_stderr};
