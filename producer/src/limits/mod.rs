//! A provider's limits as numbers: the counters that can be named without a cell, and how fast a run may go.

mod budgets;
pub mod change;
mod instances;
mod numbers;
mod pace;

pub(crate) use budgets::used_up_until_us;
pub use budgets::{Budget, Budgets, Closed, Held, Slowed, budgets};
pub use instances::{
    grants, is_by_credential, key_scope, limiter_name, of_keys, period_text, unscoped,
};
pub use numbers::with_numbers;
pub use pace::{Pace, pace, speed};
