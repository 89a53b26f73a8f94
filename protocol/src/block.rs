//! What became of the cells of a block, in a form small enough for an object's metadata.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How one cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellEnd {
    /// With records.
    Succeeded,
    /// Without records, and rightly so.
    Empty,
    /// With a reason, which the shard's failures hold.
    Failed,
    /// Not covered: a retry's part covers only the cells that were sent again.
    Absent,
}

impl CellEnd {
    fn letter(self) -> char {
        match self {
            CellEnd::Succeeded => 'S',
            CellEnd::Empty => 'E',
            CellEnd::Failed => 'F',
            CellEnd::Absent => '-',
        }
    }
}

/// The ends of a block's cells in order, written run-length encoded (`12S1E7F`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CellEnds(pub Vec<CellEnd>);

impl CellEnds {
    /// How many cells ended so.
    pub fn count(&self, end: CellEnd) -> u64 {
        self.0.iter().filter(|e| **e == end).count() as u64
    }
}

impl fmt::Display for CellEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in self.0.chunk_by(|a, b| a == b) {
            write!(f, "{}{}", run.len(), run[0].letter())?;
        }
        Ok(())
    }
}

impl From<CellEnds> for String {
    fn from(ends: CellEnds) -> String {
        ends.to_string()
    }
}

/// The text is not a run-length encoded list of cell ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a list of cell ends (as in 12S1E7F)")]
pub struct BadCellEnds;

impl FromStr for CellEnds {
    type Err = BadCellEnds;

    fn from_str(text: &str) -> Result<Self, BadCellEnds> {
        let mut ends = Vec::new();
        let mut length = 0usize;
        for c in text.chars() {
            let end = match c {
                '0'..='9' => {
                    length = length * 10 + c as usize - '0' as usize;
                    if length > 1_000_000 {
                        return Err(BadCellEnds);
                    }
                    continue;
                }
                'S' => CellEnd::Succeeded,
                'E' => CellEnd::Empty,
                'F' => CellEnd::Failed,
                '-' => CellEnd::Absent,
                _ => return Err(BadCellEnds),
            };
            if length == 0 {
                return Err(BadCellEnds);
            }
            ends.extend(std::iter::repeat_n(end, length));
            length = 0;
        }
        if length == 0 {
            Ok(CellEnds(ends))
        } else {
            Err(BadCellEnds)
        }
    }
}

impl TryFrom<String> for CellEnds {
    type Error = BadCellEnds;

    fn try_from(text: String) -> Result<Self, BadCellEnds> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ends_read_back_as_written(codes in proptest::collection::vec(0u8..4, 0..200)) {
            let ends = CellEnds(codes.iter().map(|c| match c {
                0 => CellEnd::Succeeded,
                1 => CellEnd::Empty,
                2 => CellEnd::Failed,
                _ => CellEnd::Absent,
            }).collect());
            prop_assert_eq!(ends.to_string().parse::<CellEnds>(), Ok(ends));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["S", "0S", "3", "3X", "99999999999S"] {
            assert_eq!(bad.parse::<CellEnds>(), Err(BadCellEnds), "{bad}");
        }
    }
}
