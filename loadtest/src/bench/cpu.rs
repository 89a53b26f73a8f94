//! CPU time of processes.

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

/// CPU time so far, user and system, of a process that runs, to the system's hundredth of a second; none when it has ended.
pub fn cpu_of(pid: u32) -> Duration {
    stat(&pid.to_string()).map_or(Duration::ZERO, |stat| stat.cpu)
}

/// The same of all processes of a group that run.
pub fn cpu_of_group(group: u32) -> Duration {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let stats = names.filter_map(|name| stat(&name));
    stats
        .filter(|stat| stat.group == group)
        .map(|stat| stat.cpu)
        .sum()
}

struct Stat {
    group: u32,
    cpu: Duration,
}

/// What `/proc/<pid>/stat` says, whose fields proc(5) numbers: 5 is the group, 14 and 15 are ticks.
fn stat(pid: &str) -> Option<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_the_name: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
    let field = |number: usize| after_the_name.get(number - 3)?.parse::<u32>().ok();
    let ticks = u64::from(field(14)?) + u64::from(field(15)?);
    Some(Stat {
        group: field(5)?,
        cpu: Duration::from_millis(ticks * 10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_cpu_time_of_its_processes() {
        let own = std::process::id();
        let group = stat(&own.to_string()).expect("this process runs").group;
        assert!(cpu_of_group(group) >= cpu_of(own));
        assert_eq!(cpu_of(u32::MAX), Duration::ZERO);
    }
}
