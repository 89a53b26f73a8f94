//! The world behind the simulator: what a fare search answers, as a pure function of the search and a seed.

pub mod airports;
mod price;
mod search;

pub use search::{Search, SearchError};

use crate::chance;

/// The carriers that fly, by IATA code, with their fare level (1 is the market's).
const CARRIERS: [(&str, f64); 12] = [
    ("KE", 1.22),
    ("OZ", 1.16),
    ("7C", 0.83),
    ("LJ", 0.85),
    ("TW", 0.82),
    ("BX", 0.88),
    ("ZE", 0.81),
    ("RS", 0.86),
    ("YP", 0.97),
    ("NH", 1.18),
    ("SQ", 1.24),
    ("CX", 1.09),
];

/// One carrier's fare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// IATA code.
    pub carrier: &'static str,
    /// Price with exactly two digits after the point (`80000.50`).
    pub price: String,
    /// ISO 4217; KRW from Korean airports, else USD.
    pub currency: &'static str,
    /// Departure of the outbound flight: RFC 3339 in the origin's offset.
    pub departs_at: String,
}

/// What the fare search knows about one search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 1 to 4 offers of different carriers, cheapest first.
    Offers(Vec<Offer>),
    /// Status 200 with an empty list.
    EmptyList,
    /// Status 404.
    NotFound,
}

/// The prices and gaps of one simulated world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct World {
    /// Another seed, other prices.
    pub seed: u64,
    /// Share of searches that have an empty list.
    pub empty_share: f64,
    /// Share of searches that have status 404.
    pub missing_share: f64,
}

impl World {
    /// What a search finds; the same for ever.
    pub fn answer(&self, search: &Search) -> Answer {
        let name = search.to_string();
        let gap = chance::fraction(self.seed, &[&name, "gap"]);
        if gap < self.empty_share {
            Answer::EmptyList
        } else if gap < self.empty_share + self.missing_share {
            Answer::NotFound
        } else {
            Answer::Offers(self.offers(search, &name))
        }
    }

    fn offers(&self, search: &Search, name: &str) -> Vec<Offer> {
        let draw = chance::hash(self.seed, &[name, "offers"]);
        let count = 1 + (draw % 4) as usize;
        let first = (draw >> 8) as usize % CARRIERS.len();
        let base = price::base(search);
        let mut priced: Vec<_> = (0..count)
            // 5 and 12 have no common divisor: four steps of 5 meet four different carriers.
            .map(|n| CARRIERS[(first + 5 * n) % CARRIERS.len()])
            .map(|(carrier, level)| {
                let whim = 0.94 + 0.12 * chance::fraction(self.seed, &[name, carrier]);
                (
                    price::cents(base * level * whim, search.currency()),
                    carrier,
                )
            })
            .collect();
        priced.sort_unstable();
        priced
            .into_iter()
            .map(|(cents, carrier)| Offer {
                carrier,
                price: format!("{}.{:02}", cents / 100, cents % 100),
                currency: search.currency(),
                departs_at: self.departs_at(search, name, carrier),
            })
            .collect()
    }

    /// Between 06:00 and 22:55 local time, in steps of five minutes.
    fn departs_at(&self, search: &Search, name: &str, carrier: &str) -> String {
        let step = chance::hash(self.seed, &[name, carrier, "departs"]) % 204;
        let minutes = 6 * 60 + 5 * step;
        let (hour, minute) = (minutes / 60, minutes % 60);
        let offset = &search.origin_airport().utc_offset;
        format!("{}T{hour:02}:{minute:02}:00{offset}", search.depart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World = World {
        seed: 1,
        empty_share: 0.03,
        missing_share: 0.02,
    };

    fn searches() -> impl Iterator<Item = Search> {
        (1..=2_000).map(|n| {
            let depart = jiff::civil::date(2026, 11, 22) + jiff::Span::new().days(n % 100);
            let back = depart + jiff::Span::new().days(1 + n % 14);
            let code = airports::codes().nth(4 + (n / 100) as usize).unwrap();
            Search::new("ICN", code, &depart.to_string(), &back.to_string(), false).unwrap()
        })
    }

    #[test]
    fn a_search_always_finds_the_same() {
        for search in searches() {
            assert_eq!(WORLD.answer(&search), WORLD.answer(&search));
        }
    }

    #[test]
    fn offers_are_of_different_carriers_and_prices_keep_two_digits() {
        for search in searches() {
            let Answer::Offers(offers) = WORLD.answer(&search) else {
                continue;
            };
            let mut carriers: Vec<_> = offers.iter().map(|o| o.carrier).collect();
            carriers.sort_unstable();
            carriers.dedup();
            assert_eq!(carriers.len(), offers.len());
            for offer in &offers {
                let (_, digits) = offer.price.split_once('.').unwrap();
                assert_eq!(digits.len(), 2, "{}", offer.price);
                offer.departs_at.parse::<jiff::Timestamp>().unwrap();
            }
        }
    }

    #[test]
    fn gaps_come_as_often_as_asked() {
        let count = |wanted: Answer| searches().filter(|s| WORLD.answer(s) == wanted).count();
        assert!((30..90).contains(&count(Answer::EmptyList)));
        assert!((20..65).contains(&count(Answer::NotFound)));
    }

    #[test]
    fn another_seed_is_another_world() {
        let other = World { seed: 2, ..WORLD };
        assert!(searches().any(|s| WORLD.answer(&s) != other.answer(&s)));
    }
}
