//! Scores made comparable within a group of records, before they are kept or summed.

use std::collections::BTreeMap;

use paceline_protocol::spec::{Normalise, NormaliseBy};

/// What a group's scores have in common, one pass over them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    records: u64,
    sum: f64,
    lowest: f64,
    highest: f64,
    mean: f64,
    /// Sum of the squared distances from the mean (Welford).
    squares: f64,
}

impl Default for Group {
    fn default() -> Self {
        Group {
            records: 0,
            sum: 0.0,
            lowest: f64::INFINITY,
            highest: f64::NEG_INFINITY,
            mean: 0.0,
            squares: 0.0,
        }
    }
}

impl Group {
    /// Adds a record's score.
    pub fn add(&mut self, score: f64) {
        self.records += 1;
        self.sum += score;
        self.lowest = self.lowest.min(score);
        self.highest = self.highest.max(score);
        let distance = score - self.mean;
        self.mean += distance / self.records as f64;
        self.squares += distance * (score - self.mean);
    }

    /// A score of the group, normalised. `place` is 1 for the highest; equal scores share the best of
    /// their places. Where all scores are equal nothing sets one apart: `minmax` and `zscore` are 0.
    pub fn normalised(&self, by: NormaliseBy, score: f64, place: u64) -> f64 {
        let deviation = (self.squares / self.records as f64).sqrt();
        let value = match by {
            NormaliseBy::Share => score / self.sum,
            NormaliseBy::Minmax => (score - self.lowest) / (self.highest - self.lowest),
            NormaliseBy::Zscore => (score - self.mean) / deviation,
            // The share of the group's records that it is not below of: 1 for the highest.
            NormaliseBy::Rank => (self.records + 1 - place) as f64 / self.records as f64,
        };
        if value.is_finite() { value } else { 0.0 }
    }
}

/// The weight of a group (1 unless the job says).
pub fn weight(normalise: &Normalise, group: &str) -> f64 {
    normalise.weights.get(group).copied().unwrap_or(1.0)
}

/// Places of scores that come with the highest first, group after group.
#[derive(Debug, Default)]
pub struct Places {
    seen: u64,
    last: Option<(f64, u64)>,
}

impl Places {
    /// The place of the next score of the group.
    pub fn next(&mut self, score: f64) -> u64 {
        self.seen += 1;
        let place = match self.last {
            Some((last, place)) if last == score => place,
            _ => self.seen,
        };
        self.last = Some((score, place));
        place
    }
}

/// Groups by set and the text of `within`.
pub type Groups = BTreeMap<(String, String), Group>;

#[cfg(test)]
mod tests {
    use super::*;

    fn all(by: NormaliseBy, scores: &[f64]) -> Vec<f64> {
        let mut group = Group::default();
        scores.iter().for_each(|score| group.add(*score));
        let mut places = Places::default();
        let mut normalise = |score: &f64| group.normalised(by, *score, places.next(*score));
        scores.iter().map(&mut normalise).collect()
    }

    #[test]
    fn each_way() {
        let scores = [6.0, 3.0, 3.0, 0.0];
        assert_eq!(all(NormaliseBy::Share, &scores), [0.5, 0.25, 0.25, 0.0]);
        assert_eq!(all(NormaliseBy::Minmax, &scores), [1.0, 0.5, 0.5, 0.0]);
        assert_eq!(all(NormaliseBy::Rank, &scores), [1.0, 0.75, 0.75, 0.25]);
        let zscores = all(NormaliseBy::Zscore, &scores);
        assert!(zscores.iter().sum::<f64>().abs() < 1e-12);
        assert!((zscores[0] - 2.0_f64.sqrt()).abs() < 1e-12, "{zscores:?}");
    }

    #[test]
    fn a_group_of_equals_or_of_nothing_is_no_division_by_zero() {
        for by in [NormaliseBy::Minmax, NormaliseBy::Zscore] {
            assert_eq!(all(by, &[5.0, 5.0]), [0.0, 0.0]);
        }
        assert_eq!(all(NormaliseBy::Share, &[0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(all(NormaliseBy::Share, &[7.0]), [1.0]);
        assert_eq!(all(NormaliseBy::Rank, &[0.0]), [1.0]);
    }
}
