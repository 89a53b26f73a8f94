//! What a person sees meanwhile: a bar on a terminal, a plain line every few seconds elsewhere.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

/// Between two plain lines.
const PLAIN: Duration = Duration::from_secs(5);
/// The rate shown is the mean of so long.
const WINDOW: Duration = Duration::from_secs(3);

/// What the provider has seen; what it says beyond is of no interest here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// Calls that arrived, refused ones among them.
    pub calls: u64,
    /// Refused ones.
    pub refused: u64,
    /// Good answers beyond the first one of their cell.
    pub repeated: u64,
    /// Rightly without offers.
    pub empty: u64,
    /// Calls let in, for each second from the first on.
    pub per_second: Vec<u64>,
}

/// The simulator, asked from outside.
pub struct Provider {
    client: reqwest::Client,
    url: String,
}

impl Provider {
    /// The one at `url`.
    pub fn new(url: String) -> Self {
        Provider {
            client: reqwest::Client::new(),
            url,
        }
    }

    /// What it has seen so far.
    pub async fn report(&self) -> anyhow::Result<Seen> {
        let answer = self.client.get(format!("{}/_sim/report", self.url)).send();
        let seen = answer.await?.error_for_status()?.json().await;
        seen.context("the provider's report")
    }
}

/// The view.
pub struct Progress {
    bar: ProgressBar,
    cells: u64,
    allowed: u64,
    plain: bool,
    last_line: Cell<Option<Instant>>,
    history: std::cell::RefCell<VecDeque<(Instant, u64)>>,
}

impl Progress {
    /// A view of `cells` at `allowed` calls a second.
    pub fn new(cells: u64, allowed: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(cells)
        };
        // Two lines: one would not fit a terminal of 80 columns.
        let style = "{elapsed_precise} [{wide_bar:.cyan/blue}] {pos}/{len} calls\n{wide_msg}";
        bar.set_style(
            ProgressStyle::with_template(style)
                .expect("the template is a constant")
                .progress_chars("=> "),
        );
        Progress {
            bar,
            cells,
            allowed,
            plain,
            last_line: Cell::new(None),
            history: Default::default(),
        }
    }

    /// Something that just happened.
    pub fn say(&self, what: &str) {
        if self.plain {
            eprintln!("demo: {what}");
        } else {
            self.bar.println(format!("* {what}"));
        }
    }

    /// Where we are.
    pub fn show(&self, seen: &Seen) {
        let rate = self.rate(seen.calls);
        let text = format!(
            "{rate:.1} of {} calls/s allowed, {} refused, {}",
            self.allowed,
            seen.refused,
            self.eta(seen.calls)
        );
        self.bar.set_position(seen.calls.min(self.cells));
        self.bar.set_message(text.clone());
        let due = self.last_line.get().is_none_or(|at| at.elapsed() >= PLAIN);
        if self.plain && due && seen.calls > 0 {
            self.last_line.set(Some(Instant::now()));
            eprintln!(
                "demo: {} calls for {} cells; {text}",
                seen.calls, self.cells
            );
        }
    }

    /// How long it takes from here; the calls of a killed worker come again, so the last word is the run's.
    fn eta(&self, calls: u64) -> String {
        match self.cells.saturating_sub(calls) {
            0 => "waiting for the run's end".into(),
            left => format!("{} s to go", left.div_ceil(self.allowed)),
        }
    }

    /// The bar has done its work.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Calls a second over the last few seconds.
    fn rate(&self, calls: u64) -> f64 {
        let mut history = self.history.borrow_mut();
        let now = Instant::now();
        history.push_back((now, calls));
        while history.len() > 2 && now - history[1].0 >= WINDOW {
            history.pop_front();
        }
        let (since, before) = history[0];
        let seconds = (now - since).as_secs_f64();
        if seconds < 0.1 {
            return 0.0;
        }
        (calls.saturating_sub(before)) as f64 / seconds
    }
}
