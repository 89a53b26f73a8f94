//! Whether others ask for the same limit: then each of them may ask later and more rarely. A limit is planned some
//! way ahead (its horizon). Who is alone with it asks again half a horizon before the plan ends, so that it never does
//! end. Where several ask, somebody always comes before that, and who comes early only gets crumbs: each request costs
//! Redis and both sides the same, whether it brings one call or fifty.

use std::time::{Duration, Instant};

use paceline_protocol::limit::Pace;

/// Of what was before, so much counts when a request is added.
const FADES: f64 = 0.75;
/// Who gets less than this share of what the limit gave is not alone.
const ALONE: f64 = 2.0 / 3.0;
/// Of the half horizon that is left when a lone lane asks, so much is waited for too. The rest is for the way to Redis
/// and for a machine that wakes late.
const OF_THE_REST: f64 = 0.6;
/// Limits that plan fewer calls ahead cost few requests anyway, and what a late one loses weighs more: of two workers with
/// seventeen lanes each, one of 4/s used 86 % of it instead of 95.
const MANY_CALLS: i64 = 20;

/// What one lane got of what its limits gave lately.
#[derive(Debug, Default)]
pub struct Crowd {
    asked: Option<Instant>,
    got: f64,
    given: f64,
}

impl Crowd {
    /// Learns that a request at `now` brought `granted` calls of a limit with `pace`.
    pub fn learn(&mut self, now: Instant, granted: usize, pace: &Pace) {
        let before = self.asked.replace(now);
        let horizon = Duration::from_micros(unsigned(pace.horizon_us));
        let Some(since) = before.map(|before| now.saturating_duration_since(before)) else {
            return;
        };
        // What was not asked for within a horizon was given to nobody.
        let interval = Duration::from_micros(unsigned(pace.interval_us.max(1)));
        let given = since.min(horizon).div_duration_f64(interval);
        self.got = self.got * FADES + granted as f64;
        self.given = self.given * FADES + given;
    }

    /// How long to wait for a start that can be had after `wait`, half a horizon before it is due.
    pub fn wait(&self, wait: Duration, pace: &Pace) -> Duration {
        let few = pace.horizon_us < MANY_CALLS * pace.interval_us;
        if few || self.got >= self.given * ALONE {
            return wait;
        }
        let half = Duration::from_micros(unsigned(pace.horizon_us / 2));
        // Where leases are scarce the horizon is nearer than the pace's own.
        wait + wait.min(half).mul_f64(OF_THE_REST)
    }
}

fn unsigned(us: i64) -> u64 {
    u64::try_from(us).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use paceline_protocol::limit::Rule;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pace() -> Pace {
        let rule = Rule::Rate {
            calls: 2_000,
            period_us: 1_000_000,
            burst: None,
        };
        rule.pace().expect("a rate has a pace")
    }

    /// After some requests, `apart` from each other, that brought `granted` calls each.
    fn after(apart: Duration, granted: usize) -> Crowd {
        let (mut crowd, begun) = (Crowd::default(), Instant::now());
        for turn in 0..10 {
            crowd.learn(begun + apart * turn, granted, &pace());
        }
        crowd
    }

    #[test]
    fn who_gets_all_that_a_limit_gives_asks_half_a_horizon_ahead() {
        assert_eq!(after(MS * 50, 99).wait(MS * 50, &pace()), MS * 50);
        assert_eq!(Crowd::default().wait(MS * 50, &pace()), MS * 50);
    }

    #[test]
    fn one_of_several_asks_later_but_before_the_plan_ends() {
        let crowd = after(MS * 50, 25);
        let wait = crowd.wait(MS * 52, &pace());
        assert!(wait > MS * 75 && wait < MS * 90, "{wait:?}");
        let scarce = crowd.wait(MS * 26, &pace());
        assert!(scarce > MS * 38 && scarce < MS * 45, "{scarce:?}");
        let far = crowd.wait(MS * 59_000, &pace());
        assert!(far < MS * 59_050, "{far:?}");
    }

    #[test]
    fn a_slow_limit_is_asked_for_in_time_whoever_else_does() {
        let slow = Rule::Rate {
            calls: 4,
            period_us: 1_000_000,
            burst: None,
        };
        let slow = slow.pace().expect("a rate has a pace");
        assert_eq!(after(MS * 50, 1).wait(MS * 250, &slow), MS * 250);
    }

    #[test]
    fn a_lane_that_had_nothing_to_ask_for_is_not_one_of_several() {
        let mut crowd = after(MS * 50, 99);
        let pace = pace();
        let later = crowd.asked.expect("it asked") + MS * 60_000;
        crowd.learn(later, 199, &pace);
        assert_eq!(crowd.wait(MS * 50, &pace), MS * 50);
    }
}
