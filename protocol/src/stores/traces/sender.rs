//! The thread that sends spans. It has a runtime of its own: a collector's one thread has grants to keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::otlp;
use super::settings::Settings;
use super::span::SpanData;

/// Spans that wait at most: some MiB.
const QUEUE: usize = 8_192;
/// Spans of one request at most.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The waits before a batch is tried again; then it is dropped.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// The queue's end where spans go in.
pub(super) struct Sender {
    spans: mpsc::Sender<SpanData>,
    flushes: mpsc::Sender<std::sync::mpsc::Sender<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

impl Sender {
    pub(super) fn start(settings: Settings) -> Self {
        let (spans, queue) = mpsc::channel(QUEUE);
        let (flushes, asked) = mpsc::channel(1);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(Sending::new(settings, queue, counted).run(asked)),
                Err(error) => tracing::warn!(%error, "traces are not sent"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("traces".into()).spawn(run) {
            tracing::warn!(%error, "traces are not sent");
        }
        Sender {
            spans,
            flushes,
            counts,
        }
    }

    /// Never waits: what does not fit is dropped and counted.
    pub(super) fn send(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn flush(&self, limit: Duration) {
        let (done, heard) = std::sync::mpsc::channel();
        if self.flushes.try_send(done).is_ok() {
            // What is not sent by then is lost with the process.
            let _ = heard.recv_timeout(limit);
        }
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.counts.sent), count(&self.counts.dropped))
    }
}

/// How one request went.
enum Sent {
    Taken,
    /// It may be taken later.
    NotNow(String),
    Refused(String),
}

struct Sending {
    settings: Settings,
    resource: Json,
    queue: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
    /// The receiver is away: that was told.
    told: bool,
}

impl Sending {
    fn new(settings: Settings, queue: mpsc::Receiver<SpanData>, counts: Arc<Counts>) -> Self {
        let instance = uuid::Uuid::new_v4().to_string();
        Sending {
            resource: otlp::resource(&settings, &instance),
            settings,
            queue,
            counts,
            told: false,
        }
    }

    async fn run(mut self, mut flushes: mpsc::Receiver<std::sync::mpsc::Sender<()>>) {
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return tracing::warn!(%error, "traces are not sent"),
        };
        loop {
            tokio::select! {
                first = self.queue.recv() => match first {
                    Some(first) => {
                        let asked = self.gather(first, &client, &mut flushes).await;
                        self.answer(asked, &client).await;
                    }
                    None => return,
                },
                asked = flushes.recv() => self.answer(asked, &client).await,
            }
        }
    }

    fn client(&self) -> reqwest::Result<reqwest::Client> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &self.settings.headers {
            // Both were looked at when they were read.
            if let (Ok(name), Ok(mut value)) =
                (name.parse::<HeaderName>(), HeaderValue::from_str(value))
            {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        reqwest::Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .build()
    }

    /// Waits for a full batch and sends it; gives back the flush that was asked for meanwhile.
    async fn gather(
        &mut self,
        first: SpanData,
        client: &reqwest::Client,
        flushes: &mut mpsc::Receiver<std::sync::mpsc::Sender<()>>,
    ) -> Option<std::sync::mpsc::Sender<()>> {
        let mut batch = vec![first];
        let until = Instant::now() + GATHER;
        let asked = loop {
            tokio::select! {
                span = self.queue.recv() => match span {
                    Some(span) => batch.push(span),
                    None => break None,
                },
                () = sleep_until(until) => break None,
                asked = flushes.recv() => break asked,
            }
            if batch.len() >= BATCH {
                break None;
            }
        };
        match asked {
            // The process ends: once is all there is time for.
            Some(_) => self.deliver(client, &batch, &[]).await,
            None => self.deliver(client, &batch, &AGAIN).await,
        }
        asked
    }

    /// Sends everything that waits, then says so.
    async fn answer(
        &mut self,
        asked: Option<std::sync::mpsc::Sender<()>>,
        client: &reqwest::Client,
    ) {
        let Some(asked) = asked else { return };
        loop {
            let mut batch = Vec::new();
            while batch.len() < BATCH
                && let Ok(span) = self.queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                break;
            }
            self.deliver(client, &batch, &[]).await;
        }
        // Nobody waits any more when it took too long.
        let _ = asked.send(());
    }

    async fn deliver(&mut self, client: &reqwest::Client, batch: &[SpanData], again: &[Duration]) {
        let body = otlp::request(&self.resource, batch).to_string();
        let mut waits = again.iter();
        let why = loop {
            match self.post(client, body.clone(), batch.len() as u64).await {
                Sent::Taken => {
                    self.told = false;
                    return;
                }
                Sent::Refused(why) => break why,
                Sent::NotNow(why) => match waits.next() {
                    Some(wait) => sleep(*wait).await,
                    None => break why,
                },
            }
        };
        let dropped = batch.len() as u64;
        self.counts.dropped.fetch_add(dropped, Ordering::Relaxed);
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(spans = dropped, why, "spans were not taken and are dropped");
        }
    }

    async fn post(&self, client: &reqwest::Client, body: String, spans: u64) -> Sent {
        let answer = match client.post(&self.settings.url).body(body).send().await {
            Ok(answer) => answer,
            Err(error) => return Sent::NotNow(error.without_url().to_string()),
        };
        let status = answer.status();
        if !status.is_success() {
            let why = format!("the receiver answers {status}");
            return match status.as_u16() {
                429 | 502 | 503 | 504 => Sent::NotNow(why),
                _ => Sent::Refused(why),
            };
        }
        let lost = otlp::rejected(&answer.bytes().await.unwrap_or_default()).min(spans);
        self.counts.sent.fetch_add(spans - lost, Ordering::Relaxed);
        self.counts.dropped.fetch_add(lost, Ordering::Relaxed);
        Sent::Taken
    }
}
