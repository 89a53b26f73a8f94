//! What `producer serve` hears: requests, the ends of runs to be told, and deliveries, each from a durable
//! queue of its own; and every event of the fleet, as a hint that may be lost.

use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Acker, BasicProperties, Channel, Consumer};
use tokio::time::sleep;

use super::envelope::Envelope;
use super::link::{Link, in_time};
use super::taker::{ack, waits};
use super::{BrokerError, Publisher, declare};
use crate::stores::backoff::Backoff;
use crate::topology::Topology;

/// Which messages are heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hear {
    /// `<ns>.requests`: runs to be started.
    Requests,
    /// `<ns>.notifications`: the starts and ends of runs, kept until somebody told them.
    Notifications,
    /// `<ns>.deliveries`: webhooks to be called.
    Deliveries,
    /// Every event from now on, by a queue that goes with the connection.
    Events,
}

/// A consumer that is made again whenever its channel ends.
pub struct Inbox {
    link: Link,
    topology: Topology,
    hear: Hear,
    prefetch: u16,
    consumer: Option<(Consumer, Channel)>,
    backoff: Backoff,
}

/// One message, to be acked when everything it starts is done. Dropping it gives it back when the
/// connection ends.
pub struct Letter {
    /// As it was published.
    pub body: Vec<u8>,
    /// The routing key it came by (`run.completed`).
    pub topic: String,
    /// The publisher's id of the message.
    pub id: Option<String>,
    properties: BasicProperties,
    acker: Acker,
    _channel: Channel,
}

impl Inbox {
    /// Reads the URL; the connection is made by the first [`Inbox::next`].
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(
        url: &str,
        topology: Topology,
        hear: Hear,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        Ok(Inbox {
            link: Link::new(url, "paceline serve")?,
            topology,
            hear,
            prefetch,
            consumer: None,
            backoff: waits(),
        })
    }

    /// The next message; waits through outages, logging each once. `None` says that events may have been
    /// missed: at the start and after a gap. Cancel-safe.
    pub async fn next(&mut self) -> Option<Letter> {
        let mut told = false;
        loop {
            if let Some((consumer, channel)) = self.consumer.as_mut() {
                if let Some(Ok(delivery)) = consumer.next().await {
                    let id = delivery.properties.message_id().as_ref();
                    return Some(Letter {
                        topic: delivery.routing_key.to_string(),
                        id: id.map(ToString::to_string),
                        body: delivery.data,
                        properties: delivery.properties,
                        acker: delivery.acker,
                        _channel: channel.clone(),
                    });
                }
                self.consumer = None;
            }
            match self.consume().await {
                Ok(consuming) => {
                    self.consumer = Some(consuming);
                    self.backoff = waits();
                    if self.hear == Hear::Events {
                        return None;
                    }
                }
                Err(error) => {
                    if !told {
                        tracing::warn!(%error, hear = ?self.hear, "RabbitMQ is not heard; trying until it is");
                        told = true;
                    }
                    sleep(self.backoff.wait()).await;
                }
            }
        }
    }

    async fn consume(&self) -> Result<(Consumer, Channel), BrokerError> {
        let channel = self.link.channel().await?;
        declare::shared(&channel, &self.topology).await?;
        let limit = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        in_time("set the prefetch", limit).await?;
        let queue = match self.hear {
            Hear::Requests => self.topology.requests(),
            Hear::Notifications => self.topology.notifications(),
            Hear::Deliveries => self.topology.deliveries(),
            Hear::Events => self.ear(&channel).await?,
        };
        let options = BasicConsumeOptions {
            no_ack: self.hear == Hear::Events,
            ..Default::default()
        };
        let consumer =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        Ok((in_time("consume", consumer).await?, channel))
    }

    /// A queue of our own, gone with the connection.
    async fn ear(&self, channel: &Channel) -> Result<String, BrokerError> {
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..Default::default()
        };
        let own = channel.queue_declare("".into(), options, FieldTable::default());
        let own = in_time("declare a queue", own).await?;
        let bound = channel.queue_bind(
            own.name().clone(),
            self.topology.events().into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        in_time("bind a queue", bound).await?;
        Ok(own.name().to_string())
    }
}

impl Letter {
    /// Acks. An ack that could not be sent is no error: the redelivery finds the work done.
    pub async fn ack(self) {
        ack(&self.acker).await;
    }

    /// Puts the message to the dead letters as it is, with a reason, then acks.
    ///
    /// # Errors
    /// When the broker did not take it.
    pub async fn bury(self, publisher: &Publisher, reason: &str) -> Result<(), BrokerError> {
        let envelope = Envelope {
            body: self.body,
            properties: self.properties,
        };
        publisher.dead_letter(&envelope.because(reason)).await?;
        ack(&self.acker).await;
        Ok(())
    }
}
