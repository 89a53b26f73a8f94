//! The servers that a command needs, connected with patience: one that is down at start is asked
//! again for a while, and every error names what is missing without showing a secret.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use paceline_protocol::keys::Keys;
use paceline_protocol::settings::{AMQP, Environment, FleetSettings, REDIS, shown_url};
use paceline_protocol::stores::broker::{BrokerError, Publisher};
use paceline_protocol::stores::index::{Index, IndexError};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::objects::{ObjectError, Objects};
use paceline_protocol::stores::state::{State, StateError};
use paceline_protocol::topology::Topology;

/// How long a server that is down at start is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long between two tries; tests have no time to lose.
const BETWEEN_TRIES: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1_000 });

/// S3 and where runs live in it: enough for what only reads.
#[derive(Clone)]
pub struct Archive {
    /// Bucket, prefix, namespace.
    pub fleet: FleetSettings,
    /// The bucket.
    pub objects: Objects,
}

/// S3, Redis and RabbitMQ.
#[derive(Clone)]
pub struct Stores {
    /// S3.
    pub archive: Archive,
    /// Redis: open runs and progress.
    pub state: State,
    /// Redis: budgets.
    pub limiter: FleetLimiter,
    /// RabbitMQ.
    pub publisher: Publisher,
}

impl Archive {
    /// Connects to S3, waiting for it up to [`PATIENCE`].
    ///
    /// # Errors
    /// When the bucket is not named, not there, or S3 does not answer.
    pub async fn connect(env: &impl Environment) -> Result<Self> {
        let fleet = FleetSettings::read(env)?;
        let objects = Objects::new(&fleet.bucket).await;
        let what = format!("S3 at {} (bucket {})", objects.endpoint(), fleet.bucket);
        let hopeless = |e: &ObjectError| !matches!(e, ObjectError::Failed { .. });
        patiently(&what, hopeless, || objects.ping()).await?;
        Ok(Archive { fleet, objects })
    }

    /// Connects to Redis' state, waiting up to [`PATIENCE`].
    ///
    /// # Errors
    /// When it is not named, may evict keys, or does not answer.
    pub async fn state(&self, env: &impl Environment) -> Result<State> {
        let url = redis_url(env)?;
        let hopeless =
            |e: &StateError| matches!(e, StateError::Evicts { .. } | StateError::Denied { .. });
        patiently(&format!("Redis at {}", shown_url(&url)), hopeless, || {
            State::connect(&url, self.keys())
        })
        .await
    }

    /// Connects to Redis' budgets, waiting up to [`PATIENCE`].
    ///
    /// # Errors
    /// When it is not named or does not answer.
    pub async fn limiter(&self, env: &impl Environment) -> Result<FleetLimiter> {
        let url = redis_url(env)?;
        let what = format!("the limits' Redis at {}", shown_url(&url));
        patiently(
            &what,
            |_| false,
            || FleetLimiter::connect(&url, self.keys()),
        )
        .await
    }

    fn keys(&self) -> Keys {
        Keys::new(self.fleet.namespace.clone())
    }
}

impl Stores {
    /// Connects to all three.
    ///
    /// # Errors
    /// When a setting is missing (said for all of them before anything is waited for), or a server is
    /// still away after [`PATIENCE`].
    pub async fn connect(env: &impl Environment) -> Result<Self> {
        FleetSettings::read(env)?;
        redis_url(env)?;
        let broker = broker_url(env)?;
        let archive = Archive::connect(env).await?;
        let state = archive.state(env).await?;
        let limiter = archive.limiter(env).await?;
        let topology = Topology::new(archive.fleet.namespace.clone());
        let what = format!("RabbitMQ at {}", shown_url(&broker));
        let publisher = patiently(
            &what,
            |e: &BrokerError| matches!(e, BrokerError::Denied { .. }),
            || Publisher::connect(&broker, topology.clone()),
        )
        .await?;
        Ok(Stores {
            archive,
            state,
            limiter,
            publisher,
        })
    }

    /// S3.
    pub fn objects(&self) -> &Objects {
        &self.archive.objects
    }

    /// The prefix in the bucket.
    pub fn prefix(&self) -> &str {
        &self.archive.fleet.prefix
    }

    /// Closes the broker's connection in order, so that nothing confirmed late is lost from sight.
    pub async fn close(self) {
        self.publisher.close(Duration::from_secs(5)).await;
    }
}

/// Connects to Elasticsearch, waiting up to [`PATIENCE`].
///
/// # Errors
/// When it is not named, or does not answer.
pub async fn index(env: &impl Environment) -> Result<Index> {
    let url = env.required(
        "ELASTICSEARCH_URL",
        "the Elasticsearch of the documents, as http://host:9200",
    )?;
    let index = Index::new(&url, env.secret("ELASTICSEARCH_API_KEY")?.as_deref())?;
    let what = format!("Elasticsearch at {}", index.shown_url());
    let hopeless =
        |e: &IndexError| matches!(e, IndexError::Refused { .. } | IndexError::Denied { .. });
    patiently(&what, hopeless, || index.version()).await?;
    Ok(index)
}

/// `REDIS_URL`, which must be there.
///
/// # Errors
/// When it is not, or is no URL.
pub fn redis_url(env: &impl Environment) -> Result<String> {
    Ok(env.server(
        "REDIS_URL",
        "the Redis of limits and progress, as redis://host:6379",
        REDIS,
    )?)
}

/// `AMQP_URL`, which must be there.
///
/// # Errors
/// When it is not, or is no URL.
pub fn broker_url(env: &impl Environment) -> Result<String> {
    Ok(env.server(
        "AMQP_URL",
        "the RabbitMQ of the queues, as amqp://user:password@host:5672",
        AMQP,
    )?)
}

/// Tries until it works, the error is hopeless, or [`PATIENCE`] is over; says once what it waits for.
async fn patiently<T, E, F>(
    what: &str,
    hopeless: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    E: Display + std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut said = false;
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if hopeless(&error) {
            return Err(error.into());
        }
        if started.elapsed() + BETWEEN_TRIES > PATIENCE {
            let waited = PATIENCE.as_secs();
            return Err(error).with_context(|| format!("waited {waited} s for {what}, in vain"));
        }
        if !said {
            crate::terminal::tell(format_args!(
                "waiting up to {} s for {what}: {error}",
                PATIENCE.as_secs()
            ));
            said = true;
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Down(&'static str);

    #[tokio::test]
    async fn a_server_that_comes_up_in_time_is_waited_for() {
        let mut left = 3;
        let up = patiently(
            "Redis",
            |_: &Down| false,
            || {
                left -= 1;
                std::future::ready(if left == 0 {
                    Ok(7)
                } else {
                    Err(Down("refused"))
                })
            },
        );
        assert_eq!(up.await.expect("comes up"), 7);
    }

    #[tokio::test]
    async fn what_waiting_cannot_cure_is_said_at_once() {
        let mut tries = 0;
        let wrong = patiently::<(), _, _>(
            "Redis",
            |e: &Down| e.0 == "evicts",
            || {
                tries += 1;
                std::future::ready(Err(Down("evicts")))
            },
        );
        assert_eq!(wrong.await.expect_err("refused").to_string(), "evicts");
        assert_eq!(tries, 1);
    }

    #[test]
    fn a_missing_url_says_what_it_names() {
        let error = broker_url(&BTreeMap::new()).expect_err("missing");
        assert!(
            error
                .to_string()
                .starts_with("AMQP_URL is not set: it names the RabbitMQ")
        );
    }
}
