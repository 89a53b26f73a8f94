//! The log of every call: the referee's evidence.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A good answer with offers.
    Served,
    /// A good answer without: an empty list, or status 404.
    Empty,
    /// A limit refused it, or its key is unknown.
    Refused,
    /// Let in, but the answer was spoilt on purpose.
    Fault,
    /// Let in, but not a search that the provider understands.
    BadRequest,
    /// `GET /health`, let in.
    Health,
}

impl Verdict {
    /// Whether a fleet needs nothing more for this cell.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Served | Self::Empty)
    }

    /// Whether the call drew from the limits.
    pub fn was_let_in(self) -> bool {
        self != Self::Refused
    }
}

/// One call. In NDJSON each is a line with these names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Arrival, microseconds since the simulator's start.
    pub arrived_us: u64,
    /// Arrival, microseconds since 1970.
    pub wall_us: i64,
    /// The key that came, known or not.
    pub key: Option<Arc<str>>,
    /// The cell (`ICN-NRT/2026-11-22/2026-11-25`); none for a call that is no valid search.
    pub cell: Option<Arc<str>>,
    /// Path and query as they came, for calls without a cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Arc<str>>,
    /// What became of it.
    pub verdict: Verdict,
    /// The limit that refused (`rate 50/s`, `spacing`, `concurrency`, `quota`, `key`), the fault that struck,
    /// or what was wrong with the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    /// Which attempt of the cell, from 1, among those let in; 0 for the others.
    pub attempt: u32,
    /// Calls in flight, this one included when it was let in.
    pub in_flight: u32,
    /// HTTP status that was sent; 0 while or if none was.
    pub status: u16,
    /// From arrival to the last byte sent, microseconds; none while the call is open.
    pub duration_us: Option<u64>,
}

/// Where calls are kept: in memory, and in a file when one is named.
#[derive(Debug, Default)]
pub struct CallLog {
    calls: Vec<Call>,
    file: Option<BufWriter<File>>,
    /// How often the log was cleared: a call that began before does not belong to it any more.
    generation: u32,
}

/// The place of a call in the log, for when it ends.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    place: usize,
    generation: u32,
}

impl CallLog {
    /// A log that also writes each finished call to `file`, as NDJSON.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(file: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            file: file.map(File::create).transpose()?.map(BufWriter::new),
            ..Self::default()
        })
    }

    /// Notes a call's arrival.
    pub fn open(&mut self, call: Call) -> Entry {
        self.calls.push(call);
        Entry {
            place: self.calls.len() - 1,
            generation: self.generation,
        }
    }

    /// Notes how a call ended.
    pub fn close(&mut self, entry: Entry, status: u16, now_us: u64) {
        if entry.generation != self.generation {
            return;
        }
        let Some(call) = self.calls.get_mut(entry.place) else {
            return;
        };
        call.status = status;
        call.duration_us = Some(now_us.saturating_sub(call.arrived_us));
        if let Some(file) = &mut self.file
            && let Err(error) = write_line(file, call)
        {
            tracing::error!(%error, "the call log cannot be written any more");
            self.file = None;
        }
    }

    /// Every call so far, in order of processing.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Forgets all calls; the file goes on.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.generation += 1;
    }

    /// Brings the file up to date.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), BufWriter::flush)
    }
}

/// Appends one call as a line of NDJSON.
///
/// # Errors
/// Those of the writer.
pub fn write_line(into: &mut impl Write, call: &Call) -> io::Result<()> {
    serde_json::to_writer(&mut *into, call)?;
    into.write_all(b"\n")
}

/// Reads a log that was written as NDJSON.
///
/// # Errors
/// When it cannot be read or a line is no call.
pub fn read(from: impl io::BufRead) -> io::Result<Vec<Call>> {
    from.lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arrived_us: u64) -> Call {
        Call {
            arrived_us,
            wall_us: 1_800_000_000_000_000,
            key: Some("a".into()),
            cell: Some("ICN-NRT/2026-11-22/2026-11-25".into()),
            target: None,
            verdict: Verdict::Served,
            by: None,
            attempt: 1,
            in_flight: 1,
            status: 0,
            duration_us: None,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.ndjson");
        let mut log = CallLog::create(Some(&path)).unwrap();
        let entries = [log.open(call(10)), log.open(call(20))];
        for entry in entries {
            log.close(entry, 200, 50);
        }
        log.flush().unwrap();
        let text = std::fs::read(&path).unwrap();
        assert_eq!(read(&*text).unwrap(), log.calls());
    }

    #[test]
    fn a_call_from_before_a_reset_ends_unnoticed() {
        let mut log = CallLog::default();
        let old = log.open(call(10));
        log.clear();
        log.open(call(20));
        log.close(old, 200, 30);
        assert_eq!(log.calls()[0].duration_us, None);
    }
}
