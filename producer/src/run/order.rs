//! The order in which shards are published.
//!
//! Workers hold a bounded number of shards. Where a limit holds for each seller and a seller has many shards, those that
//! come first in the matrix are all of the same few sellers, and the fleet would wait for them while the others' budgets
//! lie idle. Their neighbours in the queue come from all over the matrix instead, so that scopes advance side by side.

use paceline_protocol::connector::is_by_cell;
use paceline_protocol::plan::Plan;

/// The places `0..shards` of a list of shards, each once: in their order, or spread where a limit of the plan's
/// providers holds for single scopes of its cells.
pub fn publishing_order(plan: &Plan, shards: u64) -> impl Iterator<Item = u64> + use<> {
    let step = if has_scopes(plan) {
        spreading_step(shards)
    } else {
        1
    };
    places(shards, step)
}

/// `0..length`, a step at a time around it.
fn places(length: u64, step: u64) -> impl Iterator<Item = u64> {
    let place = move |n: u64| u128::from(n) * u128::from(step) % u128::from(length);
    (0..length).map(move |n| place(n) as u64)
}

fn has_scopes(plan: &Plan) -> bool {
    let mut limits = plan.providers.values().flat_map(|p| &p.limits);
    limits.any(|limit| limit.per.as_deref().is_some_and(is_by_cell))
}

/// A step near the golden section of `length`, without a common divisor: however many are taken, the places that they meet
/// lie about evenly, whatever period the shards repeat in. How evenly, the largest partial quotient of the continued
/// fraction `length / step` says (the smaller the better; those of the golden section are all 1): of the steps close by the
/// best is taken.
fn spreading_step(length: u64) -> u64 {
    let golden = (length as f64 * 0.618_033_988_75).round() as u64;
    let close = (0..LOOK_AT).flat_map(|far| [golden.saturating_sub(far), golden + far]);
    let fitting = close.filter(|step| *step > 0 && gcd(*step, length) == 1);
    fitting
        .min_by_key(|step| largest_quotient(length, *step))
        .unwrap_or(1)
}

/// How far from the golden section a step may lie.
const LOOK_AT: u64 = 64;

fn largest_quotient(a: u64, b: u64) -> u64 {
    let quotient = a.checked_div(b);
    quotient.map_or(0, |quotient| quotient.max(largest_quotient(b, a % b)))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread(length: u64) -> Vec<u64> {
        places(length, spreading_step(length)).collect()
    }

    #[test]
    fn without_scopes_the_order_stays() {
        assert_eq!(places(5, 1).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    proptest! {
        #[test]
        fn every_shard_is_published_once(length in 0u64..5_000) {
            let mut all = spread(length);
            all.sort_unstable();
            prop_assert_eq!(all, (0..length).collect::<Vec<_>>());
        }

        #[test]
        fn the_first_ones_come_from_all_over(sellers in 10u64..400, each in 1u64..50) {
            let all = spread(sellers * each);
            let held = (2 * sellers) as usize;
            let seen: std::collections::BTreeSet<u64> = all.iter().take(held).map(|place| place / each).collect();
            prop_assert!(seen.len() as u64 * 10 >= sellers * 9, "{} of {sellers}", seen.len());
        }

        #[test]
        fn no_period_of_the_matrix_makes_some_wait(period in 2u64..40, times in 8u64..200) {
            let all = spread(period * times);
            let mut seen = vec![0; period as usize];
            all.iter().take(4 * period as usize).for_each(|place| seen[(place % period) as usize] += 1);
            prop_assert!(seen.iter().all(|times| (1..=8).contains(times)), "{seen:?}");
        }
    }
}
