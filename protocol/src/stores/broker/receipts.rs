//! The receipts queue, consumed by the loaders.

use futures::StreamExt;
use lapin::Acker;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::time::sleep;

use super::envelope::{self, Envelope};
use super::link::{Link, in_time};
use super::taker::{ack, waits};
use super::{BrokerError, Publisher, declare};
use crate::message::{Receipt, ShardMessage};
use crate::stores::backoff::Backoff;
use crate::topology::{DelayLevel, Topology};

/// What arrives on the receipts queue.
pub enum Arrival {
    /// A shard's parts are durable.
    Receipt(Receipt),
    /// A dead-lettered shard, with the broker's or the worker's reason.
    DeadShard(ShardMessage, String),
    /// Of a newer build, with its version: to be given back.
    Newer(u32),
    /// Neither; to be acked and logged.
    Unreadable(String),
}

/// The receipts queue: consumed with a prefetch, rebuilt whenever the channel ends.
pub struct Receipts {
    link: Link,
    topology: Topology,
    prefetch: u16,
    consumer: Option<(Consumer, Channel)>,
    backoff: Backoff,
}

/// One arrival, to be acked when everything it starts is done.
pub struct TakenArrival {
    /// What it is.
    pub arrival: Arrival,
    body: Vec<u8>,
    properties: BasicProperties,
    /// The queue that it came from.
    queue: String,
    acker: Acker,
    /// Keeps the channel open: an ack needs the one that delivered.
    _channel: Channel,
}

impl TakenArrival {
    /// Acks.
    pub async fn ack(self) {
        ack(&self.acker).await;
    }

    /// Gives it back as it is, through a delay; to be acked then.
    ///
    /// # Errors
    /// When the broker did not take it.
    pub async fn give_back(
        &self,
        publisher: &Publisher,
        level: DelayLevel,
    ) -> Result<(), BrokerError> {
        let envelope = Envelope::again(&self.properties, self.body.clone());
        publisher.delayed(level, &self.queue, &envelope).await
    }
}

impl Receipts {
    /// Starts consuming.
    ///
    /// # Errors
    /// When the broker cannot be reached within 10 s.
    pub async fn connect(
        url: &str,
        topology: Topology,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let link = Link::new(url, "paceline receipts")?;
        let mut receipts = Receipts {
            link,
            topology,
            prefetch,
            consumer: None,
            backoff: waits(),
        };
        receipts.consumer = Some(receipts.consume().await?);
        Ok(receipts)
    }

    /// The next arrival; waits through outages, logging each once. Cancel-safe.
    pub async fn next(&mut self) -> TakenArrival {
        let mut told = false;
        loop {
            if let Some((consumer, channel)) = self.consumer.as_mut() {
                if let Some(Ok(delivery)) = consumer.next().await {
                    return TakenArrival {
                        arrival: envelope::arrival(&delivery.properties, &delivery.data),
                        body: delivery.data,
                        properties: delivery.properties,
                        queue: self.topology.receipts(),
                        acker: delivery.acker,
                        _channel: channel.clone(),
                    };
                }
                self.consumer = None;
            }
            match self.consume().await {
                Ok(consuming) => {
                    self.consumer = Some(consuming);
                    self.backoff = waits();
                }
                Err(error) => {
                    if !told {
                        tracing::warn!(%error, "receipts are not heard; trying until they are");
                        told = true;
                    }
                    sleep(self.backoff.wait()).await;
                }
            }
        }
    }

    /// Ends the consumer, so that [`Receipts::next`] begins anew: one that the broker has forgotten (its queue was
    /// deleted in that moment) would be silent for ever. What it had in hand unsettled comes again.
    pub fn begin_anew(&mut self) {
        self.consumer = None;
    }

    async fn consume(&self) -> Result<(Consumer, Channel), BrokerError> {
        let channel = self.link.channel().await?;
        declare::shared(&channel, &self.topology).await?;
        in_time(
            "set the prefetch",
            channel.basic_qos(self.prefetch, BasicQosOptions::default()),
        )
        .await?;
        let consumer = channel.basic_consume(
            self.topology.receipts().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        Ok((in_time("consume", consumer).await?, channel))
    }
}
