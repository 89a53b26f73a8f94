//! Filling one index: documents of several receipts go together into one `_bulk`, two are in flight, and
//! their size follows what Elasticsearch takes (additive increase, halved when it is busy).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paceline_protocol::stores::index::{Index, IndexError, Item};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::metrics::Metrics;
use crate::output::documents::{Documents, Rejected};
use crate::patience::Patience;

/// Most documents of one `_bulk`.
pub const MAX_DOCUMENTS: usize = 5_000;
/// Most bytes of one `_bulk`, about.
pub const MAX_BYTES: usize = 5 << 20;
/// The size that a busy server brings a `_bulk` down to.
const LEAST_BYTES: usize = 64 << 10;
/// What each success adds to the size.
const STEP: usize = 256 << 10;
/// `_bulk`s in flight for one index.
const IN_FLIGHT: usize = 2;
/// How long a `_bulk` that is not full waits for more documents.
const LINGER: Duration = Duration::from_millis(10);

/// The writer of one index. Documents that are handed to it are settled when it answers.
#[derive(Debug)]
pub struct BulkWriter {
    queue: mpsc::Sender<Load>,
    _gathering: AbortOnDropHandle<()>,
}

/// Documents of one caller, with where to answer.
struct Load {
    documents: Documents,
    done: oneshot::Sender<Vec<Rejected>>,
}

/// The writer stopped before the documents were settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer of the index has stopped")]
pub struct WriterStopped;

impl BulkWriter {
    /// A writer for the concrete index `name`.
    pub fn new(index: Index, name: String, metrics: Arc<Metrics>) -> Self {
        let (queue, loads) = mpsc::channel(64);
        let sender = Arc::new(Sender {
            index,
            name,
            metrics,
            size: AtomicUsize::new(MAX_BYTES),
        });
        BulkWriter {
            queue,
            _gathering: AbortOnDropHandle::new(tokio::spawn(gather(loads, sender))),
        }
    }

    /// Writes documents; returns those that Elasticsearch rejected for good. Waits as long as it is away
    /// or full.
    ///
    /// # Errors
    /// When the process is stopping.
    pub async fn write(&self, documents: Documents) -> Result<Vec<Rejected>, WriterStopped> {
        let mut waiting = Vec::new();
        for documents in documents.pieces(MAX_DOCUMENTS / 5, MAX_BYTES / 5) {
            let (done, settled) = oneshot::channel();
            let load = Load { documents, done };
            self.queue.send(load).await.map_err(|_| WriterStopped)?;
            waiting.push(settled);
        }
        let mut rejected = Vec::new();
        for settled in waiting {
            rejected.extend(settled.await.map_err(|_| WriterStopped)?);
        }
        Ok(rejected)
    }
}

/// Makes batches as long as somebody hands in documents. A batch fills while the ones before it are in
/// flight.
async fn gather(mut loads: mpsc::Receiver<Load>, sender: Arc<Sender>) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let flying = TaskTracker::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let Some(batch) = next_batch(&mut loads, sender.size.load(Ordering::Relaxed)).await else {
            break;
        };
        let sender = sender.clone();
        flying.spawn(async move {
            sender.settle(batch).await;
            drop(permit);
        });
    }
    flying.close();
    flying.wait().await;
}

async fn next_batch(loads: &mut mpsc::Receiver<Load>, size: usize) -> Option<Vec<Load>> {
    let mut batch = vec![loads.recv().await?];
    let full = |batch: &[Load]| {
        let bytes: usize = batch.iter().map(|load| load.documents.body.len()).sum();
        let documents: usize = batch.iter().map(|load| load.documents.len()).sum();
        bytes >= size || documents >= MAX_DOCUMENTS
    };
    while !full(&batch) {
        match tokio::time::timeout(LINGER, loads.recv()).await {
            Ok(Some(load)) => batch.push(load),
            Ok(None) | Err(_) => break,
        }
    }
    Some(batch)
}

struct Sender {
    index: Index,
    name: String,
    metrics: Arc<Metrics>,
    /// Bytes of the next batch.
    size: AtomicUsize,
}

/// Documents in flight, each with the load that it belongs to. The body is what is sent, and is not copied
/// for that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Batch {
    body: Bytes,
    /// Where in the body each document's two lines end.
    ends: Vec<usize>,
    owners: Vec<usize>,
}

/// What one try came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    /// To be sent again.
    again: Batch,
    /// Rejected for good, with their load.
    rejected: Vec<(usize, Rejected)>,
}

impl Sender {
    async fn settle(&self, loads: Vec<Load>) {
        let (documents, done): (Vec<_>, Vec<_>) = loads
            .into_iter()
            .map(|load| (load.documents, load.done))
            .unzip();
        let mut rejected: Vec<Vec<Rejected>> = done.iter().map(|_| Vec::new()).collect();
        let mut open = vec![Batch::of(documents)];
        let mut patience = Patience::new(Duration::from_millis(200), Duration::from_secs(20));
        while let Some(batch) = open.pop() {
            match self.send(&batch).await {
                Ok(items) => {
                    let tried = batch.judge(items);
                    for (owner, document) in tried.rejected {
                        rejected[owner].push(document);
                    }
                    if !tried.again.owners.is_empty() {
                        self.shrink();
                        open.push(tried.again);
                        patience.wait().await;
                    }
                }
                Err(error) => match batch.divide(&error) {
                    Divided::Rejected(owner, document) => rejected[owner].push(document),
                    Divided::Halves(first, second) => open.extend([second, first]),
                    Divided::Whole => {
                        self.wait_after(&error, &mut patience).await;
                        open.push(batch);
                    }
                },
            }
        }
        for (done, rejected) in done.into_iter().zip(rejected) {
            // A caller that went away hears of its documents when the receipt comes again.
            drop(done.send(rejected));
        }
    }

    async fn send(&self, batch: &Batch) -> Result<Vec<Item>, IndexError> {
        let begun = Instant::now();
        let items = self.index.bulk(&self.name, batch.body.clone()).await?;
        let took = begun.elapsed().as_secs_f64();
        let durations = &self.metrics.output_batch_duration;
        durations.with_label_values(&["index"]).observe(took);
        self.resize(|size| (size + STEP).min(MAX_BYTES));
        Ok(items)
    }

    fn shrink(&self) {
        self.resize(|size| (size / 2).max(LEAST_BYTES));
    }

    /// Two batches may do so at once and one of them be overlooked; the next one corrects it.
    fn resize(&self, new: impl FnOnce(usize) -> usize) {
        let size = self.size.load(Ordering::Relaxed);
        self.size.store(new(size), Ordering::Relaxed);
    }

    async fn wait_after(&self, error: &IndexError, patience: &mut Patience) {
        self.shrink();
        self.metrics
            .output_errors
            .with_label_values(&["index"])
            .inc();
        tracing::warn!(index.name = self.name, %error, "documents wait and are sent again");
        patience.wait().await;
    }
}

/// What to do with a batch that was refused as a whole.
#[derive(Debug, PartialEq, Eq)]
enum Divided {
    /// Send it again.
    Whole,
    /// Send each half.
    Halves(Batch, Batch),
    /// It was one document, and it is that document's fault.
    Rejected(usize, Rejected),
}

impl Batch {
    fn of(loads: Vec<Documents>) -> Self {
        let bytes = loads.iter().map(|documents| documents.body.len()).sum();
        let mut body = Vec::with_capacity(bytes);
        let (mut ends, mut owners) = (Vec::new(), Vec::new());
        for (owner, documents) in loads.into_iter().enumerate() {
            let before = body.len();
            body.extend_from_slice(&documents.body);
            owners.extend(std::iter::repeat_n(owner, documents.len()));
            ends.extend(documents.ends.into_iter().map(|end| before + end));
        }
        Batch {
            body: body.into(),
            ends,
            owners,
        }
    }

    fn begin(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The two lines of a document.
    fn lines(&self, place: usize) -> &[u8] {
        &self.body[self.begin(place)..self.ends[place]]
    }

    /// These documents alone.
    fn only(&self, places: &[usize]) -> Self {
        let mut body = Vec::new();
        let mut ends = Vec::with_capacity(places.len());
        for place in places {
            body.extend_from_slice(self.lines(*place));
            ends.push(body.len());
        }
        Batch {
            body: body.into(),
            ends,
            owners: places.iter().map(|place| self.owners[*place]).collect(),
        }
    }

    /// Sorts the documents by what became of them.
    fn judge(&self, items: Vec<Item>) -> Tried {
        let (mut again, mut rejected) = (Vec::new(), Vec::new());
        for (place, item) in items.into_iter().enumerate().take(self.owners.len()) {
            match item {
                Item::Stored => {}
                Item::Again => again.push(place),
                Item::Rejected(reason) => {
                    let document = Rejected::by_elasticsearch(self.lines(place), reason);
                    rejected.push((self.owners[place], document));
                }
            }
        }
        Tried {
            again: self.only(&again),
            rejected,
        }
    }

    /// A request that is malformed (400) or too large (413) is so because of some of its documents: they
    /// are found by halving. Anything else is the server's.
    fn divide(&self, error: &IndexError) -> Divided {
        let IndexError::Refused {
            status: 400 | 413,
            why,
        } = error
        else {
            return Divided::Whole;
        };
        match self.owners.as_slice() {
            [] => Divided::Whole,
            [owner] => {
                let lines = self.lines(0);
                Divided::Rejected(*owner, Rejected::by_elasticsearch(lines, why.clone()))
            }
            owners => {
                let half = owners.len() / 2;
                Divided::Halves(self.part(0..half), self.part(half..owners.len()))
            }
        }
    }

    fn part(&self, places: std::ops::Range<usize>) -> Batch {
        let begin = self.begin(places.start);
        let end = self.begin(places.end);
        let ends = self.ends[places.clone()].iter();
        Batch {
            body: self.body.slice(begin..end),
            ends: ends.map(|end| end - begin).collect(),
            owners: self.owners[places].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(documents: usize) -> Batch {
        let one = |n: usize| {
            let mut one = Documents::default();
            one.push(&n.to_string(), 1, "{}");
            one
        };
        Batch::of((0..documents).map(one).collect())
    }

    #[test]
    fn only_what_must_be_sent_again_is() {
        let items = vec![
            Item::Stored,
            Item::Again,
            Item::Rejected("bad".into()),
            Item::Stored,
        ];
        let tried = batch(4).judge(items);
        assert_eq!(tried.again.owners, [1]);
        assert!(String::from_utf8_lossy(&tried.again.body).contains(r#""_id":"1""#));
        assert_eq!(tried.rejected.len(), 1);
        assert_eq!(
            (tried.rejected[0].0, tried.rejected[0].1.id.as_str()),
            (2, "2")
        );
    }

    #[test]
    fn a_request_that_is_too_large_is_halved_down_to_its_document() {
        let too_large = IndexError::Refused {
            status: 413,
            why: "too large".into(),
        };
        let Divided::Halves(first, second) = batch(3).divide(&too_large) else {
            panic!("three documents are halved");
        };
        assert_eq!((first.owners.len(), second.owners.len()), (1, 2));
        assert!(matches!(first.divide(&too_large), Divided::Rejected(0, _)));
        let second_alone = second.part(1..2);
        assert_eq!(second_alone.lines(0), batch(3).lines(2));
        let Divided::Rejected(2, document) = second_alone.divide(&too_large) else {
            panic!("the last document is left");
        };
        assert_eq!(document.id, "2");
        let busy = IndexError::Busy("full".into());
        assert_eq!(batch(3).divide(&busy), Divided::Whole);
    }
}
