//! A message as it lies on the broker: body, properties, and reading it back.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde::de::DeserializeOwned;

use super::Arrival;
use super::declare::text;
use crate::message::{Receipt, ShardMessage};
use crate::trace::{TRACEPARENT, TraceContext};
use crate::version::{self, Unread};

const TYPE: &str = "paceline-type";
const REASON: &str = "paceline-reason";
/// The largest message that is read: far above a receipt of thousands of parts.
const BODY_CAP: usize = 8 << 20;

/// What is published.
pub(super) struct Envelope {
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
}

impl Envelope {
    pub(super) fn new(kind: &str, id: String, body: Vec<u8>) -> Self {
        Envelope {
            body,
            properties: properties(headers(kind), id),
        }
    }

    pub(super) fn shard(shard: &ShardMessage) -> Self {
        let id = format!(
            "shard/{}/{}/{}/{}",
            shard.job, shard.run, shard.shard, shard.round
        );
        Self::new("shard", id, json(shard)).traced(shard.trace)
    }

    pub(super) fn receipt(receipt: &Receipt) -> Self {
        let shard = receipt.shard.map_or("-".into(), |n| n.to_string());
        let id = format!(
            "receipt/{}/{}/{shard}/{}",
            receipt.job, receipt.run, receipt.round
        );
        Self::new("receipt", id, json(receipt)).traced(receipt.trace)
    }

    /// A message as it was delivered, to be published again: with what we said of it, without what the broker noted.
    pub(super) fn again(properties: &BasicProperties, body: Vec<u8>) -> Self {
        let id = properties.message_id().as_ref();
        let kind = kind(properties).unwrap_or_default();
        let again = Self::new(&kind, id.map(ToString::to_string).unwrap_or_default(), body)
            .traced(trace(properties));
        // A shard that is dead already says why; else the broker's word would be gone.
        match header(properties, REASON).or_else(|| last_death(properties)) {
            Some(reason) => again.because(&reason),
            None => again,
        }
    }

    /// The same with why it goes to the dead letters.
    pub(super) fn because(self, reason: &str) -> Self {
        self.with(REASON, reason)
    }

    /// The same with its place among traces.
    fn traced(self, trace: Option<TraceContext>) -> Self {
        match trace {
            Some(trace) => self.with(TRACEPARENT, &trace.traceparent()),
            None => self,
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        headers.insert(name.into(), text(value));
        self.properties = self.properties.with_headers(headers);
        self
    }
}

pub(super) fn json(message: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages are plain data")
}

fn headers(kind: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(TYPE.into(), text(kind));
    headers
}

fn properties(headers: FieldTable, id: String) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.into())
        .with_headers(headers)
}

/// A message of this build or an older one.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unread> {
    if body.len() > BODY_CAP {
        return Err(Unread::Broken(format!("a message of {} bytes", body.len())));
    }
    version::check(body, version::message())?;
    serde_json::from_slice(body).map_err(|e| Unread::Broken(e.to_string()))
}

/// A shard of this build or an older one.
pub(super) fn read_shard(
    properties: &BasicProperties,
    body: &[u8],
) -> Result<ShardMessage, Unread> {
    let shard: ShardMessage = read(body)?;
    Ok(ShardMessage {
        trace: trace(properties),
        ..shard
    })
}

/// The place among traces that a message names.
fn trace(properties: &BasicProperties) -> Option<TraceContext> {
    TraceContext::parse(&header(properties, TRACEPARENT)?)
}

/// What lies on the receipts queue.
pub(super) fn arrival(properties: &BasicProperties, body: &[u8]) -> Arrival {
    let read = match header(properties, TYPE).as_deref() {
        Some("receipt") => read(body).map(|receipt: Receipt| {
            Arrival::Receipt(Receipt {
                trace: trace(properties),
                ..receipt
            })
        }),
        Some("shard") => {
            read_shard(properties, body).map(|shard| Arrival::DeadShard(shard, death(properties)))
        }
        other => {
            let kind = other.unwrap_or("none");
            Err(Unread::Broken(format!("a message of type {kind}")))
        }
    };
    read.unwrap_or_else(|why| match why {
        Unread::Newer { found, .. } => Arrival::Newer(found),
        Unread::Broken(why) => Arrival::Unreadable(why),
    })
}

/// Our own reason, else the broker's for its last death (it may have waited in a delay before).
pub(super) fn death(properties: &BasicProperties) -> String {
    header(properties, REASON)
        .or_else(|| header(properties, "x-last-death-reason"))
        .or_else(|| last_death(properties))
        .unwrap_or_else(|| "dead-lettered".into())
}

/// What kind of message it says to be.
pub(super) fn kind(properties: &BasicProperties) -> Option<String> {
    header(properties, TYPE)
}

fn last_death(properties: &BasicProperties) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = value(properties, "x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else {
        return None;
    };
    plain(last.inner().get("reason")?)
}

/// `x-delivery-count`; absent at the first delivery.
pub(super) fn delivery_count(properties: &BasicProperties) -> u32 {
    let count = match value(properties, "x-delivery-count") {
        Some(AMQPValue::LongLongInt(n)) => *n,
        Some(AMQPValue::LongInt(n)) => i64::from(*n),
        Some(AMQPValue::LongUInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortShortInt(n)) => i64::from(*n),
        Some(AMQPValue::ShortShortUInt(n)) => i64::from(*n),
        _ => 0,
    };
    u32::try_from(count).unwrap_or(0)
}

fn value<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    plain(value(properties, name)?)
}

fn plain(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
