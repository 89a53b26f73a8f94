//! The arithmetic against the limiter's own decision on a virtual clock: an asker that always has demand, a
//! provider that takes as long as it says, and random limits of every kind, over scopes and pools.

use std::collections::BTreeMap;

use paceline_protocol::limit::{Ask, Choice, Group, Instance, Moment, SetMark, State, decide};
use paceline_protocol::spec::Span;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::*;

/// A Friday night before a month, a day, an hour and a minute turn in several zones.
const FROM: &str = "2026-11-27T13:37:21Z";
/// Runs shorter than this end before a pace shows.
const LEAST_S: f64 = 120.0;

/// Which calls share a counter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Per {
    All,
    Seller,
    Key,
}

#[derive(Clone, Debug)]
struct Case {
    limits: Vec<(LimitRule, Per)>,
    /// Points of a call of each seller.
    points: Vec<u64>,
    keys: usize,
    spread: bool,
    call_s: f64,
    calls_each: u64,
}

impl Case {
    fn sellers(&self) -> usize {
        self.points.len()
    }

    fn calls(&self) -> u64 {
        self.calls_each * self.sellers() as u64
    }

    fn declared(&self, index: usize) -> Limit {
        Limit {
            name: format!("l{index}"),
            rule: self.limits[index].0.clone(),
            per: None,
            endpoints: vec![],
            shared: None,
            learn: None,
        }
    }

    fn work(&self) -> Work {
        let sellers = self.sellers() as f64;
        let load = |(rule, per): &(LimitRule, Per)| {
            let (most, sum) = match rule {
                LimitRule::Cost { .. } => (
                    self.points.iter().copied().max().unwrap_or(1) as f64,
                    self.points.iter().sum::<u64>() as f64,
                ),
                _ => (1.0, sellers),
            };
            match per {
                Per::All => sum / sellers,
                Per::Seller => most / sellers,
                Per::Key => sum / sellers / self.keys as f64,
            }
        };
        Work {
            calls: self.calls(),
            call_s: Some(self.call_s),
            limits: (0..self.limits.len())
                .map(|i| Drawn {
                    limit: self.declared(i),
                    load: load(&self.limits[i]),
                })
                .collect(),
        }
    }
}

/// The fleet: one holder, every seller's calls a group.
struct Fleet<'c> {
    case: &'c Case,
    state: State,
    now_us: i64,
    seq: u64,
    left: Vec<u64>,
    /// Ends of calls in flight, with the counters that they hold.
    flying: Vec<(i64, Vec<String>)>,
    last_us: i64,
}

impl Fleet<'_> {
    fn counters(&self, index: usize) -> Vec<Instance> {
        let (_, per) = self.case.limits[index];
        let scopes = match per {
            Per::All => vec![String::new()],
            Per::Seller => (0..self.case.sellers()).map(|s| format!("s{s}")).collect(),
            Per::Key => (0..self.case.keys).map(|k| format!("k{k}")).collect(),
        };
        let limit = self.case.declared(index);
        let of_scope = |scope: String| instance(&limit, &scope, self.now_us).expect("a zone");
        scopes.into_iter().map(of_scope).collect()
    }

    fn ask(&self) -> Ask {
        let mut limits = Vec::new();
        let mut place = BTreeMap::new();
        for index in 0..self.case.limits.len() {
            for counter in self.counters(index) {
                place.insert((index, counter.scope.clone()), limits.len());
                limits.push(counter);
            }
        }
        let drawn = |per: Per, scope: &str| -> Vec<usize> {
            let of_kind = place
                .iter()
                .filter(|((index, own), _)| self.case.limits[*index].1 == per && own == scope);
            of_kind.map(|(_, at)| *at).collect()
        };
        let choices: Vec<Choice> = (0..self.case.keys)
            .map(|k| Choice {
                credential: k,
                name: format!("k{k}"),
                limits: drawn(Per::Key, &format!("k{k}")),
            })
            .collect();
        let groups = (0..self.case.sellers()).map(|group| {
            let seller = self.seller(group);
            let own = [
                drawn(Per::All, ""),
                drawn(Per::Seller, &format!("s{seller}")),
            ]
            .concat();
            let costs = own.iter().chain(choices.iter().flat_map(|c| &c.limits));
            Group {
                run: "j/r".into(),
                want: self.left[seller].min(64) as u32,
                points: costs.map(|at| (*at, self.case.points[seller])).collect(),
                limits: own,
                choices: choices.clone(),
                spread: self.case.spread,
                yields: false,
            }
        });
        let held = limits.iter().enumerate().map(|(at, limit)| {
            let id = limit.id();
            let holding = self.flying.iter().filter(|(_, ids)| ids.contains(&id));
            (at, holding.count() as u64)
        });
        Ask {
            provider: "p".into(),
            holder: "h".into(),
            held: held.filter(|(_, calls)| *calls > 0).collect(),
            groups: groups.collect(),
            limits,
            claims: vec![],
            heard: vec![],
            keeps: false,
        }
    }

    /// Who is asked for first changes from ask to ask, in no order, as in a worker.
    fn seller(&self, group: usize) -> usize {
        let any = self.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        (group + any as usize) % self.case.sellers()
    }

    /// One ask; moves the clock to when something can change.
    fn step(&mut self) {
        let ask = self.ask();
        let moment = Moment {
            now_us: self.now_us,
            server: "s",
            seq: self.seq + 1,
        };
        let answer = decide(&mut self.state, &ask, &moment);
        for at in &answer.marks_wanted {
            self.set_mark(&ask.limits[*at], answer.now_us);
        }
        for grant in &answer.grants {
            let group = &ask.groups[grant.group];
            let key = grant.credential.map(|k| &group.choices[k].limits);
            let ids = group.limits.iter().chain(key.into_iter().flatten());
            let ids = ids.map(|at| ask.limits[*at].id()).collect();
            let ends_us = grant.start_us + (self.case.call_s * 1e6) as i64;
            self.flying.push((ends_us, ids));
            let seller = self.seller(grant.group);
            self.left[seller] -= 1;
            self.last_us = self.last_us.max(ends_us);
        }
        self.seq += 1;
        let asked_again = answer
            .refusals
            .iter()
            .map(|r| r.opens_us.max(self.now_us + 1_000));
        let next = asked_again
            .chain(self.flying.iter().map(|(ends, _)| *ends))
            .min();
        self.now_us = next.unwrap_or(self.now_us + 1_000).max(self.now_us + 1_000);
        let now = self.now_us;
        self.flying.retain(|(ends, _)| *ends > now);
    }

    fn set_mark(&mut self, limit: &Instance, seen_us: i64) {
        let Rule::Quota {
            calls, opened_us, ..
        } = limit.rule
        else {
            return;
        };
        let set = SetMark {
            opened_us,
            seen_us,
            before: 0,
            mark: calls,
        };
        self.state.set_mark(&limit.id(), &set, "s");
    }
}

/// From the first start to the last end, by the limiter.
fn simulated(case: &Case) -> f64 {
    let from: Timestamp = FROM.parse().expect("an instant");
    let from_us = from.as_microsecond();
    let mut fleet = Fleet {
        case,
        state: State::default(),
        // The buckets are there and full, no quota is lost.
        now_us: from_us - 7_200_000_000,
        seq: 0,
        left: vec![0; case.sellers()],
        flying: vec![],
        last_us: from_us,
    };
    for _ in 0..3 {
        fleet.step();
    }
    fleet.now_us = from_us;
    fleet.left = vec![case.calls_each; case.sellers()];
    let mut steps = 0;
    while fleet.left.iter().any(|left| *left > 0) {
        fleet.step();
        steps += 1;
        assert!(steps < 2_000_000, "it does not end: {case:?}");
    }
    (fleet.last_us - from_us) as f64 / 1e6
}

fn rate() -> impl Strategy<Value = LimitRule> {
    let period = prop::sample::select(vec![1u64, 1, 10, 60]);
    (1u64..80, period, prop::option::of(1u64..60)).prop_map(|(calls, period, burst)| {
        LimitRule::Rate {
            calls,
            period: Span::secs(period),
            burst,
        }
    })
}

fn quota() -> impl Strategy<Value = LimitRule> {
    let windows = vec![
        CalendarWindow::Minute,
        CalendarWindow::Hour,
        CalendarWindow::Day,
    ];
    let zones = vec!["UTC", "Asia/Seoul", "Asia/Kolkata", "America/Los_Angeles"];
    let (window, zone) = (prop::sample::select(windows), prop::sample::select(zones));
    (40u64..900, window, zone).prop_map(|(calls, window, zone)| LimitRule::Quota {
        calls,
        window,
        resets_at: 0,
        zone: zone.into(),
    })
}

fn rule() -> impl Strategy<Value = LimitRule> {
    let cost = (20u64..200, 40u64..400).prop_map(|(rate, burst)| LimitRule::Cost {
        points: "1".into(),
        rate,
        period: Span::secs(1),
        burst,
        actual: None,
    });
    let spacing = (20u64..400).prop_map(|ms| LimitRule::Spacing {
        least: Span(std::time::Duration::from_millis(ms)),
    });
    let leases = (1u64..9).prop_map(|calls| LimitRule::Concurrency { calls });
    prop_oneof![4 => rate(), 1 => spacing, 2 => quota(), 1 => cost, 1 => leases]
}

/// The same of each seller: cheap calls that come first would leave a slower mix behind.
fn points() -> impl Strategy<Value = Vec<u64>> {
    (1u64..30, 1usize..6).prop_map(|(points, sellers)| vec![points; sellers])
}

fn case() -> impl Strategy<Value = Case> {
    let per = prop::sample::select(vec![Per::All, Per::All, Per::Seller, Per::Key]);
    (
        prop::collection::vec((rule(), per), 1..4),
        points(),
        (1usize..4, any::<bool>()),
        prop::sample::select(vec![0.005, 0.05, 0.3, 2.0]),
        100u64..600,
    )
        .prop_map(
            |(limits, points, (keys, spread), call_s, calls_each)| Case {
                limits,
                points,
                keys,
                spread,
                call_s,
                calls_each,
            },
        )
}

/// How many seeds are tried; more by hand (`SEEDS=100`).
fn seeds() -> u8 {
    let wanted = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok());
    wanted.unwrap_or(4)
}

#[test]
fn the_time_told_is_within_5_percent_of_the_limiters() {
    let from: Timestamp = FROM.parse().expect("an instant");
    for seed in 0..seeds() {
        let config = ProptestConfig {
            cases: 30,
            max_shrink_iters: 60,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(config, chance);
        let held = runner.run(&case(), |case| {
            let told = course(&case.work(), from).expect("it is paced").seconds;
            prop_assume!(told >= LEAST_S);
            let real = simulated(&case);
            let off = (told - real).abs() / real * 100.0;
            prop_assert!(off <= 5.0, "told {told} s, took {real} s ({off:.1} % off)");
            Ok(())
        });
        held.unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
}

#[test]
fn a_used_up_day_waits_for_its_reset_in_its_own_zone() {
    let quota = LimitRule::Quota {
        calls: 1_000,
        window: CalendarWindow::Day,
        resets_at: 0,
        zone: "Asia/Seoul".into(),
    };
    let rate = LimitRule::Rate {
        calls: 10,
        period: Span::secs(1),
        burst: None,
    };
    let case = Case {
        limits: vec![(rate, Per::All), (quota, Per::All)],
        points: vec![1],
        keys: 1,
        spread: false,
        call_s: 0.0,
        calls_each: 2_500,
    };
    // Midnight in Seoul is 15:00 UTC, 1 h 22 min 39 s later; the third day's 500 calls take 50 s.
    let from = FROM.parse().expect("an instant");
    let told = course(&case.work(), from).expect("paced");
    assert_eq!((told.seconds, told.binds), (4_959.0 + 86_400.0 + 50.0, 1));
}

#[test]
fn nothing_paces_what_has_no_limit() {
    let work = Work {
        calls: 10,
        call_s: None,
        limits: vec![],
    };
    assert_eq!(course(&work, Timestamp::UNIX_EPOCH), None);
}
