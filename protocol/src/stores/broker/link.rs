//! One supervised connection: made when it is needed, made again when it ended, every step in time.
//! The client's own recovery is off: after a channel error it leaves a consumer waiting for ever.

use std::sync::Arc;
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::BrokerError;
use crate::settings::shown_url;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a declaration, a get or the opening of a channel may take.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(10);
/// Seconds between heartbeats when the URL names none: the server's own 60 notice a dead peer too late.
const HEARTBEAT: u16 = 10;

#[derive(Clone)]
pub(super) struct Link {
    uri: Arc<AMQPUri>,
    shown: Arc<str>,
    name: &'static str,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Link {
    /// Reads the URL; connects with the first channel.
    pub(super) fn new(url: &str, name: &'static str) -> Result<Self, BrokerError> {
        let shown: Arc<str> = shown_url(url).into();
        let mut uri: AMQPUri = url.parse().map_err(|_| BrokerError::Unreachable {
            url: shown.to_string(),
            why: "this is not a URL like amqp://user:password@host:5672/%2f".into(),
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Link {
            uri: Arc::new(uri),
            shown,
            name,
            connection: Arc::default(),
        })
    }

    /// A fresh channel on the connection, which is made anew when it ended.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        let mut held = self.connection.lock().await;
        if !held.as_ref().is_some_and(|c| c.status().connected()) {
            *held = Some(self.connect().await?);
        }
        let connection = held.as_ref().expect("it was made just now");
        match in_time("open a channel", connection.create_channel()).await {
            Ok(channel) => Ok(channel),
            Err(error) => {
                *held = None;
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.into());
        let connecting = Connection::connect_uri((*self.uri).clone(), properties);
        let why = match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) if is_denied(&error) => {
                return Err(BrokerError::Denied {
                    url: self.shown.to_string(),
                    why: error.to_string(),
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
        };
        Err(BrokerError::Unreachable {
            url: self.shown.to_string(),
            why,
        })
    }

    /// Whether the broker has stopped us from publishing (memory or disk alarm).
    pub(super) fn blocked(&self) -> bool {
        self.connection
            .try_lock()
            .is_ok_and(|held| held.as_ref().is_some_and(|c| c.status().blocked()))
    }

    /// Lets go of a connection that no longer answers.
    pub(super) async fn drop_connection(&self) {
        *self.connection.lock().await = None;
    }

    pub(super) async fn close(&self, limit: Duration) {
        let Some(connection) = self.connection.lock().await.take() else {
            return;
        };
        if timeout(limit, connection.close(200, "OK".into()))
            .await
            .is_err()
        {
            tracing::debug!("RabbitMQ did not answer the close in time");
        }
    }
}

/// One step with the broker under [`STEP_LIMIT`].
pub(super) async fn in_time<T>(
    what: &str,
    step: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match timeout(STEP_LIMIT, step).await {
        Ok(answer) => answer.map_err(|e| BrokerError::Failed(format!("{what}: {e}"))),
        Err(_) => Err(BrokerError::Failed(format!("{what}: no answer in time"))),
    }
}

/// Whether the broker said: wrong user or password (403), or no such virtual host for this user (530).
fn is_denied(error: &lapin::Error) -> bool {
    use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(e) if matches!(
        e.kind(),
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
    ))
}

/// Whether the broker said: no such queue (404).
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(e)
        if matches!(e.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)))
}
