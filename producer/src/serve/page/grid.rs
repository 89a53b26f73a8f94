//! The shards of a run as squares: each stands for one shard, or for as many as make the picture small. Pure,
//! over the run's bitmaps.

use std::collections::BTreeSet;

use paceline_protocol::plan::Plan;
use paceline_protocol::stores::state::Bits;

/// The most squares.
const SQUARES: u64 = 400;

/// How far a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Far {
    /// Nothing of it has been settled.
    Waits,
    /// Some of its blocks are.
    Begun,
    /// All of them are.
    Collected,
    /// Its results are loaded.
    Loaded,
}

/// One square.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Square {
    /// What the style sheet knows it by.
    pub(super) class: &'static str,
    /// A sign that needs no colour.
    pub(super) sign: &'static str,
    /// In words.
    pub(super) title: String,
}

/// The picture and its numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Grid {
    pub(super) squares: Vec<Square>,
    /// Shards in a square.
    pub(super) each: u64,
    pub(super) waits: u64,
    pub(super) begun: u64,
    pub(super) collected: u64,
    pub(super) loaded: u64,
    pub(super) with_failures: u64,
}

/// The grid of a run that goes.
pub(super) fn of_open(plan: &Plan, settled: &Bits, loaded: &Bits, failed: &BTreeSet<u64>) -> Grid {
    draw(plan, failed, |shard, blocks| {
        let first = plan.block_bit(shard, 0);
        let done = (0..blocks)
            .filter(|block| settled.has(first + block))
            .count() as u64;
        match done {
            _ if loaded.has(shard) => Far::Loaded,
            0 => Far::Waits,
            done if done < blocks => Far::Begun,
            _ => Far::Collected,
        }
    })
}

/// The grid of a run that has ended, by the number of its parts' cells in each shard.
pub(super) fn of_ended(
    plan: &Plan,
    covered: &std::collections::BTreeMap<u64, u64>,
    failed: &BTreeSet<u64>,
) -> Grid {
    let cells = u64::from(plan.job.shard.cells);
    draw(plan, failed, |shard, blocks| {
        match covered.get(&shard).copied().unwrap_or(0) {
            0 => Far::Waits,
            // Only the last shard of a segment is smaller, and then it has fewer blocks.
            covered if blocks < plan.blocks_per_shard() || covered >= cells => Far::Loaded,
            _ => Far::Begun,
        }
    })
}

fn draw(plan: &Plan, failed: &BTreeSet<u64>, far: impl Fn(u64, u64) -> Far) -> Grid {
    let shards = plan.shards();
    let each = shards.div_ceil(SQUARES).max(1);
    let mut grid = Grid {
        each,
        ..Grid::default()
    };
    let mut square = Counted::default();
    for (shard, blocks) in blocks(plan) {
        let far = far(shard, blocks);
        let bad = failed.contains(&shard);
        grid.count(far, bad);
        square.count(far, bad);
        if (shard + 1) % each == 0 || shard + 1 == shards {
            grid.squares.push(square.square(shard));
            square = Counted::default();
        }
    }
    grid
}

/// Every shard with the number of its blocks.
fn blocks(plan: &Plan) -> impl Iterator<Item = (u64, u64)> + '_ {
    let size = u64::from(plan.job.shard.cells);
    let checkpoint = u64::from(plan.job.shard.checkpoint);
    let of_segments = plan.segments.iter().flat_map(move |segment| {
        (0..segment.cells.div_ceil(size))
            .map(move |k| (segment.cells - k * size).min(size).div_ceil(checkpoint))
    });
    (0..).zip(of_segments)
}

impl Grid {
    fn count(&mut self, far: Far, bad: bool) {
        self.with_failures += u64::from(bad);
        *match far {
            Far::Waits => &mut self.waits,
            Far::Begun => &mut self.begun,
            Far::Collected => &mut self.collected,
            Far::Loaded => &mut self.loaded,
        } += 1;
    }
}

/// What a square stands for.
#[derive(Default)]
struct Counted {
    shards: u64,
    least: Option<Far>,
    most: Option<Far>,
    loaded: u64,
    bad: u64,
}

impl Counted {
    fn count(&mut self, far: Far, bad: bool) {
        self.shards += 1;
        self.least = Some(self.least.map_or(far, |least| least.min(far)));
        self.most = Some(self.most.map_or(far, |most| most.max(far)));
        self.loaded += u64::from(far == Far::Loaded);
        self.bad += u64::from(bad);
    }

    fn square(&self, last: u64) -> Square {
        let (least, most) = (
            self.least.unwrap_or(Far::Waits),
            self.most.unwrap_or(Far::Waits),
        );
        let (class, sign, word) = match (least, most) {
            _ if self.bad > 0 => ("bad", "!", "with failures"),
            (Far::Loaded, _) => ("loaded", "\u{2713}", "loaded"),
            (Far::Collected, _) => ("collected", "\u{25cf}", "collected"),
            (_, Far::Waits) => ("waits", "\u{b7}", "waits"),
            _ => ("begun", "\u{25d0}", "begun"),
        };
        let title = if self.shards == 1 {
            format!("shard {last}: {word}")
        } else {
            let first = last + 1 - self.shards;
            format!("shards {first} to {last}: {word}, {} loaded", self.loaded)
        };
        Square { class, sign, title }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_says_the_worst_of_what_it_stands_for() {
        let square = |fars: &[(Far, bool)]| {
            let mut counted = Counted::default();
            for (far, bad) in fars {
                counted.count(*far, *bad);
            }
            counted.square(9).class
        };
        assert_eq!(square(&[(Far::Loaded, false)]), "loaded");
        assert_eq!(
            square(&[(Far::Loaded, false), (Far::Waits, false)]),
            "begun"
        );
        assert_eq!(square(&[(Far::Waits, false), (Far::Waits, false)]), "waits");
        assert_eq!(square(&[(Far::Loaded, true)]), "bad");
        assert_eq!(
            square(&[(Far::Collected, false), (Far::Loaded, false)]),
            "collected"
        );
    }
}
