//! Sorting more than fits into memory: what has come so far is sorted and put into a temporary file when it
//! grows too large, and all files are merged in the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// What is held in memory at most, in bytes of keys and values.
const HELD: usize = 64 << 20;
/// What an entry costs beside its bytes.
const ENTRY: usize = 64;

/// An entry: its key, by whose bytes it is sorted, and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A source's next entry: its key, the source, its value.
type Head = (Vec<u8>, usize, Vec<u8>);

/// Takes entries in any order.
#[derive(Debug)]
pub struct Sorter {
    limit: usize,
    size: usize,
    held: Vec<Entry>,
    files: Vec<File>,
}

/// Gives them back by their keys; equal keys in the order in which they came.
#[derive(Debug)]
pub struct Sorted {
    held: std::vec::IntoIter<Entry>,
    files: Vec<BufReader<File>>,
    /// The next entry of each source; a source is a file by its place, the last one memory.
    heads: BinaryHeap<Reverse<Head>>,
}

impl Default for Sorter {
    fn default() -> Self {
        Sorter::holding(HELD)
    }
}

impl Sorter {
    /// A sorter that holds about so many bytes in memory.
    pub fn holding(limit: usize) -> Self {
        Sorter {
            limit,
            size: 0,
            held: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When the folder of temporary files takes no more.
    pub fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> io::Result<()> {
        self.size += key.len() + value.len() + ENTRY;
        self.held.push((key, value));
        if self.size >= self.limit {
            self.put_down()?;
        }
        Ok(())
    }

    fn put_down(&mut self) -> io::Result<()> {
        // A stable sort, so that equal keys stay in order.
        self.held.sort_by(|a, b| a.0.cmp(&b.0));
        let mut file = BufWriter::new(tempfile::tempfile()?);
        for (key, value) in self.held.drain(..) {
            for bytes in [&key, &value] {
                file.write_all(&(bytes.len() as u64).to_le_bytes())?;
                file.write_all(bytes)?;
            }
        }
        let mut file = file.into_inner().map_err(|error| error.into_error())?;
        file.rewind()?;
        self.files.push(file);
        self.size = 0;
        Ok(())
    }

    /// All that was taken, in order.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn finish(mut self) -> io::Result<Sorted> {
        self.held.sort_by(|a, b| a.0.cmp(&b.0));
        let mut sorted = Sorted {
            held: self.held.into_iter(),
            files: self.files.into_iter().map(BufReader::new).collect(),
            heads: BinaryHeap::new(),
        };
        for source in 0..=sorted.files.len() {
            sorted.advance(source)?;
        }
        Ok(sorted)
    }
}

impl Sorted {
    fn advance(&mut self, source: usize) -> io::Result<()> {
        let next = match self.files.get_mut(source) {
            Some(file) => read_entry(file)?,
            None => self.held.next(),
        };
        if let Some((key, value)) = next {
            self.heads.push(Reverse((key, source, value)));
        }
        Ok(())
    }
}

impl Iterator for Sorted {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((key, source, value)) = self.heads.pop()?;
        Some(self.advance(source).map(|()| (key, value)))
    }
}

fn read_entry(file: &mut BufReader<File>) -> io::Result<Option<Entry>> {
    let Some(key) = read_bytes(file)? else {
        return Ok(None);
    };
    let value = read_bytes(file)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Some((key, value)))
}

/// Bytes behind their length; `None` at the file's end.
fn read_bytes(file: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// A key made of several values, whose bytes sort as the values do, one after the other.
#[derive(Clone, Debug, Default)]
pub struct SortKey(Vec<u8>);

impl SortKey {
    /// Text.
    pub fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            self.0.push(byte);
            // A zero inside is told from the end.
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// A number.
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// A score, the highest first.
    pub fn descending(mut self, score: f64) -> Self {
        // -0.0 and 0.0 are one score.
        let bits = (score + 0.0).to_bits();
        let ascending = if bits >> 63 == 1 {
            !bits
        } else {
            bits | 1 << 63
        };
        self.0.extend_from_slice(&(!ascending).to_be_bytes());
        self
    }

    /// Its bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes values out of a key, in the order in which they were put.
#[derive(Clone, Copy, Debug)]
pub struct KeyParts<'a>(pub &'a [u8]);

impl KeyParts<'_> {
    /// The text that comes next.
    pub fn text(&mut self) -> String {
        let mut text = Vec::new();
        let mut bytes = self.0.iter().enumerate();
        let mut end = self.0.len();
        while let Some((_, byte)) = bytes.next() {
            if *byte != 0 {
                text.push(*byte);
                continue;
            }
            match bytes.next() {
                Some((_, 0xff)) => text.push(0),
                Some((place, _)) => {
                    end = place + 1;
                    break;
                }
                None => break,
            }
        }
        self.0 = &self.0[end..];
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_keys_stay_in_the_order_in_which_they_came() {
        let mut sorter = Sorter::holding(300);
        for n in 0..100u64 {
            let key = SortKey::default().number(n % 3).bytes();
            sorter.push(key, n.to_be_bytes().to_vec()).expect("taken");
        }
        let values: Vec<u64> = sorter
            .finish()
            .expect("sorted")
            .map(|entry| u64::from_be_bytes(entry.expect("read").1.try_into().expect("a number")))
            .collect();
        let mut expected: Vec<u64> = (0..100).collect();
        expected.sort_by_key(|n| n % 3);
        assert_eq!(values, expected);
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_values(mut all in proptest::collection::vec((".{0,4}", any::<i32>(), ".{0,4}"), 0..100)) {
            let mut sorter = Sorter::holding(2000);
            for (first, score, last) in &all {
                let key = SortKey::default().text(first).descending(f64::from(*score)).text(last);
                sorter.push(key.bytes(), score.to_string().into_bytes()).expect("taken");
            }
            all.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()).then(b.1.cmp(&a.1)).then(a.2.as_bytes().cmp(b.2.as_bytes())));
            let found: Vec<(String, String)> = sorter.finish().expect("sorted").map(|entry| {
                let (key, value) = entry.expect("read");
                (KeyParts(&key).text(), String::from_utf8(value).expect("text"))
            }).collect();
            let expected: Vec<(String, String)> = all.into_iter().map(|(first, score, _)| (first, score.to_string())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
