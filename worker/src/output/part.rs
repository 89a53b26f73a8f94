//! A part: its metadata and its records' lines.

use std::collections::HashMap;

use bytes::Bytes;
use paceline_protocol::block::CellEnds;
use paceline_protocol::layout::PartName;
use paceline_protocol::message::PartSummary;
use paceline_protocol::spec::{Compression, OutputFormat, S3Output};

/// What lies beside a part as the object's user metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartMeta {
    /// How the cells of its block ended.
    pub ends: CellEnds,
    /// Records in it.
    pub records: u64,
    /// The fleet's clock at the block's last answer, in microseconds: the version of its documents.
    pub version: i64,
    /// 0 for the run itself, else which retry.
    pub round: u32,
    /// Cells that an engine's documented end cut off.
    pub truncated: u64,
}

/// Why an object cannot be read as a part.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The metadata lacks a name or holds nonsense.
    #[error("its metadata `{0}` is missing or makes no sense")]
    Metadata(&'static str),
    /// This version does not read the format.
    #[error("this version does not read parts in {0:?} with {1:?}")]
    Format(OutputFormat, Compression),
    /// The body is damaged.
    #[error("its body cannot be decompressed: {0}")]
    Damaged(#[from] std::io::Error),
    /// The body is not text.
    #[error("its body is not UTF-8")]
    NotText,
}

impl PartMeta {
    /// As it is put with the object.
    pub fn to_metadata(&self) -> [(&'static str, String); 5] {
        [
            ("ends", self.ends.to_string()),
            ("records", self.records.to_string()),
            ("version", self.version.to_string()),
            ("round", self.round.to_string()),
            ("truncated", self.truncated.to_string()),
        ]
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`PartError::Metadata`]
    pub fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, PartError> {
        Ok(PartMeta {
            ends: entry(metadata, "ends")?,
            records: entry(metadata, "records")?,
            version: entry(metadata, "version")?,
            round: entry(metadata, "round")?,
            truncated: entry(metadata, "truncated").unwrap_or(0),
        })
    }

    /// What a receipt and the manifest say of the part.
    pub fn summary(&self, block: u32) -> PartSummary {
        PartSummary {
            block,
            round: self.round,
            ends: self.ends.clone(),
            records: self.records,
            truncated: self.truncated,
        }
    }
}

fn entry<T: std::str::FromStr>(
    metadata: &HashMap<String, String>,
    name: &'static str,
) -> Result<T, PartError> {
    let text = metadata.get(name).ok_or(PartError::Metadata(name))?;
    text.parse().map_err(|_| PartError::Metadata(name))
}

/// A part's name by its summary.
pub fn name_of(part: &PartSummary) -> PartName {
    PartName {
        block: part.block,
        round: part.round,
    }
}

/// Whether this version reads and writes parts of this kind.
pub fn is_readable(output: &S3Output) -> bool {
    matches!(
        (output.format, output.compress),
        (OutputFormat::Ndjson, Compression::None | Compression::Zstd)
    )
}

/// The records of a part, one line each.
///
/// # Errors
/// [`PartError`], but never about metadata.
pub fn read_body(body: &Bytes, output: &S3Output) -> Result<String, PartError> {
    let plain = match (output.format, output.compress) {
        (OutputFormat::Ndjson, Compression::None) => body.to_vec(),
        (OutputFormat::Ndjson, Compression::Zstd) => zstd::decode_all(body.as_ref())?,
        (format, compress) => return Err(PartError::Format(format, compress)),
    };
    String::from_utf8(plain).map_err(|_| PartError::NotText)
}

/// A part's body out of its lines.
///
/// # Errors
/// [`PartError::Format`]
pub fn write_body(lines: &[u8], output: &S3Output) -> Result<Bytes, PartError> {
    /// Level 3: the library's own default, fast enough for a worker and half the size of level 1.
    const LEVEL: i32 = 3;
    match (output.format, output.compress) {
        (OutputFormat::Ndjson, Compression::None) => Ok(Bytes::copy_from_slice(lines)),
        (OutputFormat::Ndjson, Compression::Zstd) => Ok(zstd::bulk::compress(lines, LEVEL)?.into()),
        (format, compress) => Err(PartError::Format(format, compress)),
    }
}

/// The records' lines of a body.
pub fn lines(body: &str) -> impl Iterator<Item = &str> {
    body.split('\n').filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_body_read_back_as_written() {
        let meta = PartMeta {
            ends: "2S1E1F".parse().expect("ends"),
            records: 7,
            version: 1_795_000_000_000_001,
            round: 2,
            truncated: 3,
        };
        let metadata = meta.to_metadata().map(|(k, v)| (k.to_owned(), v));
        assert_eq!(PartMeta::from_metadata(&metadata.into()).ok(), Some(meta));
        assert!(PartMeta::from_metadata(&HashMap::new()).is_err());

        let output = S3Output::default();
        let body = write_body(b"{\"a\":1}\n{\"a\":2}\n", &output).expect("compresses");
        let text = read_body(&body, &output).expect("reads");
        assert_eq!(lines(&text).collect::<Vec<_>>(), ["{\"a\":1}", "{\"a\":2}"]);
        let empty = write_body(b"", &output).expect("compresses");
        assert_eq!(read_body(&empty, &output).ok().as_deref(), Some(""));
    }
}
