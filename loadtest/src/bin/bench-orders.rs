//! A first user's night in numbers: seven days of orders of 300 sellers at 17 markets. How long it takes, and how much of
//! what the slowest market allows is used.

use std::time::Instant;

use clap::Parser;
use paceline_loadtest::bench::{
    Fleet, MarketUse, Markets, Programs, Servers, all_servers, warn_on_stderr,
};

/// Collects orders at many markets with real workers, and prints what each market saw of it.
///
/// The markets are simulators of the three kinds in the example files, each under a provider file of its own made from those. Servers are
/// private ones unless the environment names them; programs come from PACELINE_BIN_DIR or the folder of this one. Ends with 6 when a call was refused.
#[derive(Debug, Parser)]
struct Arguments {
    /// Markets, of the three kinds in turn.
    #[arg(long, default_value_t = 17)]
    markets: usize,
    /// Sellers, each at every market.
    #[arg(long, default_value_t = 300)]
    sellers: usize,
    /// Days of orders.
    #[arg(long, default_value_t = 7)]
    days: u32,
    /// Calls a second that the slowest market (an XML one: a call for each seller and day) allows for all its sellers together.
    #[arg(long, default_value_t = 4)]
    slowest: u32,
    /// Worker processes that collect.
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// Keep the table for a program: one JSON object.
    #[arg(long)]
    json: bool,
}

/// Exit code of a limit that was passed, as in `producer audit`.
const LIMIT_PASSED: i32 = 6;

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let (programs, stack) = (Programs::find()?, all_servers()?);
    let servers = Servers::of(stack.env());
    let runtime = tokio::runtime::Runtime::new()?;
    let markets = runtime.block_on(Markets::start(
        arguments.markets,
        arguments.sellers,
        arguments.days,
        arguments.slowest,
    ))?;
    let folder = tempfile::tempdir()?;
    markets.write(folder.path())?;
    let environment = markets.environment(folder.path());
    let egress = ["--egress", "static"];
    let mut fleet = Fleet::of_spec(&programs, &servers, "orders", folder.path(), &egress);
    for (name, value) in &environment {
        fleet.set(name, value);
    }
    for _ in 0..arguments.processes {
        fleet.add_worker()?;
    }
    fleet.add_loader()?;
    let started = Instant::now();
    fleet.run_to_its_end()?;
    let took = started.elapsed().as_secs_f64();
    let audit = fleet.audit()?;
    let used = markets.used();
    if arguments.json {
        print_json(took, &used);
    } else {
        print_table(&arguments, markets.accounts(), took, &used);
        println!(
            "audit: {} calls, {} refused, {} repeated",
            audit["calls"], audit["refused"], audit["repeated"]
        );
    }
    if used.iter().any(|market| market.refused > 0) {
        eprintln!("calls were refused: a limit was passed");
        std::process::exit(LIMIT_PASSED);
    }
    Ok(())
}

fn print_table(arguments: &Arguments, accounts: usize, took: f64, used: &[MarketUse]) {
    let Arguments {
        days, processes, ..
    } = arguments;
    println!(
        "{days} days of {accounts} accounts by {processes} processes: {took:.1} s from enqueue to the end"
    );
    println!("market      like             calls   refused   seconds   allowed   used");
    for market in used {
        let allowed = market
            .rate
            .map_or("by seller".into(), |rate| format!("{rate}/s"));
        let share = market
            .used
            .map_or("-".into(), |share| format!("{:.2} %", share * 100.0));
        println!(
            "{:<11} {:<15} {:>6} {:>9} {:>9.1} {allowed:>9} {share:>9}",
            market.name,
            market.like,
            market.calls,
            market.refused,
            market.lasted.as_secs_f64(),
        );
    }
}

fn print_json(took: f64, used: &[MarketUse]) {
    let rows: Vec<serde_json::Value> = used
        .iter()
        .map(|market| {
            serde_json::json!({
                "market": market.name,
                "like": market.like,
                "rate": market.rate,
                "calls": market.calls,
                "refused": market.refused,
                "seconds": market.lasted.as_secs_f64(),
                "used": market.used,
            })
        })
        .collect();
    println!(
        "{}",
        serde_json::json!({ "seconds": took, "markets": rows })
    );
}
