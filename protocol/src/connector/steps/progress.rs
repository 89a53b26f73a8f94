//! How far a cell has come.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Advance, Position};

/// What the calls of a cell gathered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gathered {
    /// Records' lines.
    pub lines: String,
    /// How many.
    pub records: u64,
    /// An engine's documented end cut something off.
    pub truncated: bool,
    /// Ids without an answer that are only counted.
    pub missing: u64,
    /// What there was when the current stretch began.
    stretch: Mark,
    /// What there was when the current item began.
    item: Mark,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Mark {
    bytes: usize,
    records: u64,
    missing: u64,
}

impl Gathered {
    fn mark(&self) -> Mark {
        Mark {
            bytes: self.lines.len(),
            records: self.records,
            missing: self.missing,
        }
    }

    fn back_to_stretch(&mut self) {
        self.lines.truncate(self.stretch.bytes);
        self.records = self.stretch.records;
        self.missing = self.stretch.missing;
    }

    /// What lies in two stretches of days is seen twice, and counts once.
    fn drop_doubles(&mut self) {
        let rest = self.lines.split_off(self.item.bytes.min(self.lines.len()));
        let mut seen = HashSet::new();
        self.records = self.item.records;
        for line in rest.split_inclusive('\n').filter(|line| seen.insert(*line)) {
            self.lines.push_str(line);
            self.records += 1;
        }
    }
}

/// How far a cell has come: its next call, and what it gathered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The next call.
    pub position: Position,
    /// What came so far.
    pub gathered: Gathered,
}

impl Progress {
    /// Takes in what an answer brought. True when the cell needs no further call.
    pub fn apply(&mut self, advance: Advance) -> bool {
        let gathered = &mut self.gathered;
        if advance.drop {
            gathered.back_to_stretch();
        }
        match gathered.lines.is_empty() {
            true => gathered.lines = advance.lines,
            false => gathered.lines.push_str(&advance.lines),
        }
        gathered.records += advance.records;
        gathered.missing += advance.missing;
        gathered.truncated |= advance.truncated;
        let item = advance.next.as_ref().map(|next| next.item);
        if item != Some(self.position.item) {
            if self.position.split {
                gathered.drop_doubles();
            }
            gathered.item = gathered.mark();
        }
        let Some(next) = advance.next else {
            return true;
        };
        if next.page == 0 && next.detail.is_none() {
            gathered.stretch = gathered.mark();
        }
        self.position = next;
        false
    }

    /// The shard goes to somebody else. A cursor that does not outlive its session is of no use there:
    /// its pages are asked for again from the first one.
    pub fn hand_back(&mut self, resumes: bool) {
        if !resumes {
            self.gathered.back_to_stretch();
            self.position = self.position.restarted();
        }
    }
}
