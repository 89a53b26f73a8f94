//! One finisher for each job: two runs of a job must not swap one alias at the same time.

use std::future::Future;
use std::time::Duration;

use uuid::Uuid;

use super::super::runs::OpenedRun;
use super::super::{LoadError, Loader};

/// How long the lease lives without its holder.
const TTL: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);
/// How often somebody who waits for it looks.
const LOOK: Duration = Duration::from_millis(500);

impl Loader {
    /// Does `work` while holding the lease of the run's job; waits for it as long as the run is open.
    pub(super) async fn with_lease(
        &self,
        run: &OpenedRun,
        work: impl Future<Output = Result<(), LoadError>>,
    ) -> Result<(), LoadError> {
        let (state, job) = (&self.stores.state, &run.run.job);
        let holder = Uuid::new_v4().to_string();
        while !state.take_finisher(job, &holder, TTL).await? {
            if self.stores.open_run(&run.run).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        let done = tokio::select! {
            done = work => done,
            lost = self.keep_lease(job, &holder) => Err(lost),
        };
        // A lease that cannot be given back ends by itself.
        if let Err(error) = state.release_finisher(job, &holder).await {
            tracing::debug!(%error, "the lease of finishing was left to end");
        }
        done
    }

    /// Renews the lease until that fails: the same holder takes it again.
    async fn keep_lease(&self, job: &str, holder: &str) -> LoadError {
        loop {
            tokio::time::sleep(RENEW).await;
            match self.stores.state.take_finisher(job, holder, TTL).await {
                Ok(true) => {}
                Ok(false) => return LoadError::LeaseLost,
                Err(error) => return error.into(),
            }
        }
    }
}
