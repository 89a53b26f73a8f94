//! End-to-end and fault tests on real servers.

mod crash;
mod directions;
mod drain;
mod failures;
mod fares;
mod resume;
mod stack;
