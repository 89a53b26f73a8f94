//! Servers that go away, forget, restart or answer wrongly in the middle of a run, and a worker that
//! stands still. Only what a proxy cannot do gets a server of its own.

mod busy_index;
mod elasticsearch;
mod finish;
mod paused;
mod rabbitmq;
mod redis;
mod s3;
mod silent;
mod start;
