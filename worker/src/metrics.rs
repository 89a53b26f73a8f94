//! The worker's metrics, one documented field each. Labels are bounded: never a shard, a run, a URL or
//! an error's text. What concerns the whole fleet (runs, quotas, open shards) is exported by the producer.
//! `deploy/METRICS.md` is made from what is registered here.

use paceline_protocol::metrics::Registrar;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

/// Everything that a worker counts. Share it by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,

    /// Calls, by `provider`, `endpoint` and `outcome`.
    pub requests: IntCounterVec,
    /// Seconds from sending a call to its answer's last byte, by `provider` and `endpoint`.
    pub request_duration: HistogramVec,
    /// Attempts beyond a cell's first, by `reason`.
    pub request_attempts: IntCounterVec,
    /// Bytes of answers' bodies, by `provider`.
    pub response_bytes: IntCounterVec,

    /// Permits asked for, by `provider`, `limit` and `result` (granted, delayed, denied).
    pub limiter_permits: IntCounterVec,
    /// Seconds that a call waited for its grant's start, by `provider`.
    pub limiter_wait: HistogramVec,
    /// Cells that could not go on although their call was answered, by `provider` and `reason` (`misfit`,
    /// `foreign_url`, `bad_cursor`, `repeated`, `max_pages`, `overflow`, `missing_ids`).
    pub steps_failed: IntCounterVec,
    /// Ids without a detail that are only counted, by `provider`.
    pub missing_details: IntCounterVec,
    /// Whether a provider is closed for this worker (0, 1), by `provider`.
    pub provider_blocked: IntGaugeVec,
    /// The provider said too fast although we had granted the call, by `provider`.
    pub limit_violations: IntCounterVec,

    /// Seconds that a shard was in hand, by `job`.
    pub shard_duration: HistogramVec,
    /// Records by `job` and `stage`: extracted, duplicate, written, rejected.
    pub records: IntCounterVec,

    /// Seconds until the broker confirmed what was published.
    pub queue_publish_confirm: Histogram,
    /// Shards that came again.
    pub queue_redeliveries: IntCounter,
    /// Shards that went or came from the dead letters, by `reason`.
    pub dead_letters: IntCounterVec,
    /// Seconds for one write, by `output` (part, sets, index, ledger).
    pub output_batch_duration: HistogramVec,
    /// Writes that failed and are tried again, by `output`.
    pub output_errors: IntCounterVec,
    /// Calls in flight (collect) or receipts in hand (load).
    pub worker_inflight: IntGauge,
    /// 1 from the first signal on.
    pub worker_draining: IntGauge,
    /// Spans of traces, by `result`: sent, dropped.
    pub trace_spans: IntCounterVec,
    /// The `egress` labels whose lanes this collector takes.
    pub worker_egress: IntGaugeVec,
}

/// Seconds of calls and writes: 5 ms to about 40 s.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 40.0,
];
/// Seconds of a shard in hand: up to the ten minutes that a delivery may be held.
const SHARD_SECONDS: [f64; 9] = [0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 150.0, 300.0, 600.0];

impl Metrics {
    /// All of them, registered; what only accidents move stands at zero from the beginning, so that its first
    /// step is seen as one.
    ///
    /// # Errors
    /// When two metrics have one name: a defect.
    pub fn new() -> prometheus::Result<Self> {
        let metrics = Self::register(&mut Registrar::new(env!("PACELINE_VERSION"))?)?;
        metrics.begin();
        Ok(metrics)
    }

    fn register(r: &mut Registrar) -> prometheus::Result<Self> {
        Ok(Metrics {
            requests: r.counters(
                "requests_total",
                "Calls, counted when the answer is judged; the outcome is ok, empty, throttled, quota_exhausted, auth_expired, maintenance, retryable or permanent.",
                &["provider", "endpoint", "outcome"],
            )?,
            request_duration: r.histograms(
                "request_duration_seconds",
                "From sending a call to its answer's last byte.",
                &["provider", "endpoint"],
                &SECONDS,
            )?,
            request_attempts: r.counters(
                "request_attempts_total",
                "Attempts beyond a call's first, after a retryable answer or none (reason retry).",
                &["reason"],
            )?,
            response_bytes: r.counters(
                "response_bytes_total",
                "Bytes of answers' bodies, decompressed.",
                &["provider"],
            )?,
            limiter_permits: r.counters(
                "limiter_permits_total",
                "Permits asked of the fleet's limiter: granted (without limit), delayed (the next start lies too far ahead), denied (closed, used up, all calls in flight); with the limit that refused.",
                &["provider", "limit", "result"],
            )?,
            limiter_wait: r.histograms(
                "limiter_wait_seconds",
                "What a call waited for its grant's start.",
                &["provider"],
                &SECONDS,
            )?,
            steps_failed: r.counters(
                "steps_failed_total",
                "Cells that could not go on although their call was answered: misfit, foreign_url, bad_cursor, repeated, max_pages, overflow, missing_ids.",
                &["provider", "reason"],
            )?,
            missing_details: r.counters(
                "missing_details_total",
                "Ids without a detail that are only counted (`missing: report`).",
                &["provider"],
            )?,
            provider_blocked: r.gauges(
                "provider_blocked",
                "1 while this worker's lane of the provider is closed for longer than a shard is kept, so that its shards went back.",
                &["provider"],
            )?,
            limit_violations: r.counters(
                "limit_violations_total",
                "Answers that said too fast to a call that we had granted.",
                &["provider"],
            )?,
            shard_duration: r.histograms(
                "shard_duration_seconds",
                "From taking a shard to its receipt.",
                &["job"],
                &SHARD_SECONDS,
            )?,
            records: r.counters(
                "records_total",
                "Records: extracted into parts (collect); duplicate, taken out by `dedupe`, written and rejected by Elasticsearch (load). A shard that is loaded again counts again.",
                &["job", "stage"],
            )?,
            queue_publish_confirm: r.histogram(
                "queue_publish_confirm_seconds",
                "From publishing a receipt or a shard that goes back to the broker's confirm.",
                &SECONDS,
            )?,
            queue_redeliveries: r.counter(
                "queue_redeliveries_total",
                "Shards that the broker delivered again: their holder died or lost its connection.",
            )?,
            dead_letters: r.counters(
                "dead_letters_total",
                "Shards that went to the dead letters (unreadable) or came from them (poison).",
                &["reason"],
            )?,
            output_batch_duration: r.histograms(
                "output_batch_duration_seconds",
                "One write: a part to S3, a block's sets and counters to Redis, a bulk request to Elasticsearch.",
                &["output"],
                &SECONDS,
            )?,
            output_errors: r.counters(
                "output_errors_total",
                "Writes that failed and are tried again.",
                &["output"],
            )?,
            worker_inflight: r.gauge(
                "worker_inflight",
                "Calls in flight (collect), receipts in hand (load).",
            )?,
            worker_draining: r.gauge("worker_draining", "1 from the first SIGTERM or Ctrl-C on.")?,
            trace_spans: r.counters(
                "trace_spans_total",
                "Spans of traces: sent, taken by the receiver; dropped, since the receiver was away, refused them or was too slow. Only with OTEL_EXPORTER_OTLP_ENDPOINT.",
                &["result"],
            )?,
            worker_egress: r.gauges(
                "worker_egress",
                "1 for each egress label whose lanes this collector takes: that of `--egress`, and the empty one of lanes that ask for none.",
                &["egress"],
            )?,
            registry: r.registry.clone(),
        })
    }

    fn begin(&self) {
        self.request_attempts.with_label_values(&["retry"]);
        for reason in ["unreadable", "poison"] {
            self.dead_letters.with_label_values(&[reason]);
        }
        for result in ["sent", "dropped"] {
            self.trace_spans.with_label_values(&[result]);
        }
        for output in ["part", "sets", "index"] {
            self.output_errors.with_label_values(&[output]);
        }
    }

    /// A lane of the provider is served from now on.
    pub fn begin_provider(&self, provider: &str) {
        self.provider_blocked.with_label_values(&[provider]);
        self.limit_violations.with_label_values(&[provider]);
    }

    fn count_spans(&self) {
        let (sent, dropped) = paceline_protocol::stores::traces::counts();
        for (result, count) in [("sent", sent), ("dropped", dropped)] {
            let counter = self.trace_spans.with_label_values(&[result]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// When encoding fails: a defect.
    pub fn text(&self) -> prometheus::Result<String> {
        self.count_spans();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make metrics` (`UPDATE_DOCS=1`) writes the table instead of comparing it.
    #[test]
    fn the_table_of_the_documents_is_what_is_registered() {
        let mut registrar = Registrar::new(env!("PACELINE_VERSION")).expect("registers");
        Metrics::register(&mut registrar).expect("registers");
        let table = registrar.table();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/METRICS.md");
        let text = std::fs::read_to_string(path).expect("the document");
        let (before, rest) = text.split_once("<!-- worker -->\n").expect("its beginning");
        let (now, after) = rest.split_once("<!-- /worker -->").expect("its end");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let new = format!("{before}<!-- worker -->\n{table}<!-- /worker -->{after}");
            std::fs::write(path, new).expect("written");
        } else {
            assert_eq!(now, table, "run `make metrics`");
        }
    }

    #[test]
    fn names_are_the_documented_ones() {
        let metrics = Metrics::new().expect("registers");
        metrics
            .records
            .with_label_values(&["fares", "written"])
            .inc_by(3);
        let text = metrics.text().expect("encodes");
        assert!(
            text.contains(r#"paceline_records_total{job="fares",stage="written"} 3"#),
            "{text}"
        );
        assert!(text.contains("paceline_worker_draining 0"));
    }
}
