//! What lies beside a part as its metadata.

use std::collections::HashMap;

use super::finished::FullBlock;
use paceline_protocol::block::CellEnds;
use paceline_protocol::layout::PartName;
use paceline_protocol::message::PartSummary;
use paceline_protocol::part::BodyError;

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
    /// Ids that got no detail and are only counted.
    pub missing: u64,
    /// Scores of rankings that are no numbers.
    pub unscored: u64,
}

/// Why an object cannot be read as a part.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The metadata lacks a name or holds nonsense.
    #[error("its metadata `{0}` is missing or makes no sense")]
    Metadata(&'static str),
    /// The body cannot be read or written.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl PartMeta {
    /// Of the part that a block becomes in `round`; its scores are not looked at.
    pub fn of(block: &FullBlock, round: u32) -> Self {
        PartMeta {
            ends: block.ends(),
            records: block.records(),
            version: block.answered_us(),
            round,
            truncated: block.truncated(),
            missing: block.missing(),
            unscored: 0,
        }
    }

    /// As it is put with the object.
    pub fn to_metadata(&self) -> [(&'static str, String); 7] {
        [
            ("ends", self.ends.to_string()),
            ("records", self.records.to_string()),
            ("version", self.version.to_string()),
            ("round", self.round.to_string()),
            ("truncated", self.truncated.to_string()),
            ("missing", self.missing.to_string()),
            ("unscored", self.unscored.to_string()),
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
            missing: entry(metadata, "missing").unwrap_or(0),
            unscored: entry(metadata, "unscored").unwrap_or(0),
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
            missing: self.missing,
            unscored: self.unscored,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_read_back_as_written() {
        let meta = PartMeta {
            ends: "2S1E1F".parse().expect("ends"),
            records: 7,
            version: 1_795_000_000_000_001,
            round: 2,
            truncated: 3,
            missing: 4,
            unscored: 5,
        };
        let metadata = meta.to_metadata().map(|(k, v)| (k.to_owned(), v));
        assert_eq!(PartMeta::from_metadata(&metadata.into()).ok(), Some(meta));
        assert!(PartMeta::from_metadata(&HashMap::new()).is_err());
    }
}
