//! A connection that opens too late for the grant that asked for it is kept for the next one.
//!
//! A grant is judged with the connection open (CORE 12): a call that first had to connect may arrive at the
//! provider a whole handshake after its start, where it can be one too many. Such a call is not sent; its
//! connection serves the next call, which then is in time.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower_layer::Layer;
use tower_service::Service;

use super::passed::Opening;

/// A kept connection is not trusted longer; servers close idle ones.
const TRUSTED: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The last instant at which the call of this task may be sent, and how its connection comes about.
    static SEND_BY: (Instant, Arc<Opening>);
}

/// Runs `request` as one that must not be sent after `instant`; `opening` hears whether a connection is opened for it.
pub async fn send_by<F: Future>(instant: Instant, opening: Arc<Opening>, request: F) -> F::Output {
    SEND_BY.scope((instant, opening), request).await
}

/// The connection was open too late; nothing was sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection was open too late for the call's grant")]
pub struct TooLate;

impl TooLate {
    /// Whether `error` has this reason.
    pub fn is_reason_of(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut reason = Some(error);
        while let Some(error) = reason {
            if error.is::<TooLate>() {
                return true;
            }
            reason = error.source();
        }
        false
    }
}

type Kept = Arc<Mutex<Vec<(Instant, Box<dyn Any + Send>)>>>;

/// Puts [`InTime`] around a client's connector.
#[derive(Clone, Debug, Default)]
pub struct InTimeLayer;

impl<S> Layer<S> for InTimeLayer {
    type Service = InTime<S>;

    fn layer(&self, connector: S) -> InTime<S> {
        InTime {
            connector,
            kept: Kept::default(),
        }
    }
}

/// A connector that keeps what came too late.
#[derive(Clone)]
pub struct InTime<S> {
    connector: S,
    kept: Kept,
}

impl<S> InTime<S> {
    /// A connection that came too late for another call.
    fn take<C: 'static>(&self) -> Option<C> {
        let mut kept = self
            .kept
            .lock()
            .expect("no panic while connections are locked");
        kept.retain(|(since, _)| since.elapsed() < TRUSTED);
        kept.pop()?.1.downcast().ok().map(|connection| *connection)
    }
}

impl<S, R> Service<R> for InTime<S>
where
    S: Service<R, Error = Box<dyn std::error::Error + Send + Sync>>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: R) -> Self::Future {
        let (send_by, opening) = SEND_BY.try_get().ok().unzip();
        let opening = opening.unwrap_or_default();
        opening.begin();
        if let Some(connection) = self.take() {
            opening.end();
            return Box::pin(std::future::ready(Ok(connection)));
        }
        let connecting = self.connector.call(to);
        let kept = self.kept.clone();
        Box::pin(async move {
            let connection = connecting.await?;
            opening.end();
            if send_by.is_none_or(|instant| Instant::now() <= instant) {
                return Ok(connection);
            }
            let mut kept = kept.lock().expect("no panic while connections are locked");
            kept.push((Instant::now(), Box::new(connection)));
            Err(TooLate.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connector that takes its time and numbers its connections.
    #[derive(Clone)]
    struct Slow(Arc<Mutex<u32>>);

    impl Service<()> for Slow {
        type Response = u32;
        type Error = Box<dyn std::error::Error + Send + Sync>;
        type Future = Pin<Box<dyn Future<Output = Result<u32, Self::Error>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            let numbers = self.0.clone();
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut number = numbers.lock().expect("no panic");
                *number += 1;
                Ok(*number)
            })
        }
    }

    #[tokio::test]
    async fn a_late_connection_is_not_used_but_kept_for_the_next_call() {
        let mut connector = InTimeLayer.layer(Slow(Arc::default()));
        let soon = Instant::now() + Duration::from_millis(1);
        let by = |instant| (instant, Arc::<Opening>::default());
        let ((soon, opening), (far, far_opening)) = (by(soon), by(soon + Duration::from_secs(60)));
        let late = send_by(soon, opening, async { connector.call(()).await }).await;
        assert!(late.is_err_and(|error| TooLate::is_reason_of(&*error)));
        let now = (Instant::now(), Arc::default());
        let next = send_by(now.0, now.1, async { connector.call(()).await }).await;
        assert_eq!(next.ok(), Some(1), "the kept connection is there at once");
        let fresh = send_by(far, far_opening, async { connector.call(()).await }).await;
        assert_eq!(fresh.ok(), Some(2));
    }
}
