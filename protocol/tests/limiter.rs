//! The limiter on a real Redis: the script is the pure decision, a flushed Redis gives not one too many, and
//! a Redis that may evict is refused.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use paceline_protocol::keys::Keys;
use paceline_protocol::limit::*;
use paceline_protocol::stores::limiter::{Claimed, Closure, FleetLimiter, LimiterError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A private server on a free port, stopped with the test.
struct Server {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().expect("our own server can be killed");
        self.child.wait().expect("and ends");
    }
}

/// A port that nobody else in this process is given, below those that the system gives to clients: a client that tries a
/// port of its own range until somebody listens may meet itself there.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 90) as u16 * 100;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn start(policy: &str) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(["--maxmemory-policy", policy])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "redis-server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Server {
        child,
        url: format!("redis://127.0.0.1:{port}"),
        _folder: folder,
    }
}

fn instance(name: &str, rule: Rule) -> Instance {
    Instance {
        limit: name.into(),
        scope: "s c/ö}pe".into(),
        rule,
    }
}

// ----------------------------------------------------------------------------------------- conformance

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Event {
    Ask {
        holder: u8,
        wants: Vec<u32>,
        held: u64,
        claim: u8,
    },
    Restart,
    Forget,
    Close {
        name: usize,
        for_us: i64,
    },
    Probed {
        back: usize,
        how: u8,
    },
    Reopen(Option<usize>),
    Mark {
        of: usize,
        before: u64,
        late: bool,
    },
    /// The next ask tells what answers told.
    Hear(Vec<Heard>),
    Set {
        of: usize,
        numbers: Option<Numbers>,
    },
    Hold(Option<i64>),
    PutBack {
        set: bool,
        hold: bool,
        closed: bool,
    },
    Pass {
        us: i64,
    },
}

/// Numbers of every kind, also such as do not fit their limit.
fn numbers() -> impl Strategy<Value = Numbers> {
    prop_oneof![
        4 => (1u64..90, prop::sample::select(vec![1_000_000u64, 60_000_000]), prop::option::of(1u64..30))
            .prop_map(|(calls, period_us, burst)| Numbers::Rate { calls, period_us, burst }),
        1 => (10_000u64..200_000).prop_map(|least_us| Numbers::Spacing { least_us }),
        3 => (1u64..300).prop_map(Numbers::Calls),
        2 => (1u64..200, 1u64..150).prop_map(|(points, burst)| Numbers::Points {
            points,
            period_us: 1_000_000,
            burst,
        }),
    ]
}

/// What answers told of one limit; times are from the moment of the ask on.
fn heard() -> impl Strategy<Value = Heard> {
    let left =
        (0u64..30, -2_000_000i64..0, -100_000i64..5_000_000).prop_map(|(calls, of_us, till_us)| {
            LeftTold {
                calls,
                of_us,
                till_us,
            }
        });
    let rest = (
        prop::option::of(-1_000_000i64..4_000_000),
        prop::option::of(left),
        prop::option::of(0u64..250),
        prop::option::of((1u64..30, -3_000_000i64..0)),
        0u64..5,
        prop_oneof![Just(0i64), 0i64..400_000],
    );
    (0usize..7, prop::option::of(numbers()), any::<bool>(), rest).prop_map(
        |(limit, numbers, fresh, (next_us, left, used, back, more, late_us))| Heard {
            limit,
            numbers,
            fresh,
            next_us,
            left,
            used,
            back: back.map(|(points, of_us)| Back { points, of_us }),
            more,
            late_us,
        },
    )
}

/// The same on the fleet's clock.
fn heard_at(now: i64, heard: &[Heard]) -> Vec<Heard> {
    let at = |heard: &Heard| Heard {
        next_us: heard.next_us.map(|us| now + us),
        left: heard.left.map(|left| LeftTold {
            of_us: now + left.of_us,
            till_us: now + left.till_us,
            ..left
        }),
        back: heard.back.map(|back| Back {
            of_us: now + back.of_us,
            ..back
        }),
        ..heard.clone()
    };
    heard.iter().map(at).collect()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop::collection::vec(heard(), 1..4).prop_map(Event::Hear),
        2 => (0usize..7, prop::option::of(numbers())).prop_map(|(of, numbers)| Event::Set { of, numbers }),
        1 => prop::option::of(0i64..2_000_000).prop_map(Event::Hold),
        2 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(set, hold, closed)| Event::PutBack { set, hold, closed }),
        10 => (0u8..3, prop::collection::vec(0u32..20, 5), 0u64..4, 0u8..3)
            .prop_map(|(holder, wants, held, claim)| Event::Ask { holder, wants, held, claim }),
        1 => Just(Event::Restart),
        1 => Just(Event::Forget),
        2 => (0usize..4, 1i64..3_000_000).prop_map(|(name, for_us)| Event::Close { name, for_us }),
        3 => (0usize..3, 0u8..3).prop_map(|(back, how)| Event::Probed { back, how }),
        1 => prop::option::of(0usize..4).prop_map(Event::Reopen),
        4 => (0usize..2, 0u64..60, any::<bool>()).prop_map(|(of, before, late)| Event::Mark { of, before, late }),
        8 => prop_oneof![6 => 0i64..200_000, 3 => 0i64..3_000_000, 1 => -2_000_000i64..0, 1 => 0i64..40_000_000]
            .prop_map(|us| Event::Pass { us }),
    ]
}

/// What may be closed: the provider, both credentials, a limit's scope.
const NAMES: [&str; 4] = ["*", "0-aaaaaa", "1-bbbbbb", "second:s c/ö}pe"];
const NOON: i64 = 1_800_000_000_000_000;
const DAY: i64 = 86_400_000_000;

/// Every kind of limit, two credentials with quotas (one of a minute, without marks), three groups that draw from all of
/// them, and two of different horizons on one slow limit.
fn ask(now: i64, holder: u8, wants: &[u32], held: u64, claim: u8) -> Ask {
    let minute = now.div_euclid(60_000_000) * 60_000_000;
    let quota = |calls, opened_us, closes_us| Rule::Quota {
        calls,
        opened_us,
        closes_us,
    };
    let limits = vec![
        instance(
            "second",
            Rule::Rate {
                calls: 50,
                period_us: 1_000_000,
                burst: None,
            },
        ),
        instance(
            "minute",
            Rule::Rate {
                calls: 300,
                period_us: 60_000_000,
                burst: Some(40),
            },
        ),
        instance("gap", Rule::Spacing { least_us: 30_000 }),
        instance("in-flight", Rule::Concurrency { calls: 12 }),
        instance("day", quota(200, NOON - DAY / 2, NOON + DAY / 2)),
        instance("turn", quota(90, minute, minute + 60_000_000)),
        instance(
            "points",
            Rule::Cost {
                points: 40,
                period_us: 1_000_000,
                burst: 60,
            },
        ),
        instance(
            "slow",
            Rule::Rate {
                calls: 6,
                period_us: 1_000_000,
                burst: None,
            },
        ),
    ];
    let choices = vec![
        Choice {
            credential: 0,
            name: "0-aaaaaa".into(),
            limits: vec![4],
        },
        Choice {
            credential: 1,
            name: "1-bbbbbb".into(),
            limits: vec![5],
        },
    ];
    let drawn = [
        vec![0, 3],
        vec![0, 1, 6],
        vec![0, 2, 6],
        vec![7],
        vec![7, 0],
    ];
    let groups = drawn
        .into_iter()
        .zip(wants)
        .enumerate()
        .map(|(i, (limits, want))| Group {
            run: format!("job/run-{}", i % 2),
            want: *want,
            limits,
            choices: if i < 2 { choices.clone() } else { Vec::new() },
            spread: i == 0,
            yields: i == 2,
            points: if i == 1 || i == 2 {
                vec![(6, 3 * i as u64)]
            } else {
                Vec::new()
            },
        });
    Ask {
        provider: "shop".into(),
        holder: format!("worker-{holder}"),
        groups: groups.collect(),
        held: vec![(3, held)],
        limits,
        // The claim's expiry is Redis' own (keys expire by its clock), so only its owners are compared.
        claims: vec![ClaimRef {
            shard: "job/run/7/0".into(),
            publication: format!("p{claim}"),
        }],
        heard: Vec::new(),
        keeps: false,
    }
}

async fn compare(limiter: &FleetLimiter, events: &[Event]) -> Result<usize, TestCaseError> {
    let mut compared = 0;
    let mut probes = Vec::new();
    let mut told = Vec::new();
    let mut pure = State::default();
    let (mut now, mut server, mut seq, mut seen) = (NOON, 0u32, 0u64, NOON);
    for event in events {
        let id = format!("server{server}");
        match event {
            Event::Pass { us } => now += us,
            Event::Restart => server += 1,
            Event::Forget => {
                let (claims, granted) = (
                    std::mem::take(&mut pure.claims),
                    std::mem::take(&mut pure.granted),
                );
                let closed = std::mem::take(&mut pure.closed);
                let kept = std::mem::take(&mut pure.kept);
                pure = State {
                    kept,
                    claims,
                    granted,
                    closed,
                    ..State::default()
                };
                forget(limiter, now).await;
            }
            Event::Close { name, for_us } => {
                let closure = Closure {
                    name: NAMES[*name].into(),
                    for_: Duration::from_micros(for_us.unsigned_abs()),
                    reason: match *for_us {
                        2_900_001.. => "auth_expired",
                        1_500_000..=2_900_000 => "maintenance",
                        _ => "throttled",
                    }
                    .into(),
                };
                let struck = limiter.close_at("shop", &closure, Some(now)).await;
                let struck = struck.expect("answers");
                let expected = pure.close(&closure.name, now, *for_us, &closure.reason);
                prop_assert_eq!(struck.strikes, expected);
                let least_us = pure.closed[&closure.name].slower.least_us;
                prop_assert_eq!(struck.below_per_s.is_some(), least_us > 0);
            }
            Event::Probed { back, how } => {
                let how = [Probed::Well, Probed::NotSent, Probed::Unanswered][usize::from(*how)];
                let start = probes.iter().rev().nth(*back).copied().unwrap_or(7);
                limiter
                    .probed_at("shop", &NAMES, start, how, Some(now))
                    .await
                    .expect("answers");
                pure.probed(&NAMES, now, start, how);
            }
            Event::Hear(heard) => told = heard.clone(),
            Event::Set { of, numbers } => {
                let limit = ask(now, 0, &[], 0, 0).limits[*of].limit.clone();
                let set = limiter.set_numbers("shop", &limit, numbers.as_ref());
                set.await.expect("answers");
                match numbers {
                    Some(numbers) => drop(pure.kept.set.insert(limit, *numbers)),
                    None => drop(pure.kept.set.remove(&limit)),
                }
            }
            Event::Hold(for_us) => {
                let hold = for_us.map(|us| Hold {
                    until_us: now + us,
                    reason: "6 5 4 3 2 one".into(),
                });
                limiter.hold("shop", hold.as_ref()).await.expect("answers");
                pure.kept.holds.clear();
                pure.kept
                    .holds
                    .extend(hold.map(|hold| (PROVIDER.to_owned(), hold)));
            }
            Event::PutBack { set, hold, closed } => {
                let mut kept = Kept::default();
                if *set {
                    kept.set
                        .insert("second".into(), Numbers::Spacing { least_us: 40_000 });
                }
                let hold = hold.then(|| Hold {
                    until_us: now + 300_000,
                    reason: String::new(),
                });
                kept.holds
                    .extend(hold.map(|hold| (PROVIDER.to_owned(), hold)));
                let ban = Closed {
                    until_us: now + 900_000,
                    reason: "throttled".into(),
                    ..Closed::default()
                };
                let bans = closed.then(|| ("1-bbbbbb".to_owned(), ban));
                let bans: BTreeMap<String, Closed> = bans.into_iter().collect();
                let was = limiter.put_back_at("shop", &kept, &bans, &id).await;
                prop_assert_eq!(was.expect("answers"), pure.put_back(kept, bans, &id));
            }
            Event::Reopen(name) => {
                let name = name.map(|name| NAMES[name]);
                let reopened = limiter.reopen_at("shop", name, Some(now));
                reopened.await.expect("answers");
                match name {
                    Some(name) => pure.reopen_one(name, now),
                    None => pure.reopen(now),
                }
            }
            Event::Mark { of, before, late } => {
                let quota = ask(now, 0, &[], 0, 0).limits[4 + of].clone();
                let Rule::Quota { opened_us, .. } = quota.rule else {
                    unreachable!("limits 4 and 5 are quotas")
                };
                let seen_us = if *late { seen } else { seen - 1_000_000 };
                let set = SetMark {
                    opened_us,
                    seen_us,
                    before: *before,
                    mark: before + 50,
                };
                let script = limiter
                    .send_mark("shop", &quota, &set, Some(&id))
                    .await
                    .expect("answers");
                prop_assert_eq!(script, pure.set_mark(&quota.id(), &set, &id));
            }
            Event::Ask {
                holder,
                wants,
                held,
                claim,
            } => {
                seq += 1;
                let mut ask = ask(now, *holder, wants, *held, *claim);
                ask.heard = heard_at(now, &std::mem::take(&mut told));
                ask.keeps = *claim == 2;
                let moment = Moment {
                    now_us: now,
                    server: &id,
                    seq,
                };
                let answered = limiter.ask_at(&ask, &moment).await.expect("answers");
                for claim in pure.claims.values_mut() {
                    claim.expires_us = i64::MAX;
                }
                let expected = decide(&mut pure, &ask, &moment);
                compared += expected.grants.len();
                probes.extend(
                    expected
                        .grants
                        .iter()
                        .filter(|g| g.probe)
                        .map(|g| g.start_us),
                );
                prop_assert_eq!(answered.answer, expected);
                seen = now;
            }
        }
    }
    let grants = limiter.grants("shop", "job/run-1").await.expect("answers");
    prop_assert_eq!(
        grants.given,
        pure.granted.get("job/run-1").copied().unwrap_or(0)
    );
    Ok(compared)
}

/// A provider that refuses every ramp after `served` of 100 ms, and the last one never.
fn refused_ramps(served: &[usize]) -> Vec<Event> {
    let ask = || Event::Ask {
        holder: 0,
        wants: vec![0, 0, 2, 1, 2],
        held: 0,
        claim: 0,
    };
    let close = || Event::Close {
        name: 0,
        for_us: 1_000_000,
    };
    let pass = |us| Event::Pass { us };
    let mut events = vec![ask(), close()];
    for ramp in served {
        events.extend([pass(1_000_000), ask(), pass(100_000)]);
        events.push(Event::Probed { back: 0, how: 0 });
        for _ in 0..*ramp {
            events.extend([pass(100_000), ask()]);
        }
        events.push(close());
    }
    events
}

#[tokio::test]
async fn ramps_that_were_refused_are_as_slow_in_redis_as_in_the_decision() {
    let server = start("noeviction");
    let limiter = FleetLimiter::connect(&server.url, Keys::new("r"))
        .await
        .expect("connects");
    let events = refused_ramps(&[8, 30, 45, 12, 400, 1_000, 20, 2_200, 30]);
    let compared = compare(&limiter, &events).await.expect("the same");
    assert!(compared > 1_500, "{compared}");
}

/// Drops the limits' records, as a flush does, but not what the comparison keeps.
async fn forget(limiter: &FleetLimiter, now: i64) {
    let ask = ask(now, 0, &[], 0, 0);
    limiter.forget("shop", &ask.limits).await.expect("answers");
}

#[test]
fn the_script_is_the_pure_decision() {
    let server = start("noeviction");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut case, mut compared) = (0, 0);
    let mut runner = TestRunner::deterministic();
    let sequences = prop::collection::vec(event(), 1..60);
    let limiter = |case: u32| FleetLimiter::connect(&server.url, Keys::new(format!("t{case}")));
    for _ in 0..700 {
        case += 1;
        let events = sequences
            .new_tree(&mut runner)
            .expect("a sequence")
            .current();
        let limiter = runtime.block_on(limiter(case)).expect("connects");
        match runtime.block_on(compare(&limiter, &events)) {
            Ok(grants) => compared += grants,
            Err(difference) => panic!("{difference}\nafter {events:#?}"),
        }
    }
    assert!(compared > 1_000, "only {compared} grants were compared");
}

// ------------------------------------------------------------------------------------------ real time

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_flushed_in_a_loop_gives_not_one_too_many() {
    let server = start("noeviction");
    let rule = Rule::Rate {
        calls: 50,
        period_us: 1_000_000,
        burst: None,
    };
    let pace = rule.pace().expect("paced");
    let end = Instant::now() + Duration::from_secs(8);
    let mut workers = Vec::new();
    for worker in 0..4u8 {
        let limiter = FleetLimiter::connect(&server.url, Keys::new("real"))
            .await
            .expect("connects");
        workers.push(tokio::spawn(async move {
            let mut starts = Vec::new();
            while Instant::now() < end {
                let mut ask = ask(NOON, worker, &[], 0, 0);
                (ask.limits, ask.held, ask.claims) =
                    (vec![instance("second", rule)], vec![], vec![]);
                ask.groups = vec![Group {
                    run: "j/r".into(),
                    want: 9,
                    limits: vec![0],
                    choices: vec![],
                    spread: false,
                    yields: false,
                    points: vec![],
                }];
                let answer = limiter.ask(&ask).await.expect("answers").answer;
                starts.extend(answer.grants.iter().map(|g| g.start_us));
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            starts
        }));
    }
    let client = redis::Client::open(server.url.as_str()).expect("a client");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("connects");
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        redis::cmd("FLUSHALL")
            .exec_async(&mut connection)
            .await
            .expect("flushes");
    }
    let mut starts = Vec::new();
    for worker in workers {
        starts.extend(worker.await.expect("ends"));
    }
    starts.sort_unstable();
    assert!(starts.len() > 50, "only {} grants", starts.len());
    for window in starts.windows(51) {
        let length = window[50] - window[0];
        assert!(
            length >= 1_000_000 + pace.room_us,
            "51 starts within {length} us"
        );
    }
}

#[tokio::test]
async fn a_redis_that_may_evict_is_refused_and_errors_hide_the_password() {
    let server = start("allkeys-lru");
    let evicts = FleetLimiter::connect(&server.url, Keys::new("n"))
        .await
        .err()
        .expect("refused");
    assert!(
        matches!(&evicts, LimiterError::Evicts { policy, .. } if policy == "allkeys-lru"),
        "{evicts}"
    );
    let away = format!("redis://:hunter2@127.0.0.1:{}", free_port());
    let error = FleetLimiter::connect(&away, Keys::new("n"))
        .await
        .err()
        .expect("nobody listens");
    assert!(
        error.to_string().contains("127.0.0.1") && !format!("{error:?}").contains("hunter2"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_redis_that_comes_back_is_used_again() {
    let mut server = start("noeviction");
    let limiter = FleetLimiter::connect(&server.url, Keys::new("back"))
        .await
        .expect("connects");
    let ask = Ask {
        held: vec![],
        claims: vec![],
        ..ask(NOON, 0, &[], 0, 0)
    };
    limiter.renew(&ask).await.expect("answers");
    server.child.kill().expect("ours");
    server.child.wait().expect("ends");
    let started = Instant::now();
    limiter.renew(&ask).await.expect_err("nobody answers");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a step has its time limit"
    );
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    server.child = Command::new("redis-server")
        .args([
            "--port",
            &port,
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ])
        .stdout(Stdio::null())
        .spawn()
        .expect("starts again");
    let deadline = Instant::now() + Duration::from_secs(20);
    while limiter.renew(&ask).await.is_err() {
        assert!(Instant::now() < deadline, "it never reconnects");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn claims_and_closures() {
    let server = start("noeviction");
    let limiter = FleetLimiter::connect(&server.url, Keys::new("c"))
        .await
        .expect("connects");
    let claim = |p: &str| ClaimRef {
        shard: "j/r/1/0".into(),
        publication: p.into(),
    };
    assert_eq!(
        limiter
            .claim("p", &claim("one"), "a")
            .await
            .expect("answers"),
        Claimed::Ours
    );
    assert_eq!(
        limiter
            .claim("p", &claim("one"), "b")
            .await
            .expect("answers"),
        Claimed::Ours
    );
    let busy = limiter
        .claim("p", &claim("two"), "c")
        .await
        .expect("answers");
    assert!(matches!(busy, Claimed::Busy { expires_in } if expires_in <= Duration::from_secs(30)));
    limiter
        .release("p", &claim("one"), "a")
        .await
        .expect("answers");
    assert_ne!(
        limiter
            .claim("p", &claim("two"), "c")
            .await
            .expect("answers"),
        Claimed::Ours,
        "not its holder's"
    );
    limiter
        .release("p", &claim("one"), "b")
        .await
        .expect("answers");
    // Who slept with the shard in hand while another finished it does not take it again.
    let sleeper = Ask {
        claims: vec![claim("one")],
        ..Ask::nothing("p", "a")
    };
    let woken = limiter.renew(&sleeper).await.expect("answers").answer;
    assert_eq!(woken.lost_claims, [0]);
    assert_eq!(
        limiter
            .claim("p", &claim("two"), "c")
            .await
            .expect("answers"),
        Claimed::Ours
    );

    let closure = |s| Closure {
        name: PROVIDER.into(),
        for_: Duration::from_secs(s),
        reason: "throttled".into(),
    };
    assert_eq!(
        limiter
            .close("p", &closure(60))
            .await
            .expect("answers")
            .strikes,
        0
    );
    limiter.close("p", &closure(5)).await.expect("answers");
    let closed = limiter.closures("p").await.expect("answers");
    assert!(
        closed.len() == 1 && closed[0].for_ > Duration::from_secs(50),
        "{closed:?}"
    );
    assert_eq!(limiter.reopen("p").await.expect("answers"), 1);
    let due = limiter.closures("p").await.expect("answers");
    assert_eq!(due[0].for_, Duration::ZERO, "the next call is its probe");
    let peeked = limiter
        .peek("p", &ask(NOON, 0, &[], 0, 0).limits)
        .await
        .expect("answers");
    assert_eq!(peeked.len(), 8);
}
