//! The typed clients of the four stores.

pub mod broker;
pub mod index;
pub mod limiter;
pub mod objects;
pub mod state;
