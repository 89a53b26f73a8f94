//! Crash points: in debug builds, `PACELINE_CRASH_AT=<point>[@n]` kills the process as kill -9 would when
//! it comes to that point for the n-th time (1); with `PACELINE_STOP_AT` it is stopped there until it gets SIGCONT. Release
//! builds have none.
//!
//! The points lie between any two steps that change something outside the process.

/// Every crash point, for the test that dies at each of them.
pub const POINTS: [&str; 36] = [
    "call-before-send",
    "call-after-answer",
    "token-before-send",
    "token-after-answer",
    "token-before-keep",
    "read-before",
    "read-after",
    "settle-before-failures",
    "settle-before-part",
    "settle-before-sets",
    "settle-after-sets",
    "done-before-receipt",
    "done-before-ack",
    "done-after-ack",
    "back-before-ack",
    "load-before-bulk",
    "load-before-mark",
    "load-before-ack",
    "finish-begun",
    "finish-before-swap",
    "finish-before-objects",
    "finish-before-sets",
    "finish-before-live",
    "finish-before-manifest",
    "finish-before-success",
    "finish-before-clean-up",
    "finish-before-end",
    "finish-before-registry",
    "finish-before-announcement",
    "merge-begun",
    "merge-before-doubles",
    "merge-before-state",
    "merge-before-data",
    "merge-before-done",
    "rebuild-before-said",
    "rebuild-before-end",
];

/// Dies here when told to.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    armed::point(name);
    #[cfg(not(debug_assertions))]
    let _unused = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::Signal;

    struct Armed {
        point: String,
        left: AtomicU32,
        signal: Signal,
    }

    /// The same signal as kill -9 (nothing is cleaned up), or the one that stops.
    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        armed("PACELINE_CRASH_AT", Signal::SIGKILL)
            .or_else(|| armed("PACELINE_STOP_AT", Signal::SIGSTOP))
    });

    fn armed(variable: &str, signal: Signal) -> Option<Armed> {
        let told = std::env::var(variable).ok()?;
        let (point, nth) = told.split_once('@').unwrap_or((&told, "1"));
        Some(Armed {
            point: point.to_owned(),
            left: AtomicU32::new(nth.parse().ok()?),
            signal,
        })
    }

    pub(super) fn point(name: &str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.point == name) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            eprintln!("crash point {name}: {}", armed.signal);
            nix::sys::signal::raise(armed.signal).expect("a process may signal itself");
        }
    }
}
