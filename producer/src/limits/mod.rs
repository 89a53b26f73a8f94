//! A provider's limits as numbers: the counters that can be named without a cell, and how fast a run may go.

mod instances;
mod pace;

pub use instances::{is_by_credential, key_scope, limiter_name, of_keys, period_text, unscoped};
pub use pace::{Pace, pace};
