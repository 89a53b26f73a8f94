//! Chance that is the same on every machine and in every release: a hash of a seed and a few words.
//!
//! The standard library's hasher may change between releases; a log that was written yesterday must be
//! explained by the same draws today.

/// A stable 64-bit hash of `seed` and `words`, in order.
pub fn hash(seed: u64, words: &[&str]) -> u64 {
    let mut state = scatter(seed);
    for word in words {
        for byte in word.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // Ends the word, so that ("ab", "c") differs from ("a", "bc").
        state = scatter(state ^ word.len() as u64);
    }
    state
}

/// A number in `0.0..1.0` drawn from `seed` and `words`.
pub fn fraction(seed: u64, words: &[&str]) -> f64 {
    const BITS: u32 = 53;
    (hash(seed, words) >> (u64::BITS - BITS)) as f64 / (1u64 << BITS) as f64
}

/// SplitMix64's finisher: every input bit reaches every output bit.
pub fn scatter(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_do_not_change_between_releases() {
        assert_eq!(hash(7, &["NRT", "2026-12-01"]), 322_716_504_327_277_934);
    }

    #[test]
    fn words_are_kept_apart() {
        assert_ne!(hash(1, &["ab", "c"]), hash(1, &["a", "bc"]));
    }

    #[test]
    fn fractions_fill_the_unit_interval_evenly() {
        let low = (0..10_000)
            .filter(|n| fraction(3, &[&n.to_string()]) < 0.25)
            .count();
        assert!((2_300..2_700).contains(&low), "{low} of 10000 below 0.25");
    }
}
