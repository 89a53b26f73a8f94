//! What two processes of a Paceline fleet must agree on.
//!
//! Everything here is pure (no I/O, the clock passed in) except what the feature `stores` adds: [`stores`], the typed
//! clients of RabbitMQ, Redis, S3 and Elasticsearch, [`http`], one call of a provider, and [`probe`], which asks a process whether
//! it is well; and `listen`: [`listen`], which serves HTTP.

pub mod block;
pub mod cases;
pub mod clock;
pub mod connector;
pub mod ids;
pub mod inputs;
pub mod keys;
pub mod lanes;
pub mod layout;
pub mod ledger;
pub mod limit;
pub mod manifest;
pub mod message;
pub mod newest;
pub mod outcome;
pub mod plan;
pub mod rebuild;
pub mod record;
pub mod record_names;
pub mod settings;
pub mod spec;
pub mod template;
pub mod topology;
pub mod trace;
pub mod version;

#[cfg(feature = "stores")]
pub mod http;
#[cfg(feature = "listen")]
pub mod listen;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "parts")]
pub mod part;
#[cfg(feature = "stores")]
pub mod probe;
#[cfg(feature = "stores")]
pub mod stores;
