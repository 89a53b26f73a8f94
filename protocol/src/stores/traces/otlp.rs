//! Spans in OTLP's JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::settings::Settings;
use super::span::{SpanData, Value};

/// OTLP's number for "it went wrong".
const STATUS_ERROR: u8 = 2;

/// What is the same for all spans of a process.
pub(super) fn resource(settings: &Settings, instance: &str) -> Json {
    let own = [
        ("service.name", settings.service.as_str()),
        ("service.version", &settings.version),
        ("service.namespace", &settings.namespace),
        ("service.instance.id", instance),
    ];
    let text =
        |(key, value): (&str, &str)| json!({ "key": key, "value": { "stringValue": value } });
    json!({ "attributes": own.map(text) })
}

/// The body of one request.
pub(super) fn request(resource: &Json, spans: &[SpanData]) -> Json {
    json!({ "resourceSpans": [{
        "resource": resource,
        "scopeSpans": [{
            "scope": { "name": "paceline" },
            "spans": spans.iter().map(span).collect::<Vec<Json>>(),
        }],
    }] })
}

/// How many spans the receiver says that it did not keep.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    let told = &answer["partialSuccess"]["rejectedSpans"];
    let text = told.as_str().and_then(|text| text.parse().ok());
    text.or_else(|| told.as_u64()).unwrap_or(0)
}

fn span(data: &SpanData) -> Json {
    let mut span = json!({
        "traceId": format!("{:032x}", data.context.trace),
        "spanId": format!("{:016x}", data.context.span),
        "flags": 1,
        "name": data.name,
        "kind": data.kind as u8,
        "startTimeUnixNano": nanoseconds(data.began, Duration::ZERO),
        "endTimeUnixNano": nanoseconds(data.began, data.took),
        "attributes": data.attributes.iter().map(attribute).collect::<Vec<Json>>(),
    });
    if let Some(parent) = data.parent {
        span["parentSpanId"] = format!("{parent:016x}").into();
    }
    if !data.links.is_empty() {
        let link = |to: &crate::trace::TraceContext| json!({ "traceId": format!("{:032x}", to.trace), "spanId": format!("{:016x}", to.span) });
        span["links"] = data.links.iter().map(link).collect();
    }
    if let Some(why) = &data.error {
        span["status"] = json!({ "code": STATUS_ERROR, "message": why });
    }
    span
}

fn attribute((key, value): &(&'static str, Value)) -> Json {
    let value = match value {
        Value::Text(text) => json!({ "stringValue": text }),
        // 64 bits are a text in this JSON.
        Value::Whole(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": key, "value": value })
}

fn nanoseconds(at: SystemTime, and: Duration) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default() + and;
    since.as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::span::Kind;
    use super::*;
    use crate::trace::TraceContext;

    #[test]
    fn a_span_is_spelled_as_the_protocol_says() {
        let context = |span| TraceContext {
            trace: 0xab,
            span,
            sampled: true,
        };
        let data = SpanData {
            context: context(2),
            parent: Some(1),
            name: "call".into(),
            kind: Kind::Client,
            began: UNIX_EPOCH + Duration::from_secs(5),
            took: Duration::from_nanos(7),
            attributes: vec![
                ("paceline.cell", 12u64.into()),
                ("paceline.job", "fares".into()),
            ],
            links: vec![context(3)],
            error: Some("status 500".into()),
        };
        let expected = json!({
            "traceId": "000000000000000000000000000000ab", "spanId": "0000000000000002",
            "parentSpanId": "0000000000000001", "flags": 1, "name": "call", "kind": 3,
            "startTimeUnixNano": "5000000000", "endTimeUnixNano": "5000000007",
            "attributes": [
                { "key": "paceline.cell", "value": { "intValue": "12" } },
                { "key": "paceline.job", "value": { "stringValue": "fares" } },
            ],
            "links": [{ "traceId": "000000000000000000000000000000ab", "spanId": "0000000000000003" }],
            "status": { "code": 2, "message": "status 500" },
        });
        assert_eq!(span(&data), expected);
    }

    #[test]
    fn what_a_receiver_did_not_keep_is_counted() {
        assert_eq!(rejected(b"{}"), 0);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
        assert_eq!(rejected(b"not JSON"), 0);
    }
}
