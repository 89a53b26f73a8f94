//! `make demo`: the four servers, a strict provider, a fleet that collects 4,200 fares at exactly the
//! allowed speed, a worker killed on the way, and the proof at the end.
//!
//! With `--stay` the servers, the workers and the provider stay up for a look around.

mod fleet;
mod progress;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use paceline_stack::{Stack, StackOptions};
use tokio::signal::unix::{SignalKind, signal};

use fleet::Fleet;
use progress::{Progress, Provider};

/// 3 destinations x 100 departure dates x 14 nights.
const CELLS: u64 = 4_200;
/// Calls a second, as `providers/fare-search.yaml` says.
const ALLOWED: u64 = 50;
/// Between two looks at the provider.
const LOOK: Duration = Duration::from_millis(250);

/// A fleet collects 4,200 fares at exactly the allowed speed, loses a worker on the way, and proves what it did.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Arguments {
    /// Keep everything up afterwards, until Ctrl-C, and say how to look around.
    #[arg(long)]
    stay: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to");
    let end = tokio::select! {
        end = demo(&arguments) => end,
        _ = interrupt.recv() => leave(130),
        _ = terminate.recv() => leave(143),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever runs or is still starting, the guardian ends it when this process is gone.
fn leave(code: i32) -> ! {
    eprintln!("\ndemo: everything that it started ends with it");
    std::process::exit(code)
}

async fn demo(arguments: &Arguments) -> anyhow::Result<()> {
    let progress = Progress::new(CELLS, ALLOWED);
    progress.say("starting private RabbitMQ, Redis, S3 and Elasticsearch servers");
    let options = StackOptions::from_environment();
    let stack = tokio::task::spawn_blocking(move || Stack::start(&options)).await??;

    progress.say(&format!(
        "starting a fare search that allows {ALLOWED} calls in any second, strictly"
    ));
    let mut fleet = Fleet::new(&stack)?;
    let provider = Provider::new(fleet.start_provider()?);
    for _ in 0..4 {
        fleet.start_collector()?;
    }
    fleet.start_loader()?;
    progress.say("4 x worker collect, 1 x worker load; producer enqueue fares --wait");
    fleet.enqueue()?;

    collect(&mut fleet, &provider, &progress).await?;
    progress.say("the run is inside its gate: alias and sorted sets are published");
    if !arguments.stay {
        fleet.stop()?;
    }
    progress.finish();
    let report = provider.report().await?;
    let audit = fleet.audit()?;
    let finished = fleet.finished();
    report::print(&stack, &finished, &report, &audit).await?;
    if arguments.stay {
        report::print_looking_around(&fleet.write_environment()?, &finished);
        std::future::pending::<()>().await;
    }
    report::print_further();
    Ok(())
}

/// Follows the run to its end. At two fifths, one worker dies and another one comes.
async fn collect(
    fleet: &mut Fleet,
    provider: &Provider,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut killed = false;
    loop {
        if let Some(status) = fleet.enqueue_ended()? {
            if status.success() {
                return Ok(());
            }
            bail!(
                "producer enqueue ended with {status}\n{}",
                fleet.what_went_wrong()
            );
        }
        fleet.check_alive()?;
        let seen = provider.report().await.context("asking the provider")?;
        progress.show(&seen);
        if !killed && seen.calls >= CELLS * 2 / 5 {
            killed = true;
            let victim = fleet.kill_one_collector()?;
            progress.say(&format!(
                "kill -9 of worker {victim} amid its shards; another one starts"
            ));
            fleet.start_collector()?;
        }
        tokio::time::sleep(LOOK).await;
    }
}
