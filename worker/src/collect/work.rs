//! What is still to do of one shard: a pure state machine over its blocks and cells. It knows neither
//! sockets nor stores; the lane asks it for cells and tells it how calls ended.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use paceline_protocol::connector::{Advance, Position, Progress};

use crate::output::finished::{CellResult, FullBlock, OpenCells, Unfinished};

/// One block that has no part of this round yet.
#[derive(Debug)]
struct OpenBlock {
    first_cell: u64,
    results: Vec<Option<CellResult>>,
    /// Which cells are to be called in this round.
    wanted: Vec<bool>,
    left: usize,
}

/// A block that is to be worked on: first cell and, for each cell, whether it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedBlock {
    /// Its number within the shard.
    pub number: u32,
    /// First cell.
    pub first_cell: u64,
    /// For each cell, whether this round calls it.
    pub wanted: Vec<bool>,
}

impl WantedBlock {
    /// Its cells, wanted or not.
    pub fn cells(&self) -> Range<u64> {
        self.first_cell..self.first_cell + self.wanted.len() as u64
    }
}

/// What is still to do of one shard.
#[derive(Debug, Default)]
pub struct ShardWork {
    open: BTreeMap<u32, OpenBlock>,
    block_of: HashMap<u64, u32>,
    ready: VecDeque<u64>,
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Waiting cells that sleep until a limit or credential opens, with its name.
    asleep: HashMap<u64, Arc<str>>,
    attempts: HashMap<u64, u32>,
    /// Cells that were answered and need further calls.
    progress: HashMap<u64, Progress>,
    in_flight: usize,
}

impl ShardWork {
    /// The work on `blocks`, going on with what `open` kept. `instant_of` turns an instant of the fleet's
    /// clock into a local one. Returns also the blocks that `open` alone completes.
    pub fn new(
        blocks: Vec<WantedBlock>,
        open: OpenCells,
        instant_of: impl Fn(i64) -> Instant,
    ) -> (Self, Vec<FullBlock>) {
        let mut work = ShardWork::default();
        for block in blocks {
            work.add(block);
        }
        let mut full = Vec::new();
        for (cell, result) in open.finished {
            if work.is_open(cell) {
                full.extend(work.end(cell, result));
            }
        }
        for (cell, unfinished) in open.unfinished {
            if work.is_open(cell) {
                work.attempts.insert(cell, unfinished.attempts);
                work.progress.extend(unfinished.progress.map(|p| (cell, p)));
                work.ready.retain(|c| *c != cell);
                work.waiting
                    .push(Reverse((instant_of(unfinished.not_before_us), cell)));
            }
        }
        work.ready.retain(|cell| work.block_of.contains_key(cell));
        (work, full)
    }

    fn add(&mut self, block: WantedBlock) {
        for (place, _) in block
            .wanted
            .iter()
            .enumerate()
            .filter(|(_, wanted)| **wanted)
        {
            let cell = block.first_cell + place as u64;
            self.block_of.insert(cell, block.number);
            self.ready.push_back(cell);
        }
        let open = OpenBlock {
            first_cell: block.first_cell,
            results: vec![None; block.wanted.len()],
            left: block.wanted.iter().filter(|w| **w).count(),
            wanted: block.wanted,
        };
        if open.left > 0 {
            self.open.insert(block.number, open);
        }
    }

    fn is_open(&self, cell: u64) -> bool {
        self.block_of.contains_key(&cell)
    }

    /// Takes the next cell that may be called at `now`.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        while let Some(Reverse((not_before, cell))) = self.waiting.peek().copied() {
            if not_before > now {
                break;
            }
            self.waiting.pop();
            self.asleep.remove(&cell);
            self.ready.push_back(cell);
        }
        let cell = self.ready.pop_front()?;
        self.in_flight += 1;
        Some(cell)
    }

    /// Gives a cell back that was taken but not called.
    pub fn untake(&mut self, cell: u64) {
        self.in_flight -= 1;
        self.ready.push_front(cell);
    }

    /// Gives a cell back that was taken but not called, not to be taken before `until`: its scope is closed.
    pub fn sleep(&mut self, cell: u64, until: Instant) {
        self.in_flight -= 1;
        self.waiting.push(Reverse((until, cell)));
    }

    /// As [`sleep`](Self::sleep), for the limit or credential called `name`.
    pub fn sleep_for(&mut self, cell: u64, until: Instant, name: Arc<str>) {
        self.asleep.insert(cell, name);
        self.sleep(cell, until);
    }

    /// What was waited for is there earlier: up to `most` cells that sleep for `name` (or, without one, for whatever) may
    /// be taken from `now` on. Returns how many.
    pub fn wake(&mut self, name: Option<&str>, most: usize, now: Instant) -> usize {
        let for_it = |of: &Arc<str>| name.is_none_or(|name| **of == *name);
        let sleepers = self.asleep.iter().filter(|(_, of)| for_it(of));
        let mut sleepers: Vec<u64> = sleepers.map(|(cell, _)| *cell).collect();
        sleepers.sort_unstable();
        sleepers.truncate(most);
        if sleepers.is_empty() {
            return 0;
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.waiting = waiting
            .map(|Reverse((at, cell))| match sleepers.binary_search(&cell) {
                Ok(_) => Reverse((at.min(now), cell)),
                Err(_) => Reverse((at, cell)),
            })
            .collect();
        for cell in &sleepers {
            self.asleep.remove(cell);
        }
        sleepers.len()
    }

    /// The next call of a cell; `None` for its first one.
    pub fn position(&self, cell: u64) -> Option<&Position> {
        self.progress.get(&cell).map(|progress| &progress.position)
    }

    /// Calls made so far of a cell's next page.
    pub fn attempts(&self, cell: u64) -> u32 {
        self.attempts.get(&cell).copied().unwrap_or(0)
    }

    /// A taken cell was called and needs another attempt, not before `not_before`.
    pub fn again(&mut self, cell: u64, attempts: u32, not_before: Instant) {
        self.in_flight -= 1;
        self.attempts.insert(cell, attempts);
        self.waiting.push(Reverse((not_before, cell)));
    }

    /// A call of a taken cell was answered. Returns the cell's block when that is now full.
    pub fn advance(&mut self, cell: u64, advance: Advance, answered_us: i64) -> Option<FullBlock> {
        let mut progress = self.progress.remove(&cell).unwrap_or_default();
        if progress.apply(advance) {
            return self.finish(cell, CellResult::of(progress.gathered, answered_us));
        }
        self.in_flight -= 1;
        self.attempts.remove(&cell);
        self.progress.insert(cell, progress);
        // A cell that was begun is ended first: what it holds is in memory.
        self.ready.push_front(cell);
        None
    }

    /// A taken cell has ended. Returns its block when that is now full.
    pub fn finish(&mut self, cell: u64, result: CellResult) -> Option<FullBlock> {
        self.in_flight -= 1;
        self.end(cell, result)
    }

    fn end(&mut self, cell: u64, result: CellResult) -> Option<FullBlock> {
        let number = self.block_of.remove(&cell)?;
        self.attempts.remove(&cell);
        self.progress.remove(&cell);
        let block = self.open.get_mut(&number)?;
        let place = usize::try_from(cell - block.first_cell).ok()?;
        block.results[place] = Some(result);
        block.left -= 1;
        if block.left > 0 {
            return None;
        }
        let block = self.open.remove(&number)?;
        Some(FullBlock {
            number,
            first_cell: block.first_cell,
            results: block.results,
        })
    }

    /// Cells that are taken and have not come back.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Every cell has ended.
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a cell could be taken at `now`.
    pub fn has_ready(&self, now: Instant) -> bool {
        !self.ready.is_empty() || self.next_wake().is_some_and(|at| at <= now)
    }

    /// How many cells could be taken at once, at least (those whose wait may have ended not counted).
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// When the next waiting cell may be called.
    pub fn next_wake(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((at, _))| *at)
    }

    /// When nothing is ready or in flight: how long until the first waiting cell may be called.
    pub fn idle_until(&self) -> Option<Instant> {
        let idle = self.in_flight == 0 && self.ready.is_empty();
        idle.then(|| self.next_wake()).flatten()
    }

    /// What to keep in `open/` when the shard is handed back now. `clock_of` turns a local instant into
    /// one of the fleet's clock; `resumes` says whether a cursor may be used by somebody else.
    pub fn open_cells(&self, resumes: bool, clock_of: impl Fn(Instant) -> i64) -> OpenCells {
        let mut kept = OpenCells::default();
        for block in self.open.values() {
            for (place, result) in block.results.iter().enumerate() {
                if let Some(result) = result {
                    kept.finished
                        .insert(block.first_cell + place as u64, result.clone());
                }
            }
            debug_assert_eq!(block.wanted.len(), block.results.len());
        }
        let not_before: HashMap<u64, Instant> = self
            .waiting
            .iter()
            .map(|Reverse((at, cell))| (*cell, *at))
            .collect();
        for cell in self.attempts.keys().chain(self.progress.keys()) {
            let mut progress = self.progress.get(cell).cloned();
            if let Some(progress) = &mut progress {
                progress.hand_back(resumes);
            }
            let unfinished = Unfinished {
                attempts: self.attempts(*cell),
                not_before_us: not_before.get(cell).map_or(0, |at| clock_of(*at)),
                progress,
            };
            kept.unfinished.insert(*cell, unfinished);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn result(records: u64) -> CellResult {
        CellResult {
            lines: "{}\n".repeat(records as usize),
            records,
            failure: None,
            answered_us: 7,
            truncated: false,
            missing: 0,
            stand_in: None,
        }
    }

    fn blocks(cells: u64, checkpoint: u64) -> Vec<WantedBlock> {
        (0..cells.div_ceil(checkpoint))
            .map(|k| WantedBlock {
                number: k as u32,
                first_cell: 1000 + k * checkpoint,
                wanted: vec![true; checkpoint.min(cells - k * checkpoint) as usize],
            })
            .collect()
    }

    fn start(
        blocks: Vec<WantedBlock>,
        open: OpenCells,
        now: Instant,
    ) -> (ShardWork, Vec<FullBlock>) {
        ShardWork::new(blocks, open, |_| now)
    }

    proptest! {
        /// Whatever the order of answers and wherever the shard is handed back: every cell is called
        /// until it ends, once, and every block comes out once.
        #[test]
        fn a_hand_back_repeats_no_finished_cell(cells in 1u64..60, checkpoint in 1u64..9, stop_after in 0usize..60, order in any::<u64>()) {
            let now = Instant::now();
            let mut called = std::collections::BTreeMap::<u64, u32>::new();
            let (mut work, _) = start(blocks(cells, checkpoint), OpenCells::default(), now);
            let mut full = Vec::new();
            let mut seed = order;
            for _ in 0..stop_after {
                let Some(cell) = work.take(now) else { break };
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                if seed >> 61 == 0 {
                    let attempts = work.attempts(cell) + 1;
                    work.again(cell, attempts, now);
                } else {
                    *called.entry(cell).or_default() += 1;
                    full.extend(work.finish(cell, result(cell % 3)));
                }
            }
            let kept = work.open_cells(true, |_| 0);
            let done: Vec<u32> = full.iter().map(|b| b.number).collect();
            let rest = blocks(cells, checkpoint).into_iter().filter(|b| !done.contains(&b.number)).collect();
            let (mut work, complete) = start(rest, kept, now);
            full.extend(complete);
            while let Some(cell) = work.take(now) {
                *called.entry(cell).or_default() += 1;
                full.extend(work.finish(cell, result(cell % 3)));
            }
            prop_assert!(work.is_done());
            prop_assert_eq!(called.len() as u64, cells);
            prop_assert!(called.values().all(|n| *n == 1));
            prop_assert_eq!(full.len() as u64, cells.div_ceil(checkpoint));
        }
    }

    #[test]
    fn what_opens_earlier_wakes_so_many_of_its_own_cells() {
        let now = Instant::now();
        let tomorrow = now + std::time::Duration::from_secs(80_000);
        let (mut work, _) = start(blocks(6, 6), OpenCells::default(), now);
        for place in 0..6 {
            let cell = work.take(now).expect("it is ready");
            match place {
                0..3 => work.sleep_for(cell, tomorrow, "day:a".into()),
                3..5 => work.sleep_for(cell, tomorrow, "day:b".into()),
                _ => work.again(cell, 1, tomorrow),
            }
        }
        assert_eq!(work.wake(Some("day:c"), 9, now), 0);
        assert_eq!(work.wake(Some("day:a"), 2, now), 2);
        assert_eq!(work.take(now), Some(1000));
        assert_eq!(work.take(now), Some(1001));
        assert_eq!(work.take(now), None);
        assert_eq!(work.wake(Some("day:a"), 9, now), 1, "one still slept");
        assert_eq!(work.wake(None, 9, now), 2, "for whatever");
        assert_eq!(
            work.wake(None, 9, now),
            0,
            "an attempt that waits for its time is not woken"
        );
    }

    #[test]
    fn a_retry_covers_only_the_wanted_cells() {
        let block = WantedBlock {
            number: 3,
            first_cell: 60,
            wanted: vec![false, true, false],
        };
        let (mut work, _) = start(vec![block], OpenCells::default(), Instant::now());
        let cell = work.take(Instant::now());
        assert_eq!(cell, Some(61));
        let full = work.finish(61, result(2)).expect("the only wanted cell");
        assert_eq!(full.ends().to_string(), "1-1S1-");
    }
}
