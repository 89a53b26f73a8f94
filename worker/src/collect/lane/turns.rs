//! Whose cell is asked for next. Runs of one lane take turns by their weight (`priority:`), the shards of a run one after
//! the other: so a small urgent run gets its share at once, however many shards of another run are in hand, and no
//! shard holds the others of its run. One half is asked for from the shards that are in hand for longest, which come first
//! where they draw from the same limits as the others ([`Asking::oldest_first`]): however many shards are in hand, the open
//! blocks that a crash would lose stay few.
//!
//! [`Asking::oldest_first`]: super::asking::Asking::oldest_first

use std::collections::VecDeque;

/// The shards of one run that may have cells.
#[derive(Debug)]
struct OfRun<R> {
    run: R,
    weight: f64,
    shards: VecDeque<u64>,
}

/// Turns of shards, by their keys within the lane.
#[derive(Debug)]
pub struct Turns<R> {
    runs: Vec<OfRun<R>>,
}

impl<R: PartialEq> Turns<R> {
    /// Of shards with their run and its weight. `chance` draws a number in 0..1: who comes first gets what is scarce, and
    /// beginning with the same shard each time would keep step with what opens.
    pub fn new(
        shards: impl Iterator<Item = (u64, R, u8)>,
        mut chance: impl FnMut() -> f64,
    ) -> Self {
        let mut runs: Vec<OfRun<R>> = Vec::new();
        for (key, run, weight) in shards {
            let place = runs.iter().position(|known| known.run == run);
            let place = place.unwrap_or_else(|| {
                runs.push(OfRun {
                    run,
                    weight: f64::from(weight.max(1)),
                    shards: VecDeque::new(),
                });
                runs.len() - 1
            });
            runs[place].shards.push_back(key);
        }
        for of_run in &mut runs {
            let begin = (chance() * of_run.shards.len() as f64) as usize;
            of_run.shards.rotate_left(begin % of_run.shards.len());
        }
        Turns { runs }
    }

    /// The next shard; `chance` is in 0..1.
    pub fn next(&mut self, chance: f64) -> Option<u64> {
        let of_run = self.run(chance)?;
        let key = of_run.shards.pop_front();
        of_run.shards.push_back(key?);
        key
    }

    /// Of the run whose turn it is the shard that is in hand for longest.
    pub fn oldest(&mut self, chance: f64) -> Option<u64> {
        self.run(chance)?.shards.iter().copied().min()
    }

    fn run(&mut self, chance: f64) -> Option<&mut OfRun<R>> {
        self.runs.retain(|of_run| !of_run.shards.is_empty());
        let all: f64 = self.runs.iter().map(|of_run| of_run.weight).sum();
        let mut drawn = chance * all;
        let place = self.runs.iter().position(|of_run| {
            drawn -= of_run.weight;
            drawn < 0.0
        });
        let place = place.or(self.runs.len().checked_sub(1))?;
        self.runs.get_mut(place)
    }

    /// The shard has no more cells.
    pub fn is_through(&mut self, key: u64) {
        for of_run in &mut self.runs {
            of_run.shards.retain(|shard| *shard != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in 0..1 that are spread evenly.
    fn even() -> impl FnMut() -> f64 {
        let mut turn = 0.0;
        move || {
            turn = (turn + 0.618_033_988_749_895) % 1.0;
            turn
        }
    }

    #[test]
    fn runs_take_turns_by_their_weight_whatever_they_have_in_hand() {
        let mut chance = even();
        let shards = [(1, "low", 1), (2, "low", 1), (3, "low", 1), (4, "high", 9)];
        let mut turns = Turns::new(shards.into_iter(), &mut chance);
        let drawn: Vec<u64> = (0..1_000).filter_map(|_| turns.next(chance())).collect();
        let of = |key| drawn.iter().filter(|drawn| **drawn == key).count();
        assert!((890..=910).contains(&of(4)), "{}", of(4));
        for key in [1, 2, 3] {
            assert!((30..=37).contains(&of(key)), "{}", of(key));
        }
    }

    #[test]
    fn the_oldest_shard_of_a_run_comes_first_until_it_has_no_cells() {
        let mut chance = even();
        let shards = [(3, "low", 1), (1, "low", 1), (2, "low", 1)];
        let mut turns = Turns::new(shards.into_iter(), &mut chance);
        assert!((0..9).all(|_| turns.oldest(chance()) == Some(1)));
        turns.is_through(1);
        assert_eq!(turns.oldest(chance()), Some(2));
    }

    #[test]
    fn a_shard_without_cells_gives_its_turns_to_the_others() {
        let mut chance = even();
        let shards = [(1, "low", 1), (4, "high", 9)];
        let mut turns = Turns::new(shards.into_iter(), &mut chance);
        turns.is_through(4);
        assert!((0..50).all(|_| turns.next(chance()) == Some(1)));
        turns.is_through(1);
        assert_eq!(turns.next(0.5), None);
    }
}
