//! What large pages cost: megabytes a second of reading them beside the bare parser's, and the memory of a worker that is
//! sent many of them at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use paceline_loadtest::bench::{
    Fleet, PageFormat, Programs, Servers, holding_provider, read_page, servers_to_collect,
    warn_on_stderr,
};

/// Reads pages in this process, then has a real worker collect many at once from private servers.
///
/// `worker` and `producer` come from PACELINE_BIN_DIR or the folder of this program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Megabytes of a page.
    #[arg(long, default_value_t = 5)]
    megabytes: usize,
    /// Times that each page is read; the median counts.
    #[arg(long, default_value_t = 15)]
    times: usize,
    /// Answers at once.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Only the reading, without servers.
    #[arg(long)]
    no_worker: bool,
}

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    read_all(&arguments)?;
    if arguments.no_worker {
        return Ok(());
    }
    let (programs, stack) = (Programs::find()?, servers_to_collect()?);
    let servers = Servers::of(stack.env());
    let (at_once, megabytes) = (arguments.at_once, arguments.megabytes);
    println!(
        "\n| format | worker's peak, idle | with {at_once} answers of {megabytes} MB at once | seconds |"
    );
    println!("|---|---|---|---|");
    for format in PageFormat::ALL {
        memory(&arguments, &programs, &servers, format)?;
    }
    Ok(())
}

fn read_all(arguments: &Arguments) -> anyhow::Result<()> {
    println!("| format | bare parser MB/s | read MB/s | share | with records MB/s |");
    println!("|---|---|---|---|---|");
    for format in PageFormat::ALL {
        let page = format.page(arguments.megabytes << 20);
        let page = page.as_bytes();
        let connector = format.connector()?;
        let mut seen = 0;
        let bare = speed(arguments.times, page.len(), || {
            seen += format.parse_barely(page)?;
            Ok(())
        })?;
        let read = speed(arguments.times, page.len(), || {
            read_page(&connector, page, false).map(drop)
        })?;
        let records = speed(arguments.times, page.len(), || {
            seen += read_page(&connector, page, true)?;
            Ok(())
        })?;
        ensure!(seen > 0, "nothing was read");
        println!(
            "| {} | {bare:.0} | {read:.0} | {:.0} % | {records:.0} |",
            format.name(),
            read / bare * 100.0
        );
    }
    Ok(())
}

/// Megabytes a second, the median of `times`.
fn speed(
    times: usize,
    bytes: usize,
    mut read: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..times.max(1) {
        let begun = Instant::now();
        read()?;
        took.push(begun.elapsed());
    }
    took.sort();
    Ok(bytes as f64 / 1e6 / took[took.len() / 2].as_secs_f64())
}

fn memory(
    arguments: &Arguments,
    programs: &Programs,
    servers: &Servers,
    format: PageFormat,
) -> anyhow::Result<()> {
    let page = format.page(arguments.megabytes << 20);
    let provider = holding_provider(page.into(), arguments.at_once)?;
    let folder = tempfile::tempdir()?;
    format.write(folder.path(), &provider.url(), arguments.at_once)?;
    let at_once = arguments.at_once.to_string();
    let concurrency = ["--concurrency", &at_once];
    let mut fleet = Fleet::of_spec(programs, servers, "pages", folder.path(), &concurrency);
    fleet.add_worker()?;
    let worker = *fleet.ids().first().context("a worker")?;
    std::thread::sleep(Duration::from_secs(2));
    let idle = peak_mib(worker)?;
    let started = Instant::now();
    fleet.enqueue()?;
    until_collected(&mut fleet, arguments.at_once as u64)?;
    let took = started.elapsed().as_secs_f64();
    let peak = peak_mib(worker)?;
    fleet.drain(Duration::from_secs(60))?;
    fleet.cancel()?;
    println!(
        "| {} | {idle:.0} MiB | {peak:.0} MiB | {took:.1} |",
        format.name()
    );
    Ok(())
}

fn until_collected(fleet: &mut Fleet, cells: u64) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(300);
    let started = Instant::now();
    loop {
        fleet.check()?;
        let status = fleet.status()?;
        let number = |name: &str| status[name].as_u64().unwrap_or(0);
        ensure!(number("failed") == 0, "pages failed: {status}");
        if number("succeeded") >= cells {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("not collected when time was up: {status}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The most memory that a process has had.
fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = number.context("no VmHWM")?.parse()?;
    Ok(kib / 1024.0)
}
