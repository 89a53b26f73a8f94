//! The ledger of one run in this worker: rows are gathered, compressed and put as objects. A shard's
//! rows are durable before its receipt.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::stores::objects::{ObjectError, Objects};

/// Rows that are gathered before an object is put without being asked to, in bytes of NDJSON.
const FULL: usize = 4 << 20;

/// The rows of one run that this worker has not put yet.
#[derive(Debug)]
pub struct Ledger {
    layout: RunLayout,
    worker: String,
    seq: AtomicU64,
    rows: Mutex<Vec<u8>>,
    /// Held while an object is being put, so that a flush returns only when every row before it is durable.
    putting: tokio::sync::Mutex<()>,
}

impl Ledger {
    /// An empty ledger for `worker`. Its objects are numbered from the clock on: a retry opens a run's ledger
    /// anew in the same process, and must not write over the objects of the first time.
    pub fn new(layout: RunLayout, worker: &str) -> Self {
        let first = jiff::Timestamp::now().as_millisecond();
        Ledger {
            layout,
            worker: worker.to_owned(),
            seq: AtomicU64::new(u64::try_from(first).unwrap_or(0)),
            rows: Mutex::new(Vec::new()),
            putting: tokio::sync::Mutex::new(()),
        }
    }

    /// Adds a row.
    pub fn add(&self, row: &LedgerRow) {
        let mut rows = self
            .rows
            .lock()
            .expect("no panic while the ledger is locked");
        serde_json::to_writer(&mut *rows, row).expect("a row is plain data");
        rows.push(b'\n');
    }

    /// Whether there are so many rows that they should not wait for a shard's end.
    pub fn is_full(&self) -> bool {
        self.waiting() > FULL
    }

    /// Whether every row is durable, or on its way.
    pub fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    fn waiting(&self) -> usize {
        let rows = self.rows.lock();
        rows.expect("no panic while the ledger is locked").len()
    }

    /// Puts all rows that were added before. On failure they stay.
    ///
    /// # Errors
    /// When S3 does not take them.
    pub async fn flush(&self, objects: &Objects) -> Result<(), ObjectError> {
        let _one_at_a_time = self.putting.lock().await;
        let rows = std::mem::take(
            &mut *self
                .rows
                .lock()
                .expect("no panic while the ledger is locked"),
        );
        if rows.is_empty() {
            return Ok(());
        }
        let key = self
            .layout
            .ledger_object(&self.worker, self.seq.fetch_add(1, Ordering::Relaxed));
        let packed =
            zstd::encode_all(rows.as_slice(), 1).expect("compressing in memory cannot fail");
        let put = objects.put(&key, Bytes::from(packed), &[]).await;
        if put.is_err() {
            let mut newer = self
                .rows
                .lock()
                .expect("no panic while the ledger is locked");
            let added_meanwhile = std::mem::replace(&mut *newer, rows);
            newer.extend_from_slice(&added_meanwhile);
        }
        put
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paceline_protocol::ids::RunRef;

    #[test]
    fn a_ledger_that_is_opened_again_never_takes_the_objects_of_the_first_one() {
        let run = RunRef {
            job: "fares".into(),
            run: "x".parse().expect("a run id"),
        };
        let open = || Ledger::new(RunLayout::new("p", &run), "worker");
        let first = open();
        let next = |ledger: &Ledger| ledger.seq.fetch_add(1, Ordering::Relaxed);
        let last_of_first = next(&first);
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(next(&open()) > last_of_first);
    }
}
