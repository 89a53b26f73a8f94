//! What must hold of the decision for every sequence of asks, losses and clocks; and the mutants: each way
//! of breaking it on purpose that these properties must notice.

use proptest::prelude::*;

use super::decide::{Policy, decide_with};
use super::*;

/// Small, seeded, good enough to shuffle time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1).unsigned_abs()) as i64
    }
}

/// How the fleet around the decision behaves.
#[derive(Clone, Copy)]
struct Fleet {
    policy: Policy,
    /// Calls may arrive so much later than their room allows.
    too_late_us: i64,
    /// Each process passes its own clock, so much apart from the others'.
    clocks_apart_us: i64,
    losses: bool,
}

const GOOD: Fleet = Fleet {
    policy: Policy::REAL,
    too_late_us: 0,
    clocks_apart_us: 0,
    losses: true,
};

fn rule() -> impl Strategy<Value = Rule> {
    let period = prop::sample::select(vec![1_000_000u64, 1_000_000, 5_000_000, 60_000_000]);
    prop_oneof![
        4 => (1u64..200, period.clone()).prop_map(|(calls, period_us)| Rule::Rate { calls, period_us, burst: None }),
        2 => (1u64..200, period, 1u64..40).prop_map(|(calls, period_us, burst)| Rule::Rate {
            calls, period_us, burst: Some(burst),
        }),
        1 => (10_000u64..400_000).prop_map(|least_us| Rule::Spacing { least_us }),
    ]
}

fn limits(rules: &[Rule]) -> Vec<Instance> {
    let named = rules.iter().enumerate();
    named
        .map(|(i, rule)| Instance {
            limit: format!("l{i}"),
            scope: String::new(),
            rule: *rule,
        })
        .collect()
}

/// The first limit is shared by two groups; each further one belongs to one of them.
fn ask(limits: &[Instance], want: u32) -> Ask {
    let group = |side: usize| Group {
        run: "job/run".into(),
        want,
        limits: (0..limits.len())
            .filter(|i| *i == 0 || i % 2 == side)
            .collect(),
        choices: Vec::new(),
        spread: false,
        yields: false,
        points: Vec::new(),
    };
    Ask {
        provider: "p".into(),
        holder: "h".into(),
        limits: limits.to_vec(),
        held: Vec::new(),
        groups: vec![group(0), group(1)],
        claims: Vec::new(),
        heard: Vec::new(),
        keeps: false,
    }
}

/// Arrivals at the provider, in true time, for each limit.
fn simulate(rules: &[Rule], fleet: &Fleet, seed: u64, steps: usize) -> Vec<Vec<i64>> {
    let mut chance = Chance(seed);
    let limits = limits(rules);
    let mut state = State::default();
    let mut arrivals = vec![Vec::new(); rules.len()];
    let (mut truth, mut offset) = (1_800_000_000_000_000i64, 0i64);
    let mut server = 0;
    for seq in 1..=steps as u64 {
        truth += if chance.below(40) == 0 {
            chance.below(3_000_000)
        } else {
            chance.below(120_000)
        };
        match chance.below(60) {
            0 if fleet.losses => state = State::default(),
            1 if fleet.losses => server += 1,
            2 if fleet.losses => offset -= chance.below(3_000_000),
            _ => {}
        }
        let own = chance.below(2) * fleet.clocks_apart_us;
        let asked = ask(&limits, chance.below(30) as u32);
        let id = server.to_string();
        let moment = Moment {
            now_us: truth + offset + own,
            server: &id,
            seq,
        };
        let answer = decide_with(&mut state, &asked, &moment, &fleet.policy);
        for grant in answer.grants {
            let drawn = &asked.groups[grant.group].limits;
            let room = drawn
                .iter()
                .filter_map(|l| rules[*l].pace())
                .map(|p| p.room_us)
                .min()
                .expect("paced");
            assert!(
                grant.slack_us <= room,
                "what may be sent late must fit the room"
            );
            let late = chance.below(room + 1 + fleet.too_late_us);
            for limit in drawn {
                arrivals[*limit].push(grant.start_us - offset - own + late);
            }
        }
    }
    arrivals.iter_mut().for_each(|a| a.sort_unstable());
    arrivals
}

/// Whether a limit was passed: strict trailing windows, as the sternest provider counts.
fn passed(rule: &Rule, arrivals: &[i64]) -> bool {
    match *rule {
        Rule::Rate {
            calls,
            period_us,
            burst: None,
        } => {
            let n = calls as usize;
            (n..arrivals.len()).any(|j| arrivals[j] - arrivals[j - n] < period_us as i64)
        }
        Rule::Rate {
            calls,
            period_us,
            burst: Some(burst),
        } => bucket_ran_dry(arrivals, calls, period_us, burst),
        Rule::Spacing { least_us } => arrivals.windows(2).any(|w| w[1] - w[0] < least_us as i64),
        _ => false,
    }
}

/// A token bucket at the provider, in exact fractions of a token.
fn bucket_ran_dry(arrivals: &[i64], calls: u64, period_us: u64, burst: u64) -> bool {
    let (token, full) = (
        i128::from(period_us),
        i128::from(burst) * i128::from(period_us),
    );
    let (mut level, mut last) = (full, arrivals.first().copied().unwrap_or(0));
    arrivals.iter().any(|at| {
        level = full.min(level + i128::from(at - last) * i128::from(calls)) - token;
        last = *at;
        level < 0
    })
}

fn first_passed(rules: &[Rule], fleet: &Fleet, seed: u64) -> Option<usize> {
    let arrivals = simulate(rules, fleet, seed, 400);
    (0..rules.len()).find(|i| passed(&rules[*i], &arrivals[*i]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// For every sequence of asks, batches, losses of state, restarts and backward steps of the clock, and
    /// calls that arrive anywhere within their room, no limit is passed.
    #[test]
    fn no_limit_is_ever_passed(rules in prop::collection::vec(rule(), 1..4), seed: u64) {
        prop_assert_eq!(first_passed(&rules, &GOOD, seed), None);
    }
}

/// Whether the mutant is noticed within some seeds.
fn is_noticed(fleet: &Fleet) -> bool {
    let rules = [
        Rule::Rate {
            calls: 50,
            period_us: 1_000_000,
            burst: None,
        },
        Rule::Rate {
            calls: 20,
            period_us: 1_000_000,
            burst: None,
        },
    ];
    (0..40).any(|seed| first_passed(&rules, fleet, seed).is_some())
}

#[test]
fn the_mutants_are_noticed_and_the_decision_is_not() {
    let with = |change: fn(&mut Policy)| {
        let mut policy = Policy::REAL;
        change(&mut policy);
        Fleet { policy, ..GOOD }
    };
    assert!(!is_noticed(&GOOD));
    assert!(
        is_noticed(&Fleet {
            too_late_us: 60_000,
            ..GOOD
        }),
        "late grants used"
    );
    assert!(
        is_noticed(&Fleet {
            clocks_apart_us: 400_000,
            ..GOOD
        }),
        "a clock for each process"
    );
    assert!(
        is_noticed(&with(|p| p.restart = |_, now| now)),
        "starts with a full bucket"
    );
    assert!(
        is_noticed(&with(|p| p.restart = |pace, now| now + pace.interval_us)),
        "batches left out of the restart"
    );
    assert!(
        is_noticed(&with(|p| p.pace = without_room)),
        "batches without room"
    );
    assert!(
        is_noticed(&with(|p| p.together = false)),
        "limits charged apart"
    );
}

fn without_room(rule: &Rule) -> Option<Pace> {
    let pace = rule.pace()?;
    let Rule::Rate {
        calls, period_us, ..
    } = *rule
    else {
        return Some(pace);
    };
    Some(Pace {
        interval_us: (period_us / calls) as i64,
        ..pace
    })
}

/// With demand always there, the share that is used is the pace.
#[test]
fn demand_uses_99_percent() {
    for calls in [5u64, 50, 500, 2_000] {
        let rules = [Rule::Rate {
            calls,
            period_us: 1_000_000,
            burst: None,
        }];
        let limits = limits(&rules);
        let mut state = State::default();
        let mut given = 0;
        for seq in 1..=6_000u64 {
            let moment = Moment {
                now_us: seq as i64 * 10_000,
                server: "s",
                seq,
            };
            let answer = decide(&mut state, &ask(&limits, 200), &moment);
            let steady = |g: &&Grant| (10_000_000..50_000_000).contains(&g.start_us);
            given += answer.grants.iter().filter(steady).count() as u64;
        }
        assert!(given * 100 >= calls * 40 * 99, "{calls}/s: {given} in 40 s");
    }
}

// ------------------------------------------------------------------------------ leases, quotas, pools

fn quota(calls: u64, opened_us: i64, closes_us: i64) -> Instance {
    Instance {
        limit: "day".into(),
        scope: "k".into(),
        rule: Rule::Quota {
            calls,
            opened_us,
            closes_us,
        },
    }
}

fn simple(limits: Vec<Instance>, want: u32) -> Ask {
    let drawn = (0..limits.len()).collect();
    let group = Group {
        run: "j/r".into(),
        want,
        limits: drawn,
        choices: Vec::new(),
        spread: false,
        yields: false,
        points: Vec::new(),
    };
    let groups = vec![group];
    Ask {
        provider: "p".into(),
        holder: "a".into(),
        limits,
        held: Vec::new(),
        groups,
        claims: Vec::new(),
        heard: Vec::new(),
        keeps: false,
    }
}

fn at(now_us: i64, seq: u64) -> Moment<'static> {
    Moment {
        now_us,
        server: "s",
        seq,
    }
}

const DAY: i64 = 86_400_000_000;
const MINUTE: i64 = 60_000_000;

#[test]
fn a_quota_waits_for_its_mark_and_never_passes_it() {
    let ask = simple(vec![quota(60, 0, DAY)], 100);
    let id = ask.limits[0].id();
    let mut state = State::default();
    let lost = decide(&mut state, &ask, &at(5_000_000, 1));
    assert_eq!((lost.grants.len(), lost.refusals[0].why), (0, Why::Mark));
    assert_eq!((lost.resets, lost.marks_wanted), (vec![0], vec![0]));
    let early = SetMark {
        opened_us: 0,
        seen_us: 4_999_999,
        before: 0,
        mark: 50,
    };
    assert!(
        !state.set_mark(&id, &early, "s"),
        "read before the loss was seen"
    );
    assert!(state.set_mark(
        &id,
        &SetMark {
            seen_us: lost.now_us,
            ..early
        },
        "s"
    ));
    let first = decide(&mut state, &ask, &at(6_000_000, 2));
    assert_eq!((first.grants.len(), first.refusals[0].why), (50, Why::Mark));
    assert!(state.set_mark(
        &id,
        &SetMark {
            seen_us: 6_000_000,
            before: 50,
            mark: 60,
            ..early
        },
        "s"
    ));
    let last = decide(&mut state, &ask, &at(7_000_000, 3));
    assert_eq!((last.grants.len(), last.refusals[0].why), (10, Why::Quota));
    assert_eq!(last.refusals[0].opens_us, DAY);
}

#[test]
fn a_key_that_nobody_uses_asks_for_no_mark() {
    let mut ask = simple(vec![], 5);
    for (credential, name) in ["a", "b"].into_iter().enumerate() {
        ask.limits.push(Instance {
            scope: name.into(),
            ..quota(40, 0, DAY)
        });
        ask.groups[0].choices.push(Choice {
            credential,
            name: name.into(),
            limits: vec![credential],
        });
    }
    let mut state = State::default();
    let mark = |state: &mut State, key: usize, seen_us: i64| {
        let set = SetMark {
            opened_us: 0,
            seen_us,
            before: 0,
            mark: 40,
        };
        assert!(state.set_mark(&ask.limits[key].id(), &set, "s"));
    };
    let lost = decide(&mut state, &ask, &at(5_000_000, 1));
    assert_eq!((lost.grants.len(), lost.marks_wanted), (0, vec![0]));
    mark(&mut state, 0, 5_000_000);
    for second in 6..14 {
        let answer = decide(&mut state, &ask, &at(second * 1_000_000, 2));
        assert_eq!((answer.grants.len(), answer.marks_wanted), (5, vec![]));
    }
    let next = decide(&mut state, &ask, &at(14_000_000, 3));
    assert_eq!((next.grants.len(), next.marks_wanted), (0, vec![1]));
    mark(&mut state, 1, 14_000_000);
    let second = decide(&mut state, &ask, &at(15_000_000, 4));
    assert!(
        second
            .grants
            .iter()
            .all(|grant| grant.credential == Some(1))
    );
    assert_eq!(second.grants.len(), 5);
}

#[test]
fn grants_that_were_never_sent_give_their_quota_back_in_their_own_window() {
    let mut state = State::default();
    let minute = quota(3, 0, MINUTE);
    let mut ask = simple(vec![minute], 3);
    decide(&mut state, &ask, &at(1_000_000, 1));
    let used_up = decide(&mut state, &ask, &at(MINUTE + 1_000_000, 2));
    assert!(used_up.grants.is_empty(), "that window is over");
    ask.limits[0] = quota(3, MINUTE, 2 * MINUTE);
    let first = decide(&mut state, &ask, &at(MINUTE + 2_000_000, 3));
    assert_eq!(first.grants.len(), 3);
    let back = |points, of_us| Heard {
        back: Some(Back { points, of_us }),
        ..Heard::nothing(0)
    };
    ask.heard = vec![back(2, MINUTE - 1)];
    let before = decide(&mut state, &ask, &at(MINUTE + 3_000_000, 4));
    assert!(before.grants.is_empty(), "of the window before");
    ask.heard = vec![back(2, MINUTE + 2_000_000)];
    let again = decide(&mut state, &ask, &at(MINUTE + 4_000_000, 5));
    assert_eq!(again.grants.len(), 2);
    ask.heard = vec![Heard {
        used: Some(3),
        ..back(2, MINUTE + 4_000_000)
    }];
    let told = decide(&mut state, &ask, &at(MINUTE + 5_000_000, 6));
    assert!(told.grants.is_empty(), "the provider has seen three");
}

#[test]
fn a_call_that_starts_after_the_turn_is_not_charged_before_it() {
    let spacing = Instance {
        limit: "gap".into(),
        scope: String::new(),
        rule: Rule::Spacing { least_us: 500_000 },
    };
    let ask = simple(vec![quota(1_000, 0, 60_000_000), spacing], 20);
    let mut state = State::default();
    decide(&mut state, &ask, &at(1_000_000, 1));
    // The minute turns with its counter known, so the next one opens without marks.
    let next = simple(
        vec![quota(1_000, 60_000_000, 120_000_000), ask.limits[1].clone()],
        20,
    );
    let answer = decide(&mut state, &next, &at(60_100_000, 2));
    assert!(
        answer.grants.iter().all(|g| g.start_us >= 60_300_000),
        "{answer:?}"
    );
    assert!(!answer.grants.is_empty());
    let end = decide(&mut state, &next, &at(119_500_000, 3));
    assert!(end.grants.iter().all(|g| g.start_us < 119_700_000));
    assert_eq!(end.refusals[0].why, Why::Window);
    let gone = decide(&mut state, &next, &at(120_000_000, 4));
    assert_eq!((gone.grants.len(), gone.refusals[0].why), (0, Why::Window));
}

fn in_flight(calls: u64) -> Instance {
    Instance {
        limit: "in-flight".into(),
        scope: String::new(),
        rule: Rule::Concurrency { calls },
    }
}

#[test]
fn leases_count_once_wait_after_a_loss_and_end_with_their_holder() {
    let ask = simple(vec![in_flight(4)], 3);
    let mut state = State::default();
    assert_eq!(
        decide(&mut state, &ask, &at(0, 1)).refusals[0].opens_us,
        LEASES_BLIND_US
    );
    assert_eq!(decide(&mut state, &ask, &at(3_000_000, 2)).grants.len(), 3);
    // The reply was lost and the holder asks again with what it knows it holds: nothing counts twice.
    assert_eq!(decide(&mut state, &ask, &at(3_100_000, 3)).grants.len(), 3);
    let other = Ask {
        holder: "b".into(),
        ..ask.clone()
    };
    assert_eq!(
        decide(&mut state, &other, &at(3_200_000, 4)).grants.len(),
        1
    );
    let stale = decide(&mut state, &ask, &at(3_300_000, 3));
    assert!(
        stale.grants.is_empty(),
        "an older ask that comes later changes nothing"
    );
    assert_eq!(
        decide(&mut state, &other, &at(3_100_000 + LEASE_US, 5))
            .grants
            .len(),
        3
    );
}

fn pool(state: &mut State) -> Ask {
    let mut ask = simple(
        vec![
            quota(50, 0, DAY),
            Instance {
                scope: "l".into(),
                ..quota(50, 0, DAY)
            },
        ],
        60,
    );
    let choice = |credential, name: &str| Choice {
        credential,
        name: name.into(),
        limits: vec![credential],
    };
    ask.groups[0].limits.clear();
    ask.groups[0].choices = vec![choice(0, "0-aa"), choice(1, "1-bb")];
    decide(state, &ask, &at(2_000_000, 1));
    for limit in &ask.limits {
        let set = SetMark {
            opened_us: 0,
            seen_us: 2_000_000,
            before: 0,
            mark: 50,
        };
        assert!(state.set_mark(&limit.id(), &set, "s"));
    }
    ask
}

#[test]
fn a_pool_is_exhausted_in_order_in_the_same_step() {
    let mut state = State::default();
    let ask = pool(&mut state);
    let answer = decide(&mut state, &ask, &at(3_000_000, 2));
    let by = |c| {
        answer
            .grants
            .iter()
            .filter(|g| g.credential == Some(c))
            .count()
    };
    assert_eq!((by(0), by(1)), (50, 10));
    let rest = decide(&mut state, &ask, &at(3_000_000, 3));
    assert_eq!((rest.grants.len(), rest.refusals[0].why), (40, Why::Quota));
}

#[test]
fn closed_credentials_are_skipped_and_a_closed_provider_refuses_all() {
    let mut state = State::default();
    let ask = pool(&mut state);
    state.close("0-aa", 3_000_000, 6_000_000, "quota_exhausted");
    state.close("0-aa", 3_000_000, 2_000_000, "throttled");
    let answer = decide(&mut state, &ask, &at(6_000_000, 2));
    assert!(answer.grants.iter().all(|g| g.credential == Some(1)));
    assert_eq!(
        (answer.grants.len(), answer.refusals[0].why),
        (50, Why::Closed)
    );
    assert_eq!(
        answer.refusals[0].opens_us, 9_000_000,
        "the earliest opening of all"
    );
    state.close(PROVIDER, 3_000_000, 5_000_000, "throttled");
    let none = decide(&mut state, &ask, &at(6_000_000, 3));
    assert_eq!((none.grants.len(), none.refusals[0].limit), (0, None));
    assert_eq!(none.refusals[0].opens_us, 8_000_000);
}

// ------------------------------------------------------------------------------ cooldown, probe, ramp

fn shop(name: &str) -> Instance {
    Instance {
        limit: "shop".into(),
        scope: name.into(),
        rule: Rule::Rate {
            calls: 50,
            period_us: 1_000_000,
            burst: None,
        },
    }
}

/// Two scopes of one limit.
fn two_shops(want: u32) -> Ask {
    let mut ask = simple(vec![shop("a"), shop("b")], want);
    ask.groups[0].limits = vec![0];
    let second = Group {
        limits: vec![1],
        ..ask.groups[0].clone()
    };
    ask.groups.push(second);
    ask
}

#[test]
fn a_closed_scope_leaves_the_others_alone() {
    let mut state = State::default();
    let ask = two_shops(3);
    decide(&mut state, &ask, &at(0, 1));
    state.close("shop:a", 1_000_000, 60_000_000, "throttled");
    let answer = decide(&mut state, &ask, &at(1_500_000, 2));
    assert!(answer.grants.iter().all(|g| g.group == 1) && answer.grants.len() == 3);
    let refusal = answer.refusals.first().expect("refused");
    assert_eq!((refusal.why, refusal.limit), (Why::Closed, Some(0)));
    assert_eq!(refusal.opens_us, 61_000_000);
}

/// Asks every 50 ms from many holders; returns the starts.
fn herd(state: &mut State, ask: &Ask, from: i64, to: i64) -> Vec<Grant> {
    let mut given = Vec::new();
    for (seq, now) in (from..to).step_by(50_000).enumerate() {
        given.extend(decide(state, ask, &at(now, 1_000 + seq as u64)).grants);
    }
    given
}

#[test]
fn one_probe_then_a_ramp() {
    let mut state = State::default();
    let ask = simple(vec![shop("a")], 50);
    decide(&mut state, &ask, &at(0, 1));
    state.close(PROVIDER, 1_000_000, 2_000_000, "throttled");
    assert!(herd(&mut state, &ask, 1_000_000, 3_000_000).is_empty());
    let probes = herd(&mut state, &ask, 3_000_000, 8_000_000);
    assert_eq!(probes.len(), 1, "one probe however many ask");
    assert!(probes[0].probe);
    state.probed(
        &[PROVIDER, "shop:a"],
        8_000_000,
        probes[0].start_us,
        Probed::Well,
    );
    let ramp = herd(&mut state, &ask, 8_000_000, 18_000_000);
    let in_second = |n: i64| {
        let second = 8_000_000 + n * 1_000_000..9_000_000 + n * 1_000_000;
        ramp.iter().filter(|g| second.contains(&g.start_us)).count()
    };
    assert!(in_second(0) <= 3 && in_second(1) <= 5, "{}", in_second(1));
    assert!(in_second(1) >= 3 && in_second(2) >= 6, "it doubles");
    assert!(in_second(8) >= 48, "then all of it: {}", in_second(8));
    assert!(state.closed.is_empty(), "nothing is left of it");
}

#[test]
fn who_serves_some_calls_between_refusals_has_banned_nobody() {
    let mut state = State::default();
    let ask = simple(vec![shop("a")], 50);
    let mut now = 1_000_000;
    for _ in 0..3 * BREAKER {
        assert_eq!(state.close("shop:a", now, 1_000_000, "throttled"), 0);
        let probe = herd(&mut state, &ask, now, now + 1_100_000)[0];
        assert!(probe.start_us < now + 1_100_000, "the wait stays as told");
        let opened = now + 1_200_000;
        state.probed(&["shop:a"], opened, probe.start_us, Probed::Well);
        now = opened + 600_000;
        let served = herd(&mut state, &ask, opened, now);
        assert!(!served.is_empty(), "the ramp lets some go");
    }
    for strikes in 0..BREAKER {
        assert_eq!(state.close("shop:a", now, 1_000_000, "throttled"), strikes);
        now += 1_000_000 << strikes;
        let probe = herd(&mut state, &ask, now, now + 50_000);
        assert_eq!(probe.len(), 1);
    }
    assert_eq!(state.close("shop:a", now, 1_000_000, "throttled"), BREAKER);
}

#[test]
fn a_lost_probe_is_tried_again_and_a_refused_one_waits_twice_as_long() {
    let mut state = State::default();
    let ask = simple(vec![shop("a")], 50);
    decide(&mut state, &ask, &at(0, 1));
    state.close("shop:a", 0, 1_000_000, "throttled");
    let first = herd(&mut state, &ask, 1_000_000, 15_000_000);
    let second = herd(&mut state, &ask, 15_000_000, 31_000_000);
    assert_eq!((first.len(), second.len()), (1, 1));
    state.probed(&["shop:a"], 31_000_000, second[0].start_us, Probed::NotSent);
    let third = herd(&mut state, &ask, 31_000_000, 32_000_000);
    assert_eq!(third.len(), 1);
    let strikes = state.close("shop:a", 32_000_000, 4_000_000, "throttled");
    assert_eq!((strikes, state.closed["shop:a"].until_us), (1, 40_000_000));
    // Others that were on their way hear the same.
    assert_eq!(state.close("shop:a", 32_100_000, 4_000_000, "throttled"), 1);
}

#[test]
fn maintenance_is_probed_on_and_on_however_long_it_takes() {
    let mut state = State::default();
    let ask = simple(vec![shop("a")], 50);
    decide(&mut state, &ask, &at(0, 1));
    state.close("shop:a", 0, 5_000_000, "maintenance");
    let (mut now, mut last_probe) = (0, 0);
    while now < 10_800_000_000 {
        now += 1_000_000;
        let given = decide(&mut state, &ask, &at(now, now as u64)).grants;
        if !given.is_empty() {
            last_probe = now;
            state.close("shop:a", now + 100_000, 5_000_000, "maintenance");
        }
        assert!(now - last_probe <= 700_000_000, "nobody tries any more");
    }
}

#[test]
fn refused_again_and_again_it_stays_shut() {
    let mut state = State::default();
    let ask = simple(vec![shop("a")], 50);
    decide(&mut state, &ask, &at(0, 1));
    state.close("shop:a", 0, 1_000_000, "throttled");
    let (mut now, mut probes) = (0, 0);
    while state.closed["shop:a"].strikes < BREAKER {
        now += 1_000_000;
        let given = decide(&mut state, &ask, &at(now, now as u64)).grants;
        probes += given.len();
        if !given.is_empty() {
            state.close("shop:a", now + 100_000, 1_000_000, "throttled");
        }
        assert!(now < 3_600_000_000, "a loop");
    }
    assert_eq!(probes, BREAKER as usize);
    let answer = decide(&mut state, &ask, &at(now + 3_600_000_000, u64::MAX / 2));
    assert_eq!(
        (answer.grants.len(), answer.refusals[0].why),
        (0, Why::Dead)
    );
    state.reopen(now + 3_600_000_001);
    let probe = decide(&mut state, &ask, &at(now + 3_600_000_001, u64::MAX / 2 + 1));
    assert_eq!(probe.grants.len(), 1);
    assert!(probe.grants[0].probe);
}

// ------------------------------------------------------------------- spread, points, numbers that change

#[test]
fn a_pool_is_spread_evenly_in_the_same_step() {
    let mut state = State::default();
    let mut ask = pool(&mut state);
    ask.groups[0].spread = true;
    ask.groups[0].want = 31;
    let answer = decide(&mut state, &ask, &at(3_000_000, 2));
    let by = |answer: &Answer, c| {
        let of_it = answer.grants.iter().filter(|g| g.credential == Some(c));
        of_it.count()
    };
    let first = (by(&answer, 0), by(&answer, 1));
    assert!(first == (16, 15) || first == (15, 16), "{first:?}");
    // One that is closed is made up for when it is back: the least used comes first.
    state.close("0-aa", 3_500_000, 1_000_000, "throttled");
    ask.groups[0].want = 10;
    let alone = decide(&mut state, &ask, &at(3_600_000, 3));
    assert_eq!(by(&alone, 1), 10);
}

fn points(points: u64, burst: u64) -> Instance {
    Instance {
        limit: "points".into(),
        scope: String::new(),
        rule: Rule::Cost {
            points,
            period_us: 1_000_000,
            burst,
        },
    }
}

/// Calls of several points each at a bucket that is counted exactly: it never runs dry, and is used up.
#[test]
fn points_are_never_overdrawn_and_used_up() {
    let (rate, burst) = (100, 500);
    let mut state = State::default();
    let mut chance = Chance(7);
    let mut spent: Vec<(i64, u64)> = Vec::new();
    for seq in 1..=4_000u64 {
        let mut ask = simple(vec![points(rate, burst)], 3);
        let cost = 1 + chance.below(60).unsigned_abs();
        ask.groups[0].points = vec![(0, cost)];
        let now = 1_800_000_000_000_000 + seq as i64 * 15_000;
        let answer = decide(&mut state, &ask, &at(now, seq));
        let room = ask.limits[0].rule.pace().expect("paced").room_us;
        for grant in answer.grants {
            spent.push((grant.start_us + chance.below(room), cost));
        }
    }
    spent.sort_unstable();
    let (mut level, mut last, mut all) = (burst as f64, spent[0].0, 0);
    for (at, cost) in &spent {
        level = (level + (at - last) as f64 * rate as f64 / 1e6).min(burst as f64) - *cost as f64;
        last = *at;
        all += cost;
        assert!(level >= -1e-6, "overdrawn by {level}");
    }
    let length = (spent[spent.len() - 1].0 - spent[0].0) as f64 / 1e6;
    assert!(
        all as f64 >= length * rate as f64 * 0.95,
        "{all} points in {length} s"
    );
}

#[test]
fn what_a_call_did_not_cost_is_given_back_unless_the_state_is_younger() {
    let mut state = State::default();
    let mut ask = simple(vec![points(10, 100)], 1);
    ask.groups[0].points = vec![(0, 80)];
    decide(&mut state, &ask, &at(0, 1));
    let full = 30_000_000;
    let first = decide(&mut state, &ask, &at(full, 2)).grants;
    assert_eq!(first.len(), 1);
    let next = |state: &State| state.paced["points:"].next_us;
    let charged = next(&state);
    let mut told = Heard::nothing(0);
    let back = |of_us| Some(Back { points: 70, of_us });
    told.back = back(first[0].start_us);
    ask.heard = vec![told.clone()];
    ask.groups[0].want = 0;
    decide(&mut state, &ask, &at(full + 1_000, 3));
    let pace = ask.limits[0].rule.pace().expect("paced");
    assert_eq!(charged - next(&state), pace.charge_us(70));
    // A state that began after the call never charged it.
    let before = next(&state);
    told.back = back(-1);
    told.more = 5;
    ask.heard = vec![told];
    decide(&mut state, &ask, &at(full + 2_000, 4));
    assert_eq!(next(&state) - before, pace.charge_us(5));
}

/// A provider that allows less than its file says tells so with its first answer.
#[test]
fn a_limit_that_is_learned_lower_is_not_passed() {
    for seed in 0..60u64 {
        let mut chance = Chance(seed);
        let truth = 10 + chance.below(40);
        let rule = |calls: i64| Rule::Rate {
            calls: calls.unsigned_abs(),
            period_us: 1_000_000,
            burst: None,
        };
        let file = rule(truth + 1 + chance.below(150));
        let mut limit = shop("a");
        limit.rule = file;
        let mut ask = simple(vec![limit], 0);
        let mut state = State::default();
        decide(&mut state, &ask, &at(0, 1));
        ask.groups[0].want = 1 + chance.below(truth / 3).unsigned_abs() as u32;
        let mut starts: Vec<i64> = Vec::new();
        let mut now = 3_000_000;
        let give = |ask: &Ask, state: &mut State, now: i64, seq: u64| {
            let grants = decide(state, ask, &at(now, seq)).grants;
            grants.into_iter().map(|g| g.start_us).collect::<Vec<_>>()
        };
        starts.extend(give(&ask, &mut state, now, 2));
        let mut told = Heard::nothing(0);
        told.numbers = Some(Numbers::of(&rule(truth)));
        told.fresh = true;
        ask.heard = vec![told];
        ask.groups[0].want = 100;
        for seq in 3..200 {
            now += chance.below(60_000);
            starts.extend(give(&ask, &mut state, now, seq));
        }
        starts.sort_unstable();
        assert!(!passed(&rule(truth), &starts), "seed {seed}");
    }
}

#[test]
fn operators_win_over_answers_and_both_over_the_file() {
    let mut state = State::default();
    let mut ask = simple(vec![shop("a")], 0);
    let rate = |calls| Numbers::Rate {
        calls,
        period_us: 1_000_000,
        burst: None,
    };
    let mut told = Heard::nothing(0);
    (told.numbers, told.fresh) = (Some(rate(70)), true);
    ask.heard = vec![told];
    let learned = decide(&mut state, &ask, &at(0, 1));
    assert_eq!(learned.changed, vec![(0, rate(70))]);
    ask.heard.clear();
    state.kept.set.insert("shop".into(), rate(5));
    let set = decide(&mut state, &ask, &at(1_000, 2));
    assert_eq!(set.changed, vec![(0, rate(5))]);
    state.kept.set.clear();
    let again = decide(&mut state, &ask, &at(2_000, 3));
    assert_eq!(again.changed, vec![(0, rate(70))], "answers are remembered");
}

#[test]
fn nothing_is_granted_while_held_or_before_what_operators_said_is_back() {
    let mut state = State::default();
    let mut ask = simple(vec![shop("a")], 1);
    decide(&mut state, &ask, &at(0, 1));
    ask.keeps = true;
    let unset = decide(&mut state, &ask, &at(3_000_000, 2));
    assert_eq!((unset.grants.len(), unset.refusals[0].why), (0, Why::Unset));
    let hold = Hold {
        until_us: 9_000_000,
        reason: "asked".into(),
    };
    let mut kept = Kept::default();
    kept.holds.insert(PROVIDER.into(), hold);
    assert!(state.put_back(kept, Default::default(), "s"));
    let held = decide(&mut state, &ask, &at(4_000_000, 3));
    assert_eq!((held.grants.len(), held.refusals[0].why), (0, Why::Held));
    assert_eq!(held.refusals[0].opens_us, 9_000_000);
    assert_eq!(decide(&mut state, &ask, &at(9_000_000, 4)).grants.len(), 1);
    // Another provider of a shared limit is not held by it.
    let other = Ask {
        provider: "p*other".into(),
        keeps: false,
        ..ask
    };
    assert_eq!(
        (tag_of(&other.provider), whole_of(&other.provider)),
        ("p", "*other")
    );
    let answer = decide(&mut state, &other, &at(8_000_000, 5));
    assert!(answer.refusals.iter().all(|r| r.why != Why::Held));
}

#[test]
fn a_lost_state_begins_anew_by_the_numbers_of_operators() {
    let slow = Numbers::Rate {
        calls: 10,
        period_us: 1_000_000,
        burst: None,
    };
    let kept = || {
        let mut kept = Kept::default();
        kept.set.insert("shop".into(), slow);
        kept
    };
    let mut state = State::default();
    let mut ask = simple(vec![shop("a")], 100);
    ask.keeps = true;
    assert!(state.put_back(kept(), Default::default(), "s"));
    let mut starts: Vec<i64> = Vec::new();
    for step in 1..40 {
        // Everything is lost when grants in hand lie half a second ahead.
        if step == 20 {
            state = State::default();
        }
        let now = step * 100_000;
        let answer = decide(&mut state, &ask, &at(now, step.unsigned_abs()));
        starts.extend(answer.grants.iter().map(|grant| grant.start_us));
        if answer.refusals.iter().any(|r| r.why == Why::Unset) {
            assert!(state.put_back(kept(), Default::default(), "s"));
        }
    }
    starts.sort_unstable();
    let rule = slow.put_into(&shop("a").rule).expect("a rate");
    assert!(starts.len() > 20 && !passed(&rule, &starts), "{starts:?}");
}

/// Calls that leave later than their slack, as on a busy machine, by up to 80 ms; whether that is told.
fn busy_fleet(rule: &Rule, seed: u64, tells: bool) -> Vec<i64> {
    let mut chance = Chance(seed);
    let limits = limits(std::slice::from_ref(rule));
    let mut state = State::default();
    let mut arrivals = Vec::new();
    // When a late call has left, and how late.
    let mut late: Vec<(i64, i64)> = Vec::new();
    let room = rule.pace().expect("paced").room_us;
    let mut now = 1_800_000_000_000_000i64;
    for seq in 1..=400 {
        now += chance.below(60_000);
        let mut asked = ask(&limits, 1 + chance.below(30) as u32);
        let (known, rest): (Vec<_>, Vec<_>) = late.iter().partition(|(at, _)| *at <= now);
        late = rest;
        if let Some(late_us) = known.iter().map(|(_, us)| *us).max().filter(|_| tells) {
            asked.heard = vec![Heard {
                late_us,
                ..Heard::nothing(0)
            }];
        }
        let moment = Moment {
            now_us: now,
            server: "s",
            seq,
        };
        for grant in decide_with(&mut state, &asked, &moment, &Policy::REAL).grants {
            let delay = match chance.below(8) {
                0 => chance.below(80_000),
                _ => chance.below(grant.slack_us + 1),
            };
            let left = grant.start_us + delay;
            if delay > grant.slack_us {
                late.push((left, delay - grant.slack_us));
            }
            arrivals.push(left + chance.below(room - grant.slack_us + 1));
        }
    }
    arrivals.sort_unstable();
    arrivals
}

#[test]
fn a_late_call_that_is_told_crowds_no_window_and_one_that_is_not_does() {
    let mut crowded = 0;
    for seed in 0..60u64 {
        let rule = Rule::Rate {
            calls: [2, 3, 5, 20, 50, 200][seed as usize % 6],
            period_us: [1_000_000, 1_000_000, 5_000_000][seed as usize / 6 % 3],
            burst: None,
        };
        let told = busy_fleet(&rule, seed, true);
        assert!(!passed(&rule, &told), "seed {seed}: {rule:?}");
        crowded += usize::from(passed(&rule, &busy_fleet(&rule, seed, false)));
    }
    assert!(
        crowded > 10,
        "late calls that nobody tells crowd {crowded} of 60"
    );
}

/// Two workers that always have work take turns: each asks again when it was told to. Returns what each was granted in
/// half a minute.
fn side_by_side(asks: [Ask; 2]) -> [usize; 2] {
    let (mut state, mut granted) = (State::default(), [0, 0]);
    let (begin, mut seq, mut chance) = (1_800_000_000_000_000, 0, Chance(7));
    // The first one has been at it for a while.
    let mut due = [begin, begin + 2_000_000];
    loop {
        let who = usize::from(due[1] < due[0]);
        let now_us = due[who];
        if now_us > begin + 30_000_000 {
            return granted;
        }
        seq += 1;
        let answer = decide(&mut state, &asks[who], &at(now_us, seq));
        granted[who] += answer.grants.len();
        let opens_us = answer.refusals.iter().map(|r| r.opens_us).min();
        due[who] = opens_us.unwrap_or(now_us).max(now_us) + 2_000 + chance.below(4_000);
    }
}

#[test]
fn who_may_not_plan_as_far_ahead_as_others_gets_a_turn() {
    let rate = |calls| Rule::Rate {
        calls,
        period_us: 1_000_000,
        burst: None,
    };
    let of = |rules: &[Rule]| simple(limits(rules), 64);
    // By a further limit that only one of them has, and by another plan's number of the one that both have.
    for [far, near] in [
        [of(&[rate(10)]), of(&[rate(10), rate(50)])],
        [of(&[rate(10)]), of(&[rate(20)])],
    ] {
        let granted = side_by_side([far, near]);
        let all = granted[0] + granted[1];
        assert!(granted[1] * 5 > all, "{granted:?}");
        assert!(all >= 285, "{granted:?} of 300");
    }
}

/// A provider that allows `calls` in every second, whatever its file says: its own log decides.
struct Strict {
    calls: usize,
    served: std::collections::VecDeque<i64>,
}

impl Strict {
    fn serves(&mut self, at_us: i64) -> bool {
        self.served.retain(|start| start + 1_000_000 > at_us);
        let serves = self.served.len() < self.calls;
        if serves {
            self.served.push_back(at_us);
        }
        serves
    }
}

/// Calls `for_s` seconds at 30/s what allows `calls` a second, with answers after 20 ms; served and refused calls, second by second.
fn call_strict(calls: usize, for_s: i64, mut by_chance: impl FnMut() -> bool) -> Vec<(u32, u32)> {
    let limit = Instance {
        rule: Rule::Rate {
            calls: 30,
            period_us: 1_000_000,
            burst: None,
        },
        ..shop("a")
    };
    let (mut state, ask) = (State::default(), simple(vec![limit], 2));
    let mut strict = Strict {
        calls,
        served: std::collections::VecDeque::new(),
    };
    let mut sent: std::collections::VecDeque<Grant> = std::collections::VecDeque::new();
    let mut seconds = vec![(0, 0); usize::try_from(for_s).expect("some")];
    for (seq, now) in (0..for_s * 1_000_000).step_by(10_000).enumerate() {
        while let Some(grant) = sent.pop_front_if(|grant| grant.start_us + 20_000 <= now) {
            let second = &mut seconds[usize::try_from(now / 1_000_000).expect("past")];
            if by_chance() && strict.serves(grant.start_us) {
                second.0 += 1;
                if grant.probe {
                    state.probed(&["shop:a"], now, grant.start_us, Probed::Well);
                }
            } else {
                second.1 += 1;
                state.close("shop:a", now, 1_000_000, "throttled");
            }
        }
        sent.extend(decide(&mut state, &ask, &at(now, 1 + seq as u64)).grants);
        sent.make_contiguous().sort_by_key(|grant| grant.start_us);
    }
    seconds
}

#[test]
fn a_provider_that_serves_less_than_its_file_is_called_just_below_that() {
    for calls in [3, 10, 24, 29] {
        let seconds = call_strict(calls, 600, || true);
        let (served, refused) = seconds[60..]
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let allowed = 540 * u32::try_from(calls).expect("few");
        assert!(
            served * 100 >= allowed * 88,
            "{calls}/s: {served} of {allowed} used"
        );
        assert!(refused <= 30, "{calls}/s: {refused} refused");
    }
}

#[test]
fn refusals_by_chance_slow_nothing_down_to_a_standstill() {
    let mut calls = 0;
    let seconds = call_strict(1_000, 600, || {
        calls += 1;
        calls % 100 != 0
    });
    let served: u32 = seconds[60..].iter().map(|one| one.0).sum();
    assert!(served >= 540 * 30 / 4, "{served}");
}
