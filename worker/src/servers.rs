//! Workers start before servers in a real fleet: a server that is away is named, waited for, and the
//! process is not ready meanwhile.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use paceline_protocol::settings::shown_url;
use paceline_protocol::stores::broker::Publisher;
use paceline_protocol::stores::objects::Objects;
use paceline_protocol::stores::state::State;

use crate::admin::Readiness;
use crate::patience::Patience;
use crate::shutdown::Shutdown;

/// A server as it may be shown.
#[derive(Clone, Debug)]
pub struct Server {
    /// `RabbitMQ`, `Redis`, `S3`, `Elasticsearch`
    pub name: &'static str,
    /// Its URL without user and password.
    pub url: String,
    /// What it is needed for.
    pub needed_for: &'static str,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.url)
    }
}

/// Why a try to connect failed.
#[derive(Debug)]
pub enum Refusal {
    /// Waiting may help.
    Later(String),
    /// It never will; somebody has to change something.
    Never(String),
}

/// It can never be used, or the process drains before it came.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// Somebody has to change something.
    #[error("{0}")]
    Never(String),
    /// The process was told to stop while it waited.
    #[error("stopped while waiting for {0}")]
    Draining(String),
}

/// How often the log repeats that a server is still away.
const REMINDER: Duration = Duration::from_secs(30);

/// How long a look whether a server is still there may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Tries until the server answers.
///
/// # Errors
/// [`NotConnected`]
pub async fn connect<T, F>(
    server: Server,
    readiness: &Readiness,
    shutdown: &Shutdown,
    mut attempt: impl FnMut() -> F,
) -> Result<T, NotConnected>
where
    F: Future<Output = Result<T, Refusal>>,
{
    readiness.waiting_for(server.to_string());
    let mut patience = Patience::for_servers();
    let mut reminder = Reminder::default();
    loop {
        if shutdown.is_draining() {
            return Err(NotConnected::Draining(server.to_string()));
        }
        match attempt().await {
            Ok(connected) => return Ok(connected),
            Err(Refusal::Never(why)) => return Err(NotConnected::Never(why)),
            Err(Refusal::Later(why)) => reminder.say(&server, &why),
        }
        tokio::select! {
            () = patience.wait() => {}
            () = shutdown.draining() => {}
        }
    }
}

/// A server as it may be shown, and whether it answers.
pub type Probe = (String, BoxFuture<'static, bool>);

/// S3.
pub fn s3(objects: &Objects) -> Probe {
    let shown = format!("S3 at {}", objects.endpoint());
    let objects = objects.clone();
    (shown, async move { objects.ping().await.is_ok() }.boxed())
}

/// Redis at `url`.
pub fn redis(state: &State, url: &str) -> Probe {
    let (shown, state) = (format!("Redis at {}", shown_url(url)), state.clone());
    (shown, async move { state.ping().await.is_ok() }.boxed())
}

/// RabbitMQ at `url`.
pub fn rabbitmq(publisher: &Publisher, url: &str) -> Probe {
    let shown = format!("RabbitMQ at {}", shown_url(url));
    let publisher = publisher.clone();
    (shown, async move { publisher.ping().await.is_ok() }.boxed())
}

/// The first of `servers` that does not answer within two seconds.
pub async fn first_away(servers: impl IntoIterator<Item = Probe>) -> Option<String> {
    let looks = servers.into_iter().map(|(server, answers)| async move {
        let answers = tokio::time::timeout(LOOK_LIMIT, answers).await;
        (!answers.unwrap_or(false)).then_some(server)
    });
    let looks = futures::future::join_all(looks).await;
    looks.into_iter().flatten().next()
}

struct Reminder {
    since: Instant,
    said: Option<Instant>,
}

impl Default for Reminder {
    fn default() -> Self {
        Reminder {
            since: Instant::now(),
            said: None,
        }
    }
}

impl Reminder {
    fn say(&mut self, server: &Server, why: &str) {
        if self.said.is_some_and(|at| at.elapsed() < REMINDER) {
            return;
        }
        self.said = Some(Instant::now());
        tracing::warn!(
            server.name = server.name,
            server.url = server.url,
            waited.s = self.since.elapsed().as_secs(),
            why,
            "waiting for {server}, needed for {}; it is tried again, at the latest every 15 s, until it answers",
            server.needed_for,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server {
            name: "Redis",
            url: "redis://host".to_owned(),
            needed_for: "limits",
        }
    }

    #[tokio::test]
    async fn a_server_that_comes_late_is_waited_for() {
        let (readiness, shutdown) = (Readiness::default(), Shutdown::by_hand(REMINDER));
        let mut tries = 0;
        let connected = connect(server(), &readiness, &shutdown, || {
            tries += 1;
            let answer = if tries < 3 {
                Err(Refusal::Later("away".into()))
            } else {
                Ok(tries)
            };
            async { answer }
        });
        assert_eq!(connected.await.ok(), Some(3));
    }

    #[tokio::test]
    async fn neither_a_refusal_nor_a_drain_waits() {
        let (readiness, shutdown) = (Readiness::default(), Shutdown::by_hand(REMINDER));
        let refused = connect::<(), _>(server(), &readiness, &shutdown, || async {
            Err(Refusal::Never("evicts".into()))
        });
        assert!(matches!(refused.await, Err(NotConnected::Never(_))));
        shutdown.drain();
        let drained = connect::<(), _>(server(), &readiness, &shutdown, || async {
            Err(Refusal::Later("away".into()))
        });
        assert!(matches!(drained.await, Err(NotConnected::Draining(_))));
    }

    #[tokio::test]
    async fn who_does_not_answer_in_time_is_away() {
        use std::future::{pending, ready};

        let all = |redis: BoxFuture<'static, bool>, s3| {
            let servers = [("Redis", redis), ("S3", ready(s3).boxed())];
            first_away(servers.map(|(name, answers)| (name.to_owned(), answers)))
        };
        assert_eq!(all(ready(true).boxed(), true).await, None);
        assert_eq!(all(ready(true).boxed(), false).await.as_deref(), Some("S3"));
        assert_eq!(all(pending().boxed(), true).await.as_deref(), Some("Redis"));
    }
}
