//! What the proof costs: seconds and memory of a real `producer audit` over a ledger of any length.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use paceline_loadtest::bench::{LedgerOfRun, Programs, cpu_of, warn_on_stderr};
use paceline_protocol::stores::objects::Objects;
use paceline_stack::{Stack, StackOptions};

/// Writes a ledger of each length and audits it, and prints a row for each.
///
/// Servers are private ones unless the environment names them; `producer` comes from PACELINE_BIN_DIR or the
/// folder of this program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows of the ledger.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000, 10_000_000])]
    rows: Vec<u64>,
}

fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = Stack::start(&StackOptions::from_environment())?;
    let runtime = tokio::runtime::Runtime::new()?;
    println!("| rows | seconds | rows/s | CPU us/row | peak memory |");
    println!("|---|---|---|---|---|");
    for rows in arguments.rows {
        runtime.block_on(measure(&stack, rows))?;
    }
    Ok(())
}

async fn measure(stack: &Stack, rows: u64) -> anyhow::Result<()> {
    let mut env: BTreeMap<String, String> = stack.env().into_iter().collect();
    let name = format!("bench-audit-{rows}-{}", std::process::id());
    for key in ["PACELINE_NAMESPACE", "PACELINE_PREFIX"] {
        env.insert(key.to_owned(), name.clone());
    }
    let bucket = env
        .get("PACELINE_BUCKET")
        .context("PACELINE_BUCKET is not set")?;
    let objects = Objects::of(bucket, &env).await;
    let folder = tempfile::tempdir()?;
    let ledger = LedgerOfRun::new(rows, &name, folder.path())?;
    ledger.write(&objects).await?;
    let begun = Instant::now();
    let audit = Programs::find()?
        .command("producer")
        .args(["audit", &ledger.run(), "--json"])
        .envs(&env)
        .env("PACELINE_SPEC", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = audit.id();
    let watch = std::thread::spawn(move || watch(pid));
    let output = tokio::task::spawn_blocking(move || audit.wait_with_output()).await??;
    let seconds = begun.elapsed().as_secs_f64();
    let seen = watch.join().unwrap_or_default();
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("the audit says JSON")?;
    ensure!(
        report["calls"] == rows && report["refused"] == ledger.refused(),
        "{rows} calls, {} refused were written: {report}",
        ledger.refused()
    );
    println!(
        "| {rows} | {seconds:.1} | {:.0} | {:.2} | {} MiB |",
        rows as f64 / seconds,
        seen.cpu.as_secs_f64() * 1e6 / rows as f64,
        seen.peak_kib / 1024,
    );
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Seen {
    peak_kib: u64,
    cpu: Duration,
}

/// The most memory and the time of a process, until it ends.
fn watch(pid: u32) -> Seen {
    let mut seen = Seen::default();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(peak) = peak else { return seen };
        let kib = peak
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .unwrap_or(0);
        seen.peak_kib = seen.peak_kib.max(kib);
        seen.cpu = seen.cpu.max(cpu_of(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
}
