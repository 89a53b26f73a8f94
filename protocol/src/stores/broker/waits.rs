//! Ending waits early: shards that a closed limit has sent into a long delay are back in their queues as soon as
//! somebody opens it.

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions};

use super::envelope::Envelope;
use super::link::in_time;
use super::{BrokerError, Publisher};
use crate::topology::DelayLevel;

/// The shorter delays end by themselves before anybody would notice.
const LONG: [DelayLevel; 3] = [DelayLevel::S30, DelayLevel::M2, DelayLevel::M10];
/// So many shards of one delay come back early; the others follow in their time.
const MOST: u32 = 2_000;

impl Publisher {
    /// Puts the shards that wait in a long delay back to their queues. Returns how many.
    ///
    /// What is taken out and not published again stays in its delay with the time that it had left: nothing can be
    /// lost, and a shard that is there twice is worked on once.
    ///
    /// # Errors
    /// When the broker is away; what is left in the delays comes back in its time.
    pub async fn end_waits(&self) -> Result<u64, BrokerError> {
        let mut ended = 0;
        for level in LONG {
            let channel = self.channel().await?;
            let outcome = self.end_waits_of(level, &channel).await;
            // Closing puts back what was not acked.
            let closed = in_time("close a channel", channel.close(200, "done".into())).await;
            ended += outcome?;
            closed?;
        }
        Ok(ended)
    }

    async fn end_waits_of(&self, level: DelayLevel, channel: &Channel) -> Result<u64, BrokerError> {
        let delay = self.topology().delay(level);
        let waiting = self.look_at(delay.clone()).await?;
        let mut ended = 0;
        for _ in 0..waiting.map_or(0, |queue| queue.message_count()).min(MOST) {
            let got = channel.basic_get(delay.as_str().into(), BasicGetOptions::default());
            let Some(message) = in_time("get what is delayed", got).await? else {
                break;
            };
            let delivery = message.delivery;
            let queue = delivery.routing_key.to_string();
            if !self.topology().is_work_queue(&queue) {
                continue;
            }
            let again = Envelope::again(&delivery.properties, delivery.data);
            match self.to_work(&queue, &again).await {
                Ok(()) => ended += 1,
                // Its run has ended meanwhile.
                Err(error) => {
                    tracing::debug!(%error, queue, "a delayed shard stays in its delay");
                    continue;
                }
            }
            let acked = delivery.acker.ack(BasicAckOptions::default());
            in_time("ack what was delayed", acked).await?;
        }
        Ok(ended)
    }
}
