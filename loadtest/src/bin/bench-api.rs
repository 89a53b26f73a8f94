//! The API of `producer serve`: requests a second beside a bare route of the same framework, a view of 1,400 cells beside
//! a bare read of the same set from Redis, and what 500 schedules and 10,000 open streams of events cost.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use paceline_loadtest::bench::{Programs, Served, Times, cpu_of, environment, warn_on_stderr};
use paceline_loadtest::simulator::{Limits, Simulator, SimulatorConfig};
use paceline_stack::{Stack, StackOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Measures the three, one after the other.
///
/// Servers are private ones; `producer` and `worker` come from PACELINE_BIN_DIR or the folder of this program.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long requests are counted.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections that ask at the same time.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How often the view and the set are read.
    #[arg(long, default_value_t = 2_000)]
    reads: usize,
    /// Jobs with a schedule of their own.
    #[arg(long, default_value_t = 500)]
    schedules: usize,
    /// Open streams of events.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
}

const KEY: &str = "bench-key";
/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    warn_on_stderr();
    let arguments = Arguments::parse();
    let stack = Stack::start(&StackOptions::private())?;
    let programs = Programs::find()?;
    let simulator = Simulator::start(SimulatorConfig {
        limits: Limits::per_second(2_000),
        keys: vec![KEY.to_owned()],
        ..SimulatorConfig::default()
    })?;
    let spec = tempfile::tempdir()?;
    calendar(spec.path())?;
    let mut env = environment(stack.env(), "api", &simulator.url(), spec.path());
    env.push(("FARE_SEARCH_KEYS".into(), KEY.into()));
    collect(&programs, &env)?;
    let served = Served::start(&programs, &env)?;
    requests(&arguments, &served).await?;
    view(&arguments, &served, &stack).await?;
    drop(served);
    schedules(spec.path(), arguments.schedules)?;
    streams(&arguments, &programs, &env).await
}

/// The example's fare calendar with one destination, 1,400 cells, quick and without a webhook.
fn calendar(folder: &Path) -> anyhow::Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/spec");
    let read = |file: &str| std::fs::read_to_string(example.join(file)).context(file.to_owned());
    for name in ["jobs", "providers"] {
        std::fs::create_dir_all(folder.join(name))?;
    }
    let job = read("jobs/fares.yaml")?;
    let job = job.split("notify:").next().unwrap_or_default();
    std::fs::write(folder.join("jobs/fares.yaml"), job)?;
    std::fs::write(
        folder.join("jobs/destinations.csv"),
        "iata,name\nNRT,Tokyo Narita\n",
    )?;
    let provider = read("providers/fare-search.yaml")?.replace("rate: 50/s", "rate: 1000/s");
    Ok(std::fs::write(
        folder.join("providers/fare-search.yaml"),
        provider,
    )?)
}

/// Copies of the job, each with a schedule at another minute of the day.
fn schedules(folder: &Path, count: usize) -> anyhow::Result<()> {
    let job = std::fs::read_to_string(folder.join("jobs/fares.yaml"))?;
    for number in 1..count {
        let (minute, hour) = (number % 60, number / 60 % 24);
        let copy = job
            .replace("job: fares", &format!("job: fares-{number:03}"))
            .replace(
                "cron: \"0 3 * * *\"",
                &format!("cron: \"{minute} {hour} * * *\""),
            )
            .replace("name: fares", &format!("name: fares-{number:03}"))
            .replace("fares:{{", &format!("fares-{number:03}:{{{{"));
        std::fs::write(folder.join(format!("jobs/fares-{number:03}.yaml")), copy)?;
    }
    Ok(())
}

/// Collects and loads the calendar once.
fn collect(programs: &Programs, env: &[(String, String)]) -> anyhow::Result<()> {
    let start = |name: &str, arguments: &[&str]| {
        let mut command = programs.command(name);
        command.args(arguments).envs(env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    };
    let mut workers = [start("worker", &["collect"])?, start("worker", &["load"])?];
    let ended = start(
        "producer",
        &["enqueue", "fares", "--run-id", "shown", "--wait"],
    )?
    .wait();
    let stop = |worker: &mut Child| {
        worker.kill().ok();
        worker.wait().ok();
    };
    workers.iter_mut().for_each(stop);
    let ended = ended?;
    ensure!(ended.success(), "the calendar was not collected: {ended}");
    Ok(())
}

async fn requests(arguments: &Arguments, served: &Served) -> anyhow::Result<()> {
    let path = "/api/v1/jobs";
    let body = reqwest::get(format!("{}{path}", served.url()))
        .await?
        .bytes()
        .await?;
    let bytes = body.len();
    let bare = axum::Router::new().route(
        path,
        axum::routing::get(move || {
            let body = body.clone();
            async move { ([("content-type", "application/json")], body) }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let bare_url = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async move { axum::serve(listener, bare).await });
    println!("| route | answer | requests/s |\n|---|---|---|");
    for (name, url) in [
        ("`GET /api/v1/jobs`", served.url()),
        ("the same body, bare axum", &bare_url),
    ] {
        let count = ask(&format!("{url}{path}"), arguments).await?;
        let per_second = count as f64 / arguments.seconds as f64;
        println!("| {name} | {bytes} B | {per_second:.0} |");
    }
    serving.abort();
    Ok(())
}

/// How many answers came in the time.
async fn ask(url: &str, arguments: &Arguments) -> anyhow::Result<usize> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let asking = (0..arguments.connections).map(|_| {
        let (client, url) = (client.clone(), url.to_owned());
        tokio::spawn(async move {
            let mut count = 0;
            while Instant::now() < until {
                client
                    .get(&url)
                    .send()
                    .await?
                    .error_for_status()?
                    .bytes()
                    .await?;
                count += 1;
            }
            Ok::<usize, reqwest::Error>(count)
        })
    });
    let mut all = 0;
    for asked in asking.collect::<Vec<_>>() {
        all += asked.await??;
    }
    Ok(all)
}

async fn view(arguments: &Arguments, served: &Served, stack: &Stack) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/views/fares?of=NRT", served.url());
    let (times, bytes) = Times::of(&url, arguments.reads).await?;
    let client = redis::Client::open(stack.value("REDIS_URL").context("a Redis")?)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let (mut bare, mut members) = (Times::default(), 0);
    for _ in 0..arguments.reads {
        let begun = Instant::now();
        let mut read = redis::cmd("ZRANGE");
        read.arg("fares:NRT").arg(0).arg(-1).arg("WITHSCORES");
        let all: Vec<(String, f64)> = read.query_async(&mut redis).await?;
        bare.note(begun.elapsed());
        members = all.len();
    }
    println!("\n| read | size | median ms | 99th percentile ms |\n|---|---|---|---|");
    let row = |name: &str, size: String, times: &Times| {
        println!(
            "| {name} | {size} | {:.3} | {:.3} |",
            times.ms(50.0),
            times.ms(99.0)
        );
    };
    row(
        "`GET /api/v1/views/fares?of=NRT`",
        format!("{bytes} B"),
        &times,
    );
    row(
        "`ZRANGE fares:NRT`, bare",
        format!("{members} members"),
        &bare,
    );
    Ok(())
}

async fn streams(
    arguments: &Arguments,
    programs: &Programs,
    env: &[(String, String)],
) -> anyhow::Result<()> {
    // Both ends of every stream are a file here: this process' and, inherited, the server's.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    ensure!(
        most as usize > arguments.streams + 500,
        "only {most} files may be open"
    );
    let served = Served::start(programs, env)?;
    served
        .until("/readyz", PATIENCE, |text| text.contains("ready"))
        .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let quiet = cpu_share(&served, arguments.seconds).await;
    let (alone, heard) = (served.resident_mib(), Arc::new(AtomicUsize::new(0)));
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..arguments.streams {
        let stream = stream(&served).await?;
        open.spawn(listen(stream, heard.clone()));
    }
    let watched = cpu_share(&served, arguments.seconds).await;
    let (begun, before) = (Instant::now(), cpu_of(served.id()));
    let start = reqwest::Client::new().post(format!("{}/api/v1/runs", served.url()));
    let started = start
        .body(r#"{"job": "fares", "run_id": "told"}"#)
        .send()
        .await?;
    ensure!(
        started.status().is_success(),
        "a start: {}",
        started.text().await?
    );
    while heard.load(Ordering::Relaxed) < arguments.streams {
        if begun.elapsed() > PATIENCE {
            bail!(
                "{} of {} heard of the start",
                heard.load(Ordering::Relaxed),
                arguments.streams
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (told, cpu) = (begun.elapsed(), cpu_of(served.id()) - before);
    println!(
        "\n| schedules | open streams | memory | CPU, nothing happens | told of a start after | CPU for that |"
    );
    println!("|---|---|---|---|---|---|");
    println!(
        "| {} | 0 | {alone} MiB | {quiet:.1} % | | |",
        arguments.schedules
    );
    println!(
        "| {} | {} | {} MiB | {watched:.1} % | {:.0} ms | {:.0} ms |",
        arguments.schedules,
        arguments.streams,
        served.resident_mib(),
        told.as_secs_f64() * 1e3,
        cpu.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// The share of one core that it takes.
async fn cpu_share(served: &Served, seconds: u64) -> f64 {
    let before = cpu_of(served.id());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = cpu_of(served.id()).saturating_sub(before);
    took.as_secs_f64() / seconds as f64 * 100.0
}

/// A stream of events, open.
async fn stream(served: &Served) -> anyhow::Result<TcpStream> {
    let host = served.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await?;
    let ask = format!("GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    ensure!(head.ends_with(b"200"), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// Counts itself once it has heard of the start.
async fn listen(mut stream: TcpStream, heard: Arc<AtomicUsize>) {
    let (mut text, mut buffer) = (String::new(), [0; 2_048]);
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if text.contains("\"told\"") {
            heard.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    // It stays open, as a browser's does.
    while stream
        .read(&mut buffer)
        .await
        .is_ok_and(|length| length > 0)
    {}
}
