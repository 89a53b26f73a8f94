//! Traces: a small receiver of OTLP gets a run's spans from all processes, joined as they belong together; without a
//! receiver nothing waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use harness::fleet::metrics_address;
use harness::proxy::Proxy;
use serde_json::{Value, json};

use crate::scene::{RUN, Scene};
use crate::serve::{LIMIT, scene};

/// The spans of all requests, each with its service's name.
type Spans = Arc<Mutex<Vec<(String, Value)>>>;

async fn take(State(spans): State<Spans>, Json(body): Json<Value>) -> Json<Value> {
    let all = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    for resource in all(&body, "resourceSpans") {
        let service = attribute(&resource["resource"], "service.name");
        for scope in all(&resource, "scopeSpans") {
            let of_service = all(&scope, "spans")
                .into_iter()
                .map(|s| (service.clone(), s));
            spans.lock().expect("not poisoned").extend(of_service);
        }
    }
    Json(json!({}))
}

async fn receiver() -> (String, Spans) {
    let spans = Spans::default();
    let app = Router::new()
        .route("/v1/traces", post(take))
        .with_state(spans.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, spans)
}

fn attribute(of: &Value, name: &str) -> String {
    let attributes = of["attributes"].as_array().cloned().unwrap_or_default();
    let found = attributes.into_iter().find(|a| a["key"] == name);
    let value = found.map(|a| a["value"].clone()).unwrap_or_default();
    let text = |kind: &str| value[kind].as_str().map(str::to_owned);
    text("stringValue")
        .or_else(|| text("intValue"))
        .unwrap_or_default()
}

/// Spans whose name begins so.
fn named<'a>(spans: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    let is = |span: &&(String, Value)| span.1["name"].as_str().is_some_and(|n| n.starts_with(name));
    spans.iter().filter(is).map(|(_, span)| span).collect()
}

fn end(scene: &mut Scene, loader: &mut paceline_stack::Process) {
    for mut worker in scene.collectors.drain(..) {
        worker.terminate(LIMIT).expect("it drains");
    }
    loader.terminate(LIMIT).expect("it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_as_one_trace_with_one_for_each_shard() {
    let (url, received) = receiver().await;
    let mut scene = scene("traces");
    let (provider, through) = Proxy::before(&scene.simulator.url())
        .await
        .expect("a proxy");
    scene.fleet.set("FARE_SEARCH_URL", through);
    scene.fleet.set("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    scene.collect();
    let mut loader = scene.fleet.load(&[]).expect("it starts");
    scene.enqueue();
    scene.ends_with(0).await;
    end(&mut scene, &mut loader);
    let spans = received.lock().expect("not poisoned").clone();

    let services: BTreeSet<&str> = spans.iter().map(|(service, _)| service.as_str()).collect();
    let expected = ["paceline-collect", "paceline-load", "paceline-producer"];
    assert_eq!(services, BTreeSet::from(expected));
    let roots = named(&spans, "run fares");
    let [root] = roots.as_slice() else {
        panic!("one root: {roots:?}");
    };
    assert_eq!(root["parentSpanId"], Value::Null);
    assert_eq!(attribute(root, "paceline.state"), "completed");
    assert_eq!(attribute(root, "paceline.run"), RUN);
    for step in ["enqueue", "send ", "finish run"] {
        let found = named(&spans, step);
        assert_eq!(found.len(), 1, "{step}");
        assert_eq!(found[0]["traceId"], root["traceId"], "{step}");
        assert_eq!(found[0]["parentSpanId"], root["spanId"], "{step}");
    }
    // Every shard has a trace of its own, linked to the run.
    let mut shards = BTreeMap::new();
    for shard in named(&spans, "collect shard") {
        assert_ne!(shard["traceId"], root["traceId"]);
        let link = json!([{ "traceId": root["traceId"], "spanId": root["spanId"] }]);
        assert_eq!(shard["links"], link);
        assert_eq!(attribute(shard, "paceline.end"), "done");
        assert_eq!(attribute(shard, "messaging.system"), "rabbitmq");
        shards.insert(shard["spanId"].to_string(), shard["traceId"].clone());
    }
    assert!(!shards.is_empty());
    for step in ["call ", "settle block", "load shard"] {
        let found = named(&spans, step);
        assert!(!found.is_empty(), "{step}");
        for span in found {
            let of = shards.get(&span["parentSpanId"].to_string());
            assert_eq!(of, Some(&span["traceId"]), "{step}");
        }
    }
    // The provider was asked whether it is ready, too: that is no call of a cell.
    let log = scene.simulator.log();
    let searches = log.iter().filter(|call| call.cell.is_some()).count();
    assert_eq!(named(&spans, "call ").len(), searches);

    // Log lines carry the trace's id, messages do, the provider learns nothing of it.
    let id = root["traceId"].as_str().expect("an id");
    assert!(
        loader
            .said()
            .lines()
            .any(|l| l.contains(id) && l.contains("\"finished\""))
    );
    let heard = provider.heard().to_lowercase();
    assert!(heard.contains("x-api-key") && !heard.contains("traceparent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_receiver_nothing_waits_and_what_is_lost_is_counted() {
    let mut scene = scene("traces-lost");
    // One that takes connections and says nothing, and a port where nobody is.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = |listener: &std::net::TcpListener| {
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        at(&listener)
    };
    scene.fleet.set("OTEL_EXPORTER_OTLP_ENDPOINT", gone);
    scene.collect();
    let mut loader = scene.fleet.load(&[]).expect("it starts");
    scene.fleet.set("OTEL_EXPORTER_OTLP_ENDPOINT", at(&silent));
    scene.enqueue();
    scene.ends_with(0).await;
    let address = metrics_address(&scene.collectors[0], LIMIT).expect("it listens");
    let dropped = async || {
        let answer = reqwest::get(format!("http://{address}/metrics")).await;
        let text = answer.expect("an answer").text().await.expect("text");
        let line = "paceline_trace_spans_total{result=\"dropped\"} ";
        let count = text.lines().find_map(|l| l.strip_prefix(line));
        count.expect("the metric").parse::<u64>().expect("a number")
    };
    let until = std::time::Instant::now() + LIMIT;
    while dropped().await == 0 {
        assert!(std::time::Instant::now() < until, "nothing was counted");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    end(&mut scene, &mut loader);
}
