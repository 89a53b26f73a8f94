//! Long work beside the thread that serves the calls: while a large answer is read, no grant of another call
//! may grow late.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Answers up to this size, in bytes, are read in less time than any grant's slack.
const SMALL: usize = 64 << 10;

/// So many large answers are read at once: what is read takes many times the memory of its bytes.
static LARGE: Semaphore = Semaphore::const_new(2);

/// Waits until an answer of `bytes` bytes may be read. What is given back is kept as long as what was read.
pub async fn room_for(bytes: usize) -> Option<SemaphorePermit<'static>> {
    match bytes > SMALL {
        // It is never closed.
        true => LARGE.acquire().await.ok(),
        false => None,
    }
}

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

    #[tokio::test]
    async fn large_answers_take_turns_and_small_ones_do_not_wait() {
        let first = room_for(SMALL + 1).await;
        let second = room_for(SMALL + 1).await;
        assert!(first.is_some() && second.is_some());
        assert!(room_for(SMALL).await.is_none());
        let third = tokio::spawn(room_for(SMALL + 1));
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(first);
        assert!(third.await.expect("it has its turn").is_some());
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
