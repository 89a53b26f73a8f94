//! CPU time of child processes.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// CPU time, user and system, of all children that have ended and were waited for. The difference around a
/// wait is the time of that child, to the microsecond.
///
/// # Errors
/// When the system does not tell.
pub fn children_cpu() -> nix::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us.unsigned_abs()))
}
