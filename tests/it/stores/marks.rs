//! Marks of quotas: what several workers do at the same moment loses no calls.

use std::collections::BTreeMap;

use futures::future::join_all;
use harness::shared;
use paceline_protocol::keys::Keys;
use paceline_protocol::limit::{Ask, Group, Instance, Rule};
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::marks;
use paceline_protocol::stores::objects::Objects;

use super::{own_name, value};

const PROVIDER: &str = "fare-search";
const WORKERS: u32 = 6;
/// The race was lost in one of six rounds.
const ROUNDS: u32 = 12;

fn day() -> Instance {
    let now_us = jiff::Timestamp::now().as_microsecond();
    Instance {
        limit: "day".into(),
        scope: String::new(),
        rule: Rule::Quota {
            calls: 50,
            opened_us: now_us - 3_600_000_000,
            closes_us: now_us + 3_600_000_000,
        },
    }
}

fn ask(holder: u32, want: u32, day: &Instance) -> Ask {
    Ask {
        limits: vec![day.clone()],
        groups: vec![Group {
            run: "fares/night".into(),
            want,
            limits: vec![0],
            choices: Vec::new(),
            spread: false,
            yields: false,
            points: Vec::new(),
        }],
        keeps: false,
        ..Ask::nothing(PROVIDER, format!("worker-{holder}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_put_the_first_mark_of_a_new_quota_together_lose_none_of_its_calls() {
    let env: BTreeMap<String, String> = shared::stack().env().into_iter().collect();
    let objects = Objects::of(&env["PACELINE_BUCKET"], &env).await;
    for round in 0..ROUNDS {
        let (name, day) = (own_name("marks"), day());
        let connect = || FleetLimiter::connect(value("REDIS_URL"), Keys::new(name.clone()));
        let limiters = join_all((0..WORKERS).map(|_| connect())).await;
        let limiters: Vec<FleetLimiter> = limiters.into_iter().map(Result::unwrap).collect();
        let asks: Vec<Ask> = (0..WORKERS).map(|holder| ask(holder, 1, &day)).collect();
        let asked = limiters.iter().zip(&asks).map(|(l, ask)| l.ask(ask));
        let asked = join_all(asked).await;
        let put = limiters.iter().zip(asked).map(|(limiter, asked)| {
            let (objects, name, day) = (&objects, &name, &day);
            let asked = asked.expect("asked");
            assert!(asked.answer.grants.is_empty(), "no mark, no call");
            let seen_us = asked.answer.now_us;
            async move { marks::advance(objects, limiter, name, PROVIDER, day, seen_us).await }
        });
        for put in join_all(put).await {
            put.expect("the stores answer");
        }
        let all = limiters[0].ask(&ask(0, 60, &day)).await.expect("asked");
        assert_eq!(all.answer.grants.len(), 50, "round {round}");
    }
}
