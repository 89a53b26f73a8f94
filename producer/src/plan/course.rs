//! How long calls take under limits that all hold at once: pure arithmetic, the start passed in.
//!
//! Calls flow as fast as the slowest limit lets them: a bucket gives what it holds and then its rate, leases give
//! their number in the time that a call takes, a quota gives its window's number at once and then nothing until
//! its reset. Of a limit with scopes the fullest scope decides, since scopes advance side by side.

use jiff::Timestamp;
use paceline_protocol::limit::{Pace, Rule, instance, quota_window};
use paceline_protocol::spec::{CalendarWindow, Limit, LimitRule};

/// Beyond so many changes of speed the rest is taken to go on as fast as until then.
const MOST_STEPS: u32 = 200_000;
/// A pace this much slower than its file says (a bucket too small for its rate) is told as it is; less is the
/// limiter's room, which is left out.
const ROOM: f64 = 1.025;
/// Less than this of a call is nothing.
const NOTHING: f64 = 1e-6;

/// Calls of one lane, and what they draw from.
#[derive(Clone, Debug)]
pub struct Work {
    /// How many.
    pub calls: u64,
    /// How long one takes, where that is known.
    pub call_s: Option<f64>,
    /// The limits.
    pub limits: Vec<Drawn>,
}

/// A limit that calls draw from.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// As the file declares it.
    pub limit: Limit,
    /// What its fullest scope gives (calls, or points of a cost) for each call of the lane.
    pub load: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// From the start to the end of the last call, in seconds.
    pub seconds: f64,
    /// The limit that the run spends most time waiting for.
    pub binds: usize,
}

/// The course of `work` that starts at `from`; `None` when nothing paces it.
pub fn course(work: &Work, from: Timestamp) -> Option<Course> {
    let from_us = from.as_microsecond();
    let gates: Vec<Gate> = work
        .limits
        .iter()
        .enumerate()
        .filter_map(|(index, drawn)| Gate::new(index, drawn, work.call_s, from_us))
        .collect();
    if gates.is_empty() {
        return None;
    }
    let mut walk = Walk {
        from_us,
        at: 0.0,
        left: work.calls as f64,
        waited: vec![0.0; work.limits.len()],
        gates,
    };
    walk.run();
    let most = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1).then(b.0.cmp(&a.0));
    let (binds, _) = walk.waited.iter().enumerate().max_by(most)?;
    let last = if work.calls > 0 { work.call_s } else { None };
    let seconds = walk.at + last.unwrap_or(0.0);
    Some(Course {
        seconds: (seconds * 1000.0).round() / 1000.0,
        binds,
    })
}

/// One limit under way. Everything counts calls of the whole lane.
struct Gate {
    /// Its place in [`Work::limits`].
    index: usize,
    kind: Kind,
}

enum Kind {
    /// Gives `level` at once, refilled by `speed` calls a second up to `size`.
    Bucket { speed: f64, size: f64, level: f64 },
    /// Gives `speed` calls a second.
    Flow { speed: f64 },
    /// Gives `left` until `closes`, seconds after the start.
    Window {
        calls: f64,
        left: f64,
        closes: f64,
        window: CalendarWindow,
        resets_at: u32,
        zone: String,
    },
}

impl Gate {
    fn new(index: usize, drawn: &Drawn, call_s: Option<f64>, from_us: i64) -> Option<Gate> {
        if drawn.load <= 0.0 {
            return None;
        }
        let kind = match &drawn.limit.rule {
            LimitRule::Rate { .. } | LimitRule::Spacing { .. } | LimitRule::Cost { .. } => {
                bucket(drawn, from_us)?
            }
            LimitRule::Concurrency { calls } => Kind::Flow {
                speed: *calls as f64 / drawn.load / call_s.filter(|s| *s > 0.0)?,
            },
            LimitRule::Quota {
                calls,
                window,
                resets_at,
                zone,
            } => {
                let calls = *calls as f64 / drawn.load;
                let (_, closes_us) = quota_window(*window, *resets_at, zone, from_us).ok()?;
                Kind::Window {
                    calls,
                    left: calls,
                    closes: (closes_us - from_us) as f64 / 1e6,
                    window: *window,
                    resets_at: *resets_at,
                    zone: zone.clone(),
                }
            }
        };
        Some(Gate { index, kind })
    }

    /// How fast calls may go now; `None` as fast as one likes.
    fn speed(&self) -> Option<f64> {
        match &self.kind {
            Kind::Bucket { level, .. } if *level > NOTHING => None,
            Kind::Bucket { speed, .. } | Kind::Flow { speed } => Some(*speed),
            Kind::Window { left, .. } => (*left <= NOTHING).then_some(0.0),
        }
    }

    /// How many calls it gives at once.
    fn at_once(&self) -> f64 {
        match &self.kind {
            Kind::Bucket { level, .. } => *level,
            Kind::Flow { .. } => 0.0,
            Kind::Window { left, .. } => *left,
        }
    }

    /// In how many seconds it changes, when calls go at `speed` at `at`.
    fn changes_in(&self, speed: f64, at: f64) -> f64 {
        match &self.kind {
            Kind::Bucket {
                speed: own, level, ..
            } if *level > NOTHING && speed > *own => level / (speed - own),
            Kind::Window { left, closes, .. } if *left > NOTHING && speed > 0.0 => {
                (left / speed).min(closes - at)
            }
            Kind::Window { closes, .. } => closes - at,
            Kind::Bucket { .. } | Kind::Flow { .. } => f64::INFINITY,
        }
    }

    /// `calls` went in `seconds`.
    fn give(&mut self, calls: f64, seconds: f64) {
        match &mut self.kind {
            Kind::Bucket { speed, size, level } => {
                *level = (*level + *speed * seconds - calls).clamp(0.0, *size);
            }
            Kind::Window { left, .. } => *left = (*left - calls).max(0.0),
            Kind::Flow { .. } => {}
        }
    }

    /// Turns a window that is over at `at`.
    fn turn(&mut self, at: f64, from_us: i64) {
        let Kind::Window {
            calls,
            left,
            closes,
            window,
            resets_at,
            zone,
        } = &mut self.kind
        else {
            return;
        };
        if at + NOTHING < *closes {
            return;
        }
        let now_us = from_us.saturating_add((*closes * 1e6).round() as i64);
        let next = quota_window(*window, *resets_at, zone, now_us);
        *left = *calls;
        *closes = match next {
            Ok((_, closes_us)) if closes_us > now_us => (closes_us - from_us) as f64 / 1e6,
            // Beyond what a calendar holds: it never turns again.
            _ => f64::INFINITY,
        };
    }
}

/// A rate, a spacing or points as the limiter paces them.
fn bucket(drawn: &Drawn, from_us: i64) -> Option<Kind> {
    let rule = instance(&drawn.limit, "", from_us).ok()?.rule;
    let pace = Pace::of(&rule)?;
    let (told_s, paced_s) = match rule {
        Rule::Rate {
            calls, period_us, ..
        } => (
            period_us as f64 / calls as f64 / 1e6,
            pace.interval_us as f64 / 1e6,
        ),
        Rule::Spacing { least_us } => (least_us as f64 / 1e6, pace.interval_us as f64 / 1e6),
        Rule::Cost {
            points, period_us, ..
        } => (
            period_us as f64 / points as f64 / 1e6,
            pace.point_ns as f64 / 1e9,
        ),
        Rule::Concurrency { .. } | Rule::Quota { .. } => return None,
    };
    let unit_s = if paced_s > told_s * ROOM {
        paced_s
    } else {
        told_s
    };
    let size = match rule {
        Rule::Rate { burst: None, .. } => 0.0,
        Rule::Cost { .. } => pace.burst_us as f64 / 1e6 / unit_s,
        _ => pace.burst_us as f64 / 1e6 / unit_s + 1.0,
    };
    Some(Kind::Bucket {
        speed: 1.0 / unit_s / drawn.load,
        size: size / drawn.load,
        level: size / drawn.load,
    })
}

struct Walk {
    from_us: i64,
    at: f64,
    left: f64,
    waited: Vec<f64>,
    gates: Vec<Gate>,
}

impl Walk {
    fn run(&mut self) {
        let all = self.left;
        for _ in 0..MOST_STEPS {
            if self.left <= NOTHING || self.at.is_infinite() {
                return;
            }
            self.step();
        }
        let done = all - self.left;
        self.at = if done > 0.0 {
            self.at * all / done
        } else {
            f64::INFINITY
        };
    }

    fn step(&mut self) {
        for gate in &mut self.gates {
            gate.turn(self.at, self.from_us);
        }
        let slowest = self
            .gates
            .iter()
            .filter_map(|g| Some((g.speed()?, g.index)));
        let Some((speed, binds)) = slowest.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            let at_once = self.gates.iter().map(Gate::at_once);
            let calls = at_once.fold(self.left, f64::min);
            return self.pass(calls, 0.0);
        };
        let changes = self.gates.iter().map(|g| g.changes_in(speed, self.at));
        let enough = if speed > 0.0 {
            self.left / speed
        } else {
            f64::INFINITY
        };
        let seconds = changes.fold(enough, f64::min).max(0.0);
        self.waited[binds] += seconds;
        self.pass(speed * seconds, seconds);
    }

    fn pass(&mut self, calls: f64, seconds: f64) {
        self.at += seconds;
        // Nothing times for ever is nothing.
        let calls = if calls.is_nan() { 0.0 } else { calls };
        self.left -= calls;
        for gate in &mut self.gates {
            gate.give(calls, seconds);
        }
    }
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
