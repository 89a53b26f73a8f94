//! Publishing: one mandatory message in flight, or windows that count only as a whole. The client
//! attaches a returned message to the wrong publish when several are in flight.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Confirmation, PublisherConfirm, Queue};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use super::envelope::{Envelope, json};
use super::link::{Link, STEP_LIMIT, in_time, is_missing};
use super::{BrokerError, declare};
use crate::ids::RunRef;
use crate::message::{Control, Receipt, ShardMessage};
use crate::stores::backoff::Backoff;
use crate::topology::{DelayLevel, Topology};

/// Until collectors have heard that queues are about to go.
const TOLD: Duration = Duration::from_millis(250);
const CONFIRM_LIMIT: Duration = Duration::from_secs(15);
/// Publishes in flight in [`Publisher::shards`].
const WINDOW: usize = 256;
/// How often a window is published before its run is given up.
const WINDOW_TRIES: u32 = 6;
/// How often one that is not confirmed at all: each time takes its whole time.
const SILENT_TRIES: u32 = 2;

/// The publishing side: reconnects by itself, every step under a time limit.
#[derive(Clone)]
pub struct Publisher {
    link: Link,
    topology: Topology,
    single: Arc<Mutex<Option<Channel>>>,
}

impl Publisher {
    /// Connects and declares what is not a run's own: exchanges, receipts, dead letters, delays.
    ///
    /// # Errors
    /// When the broker cannot be reached within 10 s, or refuses.
    pub async fn connect(url: &str, topology: Topology) -> Result<Self, BrokerError> {
        let link = Link::new(url, "paceline publisher")?;
        declare::shared(&link.channel().await?, &topology).await?;
        Ok(Publisher {
            link,
            topology,
            single: Arc::default(),
        })
    }

    /// Whether the broker holds our publishes back (memory or disk alarm).
    pub fn blocked(&self) -> bool {
        self.link.blocked()
    }

    /// Declares the work queue of a lane and run, bound to the work exchange.
    ///
    /// # Errors
    /// When the broker is away or the queue exists with other arguments.
    pub async fn open_queue(&self, lane: &str, run: &RunRef) -> Result<(), BrokerError> {
        let name = self.topology.work_queue(lane, run);
        declare::work(&self.link.channel().await?, &self.topology, &name).await
    }

    /// That the broker answers.
    ///
    /// # Errors
    /// When it is away.
    pub async fn ping(&self) -> Result<(), BrokerError> {
        self.link.channel().await.map(drop)
    }

    /// Deletes it with what is in it. A queue that is not there is fine.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn delete_queue(&self, lane: &str, run: &RunRef) -> Result<(), BrokerError> {
        let name = self.topology.work_queue(lane, run);
        let channel = self.link.channel().await?;
        let deleted = channel.queue_delete(name.into(), QueueDeleteOptions::default());
        in_time("delete a queue", deleted).await.map(drop)
    }

    /// Deletes the queues of a run that is over. Collectors are told before, and leave them alone: who asks a queue for a
    /// message in the moment in which it is deleted may lose its connection for it (`INTERNAL_ERROR`, `noproc`), and with it
    /// all shards that it has in hand.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn end_queues(&self, lanes: &[&str], run: &RunRef) -> Result<(), BrokerError> {
        self.control(&Control::Cancel { run: run.clone() }).await?;
        tokio::time::sleep(TOLD).await;
        for lane in lanes {
            self.delete_queue(lane, run).await?;
        }
        Ok(())
    }

    /// Messages that are ready in it; `None` when it is not there.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn depth(&self, lane: &str, run: &RunRef) -> Result<Option<u32>, BrokerError> {
        let queue = self.look_at(self.topology.work_queue(lane, run)).await?;
        Ok(queue.map(|queue| queue.message_count()))
    }

    /// How many take receipts.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn loaders(&self) -> Result<u32, BrokerError> {
        let queue = self.look_at(self.topology.receipts()).await?;
        Ok(queue.map_or(0, |queue| queue.consumer_count()))
    }

    pub(super) async fn look_at(&self, queue: String) -> Result<Option<Queue>, BrokerError> {
        let channel = self.link.channel().await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let asked = channel.queue_declare(queue.into(), options, FieldTable::default());
        match timeout(STEP_LIMIT, asked).await {
            Ok(Ok(queue)) => Ok(Some(queue)),
            Ok(Err(error)) if is_missing(&error) => Ok(None),
            Ok(Err(error)) => Err(BrokerError::Failed(error.to_string())),
            Err(_) => Err(BrokerError::Failed("no answer in time".into())),
        }
    }

    /// The exchange that shards are published to.
    pub fn work_exchange(&self) -> String {
        self.topology.work_exchange()
    }

    /// The queue of receipts.
    pub fn receipts_queue(&self) -> String {
        self.topology.receipts()
    }

    /// Publishes one shard to its queue, confirmed.
    ///
    /// # Errors
    /// When it was not taken; publishing again is harmless.
    pub async fn shard(&self, shard: &ShardMessage) -> Result<(), BrokerError> {
        let key = self.work_queue(shard);
        self.confirmed(
            &self.topology.work_exchange(),
            &key,
            true,
            &Envelope::shard(shard),
        )
        .await
    }

    /// Publishes many with confirms in windows; `done` hears how many are safe so far. A window that is
    /// published again carries new publication ids.
    ///
    /// # Errors
    /// When some were not taken after several tries.
    pub async fn shards(
        &self,
        shards: &mut (dyn Iterator<Item = ShardMessage> + Send),
        done: &mut (dyn FnMut(u64) + Send),
    ) -> Result<u64, BrokerError> {
        let mut channel = None;
        let mut safe = 0;
        loop {
            let mut window: Vec<ShardMessage> = (&mut *shards).take(WINDOW).collect();
            if window.is_empty() {
                return Ok(safe);
            }
            self.window_until_safe(&mut channel, &mut window).await?;
            safe += window.len() as u64;
            done(safe);
        }
    }

    async fn window_until_safe(
        &self,
        channel: &mut Option<Channel>,
        window: &mut [ShardMessage],
    ) -> Result<(), BrokerError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        for tried in 1.. {
            let Err(error) = self.window(channel, window).await else {
                break;
            };
            *channel = None;
            let most = match error {
                BrokerError::Unconfirmed { .. } => SILENT_TRIES,
                _ => WINDOW_TRIES,
            };
            if tried >= most {
                return Err(error);
            }
            tokio::time::sleep(backoff.wait()).await;
            window
                .iter_mut()
                .for_each(|shard| shard.publication = Uuid::new_v4());
        }
        Ok(())
    }

    /// One window on a channel of its own. Any nack or return spoils it as a whole.
    async fn window(
        &self,
        slot: &mut Option<Channel>,
        window: &[ShardMessage],
    ) -> Result<(), BrokerError> {
        self.refuse_blocked()?;
        let channel = match slot.take() {
            Some(channel) if channel.status().connected() => channel,
            _ => self.confirming_channel().await?,
        };
        let exchange = self.topology.work_exchange();
        let publishing = async {
            let mut confirms = Vec::with_capacity(window.len());
            for shard in window {
                let key = self.work_queue(shard);
                confirms
                    .push(publish(&channel, &exchange, &key, true, &Envelope::shard(shard)).await?);
            }
            let mut outcome = Ok(());
            for confirm in confirms {
                outcome = outcome.and(taken(confirm.await));
            }
            outcome
        };
        timeout(CONFIRM_LIMIT, publishing)
            .await
            .unwrap_or_else(|_| Err(late()))?;
        *slot = Some(channel);
        Ok(())
    }

    /// Publishes a shard so that it comes back to its queue after the delay, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn delayed_shard(
        &self,
        shard: &ShardMessage,
        level: DelayLevel,
    ) -> Result<(), BrokerError> {
        let key = self.work_queue(shard);
        self.confirmed(
            &self.topology.delay(level),
            &key,
            true,
            &Envelope::shard(shard),
        )
        .await
    }

    /// Publishes what comes back to `queue` after the delay, confirmed.
    pub(super) async fn delayed(
        &self,
        level: DelayLevel,
        queue: &str,
        envelope: &Envelope,
    ) -> Result<(), BrokerError> {
        self.confirmed(&self.topology.delay(level), queue, true, envelope)
            .await
    }

    /// Puts a shard to the dead letters (and so to the loaders), with a reason, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn dead_shard(&self, shard: &ShardMessage, reason: &str) -> Result<(), BrokerError> {
        self.dead(&Envelope::shard(shard).because(reason)).await
    }

    pub(super) async fn dead(&self, envelope: &Envelope) -> Result<(), BrokerError> {
        self.confirmed(&self.topology.dead(), "", true, envelope)
            .await
    }

    /// To the dead letters for people alone: the loaders care for shards only.
    pub(super) async fn dead_letter(&self, envelope: &Envelope) -> Result<(), BrokerError> {
        self.confirmed("", &self.topology.dead(), true, envelope)
            .await
    }

    /// Publishes a receipt, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn receipt(&self, receipt: &Receipt) -> Result<(), BrokerError> {
        let name = self.topology.receipts();
        self.confirmed(&name, &name, true, &Envelope::receipt(receipt))
            .await
    }

    /// Tells everybody; nobody need be listening.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn control(&self, control: &Control) -> Result<(), BrokerError> {
        let envelope = Envelope::new("control", Uuid::new_v4().to_string(), json(control));
        self.confirmed(&self.topology.control(), "", false, &envelope)
            .await
    }

    /// Publishes an event (topic `run.<state>`) as JSON; nobody need be listening.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn event(&self, topic: &str, body: &serde_json::Value) -> Result<(), BrokerError> {
        let envelope = Envelope::new("event", Uuid::new_v4().to_string(), json(body));
        self.confirmed(&self.topology.events(), topic, false, &envelope)
            .await
    }

    /// Publishes a webhook to be called now, or after a delay, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn delivery(
        &self,
        body: &serde_json::Value,
        after: Option<DelayLevel>,
    ) -> Result<(), BrokerError> {
        let key = self.topology.deliveries();
        let envelope = Envelope::new("delivery", Uuid::new_v4().to_string(), json(body));
        // The default exchange leads to the queue of that name.
        let exchange = after.map_or_else(String::new, |level| self.topology.delay(level));
        self.confirmed(&exchange, &key, true, &envelope).await
    }

    /// Publishes to a queue by its name, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub(super) async fn to_queue(
        &self,
        queue: &str,
        envelope: &Envelope,
    ) -> Result<(), BrokerError> {
        // The default exchange leads to the queue of that name.
        self.confirmed("", queue, true, envelope).await
    }

    /// Publishes to a work queue by its name, confirmed.
    pub(super) async fn to_work(
        &self,
        queue: &str,
        envelope: &Envelope,
    ) -> Result<(), BrokerError> {
        self.confirmed(&self.topology.work_exchange(), queue, true, envelope)
            .await
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        self.link.channel().await
    }

    /// Tells the loaders alone that a shard is over: its missing cells become failures for `reason`.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn shard_is_over(
        &self,
        shard: &ShardMessage,
        reason: &str,
    ) -> Result<(), BrokerError> {
        let name = self.topology.receipts();
        let envelope = Envelope::shard(shard).because(reason);
        self.confirmed(&name, &name, true, &envelope).await
    }

    /// Closes within `limit`.
    pub async fn close(&self, limit: Duration) {
        self.link.close(limit).await;
    }

    fn work_queue(&self, shard: &ShardMessage) -> String {
        self.topology.work_queue(&shard.lane, &shard.run_ref())
    }

    /// One publish, the only one in flight on its channel. A channel that failed is not used again.
    async fn confirmed(
        &self,
        exchange: &str,
        key: &str,
        mandatory: bool,
        envelope: &Envelope,
    ) -> Result<(), BrokerError> {
        self.refuse_blocked()?;
        let mut slot = self.single.lock().await;
        let channel = match slot.take() {
            Some(channel) if channel.status().connected() => channel,
            _ => self.confirming_channel().await?,
        };
        let publishing = async {
            let confirm = publish(&channel, exchange, key, mandatory, envelope).await?;
            taken(confirm.await)
        };
        let Ok(outcome) = timeout(CONFIRM_LIMIT, publishing).await else {
            self.link.drop_connection().await;
            return Err(late());
        };
        if channel.status().connected() {
            *slot = Some(channel);
        }
        outcome
    }

    async fn confirming_channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.link.channel().await?;
        in_time(
            "ask for confirms",
            channel.confirm_select(ConfirmSelectOptions::default()),
        )
        .await?;
        Ok(channel)
    }

    /// What is written while blocked arrives after the alarm, long after we gave it up.
    fn refuse_blocked(&self) -> Result<(), BrokerError> {
        if self.blocked() {
            return Err(BrokerError::Failed(
                "it takes no messages (memory or disk alarm)".into(),
            ));
        }
        Ok(())
    }
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    mandatory: bool,
    envelope: &Envelope,
) -> Result<PublisherConfirm, BrokerError> {
    let options = BasicPublishOptions {
        mandatory,
        ..Default::default()
    };
    channel
        .basic_publish(
            exchange.into(),
            key.into(),
            options,
            &envelope.body,
            envelope.properties.clone(),
        )
        .await
        .map_err(|e| BrokerError::Failed(e.to_string()))
}

/// Only an ack without a returned message says that the broker has it; a nack is no `Err`.
fn taken(confirmation: lapin::Result<Confirmation>) -> Result<(), BrokerError> {
    match confirmation {
        Ok(Confirmation::Ack(None)) => Ok(()),
        Ok(Confirmation::Ack(Some(back)) | Confirmation::Nack(Some(back))) => {
            Err(BrokerError::NotTaken(format!(
                "{} (to {})",
                back.reply_text, back.delivery.routing_key
            )))
        }
        Ok(Confirmation::Nack(None)) => Err(BrokerError::NotTaken(
            "refused (the queue may be full)".into(),
        )),
        Ok(Confirmation::NotRequested) => {
            Err(BrokerError::Failed("the channel gives no confirms".into()))
        }
        Err(error) => Err(BrokerError::Failed(error.to_string())),
    }
}

fn late() -> BrokerError {
    BrokerError::Unconfirmed {
        within: CONFIRM_LIMIT,
    }
}
