//! End-to-end and fault tests on real servers.

mod stack;
