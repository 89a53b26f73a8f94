//! The dead letters, for people: looked at without taking them, published again, or dropped.
//!
//! A look takes messages without acking them and lets its channel go, which puts them back in their order.

use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::{BasicProperties, Channel};
use sha2::{Digest, Sha256};

use super::envelope::{self, Envelope};
use super::link::{Link, in_time};
use super::{BrokerError, Publisher};
use crate::message::ShardMessage;
use crate::topology::Topology;

/// Reads the queue of the dead. One look at a time, else two see half of it each.
pub struct DeadLetters {
    link: Link,
    topology: Topology,
    alone: tokio::sync::Mutex<()>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The same for the same message at every look.
    pub id: String,
    /// What it is.
    pub kind: DeadKind,
    /// Why it is here.
    pub reason: String,
    /// As it was published.
    pub body: Vec<u8>,
}

/// What a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadKind {
    /// A run's shard. The run counts its missing cells as failures already: it is not published again,
    /// `retry` sends them.
    Shard,
    /// A message that was to start a run.
    Request,
    /// A webhook that was to be called.
    Delivery,
    /// Anything else.
    Other,
}

/// What becomes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes back to where it came from.
    Again,
    /// It goes away.
    Dropped,
}

impl DeadLetters {
    /// Reads the URL; the connection is made by the first look.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(url: &str, topology: Topology) -> Result<Self, BrokerError> {
        Ok(DeadLetters {
            link: Link::new(url, "paceline dead letters")?,
            topology,
            alone: tokio::sync::Mutex::new(()),
        })
    }

    /// The oldest ones, at most `most`.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn look(&self, most: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        let _alone = self.alone.lock().await;
        let channel = self.link.channel().await?;
        let mut found = Vec::new();
        while found.len() < most {
            let Some(message) = self.get(&channel).await? else {
                break;
            };
            found.push(letter(&message.delivery.properties, message.delivery.data));
        }
        self.let_go(channel).await;
        Ok(found)
    }

    /// Publishes one of the oldest `among` again, or drops it; false when it is not among them (any more).
    ///
    /// # Errors
    /// When the broker is away or did not take it; then it is still there.
    pub async fn settle(
        &self,
        publisher: &Publisher,
        id: &str,
        fate: Fate,
        among: usize,
    ) -> Result<bool, BrokerError> {
        let _alone = self.alone.lock().await;
        let channel = self.link.channel().await?;
        let mut settled = false;
        for _ in 0..among {
            let Some(message) = self.get(&channel).await? else {
                break;
            };
            let delivery = message.delivery;
            let found = letter(&delivery.properties, delivery.data);
            if found.id != id {
                continue;
            }
            let home = self.home(found.kind);
            if fate == Fate::Again {
                let Some(home) = home else { break };
                let envelope = Envelope {
                    body: found.body,
                    properties: bare(&delivery.properties),
                };
                publisher.to_queue(&home, &envelope).await?;
            }
            let acked = delivery.acker.ack(BasicAckOptions::default());
            in_time("ack a dead letter", acked).await?;
            settled = true;
            break;
        }
        self.let_go(channel).await;
        Ok(settled)
    }

    /// The queue that it came from, where publishing it again makes sense.
    fn home(&self, kind: DeadKind) -> Option<String> {
        match kind {
            DeadKind::Request => Some(self.topology.requests()),
            DeadKind::Delivery => Some(self.topology.deliveries()),
            DeadKind::Shard | DeadKind::Other => None,
        }
    }

    async fn get(
        &self,
        channel: &Channel,
    ) -> Result<Option<lapin::message::BasicGetMessage>, BrokerError> {
        let got = channel.basic_get(self.topology.dead().into(), BasicGetOptions::default());
        in_time("get a dead letter", got).await
    }

    /// What was not acked is put back by closing.
    async fn let_go(&self, channel: Channel) {
        if let Err(error) = in_time("close a channel", channel.close(200, "seen".into())).await {
            tracing::debug!(%error, "the dead letters come back with the connection's end");
            self.link.drop_connection().await;
        }
    }
}

/// Without what the broker and the burial wrote on it.
fn bare(properties: &BasicProperties) -> BasicProperties {
    let bare = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into());
    match properties.message_id() {
        Some(id) => bare.with_message_id(id.clone()),
        None => bare,
    }
}

fn letter(properties: &BasicProperties, body: Vec<u8>) -> DeadLetter {
    let mut digest = Sha256::new();
    let id = properties.message_id().as_ref().map(ToString::to_string);
    digest.update(id.unwrap_or_default());
    digest.update([0]);
    digest.update(&body);
    DeadLetter {
        id: hex::encode(&digest.finalize()[..12]),
        kind: kind(properties, &body),
        reason: envelope::death(properties),
        body,
    }
}

fn kind(properties: &BasicProperties, body: &[u8]) -> DeadKind {
    let known = envelope::kind(properties);
    let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    match known.as_deref() {
        Some("delivery") => DeadKind::Delivery,
        Some("shard") => DeadKind::Shard,
        Some(_) => DeadKind::Other,
        _ if envelope::read::<ShardMessage>(body).is_ok() => DeadKind::Shard,
        _ if json["job"].is_string() => DeadKind::Request,
        _ => DeadKind::Other,
    }
}
