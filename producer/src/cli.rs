//! The command line, spelled as other people's scripts know it. The help teaches by examples.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::civil::Date;
use paceline_protocol::ids::RunId;
use paceline_protocol::spec::{Span, span};

use crate::serve::useful::WorkerSize;

const OVERVIEW: &str = "\
First steps:
  producer doctor                             are the servers right? each fault with its remedy
  producer check                              are the job and provider files right?
  producer plan fares                         what would be called, and how long would it take?
  producer enqueue fares --wait               collect, with a progress bar
  producer audit 2026-11-21                   was a limit passed? how much of it was used?

Exit codes:
  0 done   1 error (a server, a setting)   2 usage (an unknown job or run too)   3 a file is wrong
  4 the run finished outside its gate   5 stopped by a provider   6 a limit was passed   130 interrupted";

/// Plans, enqueues, watches and audits collections of other people's HTTP APIs.
#[derive(Debug, Parser)]
#[command(name = "producer", version = env!("PACELINE_VERSION"), about, after_help = OVERVIEW, propagate_version = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The spec folder, which holds jobs/ and providers/
    #[arg(
        long,
        global = true,
        env = "PACELINE_SPEC",
        default_value = "./spec",
        value_name = "DIR"
    )]
    pub spec: PathBuf,
    /// Data on stdout as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress on stderr
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// No colours and no moving bar (also: NO_COLOR)
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read jobs and providers and say everything that is wrong with them; nothing is sent
    #[command(after_help = "\
Examples:
  producer check                              every job and provider of the spec folder
  producer check spec/jobs/fares.yaml         one file (and what it names)
  producer check --json | jq .                for an editor or CI")]
    Check(CheckArgs),
    /// Write a first, commented draft of a provider or job file
    #[command(after_help = "\
A draft is right as `check` sees it; what it says of limits and fields is a guess to be corrected.
Secrets of a curl command never reach the file: they become `credential.key`, from the environment.

Examples:
  producer new provider weather
  producer new provider weather --from-curl \"curl 'https://api.example.com/v1/now?city=Seoul' -H 'Authorization: Bearer KEY'\"
  producer new provider weather --from-curl -      the command line from stdin
  producer new provider weather --from-openapi weather.yaml --operation currentWeather
  producer new job weather-cities --provider weather")]
    New(NewArgs),
    /// Make the calls of one cell and show everything of them; nothing is written
    #[command(after_help = "\
They are calls under the fleet's limits. Requests are shown with the names of secrets in the place of secrets.
Ends with 4 when the cell would be a failure, with 5 when a provider or limit stands in the way.

Examples:
  producer try fares                          its first cell
  producer try fares --cell 12
  producer try fares --only destination=NRT   the first of these
  producer try fares --record spec/cases      and keep it for `producer test`")]
    Try(TryArgs),
    /// Replay kept cases offline and show what the files make of them now
    #[command(after_help = "\
Ends with 1 when something differs from what is kept.

Examples:
  producer test                               all of spec/cases
  producer test fares                         those of one job
  producer test more-cases --update           keep what comes of them now")]
    Test(TestArgs),
    /// Cells, calls, shards, time at the allowed rate, share of each quota; nothing is sent
    #[command(after_help = "\
Examples:
  producer plan fares
  producer plan fares --only destination=NRT --date 2026-12-01
  producer plan orders --require-fit          ends with 5 when it does not fit")]
    Plan(PlanArgs),
    /// Plan a run, write its plan and publish its shards; prints the run id
    #[command(after_help = "\
Examples:
  producer enqueue fares --wait               start a run and watch it to its end
  producer enqueue fares --run-id 2026-11-21  again with the same id: goes on with what is missing
  producer enqueue fares --only destination=NRT --only destination=KIX
  producer enqueue fares --dry-run            what would be done")]
    Enqueue(EnqueueArgs),
    /// The runs that are there, newest first
    #[command(after_help = "\
Examples:
  producer runs
  producer runs fares --json")]
    Runs(RunsArgs),
    /// What a run is doing: cells, ETA, the limit that binds
    #[command(after_help = "\
Examples:
  producer status 2026-11-21
  producer status orders/2026-11-21 --by seller
  producer status fares/2026-11-21 --json | jq .eta_s")]
    Status(StatusArgs),
    /// Show a run's progress until it ends, and end with its exit code
    #[command(after_help = "\
Examples:
  producer watch fares/2026-11-21
  producer watch fares/2026-11-21 --json | jq .failed   what `status` says, at its end
  producer watch 2026-11-21 --listen 127.0.0.1:9100   and serve /metrics, /healthz, /readyz meanwhile")]
    Watch(WatchArgs),
    /// Send only the cells of a run that failed or never came
    #[command(after_help = "\
An open run goes on as it is. What a provider's answer had closed (a cooldown, a quota said to be gone) is opened \
again; our own count of a quota stays.

Examples:
  producer retry 2026-11-21 --wait
  producer retry 2026-11-21 --json | jq .eta_s   what `status` says, then")]
    Retry(RetryArgs),
    /// Make a run's sorted sets, index and alias again from what lies in S3
    #[command(after_help = "\
For when Redis or Elasticsearch lost them. Nothing is called, the documents get the versions that \
they had, and the manifest stays as it is. `worker load` does it; when none takes receipts, one \
beside this program is started for as long as that takes. With `mode: upsert` a run gives its own \
documents: after the loss of an index, rebuild the runs that it was made of.

Ends with 4 when the run did not pass its gate: what it collected was never published.

Examples:
  producer rebuild fares/2026-11-21
  producer rebuild 2026-11-20 --force         also in the place of a live run that was planned later")]
    Rebuild(RebuildArgs),
    /// Take old runs out of S3, with their indices and what Redis has of them
    #[command(after_help = "\
A run is as old as its end. Jobs that say `retention:` keep to that, the others to --older-than. \
What stays, however old: open runs; of each job the live run, the last good one and the newest one; \
the runs that the plan of a run that stays names (its base, what it reads); what a job behind it \
has not read yet; and ledgers, plans and manifests for the window of the longest quota and a day. \
Objects that a job names with `key` or `merged` are its readers' and stay.

Examples:
  producer clean --older-than 30d --dry-run   what would go, and why the rest stays
  producer clean --older-than 30d
  producer clean orders --older-than 7d --yes  also when documents could not be made again any more
  producer clean --json --dry-run | jq .bytes  jobs that say `retention:` alone")]
    Clean(CleanArgs),
    /// End a run now; what has been collected stays in S3
    #[command(after_help = "\
`producer retry` sends the rest of a cancelled run later.

Examples:
  producer cancel fares/2026-11-21")]
    Cancel(RunArgs),
    /// Take no more shards of a run until `resume`
    #[command(after_help = "\
Examples:
  producer pause 2026-11-21
  producer resume 2026-11-21")]
    Pause(RunArgs),
    /// Go on with a paused run, and open again what a provider's answer had closed
    #[command(after_help = "\
Examples:
  producer resume 2026-11-21")]
    Resume(RunArgs),
    /// The budgets now: allowed, used, remaining, what is closed
    #[command(after_help = "\
Examples:
  producer limits                             the providers of all open runs
  producer limits fare-search --json
  producer limits --watch                     again each second
  producer limits set fare-search second 20/s --reason \"they asked us to\"
  producer limits hold fare-search --for 10m  nothing starts meanwhile
  producer limits reset fare-search           as the file says again")]
    Limits(LimitsArgs),
    /// Prove from the ledger that no limit was passed, and say how much of it was used
    #[command(after_help = "\
Ends with 6 when a limit was passed.

Examples:
  producer audit 2026-11-21
  producer audit 2026-11-21 --svg calls.svg    a picture of the calls against the limit
  producer audit fares/2026-11-21 --json | jq '.limits[] | {limit, worst, allowed}'")]
    Audit(AuditArgs),
    /// Start runs by schedule and message, tell how they ended, serve the API and metrics
    #[command(after_help = "\
Any number may run: a lease in Redis decides who starts things. The first SIGTERM or Ctrl-C drains.

Examples:
  producer serve
  producer serve --listen :9100               and /api/v1, /metrics, /healthz, /readyz")]
    Serve(ServeArgs),
    /// The next planned starts, and whether each run ends before the next one
    #[command(after_help = "\
Examples:
  producer schedule
  producer schedule fares --json")]
    Schedule(ScheduleArgs),
    /// Look at every server, right, clock and setting, each with its remedy
    #[command(after_help = "\
Ends with 1 when something would keep a run from working.

Examples:
  producer doctor
  producer doctor --json | jq '.[] | select(.mark != \"ok\")'")]
    Doctor,
    /// The least rights that the fleet needs of a server, made from the settings and the jobs of the spec folder
    #[command(after_help = "\
Examples:
  producer rights redis >> users.acl          put the password in, then ACL LOAD
  producer rights rabbitmq > paceline.json    rabbitmqctl import_definitions paceline.json
  producer rights s3                          a policy for the identity that the fleet runs as
  producer rights elasticsearch               PUT /_security/role/paceline")]
    Rights(RightsArgs),
    /// Ask a process of the fleet on this machine whether it is well: 0 when it is, else 1
    #[command(after_help = "\
For the health checks of containers, which have no shell.

Examples:
  producer health :9100                       /healthz
  producer health :9100 --ready               /readyz")]
    Health(HealthArgs),
    /// The JSON Schema of job or provider files, for editors
    #[command(after_help = "\
Examples:
  producer schema job > job.schema.json
  # yaml-language-server: $schema=job.schema.json")]
    Schema(SchemaArgs),
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files or folders; without any, the whole spec folder
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// `new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// What to draft
    #[command(subcommand)]
    pub what: NewWhat,
}

/// What can be drafted.
#[derive(Debug, Subcommand)]
pub enum NewWhat {
    /// providers/NAME.yaml
    Provider(NewProviderArgs),
    /// jobs/NAME.yaml
    Job(NewJobArgs),
}

/// `new provider`
#[derive(Debug, Args)]
pub struct NewProviderArgs {
    /// Its name; asked for on a terminal
    pub name: Option<String>,
    /// A URL that it answers, with its query; without any of these a terminal asks, and else an example stands there
    #[arg(long, value_name = "URL", conflicts_with_all = ["from_curl", "from_openapi"])]
    pub url: Option<String>,
    /// How many calls its manual allows (20/s, 300/min)
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Where the records lie in an answer (JSONPath)
    #[arg(long, value_name = "PATH", conflicts_with = "from_openapi")]
    pub records: Option<String>,
    /// The curl command line that calls it (`-`: from stdin); it is read, not run
    #[arg(long, value_name = "COMMAND")]
    pub from_curl: Option<String>,
    /// An OpenAPI 3 document, YAML or JSON, that describes it
    #[arg(
        long,
        value_name = "FILE",
        requires = "operation",
        conflicts_with = "from_curl"
    )]
    pub from_openapi: Option<PathBuf>,
    /// Which operation of it: its id, or `GET /path`
    #[arg(long, value_name = "ID", requires = "from_openapi")]
    pub operation: Option<String>,
}

/// `new job`
#[derive(Debug, Args)]
pub struct NewJobArgs {
    /// Its name; asked for on a terminal
    pub name: Option<String>,
    /// The provider in the spec folder; on a terminal one can choose
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Which of its endpoints, where it has several
    #[arg(long, value_name = "NAME")]
    pub endpoint: Option<String>,
}

/// What narrows or dates a plan.
#[derive(Clone, Debug, Default, Args)]
pub struct Narrowing {
    /// A parameter of the job, instead of the one in its file
    #[arg(long = "param", value_name = "K=V", value_parser = pair)]
    pub params: Vec<(String, String)>,
    /// Only the cells where a dimension has this value (may come several times); publishes neither alias nor sets
    #[arg(long = "only", value_name = "DIM=VALUE", value_parser = pair)]
    pub only: Vec<(String, String)>,
    /// The run's date (`today`), instead of the one in the schedule's time zone
    #[arg(long, value_name = "D")]
    pub date: Option<Date>,
}

/// `plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A job's name in the spec folder, or the path of its file
    pub job: String,
    /// What narrows it
    #[command(flatten)]
    pub narrowing: Narrowing,
    /// End with 5 when it does not fit into its quotas, before the next run, or before its deadline
    #[arg(long)]
    pub require_fit: bool,
}

/// `try`
#[derive(Debug, Args)]
pub struct TryArgs {
    /// A job's name in the spec folder, or the path of its file
    pub job: String,
    /// Which cell, from 0
    #[arg(long, value_name = "N")]
    pub cell: Option<u64>,
    /// What narrows it; of what is left, the first cell or `--cell`
    #[command(flatten)]
    pub narrowing: Narrowing,
    /// The most calls
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub calls: u32,
    /// Keep it as a test case in this folder
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
}

/// `test`
#[derive(Debug, Args)]
pub struct TestArgs {
    /// A folder of kept cases, or a job whose cases of the spec folder are meant; without it all of the spec folder
    #[arg(value_name = "DIR|JOB")]
    pub what: Option<String>,
    /// Keep what comes of them now as what is expected
    #[arg(long)]
    pub update: bool,
}

/// `enqueue`
#[derive(Debug, Args)]
pub struct EnqueueArgs {
    /// A job's name in the spec folder, or the path of its file
    pub job: String,
    /// The run's id; without it one is made that sorts by time. The same again continues the run
    #[arg(long, value_name = "ID")]
    pub run_id: Option<RunId>,
    /// What narrows it
    #[command(flatten)]
    pub narrowing: Narrowing,
    /// Publish also with far fewer records than the last good run
    #[arg(long)]
    pub allow_shrink: bool,
    /// Publish also when a run that was planned later is live
    #[arg(long)]
    pub force: bool,
    /// Show progress and end with the run
    #[arg(long)]
    pub wait: bool,
    /// Serve /metrics, /healthz and /readyz while waiting
    #[arg(long, value_name = "ADDR", value_parser = address, requires = "wait")]
    pub listen: Option<SocketAddr>,
    /// Print what would be done and send nothing
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
}

/// `runs`
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// Only this job's
    pub job: Option<String>,
}

/// Commands about one run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// `<run>` or `<job>/<run>`
    pub run: String,
}

/// `rebuild`
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// `<run>` or `<job>/<run>`
    pub run: String,
    /// Take alias and sets also from a run that was planned later
    #[arg(long)]
    pub force: bool,
}

/// `clean`
#[derive(Debug, Args)]
pub struct CleanArgs {
    /// Only this job's runs
    pub job: Option<String>,
    /// How old the runs are that go, of jobs that do not say `retention`
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub older_than: Option<Span>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also when documents of an index with `mode: upsert` could not be made again any more
    #[arg(long)]
    pub yes: bool,
}

/// `audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// `<run>` or `<job>/<run>`
    pub run: String,
    /// Write a timeline of the calls against the limit to this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// `<run>` or `<job>/<run>`
    pub run: String,
    /// Progress by the values of this dimension (the job's `progress_by` without it)
    #[arg(long, value_name = "DIM")]
    pub by: Option<String>,
}

/// `watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// `<run>` or `<job>/<run>`
    pub run: String,
    /// Serve /metrics, /healthz and /readyz meanwhile
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
}

/// `retry`
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// `<run>` or `<job>/<run>`
    pub run: String,
    /// Show progress and end with the run
    #[arg(long)]
    pub wait: bool,
}

/// `limits`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LimitsArgs {
    /// Only this provider's, of the open runs or the spec folder
    pub provider: Option<String>,
    /// Look again each second until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Change a provider's limits.
    #[command(subcommand)]
    pub change: Option<LimitsChange>,
}

/// `limits set`, `limits reset`, `limits hold`
#[derive(Debug, Subcommand)]
pub enum LimitsChange {
    /// Set a limit for the whole fleet, from now on until `limits reset`
    #[command(after_help = "\
Examples:
  producer limits set fare-search second 20/s --reason \"they asked us to\"
  producer limits set fare-search second \"20/s burst 5\"
  producer limits set fare-search in-flight 16
  producer limits set naver day 20000/day")]
    Set {
        /// The provider
        provider: String,
        /// Its limit, by name
        limit: String,
        /// As the file would say it: 20/s, 250ms, 16, 20000/day
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Why; it is logged and kept
        #[arg(long)]
        reason: Option<String>,
    },
    /// Take back what was set (of all limits the hold too) and forget what answers told
    #[command(after_help = "\
Examples:
  producer limits reset fare-search second
  producer limits reset fare-search")]
    Reset {
        /// The provider
        provider: String,
        /// Only this limit
        limit: Option<String>,
        /// Why; it is logged
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let nothing start at a provider for a while
    #[command(after_help = "\
Examples:
  producer limits hold fare-search --for 10m --reason \"they deploy\"
  producer limits hold fare-search --for 0s       ends it")]
    Hold {
        /// The provider
        provider: String,
        /// For how long: 30s, 10m, 2h
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        for_: Span,
        /// Why; it is logged and kept
        #[arg(long)]
        reason: Option<String>,
    },
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Serve /api/v1, /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The `--concurrency` of the workers, for the metric of how many are of use
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub worker_concurrency: u64,
    /// The `--shards` of the workers, likewise
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub worker_shards: u64,
}

impl ServeArgs {
    /// What one worker takes on.
    pub fn worker(&self) -> WorkerSize {
        WorkerSize {
            concurrency: self.worker_concurrency,
            shards: self.worker_shards,
        }
    }
}

/// `rights`
#[derive(Debug, Args)]
pub struct RightsArgs {
    /// Of which server
    pub of: RightsOf,
}

/// The servers that give rights.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RightsOf {
    /// A line of an ACL file
    Redis,
    /// Permissions to import
    Rabbitmq,
    /// A policy
    S3,
    /// A role
    Elasticsearch,
}

/// `health`
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Where it listens; `:PORT` is this machine's
    #[arg(value_name = "ADDR", value_parser = local_address)]
    pub address: SocketAddr,
    /// Whether it takes work, not only whether it lives
    #[arg(long)]
    pub ready: bool,
}

/// `schedule`
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// Only this job's
    pub job: Option<String>,
}

/// `schema`
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which files
    pub of: SchemaOf,
}

/// What there is a schema of.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaOf {
    /// jobs/*.yaml
    Job,
    /// providers/*.yaml
    Provider,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

/// `127.0.0.1:9100`, or `:9100` on every address; `:0` is any free port of this machine alone.
fn address(text: &str) -> Result<SocketAddr, String> {
    match text.strip_prefix(':').map(str::parse::<u16>) {
        Some(Ok(0)) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        Some(Ok(port)) => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        _ => text
            .parse()
            .map_err(|_| "write it as ADDRESS:PORT, for example 127.0.0.1:9100 or :9100".into()),
    }
}

/// As `address`, but `:9100` is this machine's.
fn local_address(text: &str) -> Result<SocketAddr, String> {
    let found = address(text)?;
    match found.ip().is_unspecified() {
        true => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, found.port()))),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_lines_are_understood() {
        for line in [
            "producer check spec/jobs/fares.yaml --json",
            "producer enqueue fares --run-id 2026-11-21 --param origin=ICN --only destination=NRT --date 2026-11-22 --allow-shrink --force --wait",
            "producer --spec deploy/spec enqueue fares --dry-run",
            "producer enqueue fares --wait --listen :0",
            "producer watch fares/2026-11-21 --listen 127.0.0.1:9100",
            "producer retry fares/2026-11-21 --wait",
            "producer limits fare-search",
            "producer limits fare-search --watch",
            "producer limits set fare-search second 20/s --reason asked",
            "producer limits reset fare-search second",
            "producer limits hold fare-search --for 10m",
            "producer serve --listen :9100",
            "producer health :9100 --ready",
            "producer rights elasticsearch",
            "producer schema provider",
        ] {
            Cli::try_parse_from(line.split(' ')).expect(line);
        }
    }

    /// What a shell makes of a line, up to a comment, a pipe or a file.
    fn words(line: &str) -> Vec<String> {
        let line = line
            .replace("DATE", "2026-11-21")
            .replace("SERVER", "s3")
            .replace("ADDR", ":9100");
        let words = shlex::split(&line).unwrap_or_else(|| panic!("quotes: {line}"));
        let ends = |word: &String| ["|", ">", ">>", "#"].contains(&word.as_str());
        words.into_iter().take_while(|word| !ends(word)).collect()
    }

    /// Every `producer` line in a shell block or between backticks of the documents is one that is understood.
    #[test]
    fn the_documents_lines_are_understood() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let files = [
            "README.md",
            "README.ko.md",
            "CONTRIBUTING.md",
            "deploy/README.md",
        ];
        let mut files: Vec<_> = files.map(|file| format!("{root}/{file}")).into();
        for folder in ["docs/src", "deploy/runbooks"] {
            let pages = std::fs::read_dir(format!("{root}/{folder}")).expect(folder);
            files.extend(pages.map(|page| page.expect("a page").path().display().to_string()));
        }
        let mut lines = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).expect(&file);
            let typed = text.lines().map(str::trim);
            let said = text.split('`').skip(1).step_by(2);
            // `[...]` and `|` are how a table writes what may be left out; one word is the program's name.
            let whole = |line: &&str| !line.contains(['[', '|', '\n']) && !line.contains("...");
            let ours = typed
                .chain(said)
                .filter(|line| line.starts_with("producer "));
            for line in ours.filter(whole) {
                let parsed = Cli::try_parse_from(words(line)).map(drop);
                // A sentence may name a command without its arguments.
                let incomplete = |kind| {
                    use clap::error::ErrorKind::*;
                    matches!(
                        kind,
                        MissingRequiredArgument | DisplayHelpOnMissingArgumentOrSubcommand
                    )
                };
                let understood = parsed.map_err(|error| error.kind());
                let understood = understood.is_ok() || understood.is_err_and(incomplete);
                assert!(understood, "{file}: {line}");
                lines += 1;
            }
        }
        assert!(lines > 50, "{lines} lines");
    }

    /// So is every example of a command's help.
    #[test]
    fn the_examples_are_understood() {
        fn examples(command: &clap::Command, found: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
            let lines = lines.filter(|line| line.starts_with("producer "));
            // Two spaces part a line from what is said of it.
            let typed = lines.map(|line| line.split("  ").next().unwrap_or(line));
            found.extend(typed.map(str::to_owned));
            command
                .get_subcommands()
                .for_each(|one| examples(one, found));
        }
        let mut found = Vec::new();
        examples(&Cli::command(), &mut found);
        assert!(found.len() > 40, "{} examples", found.len());
        for line in found {
            let parsed = Cli::try_parse_from(words(&line));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }

    #[test]
    fn a_bad_run_id_is_refused_at_the_door() {
        assert!(Cli::try_parse_from(["producer", "enqueue", "fares", "--run-id", "../x"]).is_err());
    }
}
