//! `changes`: what became of each record since the base.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::layout::RunLayout;
use paceline_protocol::manifest::SavedState;
use paceline_protocol::message::PartSummary;
use paceline_protocol::part::{PartFormat, lines};
use paceline_protocol::plan::Plan;
use paceline_protocol::spec::Changes;

use super::super::super::LoadError;
use super::super::tally::failed_cells;
use super::ahead::Puts;
use super::compare::{Compared, Fingerprint, Update};
use super::dedupe::{at_of, key_of};
use super::join::{At, Outcome, Seen, join};
use super::rows::{Row, RowWriter, read_rows};
use super::sort::{Item, ROOM, Sorted, Sorter};
use super::{Merge, Merged, Part, broken, u32_at, u64_at};
use crate::crash;
use crate::output::doubles::Doubles;
use crate::output::part::PartMeta;
use crate::output::rankings::CellsOfRecords;
use crate::output::record_templates::{Constants, RecordTemplates};

/// How many cells' names are remembered at once.
const CELLS_AT_ONCE: usize = 10_000;
/// Bytes of a seen record behind its id.
const SEEN: usize = 48;

impl Merge {
    /// Writes the run's `state/` and `data/`.
    pub(super) fn compare(&self, changes: &Changes, merged: &mut Merged) -> Result<(), LoadError> {
        // What becomes of each record that counts, by its place.
        let mut updates = Sorter::new(ROOM);
        let seen = self.read_all(changes, &mut updates, merged)?;
        self.join(seen, &mut updates, merged)?;
        self.write_data(updates.sorted()?, merged)
    }

    // ---------------------------------------------------------------------------------- reading

    /// All records by id. One without an id is new, and known to nobody.
    fn read_all(
        &self,
        changes: &Changes,
        updates: &mut Sorter,
        merged: &mut Merged,
    ) -> Result<Sorted, LoadError> {
        let ids = RecordTemplates::compile(&[changes.id.as_str()], Constants::of(&self.plan))
            .map_err(|error| broken(&error))?;
        let compared = Compared::of(&self.plan, changes);
        let mut sorter = Sorter::new(ROOM);
        for read in self.parts_ahead(false) {
            let (number, part, collected) = read?;
            let doubles = self.doubles_of(part)?;
            let place = self.place(part)?;
            let mut cells = CellsOfRecords::new(&self.plan, &place, &collected.meta.ends);
            for (place, line) in (0u32..).zip(lines(&collected.text)) {
                let cell = cells.of(line);
                if doubles.contains(&place) {
                    continue;
                }
                let at = At {
                    part: number,
                    place,
                };
                let version = collected.meta.version;
                let fingerprint = compared.fingerprint(line).map_err(|error| broken(&error))?;
                match id_of(&ids, line, version) {
                    Some(id) => {
                        sorter.push(id.as_bytes(), &seen_bytes(version, at, cell, &fingerprint))?;
                    }
                    None => {
                        merged.without_id += 1;
                        updates.push(&key_of(at), &[Update::New as u8])?;
                    }
                }
            }
        }
        Ok(sorter.sorted()?)
    }

    /// The records of a part that `dedupe` has taken out.
    fn doubles_of(&self, part: &Part) -> Result<HashSet<u32>, LoadError> {
        if self.plan.job.dedupe.is_none() {
            return Ok(HashSet::new());
        }
        let key = self.layout.shard_doubles(part.shard);
        let Some(object) = self.wait(self.objects.get(&key))? else {
            return Ok(HashSet::new());
        };
        let doubles: Doubles =
            serde_json::from_slice(&object.body).map_err(|error| LoadError::Object {
                key,
                why: error.to_string(),
            })?;
        Ok(doubles.of_part(Self::name(part)).iter().copied().collect())
    }

    // ---------------------------------------------------------------------------------- merging

    fn join(
        &self,
        seen: Sorted,
        updates: &mut Sorter,
        merged: &mut Merged,
    ) -> Result<(), LoadError> {
        let failed = self.failed_cells();
        let narrowed = !self.plan.only.is_empty();
        let mut state = StateWriter::new(self)?;
        let seen = seen.map(|item| Ok(seen_of(&item?)?));
        let base = BaseRows::new(self)?;
        merged.base_lost = base.lost;
        let mut looked = 0u32;
        let each = |outcome: Outcome<'_>| {
            looked = looked.wrapping_add(1);
            if looked.is_multiple_of(4096) {
                self.go_on()?;
            }
            match outcome {
                Outcome::Record(at, update) => Ok(updates.push(&key_of(at), &[update as u8])?),
                // A narrowed run is nobody's base, and does not ask for all that the base has.
                _ if narrowed => Ok(()),
                Outcome::Known(seen) => state.known(seen),
                Outcome::Kept(row) => state.push(row),
                Outcome::Gone => {
                    merged.gone += 1;
                    Ok(())
                }
                Outcome::Double => Ok(()),
            }
        };
        join(seen, base, |row| failed.contains(&row.cell), each)?;
        if !narrowed {
            merged.saved.state = state.finish()?;
        }
        Ok(())
    }

    /// The names of the cells that failed in the end.
    fn failed_cells(&self) -> HashSet<String> {
        let mut shards: BTreeMap<u64, Vec<PartSummary>> = BTreeMap::new();
        for part in &self.parts {
            let parts = shards.entry(part.shard).or_default();
            parts.push(part.summary.clone());
        }
        let failed = shards
            .iter()
            .flat_map(|(shard, parts)| failed_cells(&self.plan, *shard, parts));
        failed.map(|cell| cell_name(&self.plan, cell)).collect()
    }

    // ---------------------------------------------------------------------------------- writing

    /// Writes a part of `data/` for each of `raw/`: those of its records that count.
    fn write_data(&self, updates: Sorted, merged: &mut Merged) -> Result<(), LoadError> {
        let mut updates = updates.peekable();
        let format = PartFormat::of(&self.plan);
        let mut puts = self.puts();
        for read in self.parts_ahead(true) {
            let (number, part, collected) = read?;
            let mut body = String::with_capacity(collected.text.len());
            let mut records = 0;
            for (place, line) in (0u32..).zip(lines(&collected.text)) {
                let at = At {
                    part: number,
                    place,
                };
                let here = |item: &io::Result<Item>| {
                    item.as_ref().map_or(true, |item| at_of(item.key()) == at)
                };
                if let Some(update) = updates.next_if(here) {
                    with_update(line, update?.rest()[0], &mut body);
                    records += 1;
                }
            }
            let meta = PartMeta {
                records,
                ..collected.meta
            };
            self.put_data(&format, part, &body, &meta, &mut puts)?;
            let of_shard = merged.shards.entry(part.shard).or_default();
            of_shard.push(meta.summary(part.summary.block));
        }
        puts.finish()
    }

    fn put_data(
        &self,
        format: &PartFormat,
        part: &Part,
        body: &str,
        meta: &PartMeta,
        puts: &mut Puts<'_>,
    ) -> Result<(), LoadError> {
        crash::point("merge-before-data");
        let layout = self.layout.clone().giving();
        let key = layout.part(part.shard, Self::name(part), format.suffix());
        let body = format.write(body).map_err(|error| LoadError::Part {
            key: key.clone(),
            why: error.to_string(),
        })?;
        puts.put(key, body, meta.to_metadata().into())
    }
}

/// The id of a record; `None` when it gives none.
fn id_of(ids: &RecordTemplates, line: &str, version: i64) -> Option<String> {
    let record = ids.read(line, version).ok()?;
    let mut id = String::new();
    ids.render(0, &record, &mut id).ok()?;
    (!id.is_empty()).then_some(id)
}

/// A record behind its id, so that of one id the newest answer comes last, then the later place.
fn seen_bytes(version: i64, at: At, cell: u64, fingerprint: &Fingerprint) -> [u8; SEEN] {
    /// Makes the order of the bytes that of the signed numbers.
    const SIGN: u64 = 1 << 63;
    let mut bytes = [0; SEEN];
    bytes[..8].copy_from_slice(&(version.cast_unsigned() ^ SIGN).to_be_bytes());
    bytes[8..16].copy_from_slice(&key_of(at));
    bytes[16..24].copy_from_slice(&cell.to_be_bytes());
    bytes[24..40].copy_from_slice(&fingerprint.whole);
    bytes[40..].copy_from_slice(&fingerprint.moved);
    bytes
}

fn seen_of(item: &Item) -> io::Result<Seen> {
    let rest = item.rest();
    let (mut whole, mut moved) = ([0; 16], [0; 8]);
    whole.copy_from_slice(&rest[24..40]);
    moved.copy_from_slice(&rest[40..SEEN]);
    Ok(Seen {
        id: String::from_utf8(item.key().to_vec()).map_err(io::Error::other)?,
        at: At {
            part: u32_at(rest, 8),
            place: u32_at(rest, 12),
        },
        cell: u64_at(rest, 16),
        fingerprint: Fingerprint { whole, moved },
    })
}

/// Appends the record with `update_type` behind its fields.
fn with_update(line: &str, update: u8, into: &mut String) {
    let fields = line.strip_suffix('}').unwrap_or(line);
    into.push_str(fields);
    if fields != "{" {
        into.push(',');
    }
    into.push_str(&format!("\"update_type\":{update}}}\n"));
}

/// A cell by its dimensions, whichever order the job names them in.
fn cell_name(plan: &Plan, cell: u64) -> String {
    let names = plan.matrix.names().map(|name| &**name);
    let values: BTreeMap<&str, serde_json::Value> = names.zip(plan.matrix.cell(cell)).collect();
    serde_json::to_string(&values).expect("plain data with text keys always serialises")
}

/// The rows of the base, object by object.
struct BaseRows<'m> {
    merge: &'m Merge,
    /// Its objects that are still to be read.
    keys: std::vec::IntoIter<String>,
    /// There is no state where the plan names one.
    lost: bool,
    current: Option<(String, Rows)>,
}

/// The rows of one object.
type Rows = Box<dyn Iterator<Item = io::Result<Row>>>;

impl<'m> BaseRows<'m> {
    fn new(merge: &'m Merge) -> Result<Self, LoadError> {
        let keys = match &merge.plan.base {
            None => Some(Vec::new()),
            Some(base) => merge.state_of(base)?,
        };
        Ok(BaseRows {
            merge,
            lost: keys.is_none(),
            keys: keys.unwrap_or_default().into_iter(),
            current: None,
        })
    }

    /// Goes on with the next object; false when there is none.
    fn open_next(&mut self) -> Result<bool, LoadError> {
        let Some(key) = self.keys.next() else {
            return Ok(false);
        };
        let object = self.merge.wait(self.merge.objects.get(&key))?;
        // It was there when the merge began: the base was retried meanwhile, or the next try finds it lost.
        let object = object.ok_or_else(|| LoadError::Object {
            key: key.clone(),
            why: "it was there a moment ago".to_owned(),
        })?;
        let rows = read_rows(object.body).map_err(|error| unreadable(&key, &error))?;
        self.current = Some((key, Box::new(rows)));
        Ok(true)
    }
}

impl Merge {
    /// The objects of a run's state, all of which are there; `None` when some are not.
    fn state_of(&self, run: &RunId) -> Result<Option<Vec<String>>, LoadError> {
        let run = RunRef {
            job: self.plan.job.name.clone(),
            run: run.clone(),
        };
        let layout = RunLayout::new(&self.prefix, &run);
        let Some(object) = self.wait(self.objects.get(&layout.merged()))? else {
            return Ok(None);
        };
        let saved: SavedState =
            serde_json::from_slice(&object.body).map_err(|error| LoadError::Object {
                key: layout.merged(),
                why: error.to_string(),
            })?;
        let there = self.wait(self.objects.list(&layout.state()))?;
        let there: BTreeSet<String> = there.into_iter().map(|listed| listed.key).collect();
        Ok(saved.whole(&layout, &there))
    }
}

fn unreadable(key: &str, error: &io::Error) -> LoadError {
    LoadError::Object {
        key: key.to_owned(),
        why: error.to_string(),
    }
}

impl Iterator for BaseRows<'_> {
    type Item = Result<Row, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, rows)) = &mut self.current
                && let Some(row) = rows.next()
            {
                return Some(row.map_err(|error| unreadable(key, &error)));
            }
            match self.open_next() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Writes the new state, object by object.
struct StateWriter<'m> {
    merge: &'m Merge,
    part: u32,
    rows: RowWriter,
    cells: HashMap<u64, String>,
}

impl<'m> StateWriter<'m> {
    fn new(merge: &'m Merge) -> Result<Self, LoadError> {
        Ok(StateWriter {
            merge,
            part: 0,
            rows: RowWriter::new()?,
            cells: HashMap::new(),
        })
    }

    fn known(&mut self, seen: &Seen) -> Result<(), LoadError> {
        if self.cells.len() >= CELLS_AT_ONCE {
            self.cells.clear();
        }
        let plan = &self.merge.plan;
        let cell = self.cells.entry(seen.cell);
        let cell = cell.or_insert_with(|| cell_name(plan, seen.cell)).clone();
        self.push(&Row::of(seen, cell))
    }

    fn push(&mut self, row: &Row) -> Result<(), LoadError> {
        self.rows.push(row)?;
        if self.rows.is_full() {
            self.put()?;
        }
        Ok(())
    }

    fn put(&mut self) -> Result<(), LoadError> {
        crash::point("merge-before-state");
        let full = std::mem::replace(&mut self.rows, RowWriter::new()?);
        let key = self.merge.layout.state_part(self.merge.round, self.part);
        self.merge.put(&key, full.finish()?, &[])?;
        self.part += 1;
        Ok(())
    }

    /// Writes what is left, at least one object; returns how many there are.
    fn finish(mut self) -> Result<u32, LoadError> {
        if self.part == 0 || !self.rows.is_empty() {
            self.put()?;
        }
        Ok(self.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::plan;

    #[test]
    fn the_update_is_the_last_field() {
        let with = |line: &str| {
            let mut body = String::new();
            with_update(line, 2, &mut body);
            body
        };
        assert_eq!(with(r#"{"a":1}"#), "{\"a\":1,\"update_type\":2}\n");
        assert_eq!(with("{}"), "{\"update_type\":2}\n");
    }

    #[test]
    fn of_one_id_the_newest_answer_comes_last() {
        let print = Fingerprint {
            whole: [1; 16],
            moved: [2; 8],
        };
        let at = |part, place| At { part, place };
        let mut sorter = Sorter::new(ROOM);
        let answers = [
            (5, at(0, 1)),
            (-1, at(9, 9)),
            (5, at(0, 0)),
            (7, at(0, 0)),
            (7, at(1, 0)),
        ];
        for (version, at) in answers {
            sorter
                .push(b"id", &seen_bytes(version, at, 3, &print))
                .expect("takes");
        }
        let order: Vec<Seen> = sorter
            .sorted()
            .expect("sorts")
            .map(|item| seen_of(&item.expect("reads")).expect("text"))
            .collect();
        let places: Vec<At> = order.iter().map(|seen| seen.at).collect();
        assert_eq!(places, [at(9, 9), at(0, 0), at(0, 1), at(0, 0), at(1, 0)]);
        assert!(
            order
                .iter()
                .all(|seen| (seen.cell, seen.fingerprint) == (3, print))
        );
    }

    #[test]
    fn a_cells_name_does_not_depend_on_the_order_of_dimensions() {
        let mut plan = plan(4);
        let name = cell_name(&plan, 2);
        assert_eq!(name, r#"{"city":"NRT","night":2}"#);
        plan.matrix.dimensions.reverse();
        assert_eq!(cell_name(&plan, 2), name);
    }
}
