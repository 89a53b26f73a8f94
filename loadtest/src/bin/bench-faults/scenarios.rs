//! What breaks.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use paceline_loadtest::bench::BenchJob;
use paceline_loadtest::simulator::{Latency, Rate};

use super::Arguments;
use super::scene::{Break, Each, Play, Scenario};

/// Lost leases open after two renewals, and a little.
const LEASES_BLIND: Duration = Duration::from_millis(2_500);
/// A lost pace opens a horizon and an interval later.
const PACE_BLIND: Duration = Duration::from_millis(300);
const SECOND: Duration = Duration::from_secs(1);

/// Every scenario.
pub fn all(arguments: &Arguments) -> Vec<Scenario> {
    let rate = arguments.rate;
    let base = |name: &str, breaks: Break| Scenario {
        name: name.to_owned(),
        told: format!("{rate}/s"),
        rate: f64::from(rate),
        strict: vec![Rate::strict(rate, SECOND)],
        each: None,
        job: job(rate, arguments.seconds, Some(rate_alone(rate))),
        latency: latency("5ms..20ms"),
        processes: arguments.processes,
        length: Duration::from_secs(arguments.seconds),
        preload: None,
        breaks,
    };
    let mut all = vec![
        base("nothing breaks", undisturbed),
        base("FLUSHALL every 3 s", flushed),
        Scenario {
            told: format!("{rate}/s, 256 in flight"),
            job: job(rate, arguments.seconds, None),
            ..base("FLUSHALL every 3 s, with leases", flushed_with_leases)
        },
        base("Redis restarted empty", restarted_empty),
        base("Redis restarted from an old snapshot", restarted_old),
        base("failed over to a lagging replica", failed_over),
        base("Redis paused 5 s", paused),
        Scenario {
            length: Duration::from_secs(65),
            job: job(rate, 70, Some(rate_alone(rate))),
            ..base("a worker stopped for 45 s (SIGSTOP)", stopped)
        },
        base("a worker goes (SIGTERM) and one comes each second", going),
        base("a worker is killed (-9) and one comes each second", killed),
        Scenario {
            told: "50/s, 1,000/min".to_owned(),
            rate: 1_000.0 / 60.0,
            strict: vec![
                Rate::strict(50, SECOND),
                Rate::strict(1_000, Duration::from_secs(60)),
            ],
            job: job(
                50,
                90,
                Some("  - {name: second, rate: 50/s}\n  - {name: minute, rate: 1000/min}"),
            ),
            length: Duration::from_secs(75),
            ..base("two windows at once", undisturbed)
        },
        Scenario {
            told: "200 sellers x 2/s".to_owned(),
            rate: 400.0,
            strict: vec![],
            each: Some(Each {
                calls: 2,
                of: route_and_nights,
            }),
            job: BenchJob {
                // Ten destinations of twenty lengths of stay.
                wanted: 20_000,
                ..job(
                    400,
                    arguments.seconds,
                    Some("  - {name: seller, rate: 2/s, per: \"{{ destination }}/{{ nights }}\"}"),
                )
            },
            ..base("200 sellers", undisturbed)
        },
        Scenario {
            told: "50 sellers x 10/s".to_owned(),
            rate: 500.0,
            strict: vec![],
            each: Some(Each {
                calls: 10,
                of: route,
            }),
            job: BenchJob {
                // All fifty destinations that the simulator knows, of eighty shards each.
                wanted: 400_000,
                ..job(
                    500,
                    arguments.seconds,
                    Some("  - {name: seller, rate: 10/s, per: \"{{ destination }}\"}"),
                )
            },
            ..base("50 sellers of 80 shards", undisturbed)
        },
        Scenario {
            told: "5/s".to_owned(),
            rate: 5.0,
            strict: vec![Rate::strict(5, SECOND)],
            job: job(5, 400, Some("  - {name: second, rate: 5/s}")),
            processes: 64,
            ..base("64 workers on a slow lane", counted)
        },
    ];
    // Of a worker 64 calls are in flight at most: answers after 5 s need 250 at 50/s, and some room.
    let latencies = [
        ("5ms", "5 ms", 1),
        ("500ms", "500 ms", 1),
        ("5s", "5 s, twice the workers", 2),
    ];
    for (name, told, times) in latencies {
        all.push(Scenario {
            latency: latency(name),
            processes: arguments.processes * times,
            ..base(&format!("answers after {told}"), undisturbed)
        });
    }
    if let Some(library) = hour() {
        all.push(Scenario {
            preload: Some(library),
            ..base("worker clocks wrong by an hour", undisturbed)
        });
    }
    all
}

fn job(rate: u32, seconds: u64, limits: Option<&'static str>) -> BenchJob {
    BenchJob {
        // Calls enough for the start and the end, too.
        wanted: u64::from(rate) * (seconds + 30),
        rate,
        concurrency: 256,
        limits,
    }
}

/// The text lives as long as the program, as all of its scenarios do.
fn rate_alone(rate: u32) -> &'static str {
    Box::leak(format!("  - {{name: second, rate: {rate}/s}}").into_boxed_str())
}

fn latency(text: &str) -> Latency {
    text.parse().unwrap_or_default()
}

/// The part of `ICN-NRT/2026-11-22/2026-11-25` that stands for a seller: the destination.
fn route(cell: &str) -> String {
    cell.split('/').next().unwrap_or_default().to_owned()
}

/// The same with the nights.
fn route_and_nights(cell: &str) -> String {
    let route = route(cell);
    let mut parts = cell.split('/').skip(1);
    let mut day = || parts.next()?.parse::<jiff::civil::Date>().ok();
    let nights = day()
        .zip(day())
        .and_then(|(out, back)| out.until(back).ok());
    format!("{route}/{}", nights.map_or(0, |span| span.get_days()))
}

fn undisturbed(play: &mut Play<'_>) -> anyhow::Result<()> {
    play.wait_to_the_end();
    Ok(())
}

fn redis_cli(play: &Play<'_>, words: &[&str]) -> anyhow::Result<String> {
    let url = play.stack.value("REDIS_URL").context("a Redis")?;
    let output = Command::new("redis-cli")
        .args(["-u", url])
        .args(words)
        .output()?;
    ensure!(output.status.success(), "redis-cli {words:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn flush_every(play: &mut Play<'_>, blind: Duration) -> anyhow::Result<()> {
    while play.wait(3 * SECOND) {
        redis_cli(play, &["FLUSHALL"])?;
        play.blind_for(blind);
    }
    Ok(())
}

fn flushed(play: &mut Play<'_>) -> anyhow::Result<()> {
    flush_every(play, PACE_BLIND)
}

fn flushed_with_leases(play: &mut Play<'_>) -> anyhow::Result<()> {
    flush_every(play, LEASES_BLIND)
}

/// What is away is blind, and then until the pace opens.
fn restarted(
    play: &mut Play<'_>,
    change: impl Fn(&std::path::Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    play.blind_for(SECOND);
    let server = play.redis()?;
    server.kill()?;
    change(&server.folder().join("appendonlydir"))?;
    server.restart()?;
    // A client that lost its server looks again within a second and a half.
    let away = begun.elapsed() + Duration::from_millis(1_500) + PACE_BLIND;
    play.blind_for(away);
    play.note = format!("{:.1} s away", begun.elapsed().as_secs_f64());
    play.wait_to_the_end();
    Ok(())
}

fn restarted_empty(play: &mut Play<'_>) -> anyhow::Result<()> {
    play.wait(10 * SECOND);
    restarted(play, |data| Ok(std::fs::remove_dir_all(data)?))
}

fn restarted_old(play: &mut Play<'_>) -> anyhow::Result<()> {
    play.wait(5 * SECOND);
    let data = play.redis()?.folder().join("appendonlydir");
    let old = data.with_file_name("old");
    copy(&data, &old)?;
    play.wait(8 * SECOND);
    restarted(play, |data| {
        std::fs::remove_dir_all(data)?;
        copy(&old, data)
    })
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> anyhow::Result<()> {
    let status = Command::new("cp").arg("-rT").args([from, to]).status()?;
    ensure!(status.success(), "cp of {} failed", from.display());
    Ok(())
}

/// A replica that ends with its owner.
struct Replica(Child);

impl Drop for Replica {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn failed_over(play: &mut Play<'_>) -> anyhow::Result<()> {
    let url = play.stack.value("REDIS_URL").context("a Redis")?.to_owned();
    let master: std::net::SocketAddr = url
        .trim_start_matches("redis://")
        .trim_end_matches('/')
        .parse()?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port();
    let folder = tempfile::tempdir()?;
    let replica = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--replicaof", "127.0.0.1", &master.port().to_string()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()?;
    let _replica = Replica(replica);
    let own = format!("redis://127.0.0.1:{port}/");
    let say = |words: &[&str]| {
        let output = Command::new("redis-cli")
            .args(["-u", &own])
            .args(words)
            .output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    for _ in 0..50 {
        if say(&["INFO", "replication"])?.contains("master_link_status:up") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    play.wait(8 * SECOND);
    // From now on it hears nothing more; three seconds later it takes over.
    say(&["REPLICAOF", "NO", "ONE"])?;
    play.wait(3 * SECOND);
    play.blind_for(Duration::from_millis(1_500) + PACE_BLIND);
    play.relay.switch(([127, 0, 0, 1], port).into());
    play.note = "3 s behind".into();
    play.wait_to_the_end();
    play.fleet.kill();
    play.relay.switch(master);
    Ok(())
}

fn paused(play: &mut Play<'_>) -> anyhow::Result<()> {
    play.wait(10 * SECOND);
    play.redis()?.pause()?;
    play.blind_for(5 * SECOND + Duration::from_millis(1_500));
    play.wait(5 * SECOND);
    play.redis()?.resume()?;
    play.wait_to_the_end();
    Ok(())
}

fn stopped(play: &mut Play<'_>) -> anyhow::Result<()> {
    play.wait(5 * SECOND);
    play.fleet.signal_oldest(Signal::SIGSTOP)?;
    play.wait(45 * SECOND);
    play.fleet.signal_oldest(Signal::SIGCONT)?;
    play.wait_to_the_end();
    Ok(())
}

fn changing(play: &mut Play<'_>, signal: Signal) -> anyhow::Result<()> {
    while play.wait(SECOND) {
        play.fleet.add_worker()?;
        play.fleet.signal_oldest(signal)?;
    }
    Ok(())
}

fn going(play: &mut Play<'_>) -> anyhow::Result<()> {
    changing(play, Signal::SIGTERM)
}

fn killed(play: &mut Play<'_>) -> anyhow::Result<()> {
    changing(play, Signal::SIGKILL)
}

/// How many commands Redis served.
fn commands(play: &Play<'_>) -> anyhow::Result<u64> {
    let stats = redis_cli(play, &["INFO", "stats"])?;
    let line = stats
        .lines()
        .find_map(|l| l.strip_prefix("total_commands_processed:"));
    Ok(line.context("Redis counts its commands")?.trim().parse()?)
}

/// Scripts that were asked for: one is a round trip of the limiter.
fn scripts(play: &Play<'_>) -> anyhow::Result<u64> {
    let stats = redis_cli(play, &["INFO", "commandstats"])?;
    let calls = |line: &str| {
        let rest = line.strip_prefix("cmdstat_evalsha:calls=")?;
        rest.split(',').next()?.parse::<u64>().ok()
    };
    Ok(stats.lines().filter_map(calls).sum())
}

fn counted(play: &mut Play<'_>) -> anyhow::Result<()> {
    // All of them are up, and have found that there is little to get.
    play.wait(10 * SECOND);
    let (before, asked, begun) = (commands(play)?, scripts(play)?, std::time::Instant::now());
    play.wait_to_the_end();
    let seconds = begun.elapsed().as_secs_f64();
    let each = |n: u64| n as f64 / seconds / 64.0;
    let (commands, scripts) = (commands(play)? - before, scripts(play)? - asked);
    play.note = format!(
        "a worker and second: {:.2} scripts, {:.2} commands, those within scripts among them",
        each(scripts),
        each(commands)
    );
    Ok(())
}

/// A library that sets the wall clock of whoever loads it an hour ahead; none without a C compiler.
fn hour() -> Option<PathBuf> {
    let folder = std::env::temp_dir().join(format!("paceline-hour-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    let (source, library) = (folder.join("hour.c"), folder.join("hour.so"));
    std::fs::write(&source, include_str!("hour.c")).ok()?;
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .ok()?;
    status.success().then_some(library)
}
