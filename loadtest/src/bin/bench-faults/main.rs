//! What is left of the allowance, and whether it is ever passed, while something breaks: real workers against the
//! strict simulator, judged by the simulator's log.

mod scenarios;
mod scene;

use clap::Parser;
use paceline_loadtest::bench::{Programs, servers_to_collect, warn_on_stderr};

/// Plays every scenario and prints a row for each.
///
/// The servers are private ones, since they are broken on purpose; programs come from PACELINE_BIN_DIR or the folder
/// of this one. Ends with 6 when a limit was passed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Scenarios to play (a part of their name); all without.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Length of each, beside those that take longer.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Calls a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Worker processes.
    #[arg(long, default_value_t = 4)]
    processes: usize,
}

/// Exit code of a limit that was passed, as in `producer audit`.
const LIMIT_PASSED: i32 = 6;

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let programs = Programs::find()?;
    let stack = servers_to_collect()?;
    println!(
        "| scenario | limits | used | used outside the blind time | blind | worst | over the limit |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut over = 0;
    for scenario in scenarios::all(&arguments) {
        let wanted = |part: &String| scenario.name.contains(part.as_str());
        if !arguments.only.is_empty() && !arguments.only.iter().any(wanted) {
            continue;
        }
        match scene::play(&programs, &stack, &scenario) {
            Ok(seen) => {
                println!("{}", seen.row(&scenario));
                over += seen.over;
            }
            Err(error) => println!(
                "| {} | {} | not measured: {error:#} |",
                scenario.name, scenario.told
            ),
        }
    }
    if over > 0 {
        eprintln!("{over} windows held too many: a limit was passed");
        std::process::exit(LIMIT_PASSED);
    }
    Ok(())
}
