//! One search: the cell of a fare calendar, as the provider sees it.

use std::borrow::Cow;
use std::fmt;

use jiff::civil::Date;

use super::airports::{self, Airport};

/// A valid search. It shows as `ICN-NRT/2026-11-22/2026-11-25`, the name of its cell in log and faults.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Search {
    /// Where from, IATA.
    pub origin: String,
    /// Where to, IATA (any text where the simulator is lenient).
    pub destination: String,
    /// The day out.
    pub depart: Date,
    /// The day back.
    pub return_day: Date,
}

/// Why a search is refused with status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// No such airport.
    #[error("{name} {value:?} is no airport")]
    UnknownAirport {
        /// `origin` or `destination`.
        name: &'static str,
        /// What came.
        value: String,
    },
    /// Not `YYYY-MM-DD`.
    #[error("{name} {value:?} is no date")]
    NotADate {
        /// `depart` or `return`.
        name: &'static str,
        /// What came.
        value: String,
    },
    /// The way back lies before the way out.
    #[error("return lies before depart")]
    BackBeforeOut,
    /// Nothing to fly.
    #[error("origin and destination are the same")]
    NowhereToGo,
}

impl Search {
    /// Checks a search. `lenient` takes any text as a destination.
    ///
    /// # Errors
    /// What the provider would answer with status 400.
    pub fn new(
        origin: &str,
        destination: &str,
        depart: &str,
        return_day: &str,
        lenient: bool,
    ) -> Result<Self, SearchError> {
        known("origin", origin)?;
        if !lenient {
            known("destination", destination)?;
        }
        let (depart, return_day) = (date("depart", depart)?, date("return", return_day)?);
        if return_day < depart {
            return Err(SearchError::BackBeforeOut);
        }
        if origin == destination {
            return Err(SearchError::NowhereToGo);
        }
        Ok(Self {
            origin: origin.to_owned(),
            destination: destination.to_owned(),
            depart,
            return_day,
        })
    }

    /// Nights between the way out and the way back.
    pub fn nights(&self) -> i32 {
        self.depart.duration_until(self.return_day).as_hours() as i32 / 24
    }

    /// Great-circle distance in kilometres.
    pub fn distance_km(&self) -> f64 {
        let destination = match airports::airport(&self.destination) {
            Some(airport) => Cow::Borrowed(airport),
            None => Cow::Owned(airports::invented(&self.destination)),
        };
        airports::distance_km(self.origin_airport(), &destination)
    }

    pub(super) fn origin_airport(&self) -> &'static Airport {
        airports::airport(&self.origin).expect("a search is only built from a known origin")
    }

    /// The currency of the point of sale.
    pub(super) fn currency(&self) -> &'static str {
        match self.origin.as_str() {
            "ICN" | "GMP" | "PUS" | "CJU" => "KRW",
            _ => "USD",
        }
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            destination,
            depart,
            return_day,
        } = self;
        write!(f, "{origin}-{destination}/{depart}/{return_day}")
    }
}

fn known(name: &'static str, value: &str) -> Result<(), SearchError> {
    match airports::airport(value) {
        Some(_) => Ok(()),
        None => Err(SearchError::UnknownAirport {
            name,
            value: value.to_owned(),
        }),
    }
}

fn date(name: &'static str, value: &str) -> Result<Date, SearchError> {
    let wrong = || SearchError::NotADate {
        name,
        value: value.to_owned(),
    };
    // Jiff also reads dates with a time behind them; the provider does not.
    if value.len() != "2026-11-22".len() {
        return Err(wrong());
    }
    value.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(destination: &str, depart: &str, back: &str) -> Result<Search, SearchError> {
        Search::new("ICN", destination, depart, back, false)
    }

    #[test]
    fn the_name_of_a_cell_says_everything() {
        let good = search("NRT", "2026-11-22", "2026-12-06").unwrap();
        assert_eq!(good.to_string(), "ICN-NRT/2026-11-22/2026-12-06");
        assert_eq!(good.nights(), 14);
    }

    #[test]
    fn wrong_searches_are_refused() {
        assert!(matches!(
            search("XXX", "2026-11-22", "2026-11-23"),
            Err(SearchError::UnknownAirport { .. })
        ));
        assert!(matches!(
            search("NRT", "2026-11-31", "2026-12-01"),
            Err(SearchError::NotADate { .. })
        ));
        assert!(matches!(
            search("NRT", "2026-11-22T10:00", "2026-12-01"),
            Err(SearchError::NotADate { .. })
        ));
        assert_eq!(
            search("NRT", "2026-11-22", "2026-11-21"),
            Err(SearchError::BackBeforeOut)
        );
        assert_eq!(
            search("ICN", "2026-11-22", "2026-11-23"),
            Err(SearchError::NowhereToGo)
        );
    }

    #[test]
    fn a_lenient_provider_takes_any_destination() {
        let odd = Search::new("ICN", "../\"\n😀", "2026-11-22", "2026-11-23", true).unwrap();
        assert!(odd.distance_km() > 0.0);
    }
}
