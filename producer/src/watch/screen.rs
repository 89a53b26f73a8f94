//! Progress on stderr: a bar on a terminal, else a line now and then.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::snapshot::Snapshot;
use crate::context::Context;
use crate::show;

/// How often a plain line is written.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Where progress goes.
pub enum Screen {
    /// A terminal.
    Bar(ProgressBar),
    /// A log or a pipe.
    Lines {
        /// When the last line was written.
        last: Option<Instant>,
    },
    /// Nobody looks.
    Quiet,
}

impl Screen {
    /// The one that fits the options and stderr.
    pub fn new(context: &Context, cells: u64) -> Self {
        if context.quiet {
            Screen::Quiet
        } else if context.lively {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}");
            let bar = ProgressBar::new(cells.max(1));
            Screen::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        } else {
            Screen::Lines { last: None }
        }
    }

    /// Shows a snapshot; `speed` is the rate used beside the rate allowed.
    pub fn show(&mut self, shot: &Snapshot, speed: &str) {
        match self {
            Screen::Bar(bar) => {
                bar.set_position(shot.done());
                bar.set_message(line(shot, speed));
            }
            Screen::Lines { last } => {
                if last.is_none_or(|last| last.elapsed() >= BETWEEN_LINES) {
                    *last = Some(Instant::now());
                    crate::terminal::tell(line(shot, speed));
                }
            }
            Screen::Quiet => {}
        }
    }

    /// Leaves the screen free for what is said last.
    pub fn end(&self) {
        if let Screen::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// `running  1,240/4,200 cells  1,251 calls  49.6/s of 50.0/s  ETA 1m 00s  binds fare-search/second`
fn line(shot: &Snapshot, speed: &str) -> String {
    let mut line = format!(
        "{}  {}/{} cells  {} calls  {speed}",
        shot.state.as_str(),
        show::count(shot.done()),
        show::count(shot.cells),
        show::count(shot.calls),
    );
    if let Some(eta) = shot.eta_s {
        line += &format!("  ETA {}", show::span(Duration::from_secs(eta)));
    }
    if let Some(binds) = &shot.binds {
        line += &format!("  binds {binds}");
    }
    if shot.failed > 0 {
        line += &format!("  {} failed", show::count(shot.failed));
    }
    line
}
