//! What every command is given: the global options, the environment, and the last words.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;

use paceline_protocol::settings::ProcessEnvironment;

use crate::cli::Global;

/// The global options and what belongs to the process.
pub struct Context {
    /// The spec folder.
    pub spec: PathBuf,
    /// Data as JSON.
    pub json: bool,
    /// No progress on stderr.
    pub quiet: bool,
    /// Bars and colours are welcome on stderr.
    pub lively: bool,
    /// Settings.
    pub env: ProcessEnvironment,
    /// What is said when the process is interrupted.
    pub farewell: Farewell,
}

impl Context {
    /// From the command line.
    pub fn new(global: &Global) -> Self {
        let plain = is_plain(global);
        Context {
            spec: global.spec.clone(),
            json: global.json,
            quiet: global.quiet,
            lively: !plain && !global.quiet && std::io::stderr().is_terminal(),
            env: ProcessEnvironment,
            farewell: Farewell::default(),
        }
    }

    /// A line for people, on stderr.
    pub fn say(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            crate::terminal::tell(line);
        }
    }
}

/// Whether colours and a moving bar are not wanted, whatever stderr is.
pub fn is_plain(global: &Global) -> bool {
    global.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The last words of an interrupted process: what was left going, and how to look at it again.
#[derive(Default)]
pub struct Farewell(Mutex<Option<String>>);

impl Farewell {
    /// From now on, an interruption ends with these words.
    pub fn set(&self, words: impl Into<String>) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = Some(words.into());
        }
    }

    /// Says them.
    pub fn say(&self) {
        let words = self.0.lock().ok().and_then(|mut slot| slot.take());
        match words {
            Some(words) => crate::terminal::tell(format_args!("interrupted: {words}")),
            None => crate::terminal::tell("interrupted"),
        }
    }
}
