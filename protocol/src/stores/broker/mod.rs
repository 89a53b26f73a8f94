//! RabbitMQ. Publishing is confirmed, one mandatory publish at a time or in windows that are checked
//! as a whole; taking uses a connection of its own, since a blocked connection stops acks too.

use std::time::Duration;

use crate::ids::RunRef;
use crate::message::{Control, Receipt, ShardMessage};
use crate::topology::{DelayLevel, Topology};

/// Why the broker did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It could not be reached in time; `url` is without user and password.
    #[error("RabbitMQ at {url} cannot be reached: {why}")]
    Unreachable {
        /// Where, without secrets.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It answered with an error, or not in time.
    #[error("RabbitMQ: {0}")]
    Failed(String),
    /// It did not take the message (nack, returned, or queue missing).
    #[error("RabbitMQ did not take a message: {0}")]
    NotTaken(String),
    /// The queue is not there.
    #[error("RabbitMQ has no queue {0}")]
    NoQueue(String),
}

/// The publishing side: reconnects by itself, every step under a time limit.
#[derive(Clone)]
pub struct Publisher {}

impl Publisher {
    /// Connects and declares what is not a run's own: exchanges, receipts, dead letters, delays.
    ///
    /// # Errors
    /// When the broker cannot be reached within 10 s, or refuses.
    pub async fn connect(_url: &str, _topology: Topology) -> Result<Self, BrokerError> {
        todo!()
    }

    /// Declares the work queue of a lane and run, bound to the work exchange.
    ///
    /// # Errors
    /// When the broker is away or the queue exists with other arguments.
    pub async fn open_queue(&self, _lane: &str, _run: &RunRef) -> Result<(), BrokerError> {
        todo!()
    }

    /// Deletes it with what is in it. A queue that is not there is fine.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn delete_queue(&self, _lane: &str, _run: &RunRef) -> Result<(), BrokerError> {
        todo!()
    }

    /// Messages that are ready in it; `None` when it is not there.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn depth(&self, _lane: &str, _run: &RunRef) -> Result<Option<u32>, BrokerError> {
        todo!()
    }

    /// Publishes one shard to its queue, confirmed.
    ///
    /// # Errors
    /// When it was not taken; publishing again is harmless.
    pub async fn shard(&self, _shard: &ShardMessage) -> Result<(), BrokerError> {
        todo!()
    }

    /// Publishes many with confirms in windows; `done` hears how many are safe so far.
    ///
    /// # Errors
    /// When some were not taken after several tries.
    pub async fn shards(
        &self,
        _shards: &mut (dyn Iterator<Item = ShardMessage> + Send),
        _done: &mut (dyn FnMut(u64) + Send),
    ) -> Result<u64, BrokerError> {
        todo!()
    }

    /// Publishes a shard so that it comes back to its queue after the delay, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn delayed_shard(
        &self,
        _shard: &ShardMessage,
        _level: DelayLevel,
    ) -> Result<(), BrokerError> {
        todo!()
    }

    /// Puts a shard to the dead letters (and so to the loaders), with a reason, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn dead_shard(
        &self,
        _shard: &ShardMessage,
        _reason: &str,
    ) -> Result<(), BrokerError> {
        todo!()
    }

    /// Publishes a receipt, confirmed.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn receipt(&self, _receipt: &Receipt) -> Result<(), BrokerError> {
        todo!()
    }

    /// Tells everybody; not confirmed, nobody need be listening.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn control(&self, _control: &Control) -> Result<(), BrokerError> {
        todo!()
    }

    /// Publishes an event (topic `run.<state>`) as JSON; nobody need be listening.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn event(&self, _topic: &str, _body: &serde_json::Value) -> Result<(), BrokerError> {
        todo!()
    }

    /// Closes within `limit`.
    pub async fn close(&self, _limit: Duration) {
        todo!()
    }
}

/// The taking side of a collector: shards one by one (`basic.get`), and the control exchange.
#[derive(Clone)]
pub struct Taker {}

/// A shard in hand. Dropping it without settling gives it back when the connection ends.
pub struct TakenShard {
    /// The message; `Err` holds why it cannot be read (version, JSON), to be dead-lettered.
    pub message: Result<ShardMessage, String>,
    /// How often it was taken before without being settled (`x-delivery-count`).
    pub delivery_count: u32,
}

impl Taker {
    /// Connects on a connection of its own.
    ///
    /// # Errors
    /// When the broker cannot be reached within 10 s.
    pub async fn connect(_url: &str, _topology: Topology) -> Result<Self, BrokerError> {
        todo!()
    }

    /// Takes one shard; `None` when the queue is empty.
    ///
    /// # Errors
    /// [`BrokerError::NoQueue`] when the run has ended; else when the broker is away (it reconnects by
    /// itself on the next call).
    pub async fn take(
        &self,
        _lane: &str,
        _run: &RunRef,
    ) -> Result<Option<TakenShard>, BrokerError> {
        todo!()
    }

    /// The next control message. Reconnects by itself; after a gap it says [`Control::RunsChanged`].
    pub async fn control(&self) -> Control {
        todo!()
    }
}

impl TakenShard {
    /// Acks. An ack that could not be sent is no error: the redelivery finds the work done.
    pub async fn ack(self) {
        todo!()
    }

    /// Puts a message that cannot be read to the dead letters as it is, then acks.
    ///
    /// # Errors
    /// When the broker did not take it.
    pub async fn bury(self, _publisher: &Publisher, _reason: &str) -> Result<(), BrokerError> {
        todo!()
    }
}

/// What arrives on the receipts queue.
pub enum Arrival {
    /// A shard's parts are durable.
    Receipt(Receipt),
    /// A dead-lettered shard, with the broker's or the worker's reason.
    DeadShard(ShardMessage, String),
    /// Neither; to be acked and logged.
    Unreadable(String),
}

/// The receipts queue: consumed with a prefetch, rebuilt whenever the channel ends.
pub struct Receipts {}

/// One arrival, to be acked when everything it starts is done.
pub struct TakenArrival {
    /// What it is.
    pub arrival: Arrival,
}

impl TakenArrival {
    /// Acks.
    pub async fn ack(self) {
        todo!()
    }
}

impl Receipts {
    /// Starts consuming.
    ///
    /// # Errors
    /// When the broker cannot be reached within 10 s.
    pub async fn connect(
        _url: &str,
        _topology: Topology,
        _prefetch: u16,
    ) -> Result<Self, BrokerError> {
        todo!()
    }

    /// The next arrival; waits through outages, logging each once. Cancel-safe.
    pub async fn next(&mut self) -> TakenArrival {
        todo!()
    }
}
