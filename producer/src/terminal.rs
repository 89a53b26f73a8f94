//! Writing to stdout and stderr.
//!
//! The signal that a closed pipe sends must stay ignored: a socket that its server cuts sends the same
//! one, and it would kill a producer that only has to connect again. So a reader that goes away
//! (`producer runs | head`) is noticed here, where the text is written.

use std::fmt::Display;
use std::io::{ErrorKind, Result, Write};

/// What a shell shows for a program that a closed pipe ended (128 + SIGPIPE).
const READER_GONE: i32 = 141;

/// A line of data, on stdout. Ends the process quietly when nobody reads any more.
pub fn data(line: impl Display) {
    text(format_args!("{line}\n"));
}

/// Data that brings its own line ends, on stdout. Ends the process quietly when nobody reads any more.
pub fn text(text: impl Display) {
    let mut stdout = std::io::stdout().lock();
    if reader_is_gone(&write!(stdout, "{text}").and_then(|()| stdout.flush())) {
        std::process::exit(READER_GONE);
    }
}

/// A line for people, on stderr. Nobody has to read it.
pub fn tell(line: impl Display) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

fn reader_is_gone(written: &Result<()>) -> bool {
    matches!(written, Err(error) if error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_means_that_nobody_reads() {
        assert!(reader_is_gone(&Err(ErrorKind::BrokenPipe.into())));
        assert!(!reader_is_gone(&Err(ErrorKind::StorageFull.into())));
        assert!(!reader_is_gone(&Ok(())));
    }
}
