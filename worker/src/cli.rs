//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Collects data from HTTP APIs at exactly the allowed speed, and loads it.
#[derive(Debug, Parser)]
#[command(name = "worker", version = env!("PACELINE_VERSION"), arg_required_else_help = true)]
pub struct Cli {
    /// What this process does.
    #[command(subcommand)]
    pub role: Role,
}

/// The two roles.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Collects until told to stop.
    Collect(CollectArgs),
    /// Loads results into Elasticsearch and finishes runs.
    Load(LoadArgs),
    /// Asks a worker on this machine whether it is well: 0 when it is, else 1. For the health checks of
    /// containers, which have no shell.
    Health(HealthArgs),
}

/// What both roles are told.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Serve /metrics, /healthz and /readyz here: `ADDR:PORT`, `:PORT` (every interface) or `:0` (a
    /// free port of 127.0.0.1). Nothing listens without it.
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,

    /// How long the first SIGTERM or Ctrl-C lets work in hand be finished or handed back.
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = duration)]
    pub grace: Duration,
}

/// `worker collect`
#[derive(Clone, Debug, Args)]
pub struct CollectArgs {
    /// What both roles are told.
    #[command(flatten)]
    pub common: CommonArgs,

    /// The label of this worker's outgoing address: takes the lanes that ask for it beside those that ask
    /// for none.
    #[arg(long, value_name = "LABEL")]
    pub egress: Option<String>,

    /// Only these lanes.
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub lanes: Vec<String>,

    /// Calls in flight of this process.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub concurrency: usize,

    /// Shards worked on at once; those that only wait, for answers, a scope or their lane's limits, do not count.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    pub shards: usize,
}

/// `worker load`
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// What both roles are told.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `worker health`
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// Where it listens; `:PORT` is this machine's.
    #[arg(value_name = "ADDR", value_parser = local_address)]
    pub address: SocketAddr,

    /// Whether it takes work, not only whether it lives.
    #[arg(long)]
    pub ready: bool,
}

/// As `listen_address`, but `:9101` is this machine's.
fn local_address(text: &str) -> Result<SocketAddr, String> {
    let found = listen_address(text)?;
    match found.ip().is_unspecified() {
        true => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, found.port()))),
        false => Ok(found),
    }
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let bare_port = text.strip_prefix(':').map(str::parse::<u16>);
    match bare_port {
        Some(Ok(0)) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        Some(Ok(port)) => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        _ => text
            .parse()
            .map_err(|_| "not an address: use 127.0.0.1:9090, :9090 or :0".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bad = || format!("`{text}` is not a time: use 25s, 500ms or 2m");
    let number: u64 = number.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("use a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_port_is_every_interface_but_a_free_one_stays_here() {
        let shown = |text| listen_address(text).map(|a| a.to_string());
        assert_eq!(shown(":9090").as_deref(), Ok("0.0.0.0:9090"));
        assert_eq!(shown(":0").as_deref(), Ok("127.0.0.1:0"));
        assert_eq!(shown("127.0.0.1:1").as_deref(), Ok("127.0.0.1:1"));
        assert!(shown("9090").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        assert!(duration("s").is_err() && duration("3h").is_err());
    }
}
