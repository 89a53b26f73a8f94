//! End-to-end and fault tests on real servers.

mod directions;
mod fares;
mod stack;
