//! What lies between the calls of one narrow limit, by when they really left this process.
//!
//! Starts are granted ahead, and a busy machine may stop a process between its last look at the clock and the socket:
//! such a call leaves late, and the next one, granted long ago, would follow it too soon. So under limits of few calls
//! a call waits until the one before it has left, and leaves no earlier than a whole period after the one that would
//! share its window; where its slack does not reach so far its grant is dropped. Of other processes' calls nobody knows
//! here: for those the limits keep room (`limit/pace.rs`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paceline_protocol::connector::cooldown::DrawnLimit;
use paceline_protocol::limit::Rule;
use tokio::sync::OwnedMutexGuard;

use super::lane::asking::Drawn;
use super::on_time;

/// Windows of more calls are wide enough for what one of them may be late.
const FEW: u64 = 10;

/// So many limits are remembered before those are forgotten that nobody has drawn from for long.
const MANY: usize = 4096;
/// Nobody has drawn from it for long.
const LONG: Duration = Duration::from_secs(3600);

/// When the last calls of a limit left, the oldest first.
type Left = VecDeque<Instant>;

/// The narrow limits that this process has drawn from.
#[derive(Default)]
pub struct Gaps(Mutex<Ways>);

#[derive(Default)]
struct Ways {
    /// By provider and limit.
    known: HashMap<String, Arc<tokio::sync::Mutex<Left>>>,
    /// How many there are before old ones are looked for: twice as many as were left.
    most: usize,
}

/// The leave of one call, until it has left.
#[derive(Default)]
pub struct Leave(Mutex<Option<Passage>>);

/// Nobody else of some narrow limits leaves before it has left, or is dropped.
struct Passage {
    ways: Vec<(OwnedMutexGuard<Left>, Window)>,
}

#[derive(Clone, Copy)]
struct Window {
    calls: usize,
    period: Duration,
}

impl Gaps {
    /// Waits until a call may leave by the narrow limits that it draws from; `None` when that is not before `latest`. It
    /// is one of `in_flight` calls. By numbers that were changed nobody waits: only the file's are known here.
    pub async fn leave(
        &self,
        provider: &str,
        drawn: &Drawn,
        latest: Instant,
        in_flight: usize,
    ) -> Option<Leave> {
        if !drawn.allowed.is_empty() {
            return Some(Leave::default());
        }
        let passage = self.enter(provider, &drawn.limits).await;
        let (now, earliest) = (Instant::now(), passage.earliest());
        if now >= latest || earliest.is_some_and(|earliest| earliest > latest) {
            tracing::debug!("a call before it left late: the grant is dropped");
            return None;
        }
        if let Some(earliest) = earliest.filter(|earliest| *earliest > now) {
            on_time::sleep_until(earliest, latest - now, in_flight).await;
        }
        Some(Leave(Mutex::new(Some(passage))))
    }

    /// Waits until the calls before it have left.
    async fn enter(&self, provider: &str, drawn: &[DrawnLimit]) -> Passage {
        // Everybody takes them in one order, so that nobody waits in a circle.
        let narrow: BTreeMap<String, Window> = drawn
            .iter()
            .filter_map(|drawn| {
                let window = window(&drawn.instance.rule)?;
                Some((format!("{provider}/{}", drawn.instance.id()), window))
            })
            .collect();
        let mut ways = Vec::with_capacity(narrow.len());
        for (name, window) in narrow {
            ways.push((self.way(name).lock_owned().await, window));
        }
        Passage { ways }
    }

    fn way(&self, name: String) -> Arc<tokio::sync::Mutex<Left>> {
        let mut ways = self.0.lock().expect("no panic while the gaps are locked");
        if ways.known.len() >= ways.most.max(MANY) {
            ways.forget_old(Instant::now());
        }
        ways.known.entry(name).or_default().clone()
    }
}

impl Ways {
    fn forget_old(&mut self, now: Instant) {
        self.known.retain(|_, way| {
            let free = way.try_lock();
            let last = free.as_ref().map(|left| left.back().copied());
            // Who holds it draws from it right now.
            last.map_or(true, |last| last.is_some_and(|at| now < at + LONG))
        });
        self.most = 2 * self.known.len();
    }
}

impl Leave {
    /// The call had surely left at `at`; what was said first counts.
    pub fn left(&self, at: Instant) {
        let passage = self.0.lock().expect("no panic while it is locked").take();
        if let Some(passage) = passage {
            passage.left(at);
        }
    }
}

impl Passage {
    /// Not to leave before; `None`: at any time.
    fn earliest(&self) -> Option<Instant> {
        let opens = |(left, window): &(OwnedMutexGuard<Left>, Window)| {
            let before = left.len().checked_sub(window.calls)?;
            Some(left[before] + window.period)
        };
        self.ways.iter().filter_map(opens).max()
    }

    fn left(mut self, at: Instant) {
        for (left, window) in &mut self.ways {
            left.push_back(at);
            while left.len() > window.calls {
                left.pop_front();
            }
        }
    }
}

/// The window of a narrow limit.
fn window(rule: &Rule) -> Option<Window> {
    let (calls, period_us) = match *rule {
        Rule::Spacing { least_us } => (1, least_us),
        Rule::Rate {
            calls,
            period_us,
            burst: None,
        } if calls <= FEW => (calls, period_us),
        _ => return None,
    };
    Some(Window {
        calls: usize::try_from(calls).ok()?.max(1),
        period: Duration::from_micros(period_us),
    })
}

#[cfg(test)]
mod tests {
    use paceline_protocol::connector::cooldown::Narrow;
    use paceline_protocol::limit::Instance;

    use super::*;

    fn drawn(limit: &str, rule: Rule) -> DrawnLimit {
        DrawnLimit {
            instance: Instance {
                limit: limit.into(),
                scope: String::new(),
                rule,
            },
            points: 1,
            narrow: Narrow::default(),
        }
    }

    fn spacing(ms: u64) -> DrawnLimit {
        drawn("gap", Rule::Spacing { least_us: ms as _ })
    }

    fn rate(calls: u64) -> DrawnLimit {
        drawn(
            "rate",
            Rule::Rate {
                calls,
                period_us: 1_000_000,
                burst: None,
            },
        )
    }

    #[tokio::test]
    async fn a_call_that_left_late_keeps_its_distance_from_the_next() {
        let gaps = Gaps::default();
        let limits = [spacing(50_000)];
        let first = gaps.enter("p", &limits).await;
        assert_eq!(first.earliest(), None);
        let late = Instant::now() + Duration::from_millis(9);
        first.left(late);
        let next = gaps.enter("p", &limits).await;
        assert_eq!(next.earliest(), Some(late + Duration::from_millis(50)));
        assert_eq!(gaps.enter("q", &limits).await.earliest(), None);
    }

    #[tokio::test]
    async fn of_a_rate_the_call_counts_that_would_share_the_window() {
        let gaps = Gaps::default();
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        for ms in [0, 300, 700, 1_010] {
            let passage = gaps.enter("p", &[rate(3)]).await;
            let opens = passage.earliest();
            assert_eq!(opens, (ms > 1_000).then(|| at(1_000)), "{ms}");
            passage.left(at(ms));
        }
        let next = gaps.enter("p", &[rate(3), spacing(1)]).await;
        assert_eq!(next.earliest(), Some(at(1_300)));
    }

    #[tokio::test]
    async fn who_comes_next_waits_until_the_one_before_has_left_or_is_dropped() {
        let gaps = Arc::new(Gaps::default());
        let limits = [spacing(50_000), rate(2)];
        let first = gaps.enter("p", &limits).await;
        let other = gaps.clone();
        let waiting = tokio::spawn(async move {
            // The other order of the limits is the same one.
            let limits = [rate(2), spacing(50_000)];
            other.enter("p", &limits).await.earliest()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.expect("it has its turn"), None);
    }

    #[tokio::test]
    async fn limits_that_nobody_draws_from_are_forgotten() {
        let gaps = Gaps::default();
        let now = Instant::now();
        gaps.enter("old", &[spacing(1)]).await.left(now);
        gaps.enter("never", &[spacing(1)]).await;
        gaps.enter("new", &[spacing(1)]).await.left(now + LONG);
        let held = gaps.enter("held", &[spacing(1)]).await;
        let mut ways = gaps.0.lock().expect("not poisoned");
        ways.forget_old(now + LONG);
        let mut names: Vec<&str> = ways.known.keys().map(|name| &name[..3]).collect();
        names.sort_unstable();
        assert_eq!((names, ways.most), (vec!["hel", "new"], 4));
        drop(held);
    }

    #[tokio::test]
    async fn wide_limits_keep_nobody_waiting() {
        let gaps = Gaps::default();
        let wide = [
            rate(FEW + 1),
            drawn("lease", Rule::Concurrency { calls: 1 }),
        ];
        let first = gaps.enter("p", &wide).await;
        let second = gaps.enter("p", &wide).await;
        assert!(first.earliest().is_none() && second.earliest().is_none());
    }
}
