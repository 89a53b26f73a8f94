//! A run's ledger as one stream of rows in the order of their sending, in bounded memory.
//!
//! A worker writes a row when its answer has come, so its objects are nearly in order: no row of a
//! later object was sent longer before an earlier object's last row than one call may last. Of each
//! worker, rows are held back for that long and no longer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::BufRead;

use anyhow::{Context as _, Result};
use paceline_protocol::ledger::LedgerRow;
use paceline_protocol::stores::objects::Objects;

/// Rows of all workers, merged.
pub struct Merge {
    workers: Vec<WorkerRows>,
    longest_call_us: i64,
}

/// One worker's rows, ahead of what was taken from it.
struct WorkerRows {
    objects: VecDeque<String>,
    ahead: BinaryHeap<Reverse<BySent>>,
    /// The latest sending that was read.
    frontier_us: i64,
}

/// A row by its time. Rows of one time may come in any order.
struct BySent(LedgerRow);

impl Ord for BySent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.sent_us.cmp(&other.0.sent_us)
    }
}

impl PartialOrd for BySent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for BySent {
    fn eq(&self, other: &Self) -> bool {
        self.0.sent_us == other.0.sent_us
    }
}

impl Eq for BySent {}

impl Merge {
    /// The rows of the ledger objects `keys`, where no call lasts longer than `longest_call_us`.
    pub fn new(keys: impl IntoIterator<Item = String>, longest_call_us: i64) -> Self {
        let mut by_worker: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
        for key in keys {
            let (worker, seq) = worker_and_seq(&key);
            by_worker.entry(worker).or_default().insert(seq, key);
        }
        let rows = |objects: BTreeMap<u64, String>| WorkerRows {
            objects: objects.into_values().collect(),
            ahead: BinaryHeap::new(),
            frontier_us: i64::MIN,
        };
        Merge {
            workers: by_worker.into_values().map(rows).collect(),
            longest_call_us,
        }
    }

    /// The next row of all.
    ///
    /// # Errors
    /// When S3 does not answer, or an object is not a ledger.
    pub async fn next(&mut self, objects: &Objects) -> Result<Option<LedgerRow>> {
        for worker in &mut self.workers {
            while worker.needs_more(self.longest_call_us) {
                worker.read_object(objects).await?;
            }
        }
        let first = self
            .workers
            .iter_mut()
            .filter(|worker| !worker.ahead.is_empty());
        let first =
            first.min_by_key(|worker| worker.ahead.peek().map(|Reverse(row)| row.0.sent_us));
        Ok(first
            .and_then(|worker| worker.ahead.pop())
            .map(|Reverse(row)| row.0))
    }
}

impl WorkerRows {
    /// Whether a row of an object not yet read could come before the first one at hand.
    fn needs_more(&self, longest_call_us: i64) -> bool {
        let settled = self.frontier_us.saturating_sub(longest_call_us);
        let first = self.ahead.peek().map(|Reverse(row)| row.0.sent_us);
        !self.objects.is_empty() && first.is_none_or(|first| first > settled)
    }

    async fn read_object(&mut self, objects: &Objects) -> Result<()> {
        let Some(key) = self.objects.pop_front() else {
            return Ok(());
        };
        let object = objects
            .get(&key)
            .await?
            .with_context(|| format!("{key} went away"))?;
        self.add(&object.body)
            .with_context(|| format!("{key} is not a ledger"))
    }

    fn add(&mut self, body: &[u8]) -> Result<()> {
        let text = std::io::BufReader::new(zstd::Decoder::new(body)?);
        for line in text.lines() {
            let row: LedgerRow = serde_json::from_str(&line?)?;
            self.frontier_us = self.frontier_us.max(row.sent_us);
            self.ahead.push(Reverse(BySent(row)));
        }
        Ok(())
    }
}

/// `.../ledger/<worker>-<seq>.ndjson.zst`
fn worker_and_seq(key: &str) -> (String, u64) {
    let file = key.rsplit('/').next().unwrap_or(key);
    let name = file.split('.').next().unwrap_or(file);
    match name
        .rsplit_once('-')
        .map(|(worker, seq)| (worker, seq.parse()))
    {
        Some((worker, Ok(seq))) => (worker.to_owned(), seq),
        _ => (name.to_owned(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::row;

    fn body(times: &[i64]) -> Vec<u8> {
        let lines: String = times
            .iter()
            .map(|t| serde_json::to_string(&row(*t)).expect("json") + "\n")
            .collect();
        zstd::encode_all(lines.as_bytes(), 1).expect("compresses")
    }

    #[test]
    fn the_worker_and_its_place_are_read_from_the_key() {
        let read = |key: &str| worker_and_seq(key);
        assert_eq!(read("p/j/r/ledger/a-b-12.ndjson.zst"), ("a-b".into(), 12));
    }

    #[test]
    fn rows_are_held_back_as_long_as_a_call_may_last() {
        let mut worker = WorkerRows {
            objects: VecDeque::from(["next".to_owned()]),
            ahead: BinaryHeap::new(),
            frontier_us: i64::MIN,
        };
        assert!(worker.needs_more(100));
        worker.add(&body(&[300, 100])).expect("a ledger");
        assert!(!worker.needs_more(200), "nothing older than 100 can follow");
        assert!(
            worker.needs_more(201),
            "a call of 201 us may have been sent at 99"
        );
    }
}
