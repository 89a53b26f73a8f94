//! Connecting a collector to its servers: each is named while it is away and waited for.

use futures::FutureExt;
use paceline_protocol::keys::Keys;
use paceline_protocol::settings::{FleetSettings, shown_url};
use paceline_protocol::stores::broker::{BrokerError, Publisher, Taker};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::objects::{ObjectError, Objects};
use paceline_protocol::stores::state::{State, StateError};
use paceline_protocol::topology::Topology;
use secrecy::ExposeSecret;

use crate::admin::{Look, Readiness};
use crate::config::CollectSettings;
use crate::servers::{self, NotConnected, Refusal, Server, connect, first_away};
use crate::shutdown::Shutdown;

/// The servers of a collector.
pub struct Servers {
    /// S3.
    pub objects: Objects,
    /// Redis: progress, open runs, sets.
    pub state: State,
    /// Redis: limits and claims.
    pub limiter: FleetLimiter,
    /// RabbitMQ, publishing.
    pub publisher: Publisher,
    /// RabbitMQ, taking: a connection of its own, since a blocked one stops acks too.
    pub taker: Taker,
}

impl Servers {
    /// Connects to all of them, one after the other.
    ///
    /// # Errors
    /// When one of them will never do, or the process is told to stop meanwhile.
    pub async fn connect(
        settings: &CollectSettings,
        readiness: &Readiness,
        shutdown: &Shutdown,
    ) -> Result<Self, NotConnected> {
        let keys = Keys::new(&settings.fleet.namespace);
        let topology = Topology::new(&settings.fleet.namespace);
        let (amqp, redis) = (
            settings.amqp_url.expose_secret(),
            settings.redis_url.expose_secret(),
        );
        let later = |e: &dyn std::fmt::Display| Refusal::Later(e.to_string());
        let of_broker = |e: BrokerError| match e {
            BrokerError::Denied { .. } => Refusal::Never(e.to_string()),
            _ => Refusal::Later(e.to_string()),
        };
        Ok(Servers {
            objects: objects(&settings.fleet, readiness, shutdown).await?,
            state: connect(
                server("Redis", redis, "progress and limits"),
                readiness,
                shutdown,
                || async {
                    State::connect(redis, keys.clone())
                        .await
                        .map_err(|e| match e {
                            StateError::Evicts { .. } | StateError::Denied { .. } => {
                                Refusal::Never(e.to_string())
                            }
                            StateError::Failed { .. } | StateError::LostSet { .. } => later(&e),
                        })
                },
            )
            .await?,
            limiter: connect(
                server("Redis", redis, "limits"),
                readiness,
                shutdown,
                || async {
                    FleetLimiter::connect(redis, keys.clone())
                        .await
                        .map_err(|e| later(&e))
                },
            )
            .await?,
            publisher: connect(
                server("RabbitMQ", amqp, "receipts and hand-backs"),
                readiness,
                shutdown,
                || async {
                    Publisher::connect(amqp, topology.clone())
                        .await
                        .map_err(of_broker)
                },
            )
            .await?,
            taker: connect(
                server("RabbitMQ", amqp, "shards"),
                readiness,
                shutdown,
                || async {
                    Taker::connect(amqp, topology.clone())
                        .await
                        .map_err(of_broker)
                },
            )
            .await?,
        })
    }
}

impl Servers {
    /// Looks whether they are all still there.
    pub fn look(&self, settings: &CollectSettings) -> Look {
        let (amqp, redis) = (settings.amqp_url.clone(), settings.redis_url.clone());
        let (objects, state, publisher) = (
            self.objects.clone(),
            self.state.clone(),
            self.publisher.clone(),
        );
        Box::new(move || {
            let servers = [
                servers::s3(&objects),
                servers::redis(&state, redis.expose_secret()),
                servers::rabbitmq(&publisher, amqp.expose_secret()),
            ];
            first_away(servers).boxed()
        })
    }
}

fn server(name: &'static str, url: &str, needed_for: &'static str) -> Server {
    Server {
        name,
        url: shown_url(url),
        needed_for,
    }
}

async fn objects(
    fleet: &FleetSettings,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<Objects, NotConnected> {
    let objects = Objects::new(&fleet.bucket).await;
    let server = Server {
        name: "S3",
        url: objects.endpoint(),
        needed_for: "plans and parts",
    };
    let refusal = |e: ObjectError| match e {
        ObjectError::NoConditionalPut(_) | ObjectError::Denied { .. } => {
            Refusal::Never(e.to_string())
        }
        ObjectError::NoBucket(_) | ObjectError::Failed { .. } => Refusal::Later(e.to_string()),
    };
    connect(server, readiness, shutdown, || async {
        // A put has a patience of its own and would keep quiet about a store that is away.
        objects.ping().await.map_err(refusal)?;
        objects
            .probe_conditional_put(&fleet.prefix)
            .await
            .map_err(refusal)
    })
    .await?;
    Ok(objects)
}
