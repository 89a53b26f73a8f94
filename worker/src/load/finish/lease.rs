//! One finisher for each job: two runs of a job must not swap one alias at the same time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::super::runs::OpenedRun;
use super::super::{LoadError, Loader};

/// How long the lease lives without its holder.
const TTL: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);
/// So long before its end the holder gives up: what it writes then is still on its way.
const MARGIN: Duration = Duration::from_secs(2);
/// How often somebody who waits for it looks.
const LOOK: Duration = Duration::from_millis(500);

/// Says whether this process may still have the lease. Nothing that a newer run may have replaced is written without a look
/// at it: a process that was stopped for a while goes on in the middle of its work.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease(Arc<Mutex<Option<Instant>>>);

impl Lease {
    /// It was taken or renewed by a request sent at `at`.
    fn taken(&self, at: Instant) {
        *self.0.lock().expect("no panic while a lease is looked at") = Some(at);
    }

    /// That it is held, as far as this process can know.
    ///
    /// # Errors
    /// When it was not renewed in time: somebody else may have taken it, finished, and given it back.
    pub(super) fn holds(&self) -> Result<(), LoadError> {
        let taken = *self.0.lock().expect("no panic while a lease is looked at");
        match taken.is_some_and(|at| at.elapsed() < TTL - MARGIN) {
            true => Ok(()),
            false => Err(LoadError::LeaseLost),
        }
    }
}

impl Loader {
    /// Does `work` while holding the lease of the run's job; waits for it as long as the run is open.
    pub(super) async fn with_lease(
        &self,
        run: &OpenedRun,
        work: impl AsyncFnOnce(Lease) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let (state, job) = (&self.stores.state, &run.run.job);
        let (holder, lease) = (Uuid::new_v4().to_string(), Lease::default());
        let mut asked = Instant::now();
        while !state.take_finisher(job, &holder, TTL).await? {
            if self.stores.open_run(&run.run).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
            asked = Instant::now();
        }
        lease.taken(asked);
        let done = tokio::select! {
            done = work(lease.clone()) => done,
            lost = self.keep_lease(job, &holder, &lease) => Err(lost),
        };
        // A lease that cannot be given back ends by itself.
        if let Err(error) = state.release_finisher(job, &holder).await {
            tracing::debug!(%error, "the lease of finishing was left to end");
        }
        done
    }

    /// Renews the lease until that fails. One that has ended is not taken again, though it is free: somebody else may have
    /// had it meanwhile. One that Redis lost is.
    async fn keep_lease(&self, job: &str, holder: &str, lease: &Lease) -> LoadError {
        loop {
            tokio::time::sleep(RENEW).await;
            if let Err(lost) = lease.holds() {
                return lost;
            }
            let asked = Instant::now();
            match self.stores.state.take_finisher(job, holder, TTL).await {
                Ok(true) => lease.taken(asked),
                Ok(false) => return LoadError::LeaseLost,
                Err(error) => return error.into(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_not_renewed_in_time_is_lost_before_it_ends() {
        let lease = Lease::default();
        assert!(lease.holds().is_err(), "never taken");
        lease.taken(Instant::now());
        assert!(lease.holds().is_ok());
        let long_ago = Instant::now().checked_sub(TTL - MARGIN);
        lease.taken(long_ago.expect("this machine has been up for a while"));
        assert!(lease.holds().is_err());
    }
}
