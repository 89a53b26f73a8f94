//! `producer health`

use paceline_protocol::probe;

use crate::cli::HealthArgs;
use crate::exit::Exit;

/// Asks, and says what was said when all is not well.
pub fn run(args: &HealthArgs) -> Exit {
    match probe::ask(args.address, args.ready) {
        Ok(health) if health.well => Exit::Done,
        Ok(health) => {
            crate::terminal::tell(&health.word);
            Exit::Error
        }
        Err(error) => {
            crate::terminal::tell(format_args!("{}: {error}", args.address));
            Exit::Error
        }
    }
}
