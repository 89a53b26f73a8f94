//! A ranking's members with their scores, out of all parts of a run, in bounded memory. What needs all
//! records of a group before one of them has a score (`normalise`) is made here, and published with the
//! other sets.

use std::io;

use paceline_protocol::spec::{KeepScore, Normalise};

use super::super::LoadError;
use super::super::runs::Stage;
use super::Finish;
use crate::output::normalise::{Groups, Places, weight};
use crate::output::part::name_of;
use crate::output::rankings::{Scored, kept};
use crate::output::sorted::{KeyParts, SortKey, Sorted, Sorter};

/// Members that are written at once.
const AT_ONCE: usize = 1000;
/// Entries after which others get their turn.
const TURN: u64 = 20_000;

/// A ranking's members by set and member, each once.
pub(super) struct Scores {
    sorted: Sorted,
    keep: KeepScore,
    /// What the last member had in common with the next entry.
    ahead: Option<(Member, f64)>,
}

/// A member of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) set: String,
    pub(super) member: String,
}

impl Finish<'_> {
    /// Makes the sets of the rankings that are normalised.
    pub(super) async fn make_normalised_sets(&self) -> Result<(), LoadError> {
        for number in 0..self.run.plan.job.outputs.rankings.len() {
            if self.run.plan.job.outputs.rankings[number]
                .normalise
                .is_some()
            {
                self.make_normalised_set(number).await?;
            }
        }
        Ok(())
    }

    async fn make_normalised_set(&self, number: usize) -> Result<(), LoadError> {
        let state = &self.loader.stores.state;
        let mut set = String::new();
        let mut members: Vec<(f64, String)> = Vec::new();
        for scored in self.scores(number).await? {
            let (member, score) = scored?;
            if member.set != set || members.len() >= AT_ONCE {
                state.add_members(&self.run.run, &set, &members).await?;
                members.clear();
                set = member.set;
            }
            members.push((score, member.member));
        }
        Ok(state.add_members(&self.run.run, &set, &members).await?)
    }

    /// The members of ranking `number` with what `keep` makes of their scores.
    pub(super) async fn scores(&self, number: usize) -> Result<Scores, LoadError> {
        let ranking = &self.run.plan.job.outputs.rankings[number];
        let sorter = match &ranking.normalise {
            None => self.plain(number).await?,
            Some(normalise) => self.normalised(number, normalise).await?,
        };
        Ok(Scores {
            sorted: sorter.finish()?,
            keep: ranking.keep,
            ahead: None,
        })
    }

    async fn plain(&self, number: usize) -> Result<Sorter, LoadError> {
        let mut sorter = Sorter::default();
        let mut place = 0;
        self.each_scored(number, &mut |scored| {
            place += 1;
            push(&mut sorter, &scored, place, scored.score)
        })
        .await?;
        Ok(sorter)
    }

    /// Two passes: the first learns of each group what its scores have in common and sorts them, the second
    /// gives every record its score.
    async fn normalised(&self, number: usize, by: &Normalise) -> Result<Sorter, LoadError> {
        let mut groups = Groups::default();
        let mut records = Sorter::default();
        self.each_scored(number, &mut |scored| {
            let group = groups.entry((scored.set.clone(), scored.group.clone()));
            group.or_default().add(scored.score);
            let key = SortKey::default().text(&scored.set).text(&scored.group);
            let value = serde_json::to_vec(&(&scored.member, scored.cell, scored.score.to_bits()));
            records.push(
                key.descending(scored.score).bytes(),
                value.map_err(io::Error::other)?,
            )
        })
        .await?;
        let mut sorter = Sorter::default();
        let mut places = Places::default();
        let mut current = (String::new(), String::new());
        for (number, entry) in (0..).zip(records.finish()?) {
            let (key, value) = entry?;
            let mut key = KeyParts(&key);
            let of = (key.text(), key.text());
            if of != current {
                places = Places::default();
                current = of;
            }
            let (member, cell, bits): (String, u64, u64) =
                serde_json::from_slice(&value).map_err(io::Error::other)?;
            let score = f64::from_bits(bits);
            let place = places.next(score);
            let Some(group) = groups.get(&current) else {
                continue;
            };
            let normalised = group.normalised(by.by, score, place) * weight(by, &current.1);
            let scored = Scored {
                set: current.0.clone(),
                group: String::new(),
                member,
                score,
                cell,
            };
            push(&mut sorter, &scored, number, normalised)?;
            take_turns(number).await;
        }
        Ok(sorter)
    }

    /// Every record's score in ranking `number`, part by part.
    async fn each_scored(
        &self,
        number: usize,
        each: &mut (dyn FnMut(Scored) -> io::Result<()> + Send),
    ) -> Result<(), LoadError> {
        let stores = &self.loader.stores;
        for (shard, (parts, _)) in &self.shards {
            let with_records = parts.iter().filter(|part| part.records > 0);
            let names = with_records.map(name_of).collect();
            for part in stores.parts(self.run, *shard, names, Stage::Given).await? {
                let place = self.run.place(*shard, &part)?;
                let text = self.run.text(&part)?;
                let rankings = &self.run.rankings;
                let ends = &part.summary.ends;
                for scored in
                    rankings.scored(number, &self.run.plan, &place, ends, part.version, &text)
                {
                    each(scored)?;
                }
            }
        }
        Ok(())
    }
}

/// Lets other tasks run now and then: sorting waits for nothing.
pub(super) async fn take_turns(entry: u64) {
    if entry % TURN == TURN - 1 {
        tokio::task::yield_now().await;
    }
}

/// Sorted by set and member, then by cell and place, so that `keep: last` and sums are the same every time.
fn push(sorter: &mut Sorter, scored: &Scored, place: u64, score: f64) -> io::Result<()> {
    let key = SortKey::default().text(&scored.set).text(&scored.member);
    let key = key.number(scored.cell).number(place).bytes();
    sorter.push(key, score.to_bits().to_be_bytes().to_vec())
}

impl Scores {
    fn entry(&mut self) -> io::Result<Option<(Member, f64)>> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let Some(entry) = self.sorted.next().transpose()? else {
            return Ok(None);
        };
        let mut key = KeyParts(&entry.0);
        let (set, member) = (key.text(), key.text());
        let bits: [u8; 8] = entry.1.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        let score = f64::from_bits(u64::from_be_bytes(bits));
        Ok(Some((Member { set, member }, score)))
    }

    fn member(&mut self) -> io::Result<Option<(Member, f64)>> {
        let Some((member, mut score)) = self.entry()? else {
            return Ok(None);
        };
        while let Some((next, other)) = self.entry()? {
            if next != member {
                self.ahead = Some((next, other));
                break;
            }
            score = kept(self.keep, score, other);
        }
        Ok(Some((member, score)))
    }
}

impl Iterator for Scores {
    type Item = io::Result<(Member, f64)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.member().transpose()
    }
}
