//! A provider refuses a call's credential: that may be the credential's fault, which then leaves the pool, or the
//! cell's, which would take one credential after the other with it.
//!
//! A cell takes one credential out at most: the first that is refused for it. The next one that is refused for the same
//! cell stays. Once that one serves other cells, the fault is the cell's: it fails with what it heard, and the credential
//! that it took out gets another try, by another cell. Until somebody vouches for it the cell waits a moment.
//!
//! Cells that `pick` binds to a credential are not looked at here, nor are tokens and log-ins.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::asking::Wish;

/// So long a cell leaves a credential that was refused for it to others.
pub const LEFT_TO_OTHERS: Duration = Duration::from_secs(1);

/// Whose fault a refusal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The credential's: it leaves the pool.
    Credential,
    /// Nobody knows yet: the cell waits until others were answered with the credential.
    Unknown,
    /// The cell's: it fails. The credential that it had taken out comes back.
    Cell {
        /// Which.
        comes_back: Option<String>,
    },
}

/// What this process knows of cells and credentials that were refused.
#[derive(Debug, Default)]
pub struct Refusals {
    cells: HashMap<Wish, Refused>,
    /// Credentials that served a cell since one was refused with them.
    serving: HashSet<String>,
}

#[derive(Debug, Default)]
struct Refused {
    /// The credential that left the pool for it, and whether that one had served others.
    took_out: Option<(String, bool)>,
    /// Every credential that was refused for it.
    with: BTreeSet<String>,
}

impl Refusals {
    /// `credential` was refused for a cell; `is_out` when it has left the pool already.
    pub fn refused(&mut self, wish: Wish, credential: &str, is_out: bool) -> Fault {
        // One word of praise outweighs one refusal.
        let serving = self.serving.remove(credential);
        let refused = self.cells.entry(wish).or_default();
        let first = refused.with.is_empty();
        let again = !refused.with.insert(credential.to_owned());
        if first || is_out {
            if first && !is_out {
                refused.took_out = Some((credential.to_owned(), serving));
            }
            return Fault::Credential;
        }
        match &refused.took_out {
            _ if !serving && !again => Fault::Unknown,
            None if !serving => {
                refused.took_out = Some((credential.to_owned(), false));
                Fault::Credential
            }
            took_out => {
                let vouched = took_out.as_ref().filter(|(_, served)| serving || *served);
                let comes_back = vouched.map(|(name, _)| name.clone());
                self.cells.remove(&wish);
                Fault::Cell { comes_back }
            }
        }
    }

    /// A cell was served with `credential`.
    pub fn served(&mut self, wish: Wish, credential: &str) {
        if !self.cells.is_empty() {
            self.cells.remove(&wish);
        }
        if !self.serving.contains(credential) {
            self.serving.insert(credential.to_owned());
        }
    }

    /// A shard is in hand no more.
    pub fn part_with(&mut self, held: u64) {
        self.cells.retain(|wish, _| wish.held != held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["0-aa", "1-bb", "2-cc", "3-dd"];

    fn wish(cell: u64) -> Wish {
        Wish { held: 1, cell }
    }

    fn back(key: &str) -> Fault {
        Fault::Cell {
            comes_back: Some(key.to_owned()),
        }
    }

    /// A pool in which the first key that is in is used, and cells that are called in turn until they ended. Returns
    /// the keys that are out and the cells that failed.
    fn course(
        dead: &[usize],
        refused: impl Fn(u64) -> bool,
        cells: u64,
    ) -> (BTreeSet<usize>, Vec<u64>) {
        let mut refusals = Refusals::default();
        let (mut out, mut failed) = (BTreeSet::new(), Vec::new());
        let mut ready: std::collections::VecDeque<u64> = (0..cells).collect();
        while let Some(cell) = ready.pop_front() {
            let Some(key) = (0..KEYS.len()).find(|key| !out.contains(key)) else {
                break;
            };
            if !dead.contains(&key) && !refused(cell) {
                refusals.served(wish(cell), KEYS[key]);
                continue;
            }
            match refusals.refused(wish(cell), KEYS[key], false) {
                Fault::Credential => {
                    out.insert(key);
                    ready.push_front(cell);
                }
                // Others come first for a while.
                Fault::Unknown => ready.insert(ready.len().min(3), cell),
                Fault::Cell { comes_back } => {
                    out.retain(|key| Some(KEYS[*key]) != comes_back.as_deref());
                    failed.push(cell);
                }
            }
        }
        (out, failed)
    }

    #[test]
    fn a_cell_that_is_always_refused_fails_alone() {
        for bad in [0, 5, 19] {
            let (out, failed) = course(&[], |cell| cell == bad, 20);
            assert_eq!(failed, vec![bad]);
            assert!(out.is_empty(), "cell {bad}");
        }
    }

    #[test]
    fn cells_that_are_refused_now_and_then_leave_the_pool_whole() {
        let (out, failed) = course(&[], |cell| cell % 7 == 0, 200);
        assert_eq!((out.len(), failed.len()), (0, 29));
    }

    #[test]
    fn dead_keys_leave_the_pool_and_no_cell_fails() {
        let (out, failed) = course(&[0, 1, 2], |_| false, 20);
        assert_eq!(
            (out.into_iter().collect::<Vec<_>>(), failed),
            (vec![0, 1, 2], vec![])
        );
        let (out, failed) = course(&[0, 1, 2, 3], |_| false, 20);
        assert_eq!((out.len(), failed), (KEYS.len(), vec![]));
    }

    #[test]
    fn a_dead_key_stays_out_beside_a_cell_that_is_refused() {
        let (out, failed) = course(&[0], |cell| cell == 3, 20);
        assert_eq!(
            (out.into_iter().collect::<Vec<_>>(), failed),
            (vec![0], vec![3])
        );
    }

    #[test]
    fn keys_that_die_all_at_once_are_found_out() {
        let mut refusals = Refusals::default();
        refusals.served(wish(1), KEYS[0]);
        refusals.served(wish(2), KEYS[1]);
        assert_eq!(refusals.refused(wish(3), KEYS[0], false), Fault::Credential);
        assert_eq!(refusals.refused(wish(3), KEYS[1], false), back(KEYS[0]));
        // What was good of the second is spent; the first is tried again.
        assert_eq!(refusals.refused(wish(4), KEYS[0], false), Fault::Credential);
        assert_eq!(refusals.refused(wish(4), KEYS[1], false), Fault::Unknown);
        assert_eq!(refusals.refused(wish(5), KEYS[1], false), Fault::Credential);
    }

    #[test]
    fn calls_that_were_on_their_way_take_nothing_out() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.refused(wish(1), KEYS[0], false), Fault::Credential);
        assert_eq!(refusals.refused(wish(2), KEYS[0], true), Fault::Credential);
        assert_eq!(refusals.refused(wish(2), KEYS[1], false), Fault::Unknown);
        assert_eq!(refusals.refused(wish(2), KEYS[1], false), Fault::Credential);
        assert_eq!(refusals.refused(wish(2), KEYS[2], false), Fault::Unknown);
        refusals.served(wish(3), KEYS[2]);
        assert_eq!(refusals.refused(wish(2), KEYS[2], false), back(KEYS[1]));
        refusals.refused(wish(4), KEYS[0], false);
        refusals.part_with(1);
        assert!(refusals.cells.is_empty());
    }
}
