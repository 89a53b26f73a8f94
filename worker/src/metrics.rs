//! The worker's metrics, one documented field each. Labels are bounded: never a shard, a run, a URL or
//! an error's text. What concerns the whole fleet (runs, quotas, open shards) is exported by the producer.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
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
    /// Records by `job` and `stage`: extracted, written, rejected, duplicate.
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
}

/// Seconds of calls and writes: 5 ms to about 40 s.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 40.0,
];
/// Seconds of a shard in hand: up to the ten minutes that a delivery may be held.
const SHARD_SECONDS: [f64; 9] = [0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 150.0, 300.0, 600.0];

impl Metrics {
    /// All of them, registered and at zero.
    ///
    /// # Errors
    /// When two metrics have one name: a defect.
    pub fn new() -> prometheus::Result<Self> {
        let r = Registry::new();
        build_info(&r)?;
        Ok(Metrics {
            requests: counters(
                &r,
                "requests_total",
                "Calls.",
                &["provider", "endpoint", "outcome"],
            )?,
            request_duration: histograms(
                &r,
                "request_duration_seconds",
                "Sending to last byte.",
                &["provider", "endpoint"],
                &SECONDS,
            )?,
            request_attempts: counters(
                &r,
                "request_attempts_total",
                "Attempts beyond a cell's first.",
                &["reason"],
            )?,
            response_bytes: counters(
                &r,
                "response_bytes_total",
                "Bytes of answers' bodies.",
                &["provider"],
            )?,
            limiter_permits: counters(
                &r,
                "limiter_permits_total",
                "Permits asked for.",
                &["provider", "limit", "result"],
            )?,
            limiter_wait: histograms(
                &r,
                "limiter_wait_seconds",
                "Waiting for a grant's start.",
                &["provider"],
                &SECONDS,
            )?,
            steps_failed: counters(
                &r,
                "steps_failed_total",
                "Cells that could not go on.",
                &["provider", "reason"],
            )?,
            missing_details: counters(
                &r,
                "missing_details_total",
                "Ids without a detail that are only counted.",
                &["provider"],
            )?,
            provider_blocked: gauges(
                &r,
                "provider_blocked",
                "1 while the provider is closed for this worker.",
                &["provider"],
            )?,
            limit_violations: counters(
                &r,
                "limit_violations_total",
                "Refused as too fast although granted.",
                &["provider"],
            )?,
            shard_duration: histograms(
                &r,
                "shard_duration_seconds",
                "A shard in hand.",
                &["job"],
                &SHARD_SECONDS,
            )?,
            records: counters(&r, "records_total", "Records by stage.", &["job", "stage"])?,
            queue_publish_confirm: histogram(
                &r,
                "queue_publish_confirm_seconds",
                "Until a publish was confirmed.",
            )?,
            queue_redeliveries: counter(&r, "queue_redeliveries_total", "Shards that came again.")?,
            dead_letters: counters(
                &r,
                "dead_letters_total",
                "Shards in the dead letters.",
                &["reason"],
            )?,
            output_batch_duration: histograms(
                &r,
                "output_batch_duration_seconds",
                "One write.",
                &["output"],
                &SECONDS,
            )?,
            output_errors: counters(
                &r,
                "output_errors_total",
                "Writes that failed and are tried again.",
                &["output"],
            )?,
            worker_inflight: gauge(
                &r,
                "worker_inflight",
                "Calls in flight, or receipts in hand.",
            )?,
            worker_draining: gauge(&r, "worker_draining", "1 from the first signal on.")?,
            registry: r,
        })
    }

    /// All of them in Prometheus' text format.
    ///
    /// # Errors
    /// When encoding fails: a defect.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("paceline")
}

fn build_info(registry: &Registry) -> prometheus::Result<()> {
    let opts = opts("build_info", "Always 1.").const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let made = IntCounter::with_opts(opts(name, help))?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let made = IntCounterVec::new(opts(name, help), labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let made = IntGauge::with_opts(opts(name, help))?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let made = IntGaugeVec::new(opts(name, help), labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec());
    let made = Histogram::with_opts(opts)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
    let made = HistogramVec::new(opts, labels)?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

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
