//! What a run has come to: settled blocks, counters, loaded shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use redis::{AsyncCommands, Script, ScriptInvocation};

use super::{BlockCounts, Progress, SetUpdate, State, StateError};
use crate::ids::RunRef;
use crate::message::PartSummary;
use crate::spec::KeepScore;

static SETTLE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("settle.lua")));
static LOADED: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("shard_loaded.lua")));

/// How many entries of a large hash are asked for at once.
const SCAN_STEP: usize = 500;
/// Longer than a loader's longest pause between two tries, and than a collector leaves a run to others.
const TOLD_S: u64 = 60;

impl State {
    /// Counts a block and applies its members to the run's own sets, once: a block whose bit is set
    /// changes nothing. Returns whether it was new.
    ///
    /// # Errors
    /// When Redis does not answer, or a score is not a number.
    pub async fn settle_block(
        &self,
        run: &RunRef,
        bit: u64,
        counts: &BlockCounts,
        sets: &[SetUpdate],
    ) -> Result<bool, StateError> {
        self.refuse_nan(sets)?;
        let mut call = SETTLE.prepare_invoke();
        call.key(self.keys.settled_blocks(run))
            .key(self.keys.progress(run))
            .key(self.keys.progress_by(run))
            .key(self.keys.run_sets(run));
        call.arg(bit);
        add_counts(&mut call, counts);
        for set in sets {
            call.key(self.keys.run_set(run, &set.name))
                .key(self.keys.run_set_cells(run, &set.name));
            add_set(&mut call, set);
        }
        let mut connection = self.connection().await?;
        call.invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Refused before the script runs: what a script has written when it fails stays written.
    fn refuse_nan(&self, sets: &[SetUpdate]) -> Result<(), StateError> {
        let bad = sets
            .iter()
            .find(|set| set.members.iter().any(|(_, score, _)| !score.is_finite()));
        match bad {
            Some(set) => {
                Err(self.failed_because(format!("a score for {} is not a number", set.name)))
            }
            None => Ok(()),
        }
    }

    /// Which of the bits `from..from + count` of the settled blocks are set.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn settled(
        &self,
        run: &RunRef,
        from: u64,
        count: u32,
    ) -> Result<Vec<bool>, StateError> {
        let first = from / 8;
        let last = (from + u64::from(count)) / 8;
        let mut connection = self.connection().await?;
        let bytes: Vec<u8> = redis::cmd("GETRANGE")
            .arg(self.keys.settled_blocks(run))
            .arg(first)
            .arg(last)
            .query_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        let at = from - first * 8;
        Ok((at..at + u64::from(count))
            .map(|bit| bit_at(&bytes, bit))
            .collect())
    }

    /// All settled blocks and all loaded shards of the run.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn bits(&self, run: &RunRef) -> Result<(Bits, Bits), StateError> {
        let mut connection = self.connection().await?;
        let (settled, loaded) = redis::pipe()
            .getrange(self.keys.settled_blocks(run), 0, -1)
            .getrange(self.keys.loaded_shards(run), 0, -1)
            .query_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))?;
        Ok((Bits(settled), Bits(loaded)))
    }

    /// The run's counters.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn progress(&self, run: &RunRef) -> Result<Progress, StateError> {
        let mut connection = self.connection().await?;
        let (totals, by, shards_loaded): (BTreeMap<String, i64>, BTreeMap<String, i64>, u64) =
            redis::pipe()
                .atomic()
                .hgetall(self.keys.progress(run))
                .hgetall(self.keys.progress_by(run))
                .bitcount(self.keys.loaded_shards(run))
                .query_async(&mut connection)
                .await
                .map_err(|e| self.failed(e))?;
        let total = |name: &str| unsigned(totals.get(name));
        Ok(Progress {
            succeeded: total("succeeded"),
            empty: total("empty"),
            failed: total("failed"),
            records: total("records"),
            blocks: total("blocks"),
            calls: total("calls"),
            busy_ms: total("busy_ms"),
            shards_loaded,
            by: counts_by_value(&by),
        })
    }

    /// Says for a minute why a loader waits with what it has of the run.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn tell_loader_waits(&self, run: &RunRef, why: &str) -> Result<(), StateError> {
        self.tell(self.keys.loader_waits(run), why).await
    }

    /// Why a loader waits with what it has of the run.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn loader_waits(&self, run: &RunRef) -> Result<Option<String>, StateError> {
        self.told(self.keys.loader_waits(run)).await
    }

    /// Says for a minute why a collector cannot serve the run.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn tell_unserved(&self, run: &RunRef, why: &str) -> Result<(), StateError> {
        self.tell(self.keys.unserved(run), why).await
    }

    /// Why a collector cannot serve the run.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn unserved(&self, run: &RunRef) -> Result<Option<String>, StateError> {
        self.told(self.keys.unserved(run)).await
    }

    /// What kept collectors from serving the run is mended.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn serves_again(&self, run: &RunRef) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        let gone = connection.del(self.keys.unserved(run));
        gone.await.map_err(|e| self.failed(e))
    }

    /// Says something under a key that is forgotten after a minute.
    async fn tell(&self, key: String, what: &str) -> Result<(), StateError> {
        let mut connection = self.connection().await?;
        let told = connection.set_ex(key, what, TOLD_S);
        told.await.map_err(|e| self.failed(e))
    }

    async fn told(&self, key: String) -> Result<Option<String>, StateError> {
        let mut connection = self.connection().await?;
        connection.get(key).await.map_err(|e| self.failed(e))
    }

    /// Marks a shard loaded and keeps what it came to. Returns how many shards are loaded. A late
    /// receipt of an earlier round does not replace what a newer one came to.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn shard_loaded(
        &self,
        run: &RunRef,
        shard: u64,
        parts: &[PartSummary],
        rejected: u64,
    ) -> Result<u64, StateError> {
        let round = parts.iter().map(|part| part.round).max().unwrap_or(0);
        let summary = serde_json::to_string(&(parts, rejected)).expect("summaries are plain data");
        let mut connection = self.connection().await?;
        LOADED
            .key(self.keys.loaded_shards(run))
            .key(self.keys.shard_summaries(run))
            .arg(shard)
            .arg(round)
            .arg(summary)
            .invoke_async(&mut connection)
            .await
            .map_err(|e| self.failed(e))
    }

    /// Whether the run's state is there at all (it is made by the first settled block or loaded shard).
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn knows(&self, run: &RunRef) -> Result<bool, StateError> {
        let mut connection = self.connection().await?;
        connection
            .exists(&[self.keys.settled_blocks(run), self.keys.loaded_shards(run)])
            .await
            .map_err(|e| self.failed(e))
    }

    /// What every loaded shard came to: parts, rejected documents.
    ///
    /// # Errors
    /// When Redis does not answer, or holds what this version cannot read.
    pub async fn loaded_shards(
        &self,
        run: &RunRef,
    ) -> Result<BTreeMap<u64, (Vec<PartSummary>, u64)>, StateError> {
        let key = self.keys.shard_summaries(run);
        let mut shards = BTreeMap::new();
        let mut connection = self.connection().await?;
        let mut cursor = 0_u64;
        loop {
            let (next, entries): (u64, Vec<(u64, String)>) = redis::cmd("HSCAN")
                .arg(&key)
                .arg(cursor)
                .arg("COUNT")
                .arg(SCAN_STEP)
                .query_async(&mut connection)
                .await
                .map_err(|e| self.failed(e))?;
            for (shard, text) in entries {
                shards.insert(shard, self.read_summary(shard, &text)?);
            }
            if next == 0 {
                return Ok(shards);
            }
            cursor = next;
        }
    }

    fn read_summary(&self, shard: u64, text: &str) -> Result<(Vec<PartSummary>, u64), StateError> {
        let json = text.split_once(' ').map_or(text, |(_, json)| json);
        serde_json::from_str(json)
            .map_err(|e| self.failed_because(format!("the summary of shard {shard}: {e}")))
    }
}

/// A bitmap as it lies in Redis.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// Whether a bit is set.
    pub fn has(&self, bit: u64) -> bool {
        bit_at(&self.0, bit)
    }
}

/// A bit as SETBIT numbers it: the highest of a byte first. Beyond the end it is not set.
fn bit_at(bytes: &[u8], bit: u64) -> bool {
    bytes
        .get((bit / 8) as usize)
        .is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0)
}

fn add_counts(call: &mut ScriptInvocation<'_>, counts: &BlockCounts) {
    call.arg(counts.succeeded)
        .arg(counts.empty)
        .arg(counts.failed)
        .arg(counts.records)
        .arg(counts.no_longer_failed)
        .arg(counts.calls)
        .arg(counts.busy_ms);
    let values: BTreeSet<&String> = counts
        .by
        .keys()
        .chain(counts.no_longer_failed_by.keys())
        .collect();
    call.arg(values.len());
    for value in values {
        let (succeeded, empty, failed) = counts.by.get(value).copied().unwrap_or_default();
        let cured = counts.no_longer_failed_by.get(value).copied();
        call.arg(value)
            .arg(succeeded)
            .arg(empty)
            .arg(failed as i64 - cured.unwrap_or(0) as i64);
    }
}

fn add_set(call: &mut ScriptInvocation<'_>, set: &SetUpdate) {
    call.arg(&set.name)
        .arg(keep_name(set.keep))
        .arg(set.members.len());
    for (member, score, cell) in &set.members {
        call.arg(member).arg(score).arg(cell);
    }
}

/// The word for it in `settle.lua`.
fn keep_name(keep: KeepScore) -> &'static str {
    match keep {
        KeepScore::Min => "min",
        KeepScore::Max => "max",
        KeepScore::Last => "last",
        KeepScore::Sum => "sum",
    }
}

/// A retry's block can be counted again after a loss while what it cured was not: never below zero.
fn unsigned(count: Option<&i64>) -> u64 {
    count.map_or(0, |n| u64::try_from(*n).unwrap_or(0))
}

/// Fields are `s:`, `e:` or `f:` and the value.
fn counts_by_value(fields: &BTreeMap<String, i64>) -> BTreeMap<String, (u64, u64, u64)> {
    let mut by: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for (field, count) in fields {
        let Some((end, value)) = field.split_once(':') else {
            continue;
        };
        let counts = by.entry(value.to_owned()).or_default();
        match end {
            "s" => counts.0 = unsigned(Some(count)),
            "e" => counts.1 = unsigned(Some(count)),
            _ => counts.2 = unsigned(Some(count)),
        }
    }
    by
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_from_the_highest_of_a_byte() {
        let bytes = [0b1000_0001, 0b0100_0000];
        let set: Vec<u64> = (0..24).filter(|bit| bit_at(&bytes, *bit)).collect();
        assert_eq!(set, [0, 7, 9]);
    }

    #[test]
    fn values_may_hold_colons_and_counts_never_go_below_zero() {
        let fields = BTreeMap::from([("s:a:b".to_owned(), 3), ("f:a:b".to_owned(), -1)]);
        assert_eq!(
            counts_by_value(&fields),
            BTreeMap::from([("a:b".to_owned(), (3, 0, 0))])
        );
    }
}
