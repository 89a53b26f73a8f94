//! `doubles/shard-<n>.json`: the records that `dedupe` takes out of sets and documents.

use std::collections::BTreeMap;

use paceline_protocol::layout::PartName;
use paceline_protocol::part::lines;
use serde::{Deserialize, Serialize};

/// The doubles of a shard that do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubles {
    /// The shard.
    pub shard: u64,
    /// By the part's name, the places of its records in order, from 0.
    parts: BTreeMap<String, Vec<u32>>,
}

impl Doubles {
    /// None yet.
    pub fn of(shard: u64) -> Self {
        Doubles {
            shard,
            parts: BTreeMap::new(),
        }
    }

    /// Adds a record; those of a part in order.
    pub fn add(&mut self, part: PartName, place: u32) {
        self.parts.entry(part.to_string()).or_default().push(place);
    }

    /// Those of a part, in order.
    pub fn of_part(&self, part: PartName) -> &[u32] {
        self.parts.get(&part.to_string()).map_or(&[], Vec::as_slice)
    }

    /// The lines of a part's records that count.
    pub fn without(&self, part: PartName, body: &str) -> String {
        let mut doubles = self.of_part(part).iter().peekable();
        let mut left = String::with_capacity(body.len());
        for (place, line) in (0u32..).zip(lines(body)) {
            if doubles.next_if(|double| **double == place).is_none() {
                left.push_str(line);
                left.push('\n');
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_records_are_left_out() {
        let (first, other) = (
            PartName { block: 0, round: 0 },
            PartName { block: 0, round: 1 },
        );
        let mut doubles = Doubles::of(3);
        doubles.add(first, 0);
        doubles.add(first, 2);
        assert_eq!(doubles.without(first, "a\nb\nc\nd\n"), "b\nd\n");
        assert_eq!(doubles.without(other, "a\n"), "a\n");
        let json = serde_json::to_string(&doubles).expect("plain data");
        assert_eq!(serde_json::from_str::<Doubles>(&json).ok(), Some(doubles));
    }
}
