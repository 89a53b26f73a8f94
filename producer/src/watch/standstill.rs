//! A run that stands still although its providers are open: all that is left of it waits for scopes or keys that answers
//! have closed (a seller that was banned for ten minutes, while the others are done).

use std::time::{Duration, Instant};

use anyhow::Result;
use paceline_protocol::lanes::is_taken;
use paceline_protocol::plan::Plan;
use paceline_protocol::stores::limiter::FleetLimiter;
use paceline_protocol::stores::state::State;

use super::Snapshot;
use crate::limits::limiter_name;
use crate::run::StateWord;

/// Nothing granted for so long means that nothing can be: a call of the slowest limits takes its turn sooner.
const STILL: Duration = Duration::from_secs(20);
/// So many turns of the allowed pace must have passed too.
const TURNS: f64 = 5.0;

/// Since when nothing of a run was granted.
#[derive(Debug, Default)]
pub struct Standstill {
    calls: u64,
    since: Option<Instant>,
    /// What the rest waits for.
    pub waits_for: Option<String>,
}

impl Standstill {
    /// Whether nothing has been granted for long, though the run goes on and has cells left.
    pub fn note(&mut self, now: Instant, shot: &Snapshot) -> bool {
        let goes = shot.state == StateWord::Running && shot.left > 0;
        if !goes || self.calls != shot.calls || self.since.is_none() {
            self.calls = shot.calls;
            self.since = goes.then_some(now);
            self.waits_for = None;
            return false;
        }
        let turns = shot
            .allowed_per_s
            .map_or(0.0, |rate| TURNS / rate.max(1e-3));
        let long = STILL.max(Duration::from_secs_f64(turns));
        self.since.is_some_and(|since| now >= since + long)
    }

    /// Looks for the closure that opens first of the scopes and keys of the run's providers; `None` while one of them is
    /// held by an operator, or nobody takes a lane of the run: that is no provider's doing.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn look(
        &mut self,
        state: &State,
        limiter: &FleetLimiter,
        plan: &Plan,
    ) -> Result<Option<Duration>> {
        let takers = state.takers().await?;
        let mut first: Option<(Duration, String)> = None;
        for provider in plan.providers.values() {
            let name = limiter_name(provider);
            if limiter.kept(&name).await?.hold.is_some() {
                return Ok(None);
            }
            let closures = limiter.closures(&name).await?;
            let named = closures.into_iter().map(|closure| {
                let what = closure.part().unwrap_or(&provider.name).to_owned();
                (closure.for_, what)
            });
            first = named.chain(first).min();
        }
        let first = first.filter(|_| plan.lanes().into_iter().all(|lane| is_taken(lane, &takers)));
        self.waits_for = first.as_ref().map(|(_, what)| what.clone());
        Ok(first.map(|(for_, _)| for_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stands_still_when_nothing_was_granted_for_long() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut still = Standstill::default();
        let mut shot = Snapshot::example();
        assert!(!still.note(at(0), &shot));
        assert!(!still.note(at(19), &shot));
        assert!(still.note(at(20), &shot));
        shot.calls += 1;
        assert!(!still.note(at(21), &shot), "something was granted");
        assert!(!still.note(at(40), &shot));
        // Of one call a minute a minute without one says nothing.
        shot.allowed_per_s = Some(1.0 / 60.0);
        assert!(!still.note(at(200), &shot));
        assert!(still.note(at(321), &shot));
        shot.left = 0;
        assert!(!still.note(at(322), &shot), "the loader has the rest");
    }
}
