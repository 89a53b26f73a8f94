//! The typed clients of the four stores.

mod backoff;
pub mod broker;
pub mod index;
pub mod kept_limits;
pub mod limiter;
pub mod marks;
pub mod objects;
pub mod refresh_tokens;
pub mod sorted_set;
pub mod state;
pub mod traces;
