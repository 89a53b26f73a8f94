//! The members that a part adds to a run's sorted sets.

use std::collections::BTreeMap;

use paceline_protocol::block::{CellEnd, CellEnds};
use paceline_protocol::part;
use paceline_protocol::plan::Plan;
use paceline_protocol::spec::{KeepScore, Ranking};
use paceline_protocol::stores::state::SetUpdate;

use super::record_templates::{Constants, RecordLine, RecordTemplates, TemplateError};
use super::settle::BlockPlace;

/// The rankings of a job, compiled once for a run.
#[derive(Debug)]
pub struct Rankings {
    /// Key, member, score and group of each ranking, in this order.
    templates: RecordTemplates,
    keeps: Vec<KeepScore>,
    /// Which of them are made when the run is finished, since they need all its records.
    normalised: Vec<bool>,
}

/// What a part adds to the sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranked {
    /// One for each set that it touches, by name.
    pub sets: Vec<SetUpdate>,
    /// Scores that are neither a finite number nor nothing at all: `1,200`, a name. A record without one (an optional
    /// field that is null) is in no set, and that is right.
    pub unscored: u64,
}

/// Why a record is in no set.
#[derive(Debug, PartialEq, Eq)]
enum NoMember {
    /// A name or the score is missing.
    Missing,
    /// The score is no number.
    NoNumber,
}

/// A score as a template gives it. Null is `None` there.
fn number(text: &str) -> Result<f64, NoMember> {
    match text.trim() {
        "" | "None" => Err(NoMember::Missing),
        text => {
            let score = text.parse().ok().filter(|score: &f64| score.is_finite());
            score.ok_or(NoMember::NoNumber)
        }
    }
}

/// A record's score in a ranking.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The set's name.
    pub set: String,
    /// The records that are normalised together; empty where nothing is normalised.
    pub group: String,
    /// The member.
    pub member: String,
    /// Its score, as found.
    pub score: f64,
    /// The record's cell.
    pub cell: u64,
}

/// Templates of a ranking.
const TEMPLATES: usize = 4;

type Members = BTreeMap<String, (f64, u64)>;

impl Rankings {
    /// The rankings of a plan's job.
    ///
    /// # Errors
    /// [`TemplateError::Broken`]
    pub fn compile(plan: &Plan) -> Result<Self, TemplateError> {
        let rankings = &plan.job.outputs.rankings;
        fn within(ranking: &Ranking) -> &str {
            let normalise = ranking.normalise.as_ref();
            normalise.map_or("", |normalise| normalise.within.as_str())
        }
        let sources: Vec<&str> = rankings
            .iter()
            .flat_map(|r| {
                [
                    r.key.as_str(),
                    r.member.as_str(),
                    r.score.as_str(),
                    within(r),
                ]
            })
            .collect();
        Ok(Rankings {
            templates: RecordTemplates::compile(&sources, Constants::of(plan))?,
            keeps: rankings.iter().map(|ranking| ranking.keep).collect(),
            normalised: rankings.iter().map(|r| r.normalise.is_some()).collect(),
        })
    }

    /// No rankings.
    pub fn none() -> Self {
        Rankings {
            templates: RecordTemplates::none(),
            keeps: Vec::new(),
            normalised: Vec::new(),
        }
    }

    /// Whether the job has none.
    pub fn is_empty(&self) -> bool {
        self.keeps.is_empty()
    }

    /// Whether some of its sets are made part by part.
    pub fn has_plain(&self) -> bool {
        self.normalised.contains(&false)
    }

    /// The scores of a part's records in ranking `ranking`, as they were found.
    pub fn scored(
        &self,
        ranking: usize,
        plan: &Plan,
        place: &BlockPlace,
        ends: &CellEnds,
        version: i64,
        body: &str,
    ) -> Vec<Scored> {
        let mut cells = CellsOfRecords::new(plan, place, ends);
        let scored = part::lines(body).filter_map(|line| {
            let cell = cells.of(line);
            let record = self.templates.read(line, version).ok()?;
            let (set, member, score) = self.member(ranking, &record).ok()?;
            let group = self.text(ranking, 3, &record).ok()?;
            Some(Scored {
                set,
                group,
                member,
                score,
                cell,
            })
        });
        scored.collect()
    }

    /// What the records of a part add; rankings that are normalised are left for the finish. `version` is
    /// the part's.
    pub fn updates(
        &self,
        plan: &Plan,
        place: &BlockPlace,
        ends: &CellEnds,
        version: i64,
        body: &str,
    ) -> Ranked {
        if self.is_empty() {
            return Ranked::default();
        }
        let mut cells = CellsOfRecords::new(plan, place, ends);
        let mut sets: BTreeMap<(String, usize), Members> = BTreeMap::new();
        let mut unscored = 0;
        for line in part::lines(body) {
            let cell = cells.of(line);
            let Ok(record) = self.templates.read(line, version) else {
                continue;
            };
            for ranking in 0..self.keeps.len() {
                let added = match self.normalised[ranking] {
                    // The finish makes those.
                    true => self.score(ranking, &record).map(|_| None),
                    false => self.member(ranking, &record).map(Some),
                };
                match added {
                    Ok(Some((set, member, score))) => {
                        let members = sets.entry((set, ranking)).or_default();
                        self.keeps[ranking].add(members, member, score, cell);
                    }
                    Err(NoMember::NoNumber) => unscored += 1,
                    Ok(None) | Err(NoMember::Missing) => {}
                }
            }
        }
        let sets = sets
            .into_iter()
            .map(|(key, members)| self.update(key, members));
        Ranked {
            sets: sets.collect(),
            unscored,
        }
    }

    fn member(
        &self,
        ranking: usize,
        record: &RecordLine<'_>,
    ) -> Result<(String, String, f64), NoMember> {
        let score = self.score(ranking, record)?;
        let text = |template| self.text(ranking, template, record);
        Ok((text(0)?, text(1)?, score))
    }

    fn score(&self, ranking: usize, record: &RecordLine<'_>) -> Result<f64, NoMember> {
        number(&self.text(ranking, 2, record)?)
    }

    fn text(
        &self,
        ranking: usize,
        template: usize,
        record: &RecordLine<'_>,
    ) -> Result<String, NoMember> {
        let mut text = String::new();
        let place = ranking * TEMPLATES + template;
        let rendered = self.templates.render(place, record, &mut text);
        rendered.map(|()| text).map_err(|_| NoMember::Missing)
    }

    fn update(&self, (name, ranking): (String, usize), members: Members) -> SetUpdate {
        let members = members
            .into_iter()
            .map(|(member, (score, cell))| (member, score, cell));
        SetUpdate {
            name,
            keep: self.keeps[ranking],
            members: members.collect(),
        }
    }
}

/// What is kept of two scores of a member, the second being the later one.
pub fn kept(keep: KeepScore, so_far: f64, score: f64) -> f64 {
    match keep {
        KeepScore::Min => so_far.min(score),
        KeepScore::Max => so_far.max(score),
        KeepScore::Last => score,
        KeepScore::Sum => so_far + score,
    }
}

/// Adds a member to what a block has so far.
trait Add {
    fn add(self, members: &mut Members, member: String, score: f64, cell: u64);
}

impl Add for KeepScore {
    fn add(self, members: &mut Members, member: String, score: f64, cell: u64) {
        let entry = members.entry(member);
        entry
            .and_modify(|(kept, of)| {
                *kept = self::kept(self, *kept, score);
                *of = (*of).max(cell);
            })
            .or_insert((score, cell));
    }
}

/// Finds the cell of each record of a part, which holds its cells' records in order: a record whose
/// dimensions are not those of the current cell belongs to the next succeeded cell that fits.
pub(crate) struct CellsOfRecords {
    /// Succeeded cells in order, each with the beginning of its records' lines.
    cells: Vec<(u64, String)>,
    current: usize,
}

impl CellsOfRecords {
    pub(crate) fn new(plan: &Plan, place: &BlockPlace, ends: &CellEnds) -> Self {
        let succeeded = ends.0.iter().enumerate();
        let cells = succeeded
            .filter(|(_, end)| **end == CellEnd::Succeeded)
            .map(|(i, _)| place.first_cell + i as u64)
            .map(|cell| (cell, beginning(plan, cell)))
            .collect();
        CellsOfRecords { cells, current: 0 }
    }

    pub(crate) fn of(&mut self, line: &str) -> u64 {
        let rest = self.cells.iter().skip(self.current);
        if let Some(ahead) = rest
            .map(|(_, begin)| begin)
            .position(|b| line.starts_with(b.as_str()))
        {
            self.current += ahead;
        }
        self.cells.get(self.current).map_or(0, |(cell, _)| *cell)
    }
}

/// How the line of a cell's record begins: a record starts with the cell's dimensions.
fn beginning(plan: &Plan, cell: u64) -> String {
    let mut begin = String::from("{");
    for (name, value) in plan.matrix.names().zip(plan.matrix.cell(cell)) {
        let name = serde_json::Value::from(&**name);
        begin.push_str(&format!("{name}:{value},"));
    }
    begin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::settle::tests::{plan, ranking};

    fn updates(keep: KeepScore, ends: &str, body: &str) -> Ranked {
        let mut plan = plan(4);
        plan.job.outputs.rankings = vec![ranking(
            "fares:{{ city }}",
            "{{ night }}",
            "{{ price }}",
            keep,
        )];
        let rankings = Rankings::compile(&plan).expect("compiles");
        let place = BlockPlace::of(&plan, 0, 0, 0).expect("in the plan");
        rankings.updates(&plan, &place, &ends.parse().expect("ends"), 1, body)
    }

    const BODY: &str = "{\"city\":\"NRT\",\"night\":0,\"price\":30}\n{\"city\":\"NRT\",\"night\":0,\"price\":10}\n{\"city\":\"NRT\",\"night\":0,\"price\":20}\n{\"city\":\"NRT\",\"night\":2,\"price\":null}\n{\"city\":\"NRT\",\"night\":2,\"price\":5.5}\n";

    #[test]
    fn what_is_no_score_is_told_from_none() {
        for (text, unscored) in [
            ("null", 0),
            ("\"\"", 0),
            ("\"12.5\"", 0),
            ("\"1,200\"", 1),
            ("\"NRT\"", 1),
            ("\"inf\"", 1),
            ("\"NaN\"", 1),
            ("true", 1),
        ] {
            let body = format!("{{\"city\":\"NRT\",\"night\":0,\"price\":{text}}}\n");
            let ranked = updates(KeepScore::Min, "1S1E1S1F", &body);
            assert_eq!(ranked.unscored, unscored, "{text}");
        }
    }

    #[test]
    fn each_way_of_keeping_a_score() {
        for (keep, score) in [
            (KeepScore::Min, 10.0),
            (KeepScore::Max, 30.0),
            (KeepScore::Last, 20.0),
            (KeepScore::Sum, 60.0),
        ] {
            let ranked = updates(keep, "1S1E1S1F", BODY);
            assert_eq!(ranked.unscored, 0);
            assert_eq!(ranked.sets.len(), 1);
            assert_eq!(ranked.sets[0].name, "fares:NRT");
            let expected = [("0".to_owned(), score, 0), ("2".to_owned(), 5.5, 2)];
            assert_eq!(ranked.sets[0].members, expected, "{keep:?}");
        }
    }

    #[test]
    fn the_environments_values_stand_in_names_and_members() {
        let mut plan = plan(4);
        plan.job.outputs.rankings = vec![ranking(
            "fares:${REGION}:{{ city }}",
            "{{ night }}-${REGION}",
            "{{ price }}",
            KeepScore::Min,
        )];
        let env = BTreeMap::from([("REGION".to_owned(), "{{ kr }}".to_owned())]);
        let named = paceline_protocol::connector::outputs_in_environment(&plan, &env);
        let named = named.expect("it is there").expect("it is named");
        let rankings = Rankings::compile(&named).expect("compiles");
        let place = BlockPlace::of(&plan, 0, 0, 0).expect("in the plan");
        let ends = "1S1E1S1F".parse().expect("ends");
        let ranked = rankings.updates(&plan, &place, &ends, 1, BODY);
        assert_eq!(ranked.sets[0].name, "fares:{{ kr }}:NRT");
        assert_eq!(ranked.sets[0].members[0].0, "0-{{ kr }}");
    }
}
