//! RabbitMQ. Publishing is confirmed, one mandatory publish at a time or in windows that are checked
//! as a whole; taking uses a connection of its own, since a blocked connection stops acks too.

mod dead;
mod declare;
mod envelope;
mod inbox;
mod link;
mod publisher;
mod receipts;
mod taker;
mod waits;

pub use dead::{DeadKind, DeadLetter, DeadLetters, Fate};
pub use inbox::{Hear, Inbox, Letter};
pub use publisher::Publisher;
pub use receipts::{Arrival, Receipts, TakenArrival};
pub use taker::{TakenShard, Taker};

use std::time::Duration;

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
    /// It does not let us in: waiting does not help.
    #[error(
        "RabbitMQ at {url} refused us ({why}): correct user, password and virtual host in AMQP_URL, or give the user its rights"
    )]
    Denied {
        /// Where, without secrets.
        url: String,
        /// What it said.
        why: String,
    },
    /// It answered with an error, or not in time.
    #[error("RabbitMQ: {0}")]
    Failed(String),
    /// It said nothing of a message that was published: its queue may have no leader.
    #[error("RabbitMQ gave no confirm within {} s", within.as_secs())]
    Unconfirmed {
        /// How long it had.
        within: Duration,
    },
    /// A queue says nothing while the connection is well: it may have no leader.
    #[error("RabbitMQ: the queue {0} does not answer")]
    Silent(String),
    /// It did not take the message (nack, returned, or queue missing).
    #[error("RabbitMQ did not take a message: {0}")]
    NotTaken(String),
    /// The queue is not there.
    #[error("RabbitMQ has no queue {0}")]
    NoQueue(String),
}
