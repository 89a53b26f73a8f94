//! Where a run's objects lie in S3. Keys are functions of job, run, shard and block only, never of
//! time or chance, so that doing a step again lands on the same object.

use crate::ids::RunRef;
use crate::plan::Plan;
use crate::spec::{Compression, OutputFormat};

/// The keys of one run, below `<prefix>/<job>/<run>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLayout {
    root: String,
    /// The folder of the parts.
    parts: &'static str,
}

impl RunLayout {
    /// The layout of `run` below the bucket's `prefix` (`PACELINE_PREFIX`).
    pub fn new(prefix: &str, run: &RunRef) -> Self {
        RunLayout {
            root: format!("{}/{}/{}", prefix.trim_matches('/'), run.job, run.run),
            parts: "data",
        }
    }

    /// The layout in which the parts are those that collecting writes: below `raw/` for a job with
    /// `changes`, whose `data/` is made of them when the last one is there.
    pub fn collecting(self, plan: &Plan) -> Self {
        let parts = match plan.job.changes {
            Some(_) => "raw",
            None => "data",
        };
        RunLayout { parts, ..self }
    }

    /// The layout in which the parts are those that the run gives, below `data/`.
    pub fn giving(self) -> Self {
        RunLayout {
            parts: "data",
            ..self
        }
    }

    /// `<prefix>/<job>/<run>/`, for listings.
    pub fn root(&self) -> String {
        format!("{}/", self.root)
    }

    /// The plan, written before any shard is published.
    pub fn plan(&self) -> String {
        format!("{}/plan.json", self.root)
    }

    /// The manifest, written by whoever finishes the run.
    pub fn manifest(&self) -> String {
        format!("{}/manifest.json", self.root)
    }

    /// The empty object that says: the gate was passed.
    pub fn success(&self) -> String {
        format!("{}/_SUCCESS", self.root)
    }

    /// What its newest rebuild came to.
    pub fn rebuilt(&self) -> String {
        format!("{}/rebuilt.json", self.root)
    }

    /// All parts of all shards.
    pub fn data(&self) -> String {
        format!("{}/{}/", self.root, self.parts)
    }

    /// All parts of one shard, of every round.
    pub fn shard_data(&self, shard: u64) -> String {
        format!("{}/{}/shard-{shard}/", self.root, self.parts)
    }

    /// One part. Round 0 is the run itself, round `r > 0` its r-th retry.
    pub fn part(&self, shard: u64, part: PartName, suffix: &str) -> String {
        format!("{}{}.{suffix}", self.shard_data(shard), part)
    }

    /// The rows that the next run is compared with, sorted by id: only with `changes`.
    pub fn state(&self) -> String {
        format!("{}/state/", self.root)
    }

    /// Object `k` of them, from 0, as they are after a round.
    pub fn state_part(&self, round: u32, k: u32) -> String {
        format!("{}{k}.ndjson.zst", self.states_of(round))
    }

    /// What the names of those of a round begin with.
    pub fn states_of(&self, round: u32) -> String {
        match round {
            0 => format!("{}part-", self.state()),
            round => format!("{}part-r{round}-", self.state()),
        }
    }

    /// Which records are doubles that do not count: only with `dedupe`.
    pub fn doubles(&self) -> String {
        format!("{}/doubles/", self.root)
    }

    /// Those of one shard.
    pub fn shard_doubles(&self, shard: u64) -> String {
        format!("{}shard-{shard}.json", self.doubles())
    }

    /// What merging came to: only with `changes` or `dedupe`.
    pub fn merged(&self) -> String {
        format!("{}/merged.json", self.root)
    }

    /// The failures of one shard.
    pub fn failures(&self, shard: u64) -> String {
        format!("{}/failures/shard-{shard}.ndjson", self.root)
    }

    /// All failures, the rejected documents among them.
    pub fn all_failures(&self) -> String {
        format!("{}/failures/", self.root)
    }

    /// The documents of one shard that Elasticsearch rejected.
    pub fn rejected_documents(&self, shard: u64) -> String {
        format!("{}/failures/documents-{shard}.ndjson", self.root)
    }

    /// Which objects did not count, so that older ones stand in for them: only with `max_age`.
    pub fn stand_ins(&self) -> String {
        format!("{}/stand-ins/", self.root)
    }

    /// Those that the cells of one part did not read.
    pub fn part_stand_ins(&self, shard: u64, part: PartName) -> String {
        format!("{}shard-{shard}/{part}.json", self.stand_ins())
    }

    /// What a worker that handed the shard back in order left of its open blocks.
    pub fn open_shard(&self, shard: u64) -> String {
        format!("{}/open/shard-{shard}/", self.root)
    }

    /// One such hand-back.
    pub fn open(&self, shard: u64, round: u32) -> String {
        format!("{}cells-r{round}.json.zst", self.open_shard(shard))
    }

    /// All ledger objects.
    pub fn ledger(&self) -> String {
        format!("{}/ledger/", self.root)
    }

    /// One ledger object.
    pub fn ledger_object(&self, worker: &str, seq: u64) -> String {
        format!("{}{worker}-{seq}.ndjson.zst", self.ledger())
    }
}

/// The mutable object that says a run is open (`{state, lanes, ...}`); gone when the run has ended.
/// Redis' registry of open runs is rebuilt from these.
pub fn open_run(prefix: &str, run: &RunRef) -> String {
    format!("{}{}/{}.json", open_runs(prefix), run.job, run.run)
}

/// Where all open runs are listed.
pub fn open_runs(prefix: &str) -> String {
    format!("{}/open-runs/", prefix.trim_matches('/'))
}

/// The object that says a finished run is to be made again in Redis and Elasticsearch (see [`crate::rebuild`]).
pub fn rebuild(prefix: &str, run: &RunRef) -> String {
    format!("{}{}/{}.json", rebuilds(prefix), run.job, run.run)
}

/// Where all of these are listed.
pub fn rebuilds(prefix: &str) -> String {
    format!("{}/rebuilds/", prefix.trim_matches('/'))
}

/// What the newest run that passed its gate published (see [`crate::manifest::Live`]).
pub fn live(prefix: &str, job: &str) -> String {
    format!("{}/{job}/live.json", prefix.trim_matches('/'))
}

/// Since when the ends of its parent's runs start runs of `job` (see `after:`).
pub fn chain(prefix: &str, job: &str) -> String {
    format!("{}/{job}/chain.json", prefix.trim_matches('/'))
}

/// What is kept, sealed, of one credential beyond its token: rotated refresh tokens (`refresh-<n>`, the highest one
/// counts) and whether it ever used a one-time code (`one-time`).
pub fn credential(prefix: &str, provider: &str, credential: &str) -> String {
    format!(
        "{}/credentials/{provider}/{credential}/",
        prefix.trim_matches('/')
    )
}

/// The folder of a calendar quota's marks in one window (CORE 17): one object for each mark, named by it.
pub fn quota_marks(
    prefix: &str,
    provider: &str,
    limit: &str,
    scope: &str,
    opened_us: i64,
) -> String {
    let scope = percent_encoding::utf8_percent_encode(scope, percent_encoding::NON_ALPHANUMERIC);
    format!(
        "{}/limits/{provider}/{limit}/s-{scope}/{opened_us}/",
        prefix.trim_matches('/')
    )
}

/// The folder of what must outlive Redis of a provider's limits: what operators set, holds, long closures.
pub fn kept_limits(prefix: &str, provider: &str) -> String {
    format!("{}/limits/{provider}/_kept/", prefix.trim_matches('/'))
}

/// A part's name within its shard: `part-<k>`, a retry's `part-r<round>-<k>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartName {
    /// The block within the shard, from 0.
    pub block: u32,
    /// 0 for the run itself, else which retry.
    pub round: u32,
}

impl std::fmt::Display for PartName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.round {
            0 => write!(f, "part-{}", self.block),
            round => write!(f, "part-r{round}-{}", self.block),
        }
    }
}

impl PartName {
    /// Reads shard and part from a part's key; `None` when `key` is not one.
    pub fn from_key(key: &str) -> Option<(u64, PartName)> {
        let mut segments = key.rsplit('/');
        let file = segments.next()?.split('.').next()?;
        let shard = segments.next()?.strip_prefix("shard-")?.parse().ok()?;
        let rest = file.strip_prefix("part-")?;
        let (round, block) = match rest.strip_prefix('r') {
            Some(retry) => {
                let (round, block) = retry.split_once('-')?;
                (round.parse().ok()?, block)
            }
            None => (0, rest),
        };
        Some((
            shard,
            PartName {
                block: block.parse().ok()?,
                round,
            },
        ))
    }
}

/// The file name's end of a part, without the leading dot.
pub fn part_suffix(format: OutputFormat, compress: Compression) -> &'static str {
    match (format, compress) {
        (OutputFormat::Ndjson, Compression::None) => "ndjson",
        (OutputFormat::Ndjson, Compression::Gzip) => "ndjson.gz",
        (OutputFormat::Ndjson, Compression::Zstd) => "ndjson.zst",
        (OutputFormat::Csv, Compression::None) => "csv",
        (OutputFormat::Csv, Compression::Gzip) => "csv.gz",
        (OutputFormat::Csv, Compression::Zstd) => "csv.zst",
        (OutputFormat::Parquet, _) => "parquet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_found_again_by_its_key() {
        let run = RunRef {
            job: "fares".into(),
            run: "2026-11-21".parse().expect("a run id"),
        };
        let layout = RunLayout::new("paceline/", &run);
        for name in [
            PartName { block: 6, round: 0 },
            PartName { block: 0, round: 2 },
        ] {
            let key = layout.part(12, name, "ndjson.zst");
            assert_eq!(PartName::from_key(&key), Some((12, name)), "{key}");
        }
        assert_eq!(
            layout.part(3, PartName { block: 1, round: 0 }, "csv"),
            "paceline/fares/2026-11-21/data/shard-3/part-1.csv"
        );
        assert_eq!(PartName::from_key("paceline/fares/x/plan.json"), None);
    }
}
