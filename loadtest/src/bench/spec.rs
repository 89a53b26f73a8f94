//! The spec folder of a benchmark: the fare calendar with as many cells as the run needs.

use std::fmt::Write as _;
use std::path::Path;

use jiff::civil::Date;

use crate::fares::airports;

const ORIGIN: &str = "ICN";
const DAYS: u64 = 100;
const NIGHTS: u64 = 20;

/// A fare calendar of a chosen size, at a chosen rate. Beside rate and concurrency nothing limits it.
#[derive(Clone, Copy, Debug)]
pub struct BenchJob {
    /// At least so many cells; `cells()` says how many it becomes.
    pub wanted: u64,
    /// Calls a second in the provider file.
    pub rate: u32,
    /// Calls in flight in the provider file.
    pub concurrency: u32,
    /// Entries of `limits:` that stand there instead of those two.
    pub limits: Option<&'static str>,
}

impl BenchJob {
    /// The job's name.
    pub const NAME: &str = "bench";

    /// How many cells it has: destinations times 100 days times nights.
    pub fn cells(&self) -> u64 {
        self.destinations().len() as u64 * DAYS * self.nights()
    }

    /// Writes `jobs/` and `providers/` below `folder`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        let (jobs, providers) = (folder.join("jobs"), folder.join("providers"));
        std::fs::create_dir_all(&jobs)?;
        std::fs::create_dir_all(&providers)?;
        let rows = self
            .destinations()
            .into_iter()
            .fold("iata\n".to_owned(), |mut rows, code| {
                rows.push_str(code);
                rows.push('\n');
                rows
            });
        std::fs::write(jobs.join("destinations.csv"), rows)?;
        std::fs::write(jobs.join("bench.yaml"), self.job())?;
        std::fs::write(providers.join("fare-search.yaml"), self.provider())
    }

    fn destinations(&self) -> Vec<&'static str> {
        let wanted = self.wanted.div_ceil(DAYS * NIGHTS).max(1) as usize;
        airports::codes()
            .filter(|&code| code != ORIGIN)
            .take(wanted)
            .collect()
    }

    fn nights(&self) -> u64 {
        let one_night = self.destinations().len() as u64 * DAYS;
        self.wanted.div_ceil(one_night).max(NIGHTS)
    }

    fn job(&self) -> String {
        let (name, nights) = (Self::NAME, self.nights());
        format!(
            r#"job: {name}
provider: fare-search
endpoint: fares
params: {{origin: {ORIGIN}}}
split:
  destination: {{file: destinations.csv, column: iata}}
  depart: {{dates: {{from: today+1, days: {DAYS}}}}}
  nights: {{range: [1, {nights}]}}
shard: {{cells: 100, checkpoint: 20}}
outputs:
  s3: {{format: ndjson, compress: zstd}}
  rankings:
    - key: "bench:{{{{ destination }}}}"
      member: "{{{{ depart }}}}/{{{{ nights }}}}"
      score: "{{{{ price }}}}"
      keep: min
      expire: 1h
"#
        )
    }

    fn provider(&self) -> String {
        let (rate, concurrency) = (self.rate, self.concurrency);
        let both = format!(
            "  - {{name: second, rate: {rate}/s}}\n  - {{name: in-flight, concurrency: {concurrency}}}"
        );
        let limits = self.limits.unwrap_or(&both);
        format!(
            r#"provider: fare-search
version: 1
base_url: ${{FARE_SEARCH_URL}}
credentials: {{from_env: FARE_SEARCH_KEYS, use: exhaust}}
auth:
  - {{header: x-api-key, value: "{{{{ credential.key }}}}"}}
timeout: {{connect: 3s, total: 10s}}
limits:
{limits}
outcomes:
  - {{when: {{status: 429}}, then: throttled, wait: {{header: retry-after}}}}
  - {{when: {{status: 404}}, then: empty}}
retry: {{attempts: 5, backoff: {{from: 500ms, to: 30s}}}}
endpoints:
  fares:
    get: /v1/fares
    query:
      origin: "{{{{ params.origin }}}}"
      destination: "{{{{ destination }}}}"
      depart: "{{{{ depart }}}}"
      return: "{{{{ depart | plus_days(nights) }}}}"
    records: $.data[*]
    fields:
      carrier: $.carrier
      price: {{path: $.price.total, as: decimal}}
      currency: $.price.currency
      departs_at: {{path: $.outbound.departs_at, as: datetime}}
"#
        )
    }
}

/// Path and query of the searches of such a job, from `first_day` on: what a bare loop calls.
pub fn searches(first_day: Date, count: usize) -> impl Iterator<Item = String> {
    let days = (0..DAYS as i64).map(move |n| first_day + jiff::Span::new().days(n));
    let codes = airports::codes().filter(|&code| code != ORIGIN);
    codes
        .flat_map(move |code| days.clone().map(move |day| (code, day)))
        .flat_map(|(code, day)| (1..=NIGHTS as i64).map(move |nights| (code, day, nights)))
        .map(|(code, day, nights)| {
            let back = day + jiff::Span::new().days(nights);
            let mut target = format!("/v1/fares?origin={ORIGIN}&destination={code}");
            write!(target, "&depart={day}&return={back}")
                .expect("writing into a string cannot fail");
            target
        })
        .cycle()
        .take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_at_least_the_cells_that_were_wanted() {
        for wanted in [1, 2_000, 2_001, 40_000, 1_000_000] {
            let job = BenchJob {
                wanted,
                rate: 50,
                concurrency: 64,
                limits: None,
            };
            assert!(job.cells() >= wanted && job.cells() < wanted + 10_000);
        }
    }

    #[test]
    fn the_folder_holds_job_list_and_provider() {
        let folder = tempfile::tempdir().unwrap();
        let job = BenchJob {
            wanted: 4_000,
            rate: 500,
            concurrency: 64,
            limits: None,
        };
        job.write(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("jobs/destinations.csv"), "iata\nGMP\nPUS\n");
        assert!(read("jobs/bench.yaml").contains("key: \"bench:{{ destination }}\""));
        assert!(read("providers/fare-search.yaml").contains("rate: 500/s"));
    }

    #[test]
    fn searches_go_round() {
        let all: Vec<_> = searches(jiff::civil::date(2026, 11, 22), 100_010).collect();
        assert_eq!(all.len(), 100_010);
        assert_eq!(
            all[0],
            "/v1/fares?origin=ICN&destination=GMP&depart=2026-11-22&return=2026-11-23"
        );
        assert_eq!(all[0], all[100_000]);
    }
}
