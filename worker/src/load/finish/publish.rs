//! Publishing: the alias, the sorted sets, `live.json`. An older run never replaces a newer one.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use jiff::Timestamp;
use paceline_protocol::ids::RunId;
use paceline_protocol::layout;
use paceline_protocol::manifest::{Live, Standing};
use paceline_protocol::message::PartSummary;
use paceline_protocol::spec::{IndexMode, Ranking};
use paceline_protocol::stores::index::IndexError;
use paceline_protocol::stores::state::{PublishSet, StateError};
use serde_json::Value;

use super::super::LoadError;
use super::super::runs::Stage;
use super::gate::Verdict;
use super::tally::Tally;
use super::{Finish, to_json};
use crate::crash;
use crate::output::part::name_of;
use crate::output::record_templates::names_the_run;
use crate::output::settle::BlockPlace;

/// How often a refused swap is decided anew.
const SWAPS: usize = 5;
/// Bits that are read at once.
const BITS: u64 = 1 << 16;

/// What to do with the alias.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Swap {
    /// It names our index already.
    Done,
    /// Take it from these.
    From(Vec<String>),
    /// A newer run has it.
    Superseded(String),
}

/// What was published in Redis.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// The sets, with their members.
    pub(super) sets: BTreeMap<String, u64>,
    /// What changed at their heads.
    pub(super) standings: Vec<Standing>,
}

impl Finish<'_> {
    /// Publishes what the verdict allows; says what of it are sorted sets.
    pub(super) async fn publish(
        &self,
        tally: &Tally,
        verdict: &mut Verdict,
        live: Option<Live>,
    ) -> Result<Published, LoadError> {
        if verdict.publish
            && let Some(newer) = live.as_ref().filter(|live| self.is_older_than(live))
        {
            verdict.withhold(superseded(newer.run.as_str()));
        }
        if verdict.publish {
            self.make_sets_whole(tally).await?;
            self.swap_alias(verdict).await?;
        }
        if !verdict.publish {
            return Ok(Published::default());
        }
        // What a rebuild finds live it finds in S3: nobody need hear of new objects.
        let is_live = live.as_ref().is_some_and(|l| l.run == self.run.run.run);
        if self.open.rebuild.is_none() || !is_live {
            self.write_objects(verdict).await?;
        }
        crash::point("finish-before-sets");
        let (published, next) = self.publish_sets_whole(tally, live).await?;
        crash::point("finish-before-live");
        self.lease.holds()?;
        let key = layout::live(&self.loader.stores.fleet.prefix, &self.run.run.job);
        let (objects, over) = (&self.loader.stores.objects, self.live_tag.as_deref());
        match objects.put_over(&key, to_json(&next), over).await? {
            true => Ok(published),
            // Somebody else finished another run meanwhile.
            false => Err(LoadError::LeaseLost),
        }
    }

    fn is_older_than(&self, live: &Live) -> bool {
        let plan = &self.run.plan;
        !self.is_forced() && live.run != plan.run && is_newer(live, plan.planned_at, self.parent())
    }

    /// When the run was planned whose records this one read.
    fn parent(&self) -> Option<Timestamp> {
        let parent = self.run.plan.inputs.parent.as_ref();
        parent.map(|parent| parent.planned_at)
    }

    /// Whether somebody wants it live, whatever was planned later.
    fn is_forced(&self) -> bool {
        self.run.plan.force || self.open.rebuild.as_ref().is_some_and(|r| r.force)
    }

    // ------------------------------------------------------------------------------------- alias

    async fn swap_alias(&self, verdict: &mut Verdict) -> Result<(), LoadError> {
        let Some(output) = self.run.output().filter(|o| o.mode == IndexMode::Snapshot) else {
            return Ok(());
        };
        let (alias, name) = (&output.name, self.run.index_name(output).await?);
        let index = &self.loader.stores.index;
        let mut refused = String::new();
        crash::point("finish-before-swap");
        for _ in 0..SWAPS {
            match self.decide_swap(alias, &name).await? {
                Swap::Done => return Ok(()),
                Swap::Superseded(by) => {
                    verdict.withhold(superseded(&by));
                    return Ok(());
                }
                Swap::From(old) => {
                    self.lease.holds()?;
                    match index.swap(alias, &old, &name).await {
                        Ok(()) => return Ok(()),
                        // Somebody else swapped meanwhile: read again, decide again.
                        Err(IndexError::Refused { why, .. }) => refused = why,
                        // It may have happened: the receipt is tried again, and finds out.
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        verdict.fail(format!(
            "Elasticsearch refused to give the alias {alias} to {name}: {refused}"
        ));
        Ok(())
    }

    async fn decide_swap(&self, alias: &str, name: &str) -> Result<Swap, LoadError> {
        let index = &self.loader.stores.index;
        let mut behind = Vec::new();
        for old in index.behind(alias).await? {
            let meta = index
                .metas(&old)
                .await?
                .into_iter()
                .find(|(found, _)| *found == old);
            behind.push((old, meta.map(|(_, meta)| meta).unwrap_or_default()));
        }
        let plan = &self.run.plan;
        Ok(decide_swap(
            &behind,
            name,
            plan.planned_at,
            self.is_forced(),
        ))
    }

    // -------------------------------------------------------------------------------------- sets

    /// Makes the sets again from the parts when a part's bit is missing: then Redis lost members too. And
    /// after a retry: the run's own sets may have been published before, and then hold the retry's members
    /// alone. Those of merged records are always made here.
    async fn make_sets_whole(&self, tally: &Tally) -> Result<(), LoadError> {
        if self.run.rankings.is_empty() {
            return Ok(());
        }
        if !self.run.plan.merges()
            && self.open.round == 0
            && self.are_all_settled().await?
            && self.have_names(tally).await?
        {
            return self.make_normalised_sets().await;
        }
        self.make_sets_again().await
    }

    /// Whether the list of the sets is there: with records, there are sets.
    async fn have_names(&self, tally: &Tally) -> Result<bool, LoadError> {
        let sets = self.loader.stores.state.run_sets(&self.run.run).await?;
        Ok(tally.records == 0 || !sets.is_empty() || !self.run.rankings.has_plain())
    }

    async fn make_sets_again(&self) -> Result<(), LoadError> {
        tracing::info!(run.id = %self.run.run, run.round = self.open.round, "the sorted sets are made again from the parts");
        let stores = &self.loader.stores;
        stores.state.forget_blocks(&self.run.run).await?;
        self.each_shard(|shard, parts| self.settle_one(shard, parts).boxed())
            .await?;
        self.make_normalised_sets().await
    }

    async fn settle_one(&self, shard: u64, parts: &[PartSummary]) -> Result<(), LoadError> {
        let names = parts.iter().map(name_of).collect();
        let stores = &self.loader.stores;
        let parts = stores.parts(self.run, shard, names, Stage::Given).await?;
        self.loader.settle_parts(self.run, shard, &parts).await
    }

    async fn are_all_settled(&self) -> Result<bool, LoadError> {
        let mut wanted: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for bit in self.bits() {
            wanted.entry(bit / BITS).or_default().push(bit % BITS);
        }
        for (range, bits) in wanted {
            let first = range * BITS;
            let count = bits.iter().max().map_or(0, |last| *last as u32 + 1);
            let set = self
                .loader
                .stores
                .state
                .settled(&self.run.run, first, count)
                .await?;
            if !bits.iter().all(|bit| set.get(*bit as usize) == Some(&true)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bit of every part.
    fn bits(&self) -> impl Iterator<Item = u64> {
        let plan = &self.run.plan;
        self.shards.iter().flat_map(move |(shard, (parts, _))| {
            parts.iter().filter_map(move |part| {
                Some(BlockPlace::of(plan, *shard, part.block, part.round)?.bit(plan))
            })
        })
    }

    fn next_live(
        &self,
        tally: &Tally,
        live: Option<Live>,
        sets: &BTreeMap<String, u64>,
    ) -> Result<Live, LoadError> {
        let plan = &self.run.plan;
        let broken = |error: &dyn std::fmt::Display| LoadError::Unsupported(error.to_string());
        let mut lasting = BTreeSet::new();
        for name in sets.keys() {
            let ranking = ranking_of(&plan.job.outputs.rankings, name);
            let ends_by_itself = ranking
                .map(|ranking| names_the_run(&ranking.key))
                .transpose();
            if ends_by_itself.map_err(|error| broken(&error))? == Some(false) {
                lasting.insert(name.clone());
            }
        }
        let previous_run = previous_run(live.as_ref(), &plan.run);
        let (previous_records, previous_sets) = previous(live, &plan.run);
        Ok(Live {
            run: plan.run.clone(),
            planned_at: plan.planned_at,
            parent_planned_at: self.parent(),
            records: tally.records,
            sets: lasting.into_iter().collect(),
            previous_records,
            previous_run,
            previous_sets,
        })
    }

    /// Publishes the sets, one that was lost meanwhile (with all bits intact) made again before. Returns
    /// them, and what is live with them.
    async fn publish_sets_whole(
        &self,
        tally: &Tally,
        live: Option<Live>,
    ) -> Result<(Published, Live), LoadError> {
        let publish = async || {
            let sets = self.loader.stores.state.run_sets(&self.run.run).await?;
            let standings = self.standings(&sets).await.unwrap_or_else(|error| {
                tracing::warn!(run.id = %self.run.run, %error, "what changes at the head of the sets is not told");
                Vec::new()
            });
            self.still_whole().await?;
            let next = self.next_live(tally, live.clone(), &sets)?;
            self.publish_sets(&sets, &next).await?;
            Ok((Published { sets, standings }, next))
        };
        match publish().await {
            Err(LoadError::State(StateError::LostSet { set, .. })) => {
                tracing::warn!(run.id = %self.run.run, set.name = set, "a sorted set was lost");
                self.make_sets_again().await?;
                publish().await
            }
            published => published,
        }
    }

    /// Redis may have lost everything since it was looked at, and whoever works on receipts be filling it again: what was
    /// read in between is half of the sets.
    async fn still_whole(&self) -> Result<(), LoadError> {
        let made_here = self.run.plan.merges() || self.open.round > 0;
        if self.run.rankings.is_empty() || made_here || self.are_all_settled().await? {
            return Ok(());
        }
        let (run, set) = (self.run.run.clone(), "of its first blocks".to_owned());
        Err(StateError::LostSet { run, set }.into())
    }

    async fn publish_sets(
        &self,
        sets: &BTreeMap<String, u64>,
        live: &Live,
    ) -> Result<(), LoadError> {
        let rankings = &self.run.plan.job.outputs.rankings;
        if rankings.is_empty() {
            return Ok(());
        }
        let publish = |name: &String| PublishSet {
            name: name.clone(),
            expire: ranking_of(rankings, name)
                .and_then(|r| r.expire)
                .map(|span| span.0),
        };
        let published: Vec<PublishSet> = sets.keys().map(publish).collect();
        let gone = live
            .previous_sets
            .iter()
            .filter(|name| !sets.contains_key(*name));
        let gone: Vec<String> = gone.cloned().collect();
        self.lease.holds()?;
        Ok(self
            .loader
            .stores
            .state
            .publish_sets(&self.run.run, &published, &gone)
            .await?)
    }
}

/// The good run before this one, also when this one is live already.
fn previous_run(live: Option<&Live>, run: &RunId) -> Option<RunId> {
    match live {
        Some(live) if live.run == *run => live.previous_run.clone(),
        live => live.map(|live| live.run.clone()),
    }
}

/// Records and sets of the good run before this one, also when this one is live already.
fn previous(live: Option<Live>, run: &RunId) -> (Option<u64>, Vec<String>) {
    match live {
        None => (None, Vec::new()),
        Some(live) if live.run == *run => (live.previous_records, live.previous_sets),
        Some(live) => (Some(live.records), live.sets),
    }
}

fn superseded(by: &str) -> String {
    format!(
        "a newer run is live ({by}): neither alias nor sets are published (--force does it all the same)"
    )
}

/// What to do, given the indices behind the alias with their `_meta`.
fn decide_swap(behind: &[(String, Value)], ours: &str, planned_at: Timestamp, force: bool) -> Swap {
    let newer = |(name, meta): &&(String, Value)| {
        let theirs = meta["paceline"]["planned_at"].as_str();
        let theirs: Option<Timestamp> = theirs.and_then(|text| text.parse().ok());
        name != ours && theirs.is_some_and(|theirs| theirs > planned_at)
    };
    if let Some((name, _)) = behind.iter().find(newer).filter(|_| !force) {
        return Swap::Superseded(name.clone());
    }
    match behind {
        [(only, _)] if only == ours => Swap::Done,
        _ => {
            let others = behind
                .iter()
                .map(|(name, _)| name)
                .filter(|name| *name != ours);
            Swap::From(others.cloned().collect())
        }
    }
}

/// The ranking whose template gives this set's name: the one with most literal text of those that fit.
pub(super) fn ranking_of<'a>(rankings: &'a [Ranking], name: &str) -> Option<&'a Ranking> {
    let fits = rankings
        .iter()
        .filter_map(|ranking| Some((literal_fit(&ranking.key, name)?, ranking)));
    fits.max_by_key(|(literal, _)| *literal)
        .map(|(_, ranking)| ranking)
}

/// How many bytes of `name` are the template's own text, when `name` could come from it.
fn literal_fit(template: &str, name: &str) -> Option<usize> {
    let pieces = literals(template);
    let literal = pieces.iter().map(|piece| piece.len()).sum();
    let [first, middle @ .., last] = pieces.as_slice() else {
        return (pieces == [name]).then_some(literal);
    };
    let mut rest = name.strip_prefix(first)?.strip_suffix(last)?;
    for piece in middle {
        let (_, after) = rest.split_once(piece)?;
        rest = after;
    }
    Some(literal)
}

/// The text of a template between its expressions and blocks.
fn literals(template: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{").or_else(|| rest.find("{%")) {
        let close = if rest[start..].starts_with("{{") {
            "}}"
        } else {
            "%}"
        };
        let Some(length) = rest[start..].find(close) else {
            break;
        };
        pieces.push(&rest[..start]);
        rest = &rest[start + length + close.len()..];
    }
    pieces.push(rest);
    pieces
}

/// Whether what is `live` is newer than a run planned at `planned_at`, which read a run planned at `parent`. A run of a chain
/// is as old as what it read: the child of a parent that was retried late is planned after that of the next parent.
fn is_newer(live: &Live, planned_at: Timestamp, parent: Option<Timestamp>) -> bool {
    match (live.parent_planned_at, parent) {
        (Some(theirs), Some(ours)) if theirs != ours => theirs > ours,
        _ => live.planned_at > planned_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::ranking;
    use paceline_protocol::spec::KeepScore;
    use serde_json::json;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(day * 86_400).expect("in range")
    }

    fn index(day: i64) -> (String, Value) {
        (
            format!("fares-{day}"),
            json!({ "paceline": { "planned_at": at(day) } }),
        )
    }

    #[test]
    fn an_older_run_never_replaces_a_newer_one() {
        assert_eq!(
            decide_swap(&[], "fares-2", at(2), false),
            Swap::From(vec![])
        );
        assert_eq!(
            decide_swap(&[index(1)], "fares-2", at(2), false),
            Swap::From(vec!["fares-1".into()])
        );
        assert_eq!(
            decide_swap(&[index(3)], "fares-2", at(2), false),
            Swap::Superseded("fares-3".into())
        );
        assert_eq!(
            decide_swap(&[index(3)], "fares-2", at(2), true),
            Swap::From(vec!["fares-3".into()])
        );
        assert_eq!(
            decide_swap(&[index(2)], "fares-2", at(2), false),
            Swap::Done
        );
        let both = [index(1), index(2)];
        assert_eq!(
            decide_swap(&both, "fares-2", at(2), false),
            Swap::From(vec!["fares-1".into()])
        );
    }

    #[test]
    fn a_run_of_a_chain_is_as_old_as_what_it_read() {
        let live = Live {
            run: "r2".parse().expect("a run id"),
            planned_at: at(4),
            parent_planned_at: Some(at(3)),
            records: 7,
            sets: vec![],
            previous_records: None,
            previous_run: None,
            previous_sets: vec![],
        };
        assert!(is_newer(&live, at(5), Some(at(2))), "of a late retry");
        assert!(!is_newer(&live, at(3), Some(at(4))));
        assert!(is_newer(&live, at(3), Some(at(3))));
        assert!(!is_newer(&live, at(5), Some(at(3))));
        assert!(!is_newer(&live, at(5), None), "started by hand");
    }

    #[test]
    fn finishing_twice_judges_by_the_same_base() {
        let run: RunId = "r2".parse().expect("a run id");
        let first = Live {
            run: "r1".parse().expect("a run id"),
            planned_at: at(1),
            parent_planned_at: None,
            records: 7,
            sets: vec!["a".into()],
            previous_records: None,
            previous_run: None,
            previous_sets: vec![],
        };
        let base = previous(Some(first.clone()), &run);
        assert_eq!(base, (Some(7), vec!["a".to_owned()]));
        let again = Live {
            run: run.clone(),
            previous_records: base.0,
            previous_sets: base.1.clone(),
            ..first
        };
        assert_eq!(previous(Some(again), &run), base);
    }

    #[test]
    fn a_set_finds_its_ranking_by_its_name() {
        let of = |key: &str| ranking(key, "m", "1", KeepScore::Min);
        let rankings = [
            of("fares:{{ destination }}"),
            of("fares:all:{{ x }}:end"),
            of("fixed"),
        ];
        let found = |name: &str| ranking_of(&rankings, name).map(|r| r.key.as_str());
        assert_eq!(found("fares:NRT"), Some("fares:{{ destination }}"));
        assert_eq!(found("fares:all:1:end"), Some("fares:all:{{ x }}:end"));
        assert_eq!(found("fixed"), Some("fixed"));
        assert_eq!(found("other"), None);
    }
}
