//! Taking shards one by one, and hearing the control exchange, on a connection that never publishes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use lapin::Acker;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::envelope::{self, Envelope};
use super::link::{Link, STEP_LIMIT, in_time, is_missing};
use super::{BrokerError, Publisher};
use crate::ids::RunRef;
use crate::message::{Control, ShardMessage};
use crate::stores::backoff::Backoff;
use crate::topology::{DelayLevel, Topology};
use crate::version::Unread;

type Slot = Arc<Mutex<Option<Channel>>>;

/// The taking side of a collector: shards one by one (`basic.get`), and the control exchange.
///
/// Every queue has a channel of its own: asking a queue that is gone closes the channel, which would
/// give back whatever else was taken on it.
#[derive(Clone)]
pub struct Taker {
    link: Link,
    topology: Topology,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
    control: Arc<Mutex<Ear>>,
}

/// The consumer of the control exchange with the channel that keeps it alive, and the waits of an outage.
struct Ear {
    consumer: Option<(Consumer, Channel)>,
    backoff: Backoff,
}

/// A shard in hand. Dropping it without settling gives it back when the connection ends.
pub struct TakenShard {
    /// The message; `Err` holds why it cannot be read: a newer one is given back, a broken one dead-lettered.
    pub message: Result<ShardMessage, Unread>,
    /// How often it was taken before without being settled (`x-delivery-count`).
    pub delivery_count: u32,
    body: Vec<u8>,
    properties: BasicProperties,
    queue: String,
    acker: Acker,
    /// Keeps the channel open: an ack needs the one that delivered.
    _channel: Channel,
}

impl Taker {
    /// Connects on a connection of its own.
    ///
    /// # Errors
    /// When the broker cannot be reached within 10 s.
    pub async fn connect(url: &str, topology: Topology) -> Result<Self, BrokerError> {
        let link = Link::new(url, "paceline taker")?;
        link.channel().await?;
        let ear = Ear {
            consumer: None,
            backoff: waits(),
        };
        Ok(Taker {
            link,
            topology,
            slots: Arc::default(),
            control: Arc::new(Mutex::new(ear)),
        })
    }

    /// Takes one shard; `None` when the queue is empty.
    ///
    /// # Errors
    /// [`BrokerError::NoQueue`] when the run has ended; [`BrokerError::Silent`] when the queue alone does not answer;
    /// else when the broker is away (it reconnects by itself on the next call).
    pub async fn take(&self, lane: &str, run: &RunRef) -> Result<Option<TakenShard>, BrokerError> {
        let queue = self.topology.work_queue(lane, run);
        let slot = self
            .slots
            .lock()
            .await
            .entry(queue.clone())
            .or_default()
            .clone();
        // Out of its slot during the get: when the caller gives up in the middle, the channel is not
        // used again, and closes (and so gives back what arrived late) with the last shard taken on it.
        let mut held = slot.lock().await;
        let channel = match held.take() {
            Some(channel) if channel.status().connected() => channel,
            _ => self.link.channel().await?,
        };
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
        match timeout(STEP_LIMIT, got).await {
            Ok(Ok(message)) => {
                *held = Some(channel.clone());
                Ok(message.map(|m| TakenShard::new(m.delivery, queue, channel)))
            }
            Ok(Err(error)) if is_missing(&error) => {
                self.slots.lock().await.remove(&queue);
                Err(BrokerError::NoQueue(queue))
            }
            Ok(Err(error)) => Err(BrokerError::Failed(error.to_string())),
            // Where the connection is well the queue is not, and other queues' shards stay in hand.
            Err(_) => match self.link.channel().await {
                Ok(_) => Err(BrokerError::Silent(queue)),
                Err(error) => {
                    self.link.drop_connection().await;
                    Err(error)
                }
            },
        }
    }

    /// The next control message. Reconnects by itself; at its start and after a gap it says
    /// [`Control::RunsChanged`]. Cancel-safe.
    pub async fn control(&self) -> Control {
        let mut ear = self.control.lock().await;
        loop {
            let Some((consumer, _)) = ear.consumer.as_mut() else {
                match self.listen().await {
                    Ok(listening) => {
                        *ear = Ear {
                            consumer: Some(listening),
                            backoff: waits(),
                        };
                        return Control::RunsChanged;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "control messages are not heard");
                        let wait = ear.backoff.wait();
                        sleep(wait).await;
                        continue;
                    }
                }
            };
            match consumer.next().await {
                Some(Ok(delivery)) => match serde_json::from_slice(&delivery.data) {
                    Ok(control) => return control,
                    Err(error) => tracing::warn!(%error, "a control message cannot be read"),
                },
                _ => ear.consumer = None,
            }
        }
    }

    /// A queue of our own, gone with the connection.
    async fn listen(&self) -> Result<(Consumer, Channel), BrokerError> {
        let channel = self.link.channel().await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..Default::default()
        };
        let own = in_time(
            "declare a queue",
            channel.queue_declare("".into(), options, FieldTable::default()),
        )
        .await?;
        let bound = channel.queue_bind(
            own.name().clone(),
            self.topology.control().into(),
            "".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        in_time("bind a queue", bound).await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let consumer = channel.basic_consume(
            own.name().clone(),
            "".into(),
            options,
            FieldTable::default(),
        );
        Ok((in_time("consume", consumer).await?, channel))
    }
}

/// The waits of one outage.
pub(super) fn waits() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
}

/// Acks in time. `Ok(false)` and an error mean that it comes again, and then finds the work done.
pub(super) async fn ack(acker: &Acker) {
    match timeout(STEP_LIMIT, acker.ack(BasicAckOptions::default())).await {
        Ok(Ok(true)) => {}
        other => tracing::debug!(?other, "an ack was not sent; the message comes again"),
    }
}

impl TakenShard {
    fn new(delivery: lapin::message::Delivery, queue: String, channel: Channel) -> Self {
        TakenShard {
            message: envelope::read_shard(&delivery.properties, &delivery.data),
            delivery_count: envelope::delivery_count(&delivery.properties),
            body: delivery.data,
            properties: delivery.properties,
            queue,
            acker: delivery.acker,
            _channel: channel,
        }
    }

    /// Acks. An ack that could not be sent is no error: the redelivery finds the work done.
    pub async fn ack(self) {
        ack(&self.acker).await;
    }

    /// Gives a message back as it is, through a delay to the queue that it came from, then acks: the delivery count
    /// starts anew.
    ///
    /// # Errors
    /// When the broker did not take it; it comes again then.
    pub async fn give_back(
        self,
        publisher: &Publisher,
        level: DelayLevel,
    ) -> Result<(), BrokerError> {
        let envelope = Envelope::again(&self.properties, self.body);
        publisher.delayed(level, &self.queue, &envelope).await?;
        ack(&self.acker).await;
        Ok(())
    }

    /// Puts a message that cannot be read to the dead letters as it is, then acks.
    ///
    /// # Errors
    /// When the broker did not take it.
    pub async fn bury(self, publisher: &Publisher, reason: &str) -> Result<(), BrokerError> {
        let envelope = Envelope {
            body: self.body,
            properties: self.properties,
        };
        publisher.dead(&envelope.because(reason)).await?;
        ack(&self.acker).await;
        Ok(())
    }
}
