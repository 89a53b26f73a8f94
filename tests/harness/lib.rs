//! What end-to-end tests stand on: one set of real servers for all tests of a process, the real binaries
//! as processes, a proxy that breaks connections, and the checker that every such test ends with.
//!
//! The checker and all helpers read the servers with plain clients of their own, never through the code
//! under test; of Paceline they know the names on the wire and the form of plan and manifest only.

pub mod binaries;
pub mod bucket;
pub mod calendar;
pub mod checker;
pub mod fleet;
pub mod parent;
pub mod proxy;
pub mod shared;
pub mod spec;

pub use binaries::Binaries;
pub use bucket::Bucket;
pub use calendar::{Calendar, Shape};
pub use checker::{Checker, Verdict};
pub use fleet::{Fleet, redis_at};
pub use parent::Parent;
pub use proxy::{Fault, Proxy};
pub use spec::SpecFolder;
