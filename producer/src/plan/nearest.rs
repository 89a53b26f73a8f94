//! `nearest:` the row of a list that lies nearest by great-circle distance.

use std::path::Path;

use paceline_protocol::spec::Table;
use serde_json::Value;

use super::PlanError;

/// The places of a list, ready to be searched.
#[derive(Debug)]
pub(super) struct Places {
    by: [String; 2],
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    point: Point,
    taken: String,
}

/// A point on the sphere, in radians.
#[derive(Clone, Copy, Debug)]
struct Point {
    lat: f64,
    lon: f64,
    cos_lat: f64,
}

impl Point {
    /// From degrees; `None` when these are none.
    fn new(lat: f64, lon: f64) -> Option<Self> {
        let good = (-90.0..=90.0).contains(&lat) && (-540.0..=540.0).contains(&lon);
        good.then(|| Point {
            lat: lat.to_radians(),
            lon: lon.to_radians(),
            cos_lat: lat.to_radians().cos(),
        })
    }

    /// The haversine of the angle to `other`, which grows with the distance.
    fn haversine(self, other: Self) -> f64 {
        let half_sine = |from: f64, to: f64| ((to - from) / 2.0).sin().powi(2);
        half_sine(self.lat, other.lat)
            + self.cos_lat * other.cos_lat * half_sine(self.lon, other.lon)
    }
}

impl Places {
    /// Reads `file`, relative to `folder`: columns `by` (latitude, longitude in degrees) and `take`.
    pub(super) fn read(
        folder: &Path,
        file: &str,
        by: &[String],
        take: &str,
    ) -> Result<Self, PlanError> {
        let table = Table::read(folder, file)?;
        let column = |name: &str| {
            let place = table.column(name);
            place.ok_or_else(|| PlanError::Job(format!("{file} has no column `{name}`")))
        };
        let [lat_name, lon_name] = by else {
            return Err(PlanError::Job("`by` names two columns".into()));
        };
        let (lat, lon, taken) = (column(lat_name)?, column(lon_name)?, column(take)?);
        let place = |(line, row): &(u64, Vec<String>)| {
            let degrees = |place: usize| row[place].parse::<f64>().ok();
            let point = degrees(lat).zip(degrees(lon));
            let point = point.and_then(|(lat, lon)| Point::new(lat, lon));
            let point = point.ok_or_else(|| {
                PlanError::Job(format!(
                    "{file}:{line}: `{}`, `{}` are no latitude and longitude",
                    row[lat], row[lon]
                ))
            })?;
            let taken = row[taken].clone();
            Ok::<_, PlanError>(Place { point, taken })
        };
        let places: Vec<Place> = table
            .rows
            .iter()
            .map(place)
            .collect::<Result<_, PlanError>>()?;
        if places.is_empty() {
            return Err(PlanError::Job(format!(
                "{file} has no rows: nothing is near"
            )));
        }
        Ok(Places {
            by: [lat_name.clone(), lon_name.clone()],
            places,
        })
    }

    /// What is taken of the place nearest to a row; of several at one distance the first in the list.
    ///
    /// # Errors
    /// When the row has no latitude and longitude.
    pub(super) fn nearest<'r>(
        &self,
        value: impl Fn(&str) -> Option<&'r Value>,
    ) -> Result<&str, String> {
        let degrees = |name: &str| match value(name) {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            _ => None,
        };
        let [lat, lon] = &self.by;
        let point = degrees(lat).zip(degrees(lon));
        let Some(from) = point.and_then(|(lat, lon)| Point::new(lat, lon)) else {
            let shown = |name: &str| value(name).unwrap_or(&Value::Null).to_string();
            return Err(format!(
                "a row has `{lat}` {} and `{lon}` {}, which is no place; leave such rows out with `where`",
                shown(lat),
                shown(lon)
            ));
        };
        let nearest = self.places.iter().min_by(|a, b| {
            let distance = |place: &Place| from.haversine(place.point);
            distance(a).total_cmp(&distance(b))
        });
        nearest
            .map(|place| place.taken.as_str())
            .ok_or_else(|| "nothing is near".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn airports() -> Places {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec/jobs");
        let by = ["lat".to_owned(), "lon".to_owned()];
        Places::read(&folder, "airports.csv", &by, "iata").expect("the example's list")
    }

    fn near(places: &Places, lat: f64, lon: f64) -> String {
        let row = serde_json::json!({ "lat": lat, "lon": lon });
        let found = places.nearest(|name| row.get(name));
        found.expect("a place").to_owned()
    }

    #[test]
    fn towns_find_their_airports() {
        let places = airports();
        for (town, lat, lon, iata) in [
            ("Busan", 35.18, 129.08, "PUS"),
            ("Kyoto", 35.01, 135.77, "KIX"),
            ("Cannes", 43.55, 7.02, "NCE"),
            ("beyond the date line", 20.0, -179.9, "HNL"),
        ] {
            assert_eq!(near(&places, lat, lon), iata, "{town}");
        }
    }

    #[test]
    fn a_row_without_a_place_is_refused() {
        for row in [
            serde_json::json!({}),
            serde_json::json!({"lat": null, "lon": 1}),
            serde_json::json!({"lat": "here", "lon": 1}),
            serde_json::json!({"lat": 91, "lon": 1}),
        ] {
            let error = airports()
                .nearest(|name| row.get(name))
                .expect_err("no place");
            assert!(error.contains("`where`"), "{error}");
        }
    }

    proptest! {
        /// Against the spherical law of cosines, which is another way to the same distance.
        #[test]
        fn the_nearest_is_not_beaten(lat in -89.0f64..89.0, lon in -180.0f64..180.0) {
            let places = airports();
            let found = near(&places, lat, lon);
            let angle = |place: &Place| {
                let (a, b) = (lat.to_radians(), place.point.lat);
                let turned = (place.point.lon - lon.to_radians()).cos();
                (a.sin() * b.sin() + a.cos() * b.cos() * turned).clamp(-1.0, 1.0).acos()
            };
            let least = places.places.iter().map(angle).fold(f64::INFINITY, f64::min);
            let ours = places.places.iter().find(|p| p.taken == found).map(angle);
            prop_assert!(ours.expect("in the list") <= least + 1e-6);
        }
    }
}
