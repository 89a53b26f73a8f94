//! The merge itself: this run's records and the base's rows, both sorted by id, into what became of each
//! record and the rows that the next run is compared with. Pure, in memory for one id.

use super::compare::{Fingerprint, Update};
use super::rows::Row;

/// A record of this run, without its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) at: At,
    /// The cell that it came from.
    pub(super) cell: u64,
    pub(super) fingerprint: Fingerprint,
}

/// Where a record lies: the part, in the order of the run's parts, and its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At {
    pub(super) part: u32,
    pub(super) place: u32,
}

/// What comes of the merge, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// A record that counts.
    Record(At, Update),
    /// A row of the new state: a record's, with its cell.
    Known(&'a Seen),
    /// A row of the base that stays: its cell failed, so nothing is known of it.
    Kept(&'a Row),
    /// A row of the base that is gone.
    Gone,
    /// A record of which there is a newer answer.
    Double,
}

/// Merges. `seen` is sorted by id and, of one id, the newest answer last; `base` by id, each id once.
/// `failed` says whether a row's cell failed in this run.
///
/// # Errors
/// The first of either side, or of `into`.
pub(super) fn join<E>(
    seen: impl Iterator<Item = Result<Seen, E>>,
    base: impl Iterator<Item = Result<Row, E>>,
    failed: impl Fn(&Row) -> bool,
    mut into: impl FnMut(Outcome<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut seen, mut base) = (seen.peekable(), base.peekable());
    while let Some(record) = seen.next().transpose()? {
        if let Some(Ok(next)) = seen.peek()
            && next.id == record.id
        {
            into(Outcome::Double)?;
            continue;
        }
        while let Some(row) = next_below(&mut base, &record.id)? {
            into(without_record(&row, &failed))?;
        }
        let before = base.next_if(|row| row.as_ref().is_ok_and(|row| row.id == record.id));
        let before = before.transpose()?.map(|row| row.fingerprint());
        into(Outcome::Record(
            record.at,
            Update::since(before.as_ref(), &record.fingerprint),
        ))?;
        into(Outcome::Known(&record))?;
    }
    for row in base {
        into(without_record(&row?, &failed))?;
    }
    Ok(())
}

/// The base's next row when its id is below `id`; an error of the base at once.
fn next_below<E>(
    base: &mut std::iter::Peekable<impl Iterator<Item = Result<Row, E>>>,
    id: &str,
) -> Result<Option<Row>, E> {
    let below = |row: &Result<Row, E>| row.as_ref().map_or(true, |row| row.id.as_str() < id);
    base.next_if(below).transpose()
}

fn without_record<'a>(row: &'a Row, failed: &impl Fn(&Row) -> bool) -> Outcome<'a> {
    if failed(row) {
        Outcome::Kept(row)
    } else {
        Outcome::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn fingerprint(whole: u8, moved: u8) -> Fingerprint {
        Fingerprint {
            whole: [whole; 16],
            moved: [moved; 8],
        }
    }

    /// One run of the model: records by id in the order of their answers, `(cell, whole, moved)`.
    type Answers = Vec<(u8, u8, u8, u8)>;

    fn seen_of(answers: &Answers) -> Vec<Seen> {
        let mut seen: Vec<(u32, Seen)> = answers
            .iter()
            .zip(0u32..)
            .map(|((id, cell, whole, moved), place)| {
                let seen = Seen {
                    id: format!("{id:03}"),
                    at: At { part: 0, place },
                    cell: u64::from(*cell),
                    fingerprint: fingerprint(*whole, *moved),
                };
                (place, seen)
            })
            .collect();
        seen.sort_by(|(a, x), (b, y)| (&x.id, a).cmp(&(&y.id, b)));
        seen.into_iter().map(|(_, seen)| seen).collect()
    }

    fn cell_name(cell: u64) -> String {
        format!("c{cell}")
    }

    /// Merges for real; returns the updates by place, the new state, and how many are gone.
    fn merged(
        answers: &Answers,
        base: &[Row],
        failed: &BTreeSet<u8>,
    ) -> (BTreeMap<u32, u8>, Vec<Row>, u64) {
        let (mut updates, mut state, mut gone) = (BTreeMap::new(), Vec::new(), 0);
        let failed = |row: &Row| failed.iter().any(|c| cell_name(u64::from(*c)) == row.cell);
        let each = |outcome: Outcome<'_>| -> Result<(), ()> {
            match outcome {
                Outcome::Record(at, update) => {
                    assert_eq!(updates.insert(at.place, update as u8), None);
                }
                Outcome::Known(seen) => state.push(Row::of(seen, cell_name(seen.cell))),
                Outcome::Kept(row) => state.push(row.clone()),
                Outcome::Gone => gone += 1,
                Outcome::Double => {}
            }
            Ok(())
        };
        let seen = seen_of(answers).into_iter().map(Ok);
        join(seen, base.iter().cloned().map(Ok), failed, each).expect("cannot fail");
        (updates, state, gone)
    }

    type Model = BTreeMap<String, (u8, u8, u8)>;

    /// The same with maps.
    fn naive(
        answers: &Answers,
        base: &Model,
        failed: &BTreeSet<u8>,
    ) -> (BTreeMap<u32, u8>, Model, u64) {
        let mut newest: BTreeMap<String, (u32, (u8, u8, u8))> = BTreeMap::new();
        for ((id, cell, whole, moved), place) in answers.iter().zip(0u32..) {
            newest.insert(format!("{id:03}"), (place, (*cell, *whole, *moved)));
        }
        let mut updates = BTreeMap::new();
        let mut state = Model::new();
        for (id, (place, row)) in &newest {
            let update = match base.get(id) {
                None => 3,
                Some(before) if before.2 != row.2 => 2,
                Some(before) if before.1 != row.1 => 1,
                Some(_) => 0,
            };
            updates.insert(*place, update);
            state.insert(id.clone(), *row);
        }
        let mut gone = 0;
        for (id, row) in base.iter().filter(|(id, _)| !newest.contains_key(*id)) {
            if failed.contains(&row.0) {
                state.insert(id.clone(), *row);
            } else {
                gone += 1;
            }
        }
        (updates, state, gone)
    }

    fn answers() -> impl Strategy<Value = Answers> {
        proptest::collection::vec((0u8..20, 0u8..4, 0u8..3, 0u8..3), 0..40)
    }

    proptest! {
        #[test]
        fn several_runs_agree_with_maps(
            runs in proptest::collection::vec((answers(), proptest::collection::btree_set(0u8..4, 0..3)), 1..5),
        ) {
            let (mut state, mut model) = (Vec::new(), Model::new());
            for (answers, failed) in runs {
                // A failed cell gives no records.
                let answers: Answers = answers.into_iter().filter(|a| !failed.contains(&a.1)).collect();
                let (updates, next, gone) = merged(&answers, &state, &failed);
                let (model_updates, next_model, model_gone) = naive(&answers, &model, &failed);
                prop_assert_eq!(updates, model_updates);
                prop_assert_eq!(gone, model_gone);
                let rows: Model = next
                    .iter()
                    .map(|row| {
                        let f = row.fingerprint();
                        let cell = row.cell[1..].parse().expect("a number");
                        (row.id.clone(), (cell, f.whole[0], f.moved[0]))
                    })
                    .collect();
                prop_assert_eq!(rows.len(), next.len());
                prop_assert!(next.windows(2).all(|two| two[0].id < two[1].id));
                prop_assert_eq!(&rows, &next_model);
                (state, model) = (next, next_model);
            }
        }
    }

    #[test]
    fn an_error_of_either_side_ends_it() {
        let bad = || std::iter::once(Err("bad"));
        let none = || std::iter::empty();
        let record = || std::iter::once(Ok(seen_of(&vec![(1, 1, 1, 1)]).remove(0)));
        let run = |seen: Vec<Result<Seen, &'static str>>, base: Vec<Result<Row, &'static str>>| {
            join(seen.into_iter(), base.into_iter(), |_| false, |_| Ok(()))
        };
        assert_eq!(run(bad().collect(), none().collect()), Err("bad"));
        assert_eq!(run(record().collect(), vec![Err("bad")]), Err("bad"));
        assert_eq!(run(vec![], vec![Err("bad")]), Err("bad"));
    }
}
