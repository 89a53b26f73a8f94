//! A curve of speeds over time as the points of an SVG line. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

/// How far back the curve goes.
const BACK: Duration = Duration::from_secs(600);
/// Its size in the drawing's own units.
pub(super) const WIDTH: f64 = 600.0;
/// See [`WIDTH`].
pub(super) const HEIGHT: f64 = 120.0;

/// Speeds, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline(VecDeque<(Timestamp, f64)>);

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawing {
    /// The points of the line.
    pub(super) points: String,
    /// Where the allowed speed is; `None` without one.
    pub(super) allowed_y: Option<String>,
    /// The speed at the upper edge.
    pub(super) top: f64,
    /// How long the curve is.
    pub(super) over: Duration,
    /// What of the run it shows.
    what: &'static str,
}

impl Drawing {
    /// What it shows, in words.
    pub(super) fn length(&self) -> String {
        format!("{} {}", self.what, crate::show::span(self.over))
    }
}

impl Timeline {
    /// Notes a speed.
    pub(super) fn note(&mut self, at: Timestamp, speed: f64) {
        self.0.push_back((at, speed));
        while self
            .0
            .front()
            .is_some_and(|(first, _)| since(*first, at) > BACK)
        {
            self.0.pop_front();
        }
    }

    /// The curve against the allowed speed; `None` below two points.
    pub(super) fn drawn(&self, allowed: Option<f64>) -> Option<Drawing> {
        let (from, _) = self.0.front()?;
        let passed = |at: &Timestamp| since(*from, *at);
        let points: Vec<(Duration, f64)> = self.0.iter().map(|(at, v)| (passed(at), *v)).collect();
        Some(Drawing {
            what: "the last",
            ..Drawing::of(&points, allowed)?
        })
    }
}

impl Drawing {
    /// A run from its first call to its last, out of the ledger; `None` below two slots.
    pub(super) fn of_run(
        (slot, speeds): (Duration, Vec<f64>),
        allowed: Option<f64>,
    ) -> Option<Self> {
        let places = (0u32..).map(|place| slot * place);
        let points: Vec<(Duration, f64)> = places.zip(speeds).collect();
        Self::of(&points, allowed)
    }

    fn of(points: &[(Duration, f64)], allowed: Option<f64>) -> Option<Self> {
        let (over, _) = *points.last()?;
        if over.is_zero() {
            return None;
        }
        let most = points.iter().map(|(_, speed)| *speed).fold(0.0, f64::max);
        let top = most.max(allowed.unwrap_or(0.0)).max(0.1) * 1.1;
        let y = |speed: f64| format!("{:.1}", HEIGHT - speed / top * HEIGHT);
        let point = |(at, speed): &(Duration, f64)| {
            let x = at.as_secs_f64() / over.as_secs_f64() * WIDTH;
            format!("{x:.1},{}", y(*speed))
        };
        let points: Vec<String> = points.iter().map(point).collect();
        Some(Drawing {
            points: points.join(" "),
            allowed_y: allowed.map(y),
            top,
            over,
            what: "the whole run,",
        })
    }
}

fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_lies_below_its_upper_edge_and_forgets() {
        let mut line = Timeline::default();
        assert_eq!(line.drawn(Some(50.0)), None);
        for second in 0..700 {
            let at = Timestamp::from_second(1_800_000_000 + second).expect("a time");
            line.note(at, 40.0);
        }
        let drawn = line.drawn(Some(50.0)).expect("a curve");
        assert_eq!(drawn.over, BACK);
        assert!(drawn.points.starts_with("0.0,") && drawn.points.contains("600.0,"));
        let allowed: f64 = drawn.allowed_y.expect("a line").parse().expect("a number");
        assert!(allowed > 0.0 && allowed < HEIGHT);
    }

    #[test]
    fn an_ended_run_is_drawn_from_its_first_call_to_its_last() {
        let slot = Duration::from_secs(2);
        assert_eq!(Drawing::of_run((slot, vec![9.0]), None), None);
        let drawn = Drawing::of_run((slot, vec![40.0, 50.0, 20.0]), Some(50.0)).expect("a curve");
        assert_eq!(drawn.length(), "the whole run, 4s");
        assert!(drawn.points.contains("300.0,"), "{}", drawn.points);
    }
}
