//! A provider's limits as numbers: calendar windows, the instances that can be named without a cell,
//! and how fast a run may go.

mod calendar;
mod instances;
mod pace;

pub use calendar::window_at;
pub use instances::{limiter_name, period_text, rule_at, unscoped};
pub use pace::{Pace, pace};
