//! End-to-end and fault tests on real servers.

mod answers;
mod directions;
mod faults;
mod readme;
mod scene;
mod stack;
mod stores;
