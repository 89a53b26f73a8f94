//! The fleet's limiter in a program of one's own: waits for 20 grants at 50/s and "calls" with them, then
//! measures how many grants one Redis gives in batches. Usage: `limiter redis://127.0.0.1:6379`
use std::time::Instant;

use paceline_protocol::clock::{FleetClock, SendDecision};
use paceline_protocol::keys::Keys;
use paceline_protocol::limit::{Ask, Group, Instance, Rule};
use paceline_protocol::stores::limiter::{FleetLimiter, LimiterError};

fn ask(limit: &str, calls: u64, want: u32) -> Ask {
    let rule = Rule::Rate {
        calls,
        period_us: 1_000_000,
        burst: None,
    };
    let limit = Instance {
        limit: limit.into(),
        scope: String::new(),
        rule,
    };
    let group = Group {
        run: "example/1".into(),
        want,
        limits: vec![0],
        choices: Vec::new(),
        spread: false,
        yields: false,
        points: Vec::new(),
    };
    Ask {
        limits: vec![limit],
        groups: vec![group],
        keeps: false,
        ..Ask::nothing("example", format!("process-{}", std::process::id()))
    }
}

async fn paced_calls(limiter: &FleetLimiter) -> Result<(), LimiterError> {
    let mut clock = FleetClock::new(Instant::now());
    let (mut sent, mut late) = (0, 0);
    while sent < 20 {
        let answered = limiter.ask(&ask("second", 50, 5)).await?;
        let epoch = clock.observe(answered.answer.now_us, answered.sent, answered.received);
        for grant in &answered.answer.grants {
            loop {
                match clock.may_send(grant, epoch, Instant::now()) {
                    SendDecision::Wait(pause) => tokio::time::sleep(pause).await,
                    SendDecision::Send => break sent += 1,
                    SendDecision::Late => break late += 1,
                }
            }
        }
        if let Some(refusal) = answered.answer.refusals.first() {
            let due = clock
                .instant_of(refusal.opens_us)
                .unwrap_or_else(Instant::now);
            tokio::time::sleep_until(due.into()).await;
        }
    }
    println!("{sent} calls sent in their time, {late} grants dropped as late");
    Ok(())
}

async fn grants_a_second(limiter: &FleetLimiter, batch: u32) -> Result<(), LimiterError> {
    let unbounded = ask("unbounded", 1_000_000, batch);
    let began = Instant::now();
    let mut given = 0;
    while began.elapsed().as_secs() < 3 {
        given += limiter.ask(&unbounded).await?.answer.grants.len();
    }
    let rate = given as f64 / began.elapsed().as_secs_f64();
    println!("batches of {batch}: {rate:.0} grants/s, one asker");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), LimiterError> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let limiter = FleetLimiter::connect(&url, Keys::new("example")).await?;
    paced_calls(&limiter).await?;
    for batch in [1, 10, 100] {
        grants_a_second(&limiter, batch).await?;
    }
    Ok(())
}
