//! What a run changes at the head of its sorted sets, for those who are told of its end: read before the sets take
//! the job's names.

use std::collections::BTreeMap;

use paceline_protocol::manifest::Standing;
use paceline_protocol::spec::KeepScore;

use super::super::LoadError;
use super::Finish;
use super::publish::ranking_of;

/// How many sets are told of.
const SETS: usize = 3;
/// How many members of each.
const MEMBERS: usize = 3;
/// How many sets are looked at for some that changed.
const LOOKED_AT: usize = 20;

impl Finish<'_> {
    /// The best members of the first sets whose head changes, with the places that they had.
    pub(super) async fn standings(
        &self,
        sets: &BTreeMap<String, u64>,
    ) -> Result<Vec<Standing>, LoadError> {
        let state = &self.loader.stores.state;
        let rankings = &self.run.plan.job.outputs.rankings;
        let mut all = Vec::new();
        let mut told = 0;
        for name in sets.keys().take(LOOKED_AT) {
            let keep = ranking_of(rankings, name).map(|ranking| ranking.keep);
            let highest = keep != Some(KeepScore::Min);
            let head = state.own_set(&self.run.run, name, highest, MEMBERS).await?;
            let before = state.published_set(name, highest, MEMBERS).await?;
            if head.is_empty() || head == before {
                continue;
            }
            let members: Vec<&str> = head.iter().map(|(member, _)| member.as_str()).collect();
            let places = state.places(name, highest, &members).await?;
            let placed = head.iter().zip(places).enumerate();
            all.extend(placed.map(|(place, ((member, score), was))| Standing {
                set: name.clone(),
                member: member.clone(),
                score: *score,
                place: place as u64 + 1,
                was,
            }));
            told += 1;
            if told == SETS {
                break;
            }
        }
        Ok(all)
    }
}
