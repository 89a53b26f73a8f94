//! Private RabbitMQ, Redis, S3 and Elasticsearch servers, each in a folder of its own and on free
//! ports, for the demo, the tests and the benchmarks.
//!
//! Nothing that already runs on the machine is used or touched, and nothing stays: whatever way the
//! owning process ends, kill -9 included, a [guardian] ends the servers after it. Whoever
//! sets `AMQP_URL`, `REDIS_URL`, `AWS_ENDPOINT_URL_S3` or `ELASTICSEARCH_URL` gets that server used
//! instead of a private one ([`StackOptions::from_environment`]).
//!
//! The interface blocks (starting takes seconds, most of it waiting for two virtual machines), and
//! depends on no async runtime of the caller. In async code call it inside `spawn_blocking`.

pub mod guardian;
pub mod process;
pub mod s3;
pub mod server;

mod elasticsearch;
mod place;
mod policy;
mod ports;
mod probe;
mod rabbitmq;
mod redis;
mod s3_folder;
mod stack;

pub use process::Process;
pub use s3::{S3, S3Fault};
pub use server::Server;
pub use stack::{ServerKind, Stack, StackOptions};
