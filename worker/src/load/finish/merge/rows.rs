//! `state/`: a row for each known record, sorted by id, as NDJSON in objects of bounded size.

use std::io::{self, BufRead, BufReader, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::compare::Fingerprint;
use super::join::Seen;

/// Rows of one object: some 20 MB before compression.
const ROWS_OF_A_PART: u32 = 100_000;
/// Hashes do not compress, and the rest does at any level.
const LEVEL: i32 = 1;

/// What the next run needs of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    /// The dimensions of the cell that it came from, as a JSON object with sorted names.
    pub(super) cell: String,
    whole: Hex<16>,
    moved: Hex<8>,
}

/// Bytes that are hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex<const N: usize>([u8; N]);

impl<const N: usize> From<Hex<N>> for String {
    fn from(bytes: Hex<N>) -> String {
        hex::encode(bytes.0)
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Hex(bytes))
    }
}

impl Row {
    pub(super) fn of(seen: &Seen, cell: String) -> Self {
        Row {
            id: seen.id.clone(),
            cell,
            whole: Hex(seen.fingerprint.whole),
            moved: Hex(seen.fingerprint.moved),
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint {
            whole: self.whole.0,
            moved: self.moved.0,
        }
    }
}

/// Rows on their way into an object.
pub(super) struct RowWriter {
    body: zstd::Encoder<'static, Vec<u8>>,
    rows: u32,
}

impl RowWriter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(RowWriter {
            body: zstd::Encoder::new(Vec::new(), LEVEL)?,
            rows: 0,
        })
    }

    pub(super) fn push(&mut self, row: &Row) -> io::Result<()> {
        serde_json::to_writer(&mut self.body, row)?;
        self.rows += 1;
        self.body.write_all(b"\n")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS_OF_A_PART
    }

    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(self.body.finish()?.into())
    }
}

/// The rows of an object, one after the other: only the compressed ones lie in memory.
pub(super) fn read_rows(body: Bytes) -> io::Result<impl Iterator<Item = io::Result<Row>>> {
    let lines = BufReader::new(zstd::Decoder::new(io::Cursor::new(body))?).lines();
    Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_as_written() {
        let row = |id: &str| Row {
            id: id.into(),
            cell: r#"{"city":"NRT"}"#.into(),
            whole: Hex([7; 16]),
            moved: Hex([9; 8]),
        };
        let rows = [row("a\n"), row("b\"")];
        let mut writer = RowWriter::new().expect("a writer");
        rows.iter().for_each(|row| writer.push(row).expect("takes"));
        assert!(!writer.is_full());
        let body = writer.finish().expect("ends");
        let read: Result<Vec<Row>, _> = read_rows(body).expect("a reader").collect();
        assert_eq!(read.expect("reads"), rows);
        assert!(
            read_rows(Bytes::from_static(b"nonsense"))
                .expect("a reader")
                .next()
                .is_some_and(|row| row.is_err())
        );
    }
}
