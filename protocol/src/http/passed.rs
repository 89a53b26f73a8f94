//! When a request had surely been handed to its socket.
//!
//! The HTTP client writes in a task of its own. That task was woken before this one wakes itself, so when this one
//! is polled again the bytes have left (or the client is still opening a connection, whose end is awaited first).

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Instant;

/// How the connection of a request comes about; its connector tells.
#[derive(Debug, Default)]
pub struct Opening(AtomicU8);

const BEGUN: u8 = 1;
const DONE: u8 = 2;

impl Opening {
    /// A connection is being opened for the request.
    pub fn begin(&self) {
        self.0.store(BEGUN, Ordering::Relaxed);
    }

    /// It is open.
    pub fn end(&self) {
        self.0.store(DONE, Ordering::Relaxed);
    }

    fn is(&self, state: u8) -> bool {
        self.0.load(Ordering::Relaxed) == state
    }
}

/// A connection that was just opened needs so many turns of the runtime more, since its task has to start first.
const TURNS_OF_NEW: u32 = 2;

/// Runs `sending` and calls `passed` with an instant at which the request had left, as soon as that is known. If it
/// was not known before the end, the instant is returned, for an answer that really came.
pub async fn watch<F: Future>(
    sending: F,
    opening: &Opening,
    passed: impl FnOnce(Instant),
) -> (F::Output, Option<Instant>) {
    let mut sending = pin!(sending);
    let mut passed = Some(passed);
    // Turns left until the request has surely left.
    let mut turns: Option<u32> = None;
    // One turn after the last time that somebody woke the request: a connection that another call gave back may
    // have taken it, while one of its own is still being opened.
    let mut last: Option<Instant> = None;
    let mut woken_by_itself = false;
    std::future::poll_fn(move |context| {
        if turns == Some(0)
            && let Some(passed) = passed.take()
        {
            passed(Instant::now());
        }
        if std::mem::take(&mut woken_by_itself) && turns.is_none() {
            last = Some(Instant::now());
            woken_by_itself = true;
        }
        if let Poll::Ready(output) = sending.as_mut().poll(context) {
            let unknown = passed.is_some();
            return Poll::Ready((output, unknown.then(|| last.unwrap_or_else(Instant::now))));
        }
        if passed.is_none() {
            return Poll::Pending;
        }
        if opening.is(BEGUN) {
            if !std::mem::take(&mut woken_by_itself) {
                woken_by_itself = true;
                context.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        turns = Some(match turns {
            Some(left) => left.saturating_sub(1),
            None if opening.is(DONE) => TURNS_OF_NEW,
            None => 0,
        });
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;

    /// Sends by a task of its own, as the client does, and answers later.
    async fn send(wrote: tokio::sync::oneshot::Sender<Instant>) -> &'static str {
        let (done, answer) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            wrote.send(Instant::now()).expect("somebody waits");
            tokio::time::sleep(Duration::from_millis(30)).await;
            done.send("answer").expect("somebody waits");
        });
        answer.await.expect("it answers")
    }

    #[tokio::test]
    async fn the_instant_lies_after_the_writing_and_before_the_answer() {
        let (wrote, written) = tokio::sync::oneshot::channel();
        let seen = RefCell::new(None);
        let passed = |at| *seen.borrow_mut() = Some(at);
        let opening = Opening::default();
        let (answer, late) = watch(send(wrote), &opening, passed).await;
        let at = seen.borrow().expect("it is told before the answer");
        assert_eq!((answer, late), ("answer", None));
        assert!(written.await.expect("written") <= at && at < Instant::now());
    }

    #[tokio::test]
    async fn while_a_connection_is_opened_nothing_is_told() {
        let opening = Opening::default();
        opening.begin();
        let sending = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            opening.end();
            tokio::time::sleep(Duration::from_millis(30)).await;
            Instant::now()
        };
        let seen = RefCell::new(None);
        let passed = |at| *seen.borrow_mut() = Some(at);
        let began = Instant::now();
        let (ended, late) = watch(sending, &opening, passed).await;
        let at = seen.borrow().expect("told");
        assert!(at - began >= Duration::from_millis(5) && at <= ended && late.is_none());
    }
}
