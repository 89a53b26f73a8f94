//! `dedupe`: of the records with one text, the first or the last by cell and place counts. The parts keep
//! all of them; `doubles/` says for each shard which ones sets and documents leave out.

use std::collections::BTreeSet;
use std::io;

use paceline_protocol::part::lines;
use paceline_protocol::spec::{Dedupe, KeepDouble};

use super::super::super::LoadError;
use super::super::to_json;
use super::compare::hash_of;
use super::join::At;
use super::sort::{ROOM, Sorted, Sorter};
use super::{Merge, broken, small, u32_at};
use crate::crash;
use crate::output::doubles::Doubles;
use crate::output::rankings::CellsOfRecords;
use crate::output::record_templates::{Constants, RecordTemplates};

impl Merge {
    /// Writes `doubles/`; returns how many there are.
    pub(super) fn find_doubles(&self, dedupe: &Dedupe) -> Result<u64, LoadError> {
        let by = RecordTemplates::compile(&[dedupe.by.as_str()], Constants::of(&self.plan))
            .map_err(|error| broken(&error))?;
        let mut sorter = Sorter::new(ROOM);
        for read in self.parts_ahead(false) {
            let (number, part, collected) = read?;
            let place = self.place(part)?;
            let mut cells = CellsOfRecords::new(&self.plan, &place, &collected.meta.ends);
            for (place, line) in lines(&collected.text).enumerate() {
                let cell = cells.of(line);
                // A record that gives no text is nobody's double.
                let Some(text) = text_of(&by, line, collected.meta.version) else {
                    continue;
                };
                let at = At {
                    part: number,
                    place: small(place),
                };
                sorter.push(&hash_of(&text), &by_cell(cell, at))?;
            }
        }
        let losers = losers(sorter.sorted()?, dedupe.keep)?;
        self.write_doubles(losers)
    }

    fn write_doubles(&self, losers: Sorted) -> Result<u64, LoadError> {
        let mut written: BTreeSet<String> = BTreeSet::new();
        let mut open: Option<(u64, Doubles)> = None;
        let mut count = 0;
        for loser in losers {
            let at = at_of(loser?.key());
            let part = &self.parts[at.part as usize];
            if let Some((_, full)) = open.take_if(|(shard, _)| *shard != part.shard) {
                written.insert(self.put_doubles(&full)?);
            }
            let (_, doubles) = open.get_or_insert_with(|| (part.shard, Doubles::of(part.shard)));
            doubles.add(Self::name(part), at.place);
            count += 1;
        }
        if let Some((_, last)) = open {
            written.insert(self.put_doubles(&last)?);
        }
        // What an earlier round found, and this one does not.
        for object in self.wait(self.objects.list(&self.layout.doubles()))? {
            if !written.contains(&object.key) {
                self.wait(self.objects.delete(&object.key))?;
            }
        }
        Ok(count)
    }

    fn put_doubles(&self, doubles: &Doubles) -> Result<String, LoadError> {
        crash::point("merge-before-doubles");
        let key = self.layout.shard_doubles(doubles.shard);
        self.put(&key, to_json(doubles), &[])?;
        Ok(key)
    }
}

fn text_of(by: &RecordTemplates, line: &str, version: i64) -> Option<String> {
    let record = by.read(line, version).ok()?;
    let mut text = String::new();
    by.render(0, &record, &mut text).ok()?;
    Some(text)
}

fn by_cell(cell: u64, at: At) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&cell.to_be_bytes());
    bytes[8..].copy_from_slice(&key_of(at));
    bytes
}

/// A record's place as a key, which sorts as it does.
pub(super) fn key_of(at: At) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&at.part.to_be_bytes());
    bytes[4..].copy_from_slice(&at.place.to_be_bytes());
    bytes
}

pub(super) fn at_of(key: &[u8]) -> At {
    At {
        part: u32_at(key, 0),
        place: u32_at(key, 4),
    }
}

/// The places of the records that do not count, in order. `sorted` holds the records by text, then by cell
/// and place.
fn losers(sorted: Sorted, keep: KeepDouble) -> io::Result<Sorted> {
    let mut losers = Sorter::new(ROOM);
    let mut stays: Option<super::sort::Item> = None;
    for item in sorted {
        let item = item?;
        let loser = match stays.take_if(|stays| stays.key() == item.key()) {
            None => {
                stays = Some(item);
                continue;
            }
            Some(first) if keep == KeepDouble::First => {
                stays = Some(first);
                item
            }
            Some(before) => {
                stays = Some(item);
                before
            }
        };
        losers.push(&loser.rest()[8..], &[])?;
    }
    losers.sorted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn of_one_text_the_first_or_last_by_cell_and_place_stays(
            records in proptest::collection::vec((0u8..6, 0u64..5), 0..60),
            first: bool,
        ) {
            let keep = if first { KeepDouble::First } else { KeepDouble::Last };
            let mut sorter = Sorter::new(200);
            let mut naive: BTreeMap<u8, BTreeSet<(u64, At)>> = BTreeMap::new();
            for ((text, cell), place) in records.iter().zip(0u32..) {
                let at = At { part: (place * 7) % 3, place };
                sorter.push(&hash_of(&text.to_string()), &by_cell(*cell, at)).expect("takes");
                naive.entry(*text).or_default().insert((*cell, at));
            }
            let found = losers(sorter.sorted().expect("sorts"), keep).expect("finds");
            let found: Vec<At> = found.map(|item| at_of(item.expect("reads").key())).collect();
            let mut expected: Vec<At> = Vec::new();
            for all in naive.into_values() {
                let stays = if first { all.first().copied() } else { all.last().copied() };
                expected.extend(all.into_iter().filter(|r| Some(*r) != stays).map(|(_, at)| at));
            }
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
