//! Real airports with their places on the globe.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::chance;

/// An airport. Its offset is the standard time of its zone; summer time is left out, so that answers do
/// not depend on a zone database.
#[derive(Clone, Debug, PartialEq)]
pub struct Airport {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Offset from UTC as in RFC 3339 (`+09:00`).
    pub utc_offset: String,
}

static AIRPORTS: LazyLock<HashMap<&'static str, Airport>> = LazyLock::new(|| rows().collect());

/// The IATA codes that the simulator knows, in the order of its list.
pub fn codes() -> impl Iterator<Item = &'static str> + Clone {
    rows().map(|(code, _)| code)
}

/// The airport called `iata`.
pub fn airport(iata: &str) -> Option<&'static Airport> {
    AIRPORTS.get(iata)
}

/// A place for a name that is no airport, always the same for the same name.
pub fn invented(name: &str) -> Airport {
    Airport {
        latitude: chance::fraction(0, &[name, "latitude"]) * 120.0 - 60.0,
        longitude: chance::fraction(0, &[name, "longitude"]) * 360.0 - 180.0,
        utc_offset: "+00:00".to_owned(),
    }
}

/// Great-circle distance in kilometres (haversine on a sphere of 6,371 km).
pub fn distance_km(from: &Airport, to: &Airport) -> f64 {
    const EARTH_KM: f64 = 6_371.0;
    let (a, b) = (from.latitude.to_radians(), to.latitude.to_radians());
    let half_north = ((b - a) / 2.0).sin();
    let half_east = ((to.longitude - from.longitude).to_radians() / 2.0).sin();
    let h = half_north.powi(2) + a.cos() * b.cos() * half_east.powi(2);
    2.0 * EARTH_KM * h.sqrt().min(1.0).asin()
}

fn rows() -> impl Iterator<Item = (&'static str, Airport)> + Clone {
    include_str!("airports.csv").lines().skip(1).map(|line| {
        let mut columns = line.split(',');
        let mut next = || columns.next().expect("airports.csv has five columns");
        let (code, _name) = (next(), next());
        let number = |text: &str| text.parse().expect("airports.csv holds numbers there");
        let (latitude, longitude) = (number(next()), number(next()));
        let utc_offset = next().to_owned();
        (
            code,
            Airport {
                latitude,
                longitude,
                utc_offset,
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_airport_on_the_globe() {
        assert!(codes().count() > 50);
        for code in codes() {
            let place = airport(code).unwrap();
            assert!(code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()));
            assert!(place.latitude.abs() < 90.0 && place.longitude.abs() <= 180.0);
            assert_eq!(place.utc_offset.len(), 6);
        }
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        let km = |a, b| distance_km(airport(a).unwrap(), airport(b).unwrap());
        assert!((km("ICN", "NRT") - 1_260.0).abs() < 20.0);
        assert!((km("ICN", "JFK") - 11_100.0).abs() < 100.0);
        assert_eq!(km("ICN", "ICN"), 0.0);
    }
}
