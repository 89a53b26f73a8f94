//! Long work beside the thread that serves the calls: while a large answer is read, no grant of another call
//! may grow late.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Answers up to this size, in bytes, are read in less time than any grant's slack.
const SMALL: usize = 64 << 10;

/// Runs `work` on an answer of `bytes` bytes; a large one beside the runtime's thread, where there is another.
pub fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let threads =
        Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes > SMALL && threads {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_of_one_thread_works_in_place() {
        assert_eq!(aside(SMALL + 1, || 7), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn large_work_lets_the_other_tasks_go_on() {
        let (sent, heard) = std::sync::mpsc::channel();
        let work = tokio::spawn(async move { aside(SMALL + 1, || heard.recv().is_ok()) });
        let other = tokio::spawn(async move { sent.send(()).is_ok() });
        assert!(other.await.expect("runs beside it"));
        assert!(work.await.expect("hears of it"));
    }
}
