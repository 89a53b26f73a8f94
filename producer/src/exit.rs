//! How the process ends: the documented exit codes, and errors that carry one.

use std::process::ExitCode;

use paceline_protocol::manifest::RunEnd;

/// The exit codes, which other people's scripts depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A server, or a setting that is missing.
    Error = 1,
    /// Wrong usage; an unknown job or run too.
    Usage = 2,
    /// A job or provider file is wrong.
    WrongFile = 3,
    /// The run finished outside its gate (or was cancelled).
    OutsideGate = 4,
    /// Stopped by a provider: blocked, or every key closed for longer than 60 s.
    StoppedByProvider = 5,
    /// `audit`: a limit was passed.
    LimitPassed = 6,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl From<RunEnd> for Exit {
    fn from(end: RunEnd) -> Exit {
        match end {
            RunEnd::Completed => Exit::Done,
            RunEnd::Failed | RunEnd::Cancelled => Exit::OutsideGate,
        }
    }
}

/// An error that ends the process with a code other than [`Exit::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code.
    pub exit: Exit,
    /// What a person reads.
    pub message: String,
}

impl Refusal {
    /// Wrong usage, an unknown job or run.
    pub fn usage(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::Usage, message)
    }

    /// A file is wrong; `message` holds its diagnostics.
    pub fn wrong_file(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::WrongFile, message)
    }

    /// A provider keeps us from going on.
    pub fn stopped(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::StoppedByProvider, message)
    }

    /// A run is outside its gate.
    pub fn outside_gate(message: impl Into<String>) -> anyhow::Error {
        Self::with(Exit::OutsideGate, message)
    }

    fn with(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        let message = message.into();
        Refusal { exit, message }.into()
    }
}

/// Writes an error to stderr (as one JSON object where a program reads) and returns its code.
pub fn report(error: &anyhow::Error, json: bool) -> Exit {
    let exit = error
        .downcast_ref::<Refusal>()
        .map_or(Exit::Error, |refusal| refusal.exit);
    if json {
        let details: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let shown = serde_json::json!({
            "code": exit as u8, "message": error.to_string(), "details": details,
        });
        crate::terminal::tell(shown);
    } else {
        crate::terminal::tell(format_args!("error: {error:#}"));
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_code_under_context() {
        let error = Refusal::usage("no such run").context("reading the run");
        assert_eq!(report(&error, false), Exit::Usage);
        assert_eq!(report(&anyhow::anyhow!("Redis is away"), true), Exit::Error);
    }
}
