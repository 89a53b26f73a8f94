//! The four servers of a loader, waited for in order.

use std::sync::Arc;

use futures::FutureExt;
use paceline_protocol::keys::Keys;
use paceline_protocol::settings::{FleetSettings, shown_url};
use paceline_protocol::stores::broker::{BrokerError, Publisher, Receipts};
use paceline_protocol::stores::index::{Index, IndexError};
use paceline_protocol::stores::objects::{ObjectError, Objects};
use paceline_protocol::stores::state::{State, StateError};
use paceline_protocol::topology::Topology;
use secrecy::ExposeSecret;

use super::PREFETCH;
use crate::admin::{Look, Readiness};
use crate::config::LoadSettings;
use crate::metrics::Metrics;
use crate::servers::{self, NotConnected, Refusal, Server, connect as wait_for, first_away};
use crate::shutdown::Shutdown;

/// The servers, and what names things on them.
pub(crate) struct Stores {
    pub(crate) fleet: FleetSettings,
    pub(crate) objects: Objects,
    pub(crate) state: State,
    pub(crate) publisher: Publisher,
    pub(crate) index: Index,
    pub(crate) metrics: Arc<Metrics>,
}

/// Connects to all four.
pub(crate) async fn connect(
    settings: &LoadSettings,
    readiness: &Readiness,
    shutdown: &Shutdown,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Stores>, Receipts), NotConnected> {
    let waiting = Waiting {
        settings,
        readiness,
        shutdown,
    };
    let index = waiting.index().await?;
    let objects = waiting.objects().await?;
    let state = waiting.state().await?;
    let (publisher, receipts) = waiting.broker().await?;
    let fleet = settings.fleet.clone();
    let stores = Stores {
        fleet,
        objects,
        state,
        publisher,
        index,
        metrics,
    };
    Ok((Arc::new(stores), receipts))
}

impl Stores {
    /// Looks whether they are all still there.
    pub(crate) fn look(self: &Arc<Self>, settings: &LoadSettings) -> Look {
        let (amqp, redis) = (settings.amqp_url.clone(), settings.redis_url.clone());
        let stores = self.clone();
        Box::new(move || {
            let asked = stores.clone();
            let elasticsearch = async move { asked.index.version().await.is_ok() };
            let servers = [
                (
                    format!("Elasticsearch at {}", stores.index.shown_url()),
                    elasticsearch.boxed(),
                ),
                servers::s3(&stores.objects),
                servers::redis(&stores.state, redis.expose_secret()),
                servers::rabbitmq(&stores.publisher, amqp.expose_secret()),
            ];
            first_away(servers).boxed()
        })
    }
}

struct Waiting<'a> {
    settings: &'a LoadSettings,
    readiness: &'a Readiness,
    shutdown: &'a Shutdown,
}

impl Waiting<'_> {
    async fn index(&self) -> Result<Index, NotConnected> {
        let key = self.settings.elasticsearch_api_key.as_ref();
        let url = self.settings.elasticsearch_url.expose_secret();
        let index = Index::new(url, key.map(|key| key.expose_secret()))
            .map_err(|error| NotConnected::Never(error.to_string()))?;
        let server = Server {
            name: "Elasticsearch",
            url: index.shown_url().to_owned(),
            needed_for: "the documents",
        };
        wait_for(server, self.readiness, self.shutdown, || async {
            let version = index.version().await;
            version.map_err(of_index)
        })
        .await?;
        Ok(index)
    }

    async fn objects(&self) -> Result<Objects, NotConnected> {
        let fleet = &self.settings.fleet;
        let objects = Objects::new(&fleet.bucket).await;
        let server = Server {
            name: "S3",
            url: objects.endpoint(),
            needed_for: "plans and parts",
        };
        wait_for(server, self.readiness, self.shutdown, || async {
            objects.ping().await.map_err(of_objects)?;
            objects
                .probe_conditional_put(&fleet.prefix)
                .await
                .map_err(of_objects)
        })
        .await?;
        Ok(objects)
    }

    async fn state(&self) -> Result<State, NotConnected> {
        let url = self.settings.redis_url.expose_secret();
        let server = Server {
            name: "Redis",
            url: shown_url(url),
            needed_for: "progress and rankings",
        };
        wait_for(server, self.readiness, self.shutdown, || async {
            let keys = Keys::new(self.settings.fleet.namespace.clone());
            State::connect(url, keys).await.map_err(of_state)
        })
        .await
    }

    async fn broker(&self) -> Result<(Publisher, Receipts), NotConnected> {
        let url = self.settings.amqp_url.expose_secret();
        let server = Server {
            name: "RabbitMQ",
            url: shown_url(url),
            needed_for: "the receipts",
        };
        wait_for(server, self.readiness, self.shutdown, || async {
            let topology = Topology::new(self.settings.fleet.namespace.clone());
            // The publisher declares the queue that is consumed then.
            let publisher = Publisher::connect(url, topology.clone())
                .await
                .map_err(of_broker)?;
            let receipts = Receipts::connect(url, topology, PREFETCH)
                .await
                .map_err(of_broker)?;
            Ok((publisher, receipts))
        })
        .await
    }
}

fn of_objects(error: ObjectError) -> Refusal {
    match error {
        ObjectError::NoConditionalPut(_) | ObjectError::Denied { .. } => {
            Refusal::Never(error.to_string())
        }
        other => Refusal::Later(other.to_string()),
    }
}

fn of_state(error: StateError) -> Refusal {
    match error {
        StateError::Evicts { .. } | StateError::Denied { .. } => Refusal::Never(error.to_string()),
        other => Refusal::Later(other.to_string()),
    }
}

fn of_broker(error: BrokerError) -> Refusal {
    match error {
        BrokerError::Denied { .. } => Refusal::Never(error.to_string()),
        other => Refusal::Later(other.to_string()),
    }
}

fn of_index(error: IndexError) -> Refusal {
    match error {
        IndexError::Denied { .. } => Refusal::Never(error.to_string()),
        other => Refusal::Later(other.to_string()),
    }
}
