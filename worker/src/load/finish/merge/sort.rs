//! An external sort: what does not fit into memory lies as sorted runs in temporary files, which have no
//! name and so go away with the process, however it ends.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

/// Bytes that one sorter holds in memory before it writes a run, about.
pub(super) const ROOM: usize = 48 << 20;
/// Runs that are merged at once.
const MOST_RUNS: usize = 64;
/// What is read or written of a run at once.
const BUFFER: usize = 64 << 10;

/// Takes items in any order.
pub(super) struct Sorter {
    room: usize,
    bytes: Vec<u8>,
    items: Vec<Place>,
    runs: Vec<File>,
}

/// Where an item lies in memory.
struct Place {
    from: usize,
    key: usize,
    whole: usize,
}

/// An item: sorted by its key, then by the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    bytes: Vec<u8>,
    key: usize,
}

impl Item {
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.key]
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.key..]
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.key(), self.rest()).cmp(&(other.key(), other.rest()))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Sorter {
    /// A sorter that holds about `room` bytes in memory.
    pub(super) fn new(room: usize) -> Self {
        Sorter {
            room,
            bytes: Vec::new(),
            items: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Takes an item.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(super) fn push(&mut self, key: &[u8], rest: &[u8]) -> io::Result<()> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(rest);
        self.items.push(Place {
            from,
            key: key.len(),
            whole: key.len() + rest.len(),
        });
        let held = self.bytes.len() + self.items.len() * size_of::<Place>();
        if held >= self.room {
            self.spill()?;
        }
        Ok(())
    }

    /// All items in order.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn sorted(mut self) -> io::Result<Sorted> {
        if !self.items.is_empty() || self.runs.is_empty() {
            self.spill()?;
        }
        Sorted::of(self.runs)
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.runs.len() == MOST_RUNS {
            let runs = std::mem::take(&mut self.runs);
            self.runs.push(merged(runs)?);
        }
        let bytes = &self.bytes;
        let parts = |place: &Place| {
            let middle = place.from + place.key;
            (
                &bytes[place.from..middle],
                &bytes[middle..place.from + place.whole],
            )
        };
        self.items.sort_unstable_by(|a, b| parts(a).cmp(&parts(b)));
        let mut run = BufWriter::with_capacity(BUFFER, tempfile::tempfile()?);
        for place in &self.items {
            write(
                &mut run,
                &bytes[place.from..place.from + place.whole],
                place.key,
            )?;
        }
        self.runs.push(run.into_inner()?);
        self.bytes.clear();
        self.items.clear();
        Ok(())
    }
}

/// Merges runs into one.
fn merged(runs: Vec<File>) -> io::Result<File> {
    let mut into = BufWriter::with_capacity(BUFFER, tempfile::tempfile()?);
    for item in Sorted::of(runs)? {
        let item = item?;
        write(&mut into, &item.bytes, item.key)?;
    }
    Ok(into.into_inner()?)
}

fn write(into: &mut impl Write, bytes: &[u8], key: usize) -> io::Result<()> {
    let length = |n: usize| u32::try_from(n).map_err(io::Error::other);
    into.write_all(&length(key)?.to_le_bytes())?;
    into.write_all(&length(bytes.len())?.to_le_bytes())?;
    into.write_all(bytes)
}

/// Items in order.
pub(super) struct Sorted {
    runs: Vec<BufReader<File>>,
    heads: BinaryHeap<Reverse<(Item, usize)>>,
}

impl Sorted {
    fn of(files: Vec<File>) -> io::Result<Self> {
        let mut sorted = Sorted {
            runs: Vec::with_capacity(files.len()),
            heads: BinaryHeap::with_capacity(files.len()),
        };
        for (run, mut file) in files.into_iter().enumerate() {
            file.seek(SeekFrom::Start(0))?;
            sorted.runs.push(BufReader::with_capacity(BUFFER, file));
            sorted.advance(run)?;
        }
        Ok(sorted)
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(item) = read(&mut self.runs[run])? {
            self.heads.push(Reverse((item, run)));
        }
        Ok(())
    }
}

impl Iterator for Sorted {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((item, run)) = self.heads.pop()?;
        Some(self.advance(run).map(|()| item))
    }
}

/// The next item of a run; `None` at its end.
fn read(from: &mut impl Read) -> io::Result<Option<Item>> {
    let mut lengths = [0; 8];
    match from.read_exact(&mut lengths) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [a, b, c, d, e, f, g, h] = lengths;
    let key = u32::from_le_bytes([a, b, c, d]) as usize;
    let mut bytes = vec![0; u32::from_le_bytes([e, f, g, h]) as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(Item { bytes, key }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(items: &[(Vec<u8>, Vec<u8>)], room: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut sorter = Sorter::new(room);
        for (key, rest) in items {
            sorter.push(key, rest).expect("takes");
        }
        let sorted = sorter.sorted().expect("sorts");
        sorted
            .map(|item| item.expect("reads"))
            .map(|item| (item.key().to_vec(), item.rest().to_vec()))
            .collect()
    }

    proptest! {
        #[test]
        fn any_room_gives_the_same_order(
            mut items in proptest::collection::vec((proptest::collection::vec(0u8..4, 0..4), proptest::collection::vec(any::<u8>(), 0..4)), 0..300),
            room in 1usize..4000,
        ) {
            let got = sorted(&items, room);
            items.sort();
            prop_assert_eq!(got, items);
        }
    }

    #[test]
    fn more_runs_than_are_merged_at_once() {
        let mut items: Vec<(Vec<u8>, Vec<u8>)> = (0..500u32)
            .map(|n| (n.wrapping_mul(2_654_435_761).to_be_bytes().to_vec(), vec![]))
            .collect();
        let got = sorted(&items, 1);
        items.sort();
        assert_eq!(got, items);
    }
}
