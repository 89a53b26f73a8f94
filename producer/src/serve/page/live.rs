//! What `view:` of a job shows, out of the sorted sets that are live. A set's name and its members are made by
//! templates; where those are names between fixed texts, they are read back here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use paceline_protocol::layout;
use paceline_protocol::manifest::Live;
use paceline_protocol::spec::{Job, KeepScore, Ranking};

use crate::serve::Server;

/// The most members that are read of a set.
const MOST: usize = 50_000;

/// A template of plain names, `a:{{ x }}/{{ y }}`, that can be read backwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// What stands before the first name.
    first: String,
    /// Each name with what stands behind it.
    rest: Vec<(String, String)>,
}

impl Pattern {
    /// Reads a template; `None` when it holds more than names, or two without anything between them.
    pub(super) fn read(template: &str) -> Option<Self> {
        let mut pieces = template.split("{{");
        let first = pieces.next()?.to_owned();
        let mut rest = Vec::new();
        for piece in pieces {
            let (name, behind) = piece.split_once("}}")?;
            let name = name.trim();
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            if name.is_empty() || !name.chars().all(plain) {
                return None;
            }
            rest.push((name.to_owned(), behind.to_owned()));
        }
        let (_, all_but_last) = rest.split_last()?;
        let apart = all_but_last.iter().all(|(_, behind)| !behind.is_empty());
        (apart && !template.contains("{%")).then_some(Pattern { first, rest })
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.rest.iter().map(|(name, _)| name.as_str())
    }

    /// The values that make `text`.
    pub(super) fn values<'t>(&self, text: &'t str) -> Option<BTreeMap<&str, &'t str>> {
        let mut left = text.strip_prefix(self.first.as_str())?;
        let mut values = BTreeMap::new();
        let last = self.rest.len().checked_sub(1)?;
        for (place, (name, behind)) in self.rest.iter().enumerate() {
            let value = if place == last {
                left.strip_suffix(behind.as_str())?
            } else {
                let (value, after) = left.split_once(behind.as_str())?;
                left = after;
                value
            };
            values.insert(name.as_str(), value);
        }
        Some(values)
    }

    /// The text that `values` make; `None` when one is missing.
    pub(super) fn text(&self, values: &BTreeMap<&str, &str>) -> Option<String> {
        let mut text = self.first.clone();
        for (name, behind) in &self.rest {
            text += values.get(name.as_str())?;
            text += behind;
        }
        Some(text)
    }
}

/// `view: {heatmap: {of, x, y, value}}` with the ranking that holds it.
#[derive(Clone, Debug)]
pub(super) struct Heatmap {
    /// Whose map it is.
    pub(super) of: String,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) value: String,
    key: Pattern,
    member: Pattern,
    /// The highest is the best.
    pub(super) highest: bool,
}

impl Heatmap {
    /// The heat map of a job, when one of its rankings is made for it: a set for each `of`, members of `x` and
    /// `y`, the value as score.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let view = job.view.as_ref()?.get("heatmap")?;
        let name = |key: &str| view.get(key)?.as_str().map(str::to_owned);
        let (of, x, y, value) = (name("of")?, name("x")?, name("y")?, name("value")?);
        let wanted = BTreeSet::from([x.as_str(), y.as_str()]);
        let fitting = |ranking: &Ranking| {
            let score = ranking.score.trim();
            let scored = score.strip_prefix("{{")?.strip_suffix("}}")?.trim();
            let key = Pattern::read(&ranking.key)?;
            let member = Pattern::read(&ranking.member)?;
            let fits = scored == value
                && key.names().eq([of.as_str()])
                && member.names().collect::<BTreeSet<_>>() == wanted;
            fits.then_some((key, member))
        };
        let (key, member) = job.outputs.rankings.iter().find_map(fitting)?;
        let highest = view.get("agg").and_then(|agg| agg.as_str()) == Some("max");
        Some(Heatmap {
            of,
            x,
            y,
            value,
            key,
            member,
            highest,
        })
    }

    /// The values of `of` that are live, by the names of the sets.
    pub(super) fn live(&self, live: &Live) -> BTreeSet<String> {
        let values = live.sets.iter().filter_map(|set| {
            let values = self.key.values(set)?;
            values
                .get(self.of.as_str())
                .map(|value| (*value).to_owned())
        });
        values.collect()
    }

    /// The map of one value of `of`, as it is live in this moment: (x, y) and the score.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(super) async fn cells(
        &self,
        server: &Server,
        of: &str,
    ) -> Result<Vec<(String, String, f64)>> {
        let set = self.key.text(&BTreeMap::from([(self.of.as_str(), of)]));
        let Some(set) = set else {
            return Ok(Vec::new());
        };
        let members = server.stores.state.published_set(&set, false, MOST).await?;
        let cell = |(member, score): (String, f64)| {
            let values = self.member.values(&member)?;
            let (x, y) = (*values.get(self.x.as_str())?, *values.get(self.y.as_str())?);
            Some((x.to_owned(), y.to_owned(), score))
        };
        Ok(members.into_iter().filter_map(cell).collect())
    }
}

/// What the job's newest good run has published.
///
/// # Errors
/// When S3 does not answer.
pub(super) async fn live(server: &Server, job: &str) -> Result<Option<Live>> {
    let key = layout::live(server.stores.prefix(), job);
    let Some(object) = server.stores.objects().get(&key).await? else {
        return Ok(None);
    };
    let live = serde_json::from_slice(&object.body);
    Ok(Some(live.with_context(|| {
        format!("{key} is not what it should be")
    })?))
}

/// Whether the lowest score of a set of the job is its best.
pub(super) fn lowest_first(job: &Job, set: &str) -> bool {
    let made = |ranking: &&Ranking| {
        Pattern::read(&ranking.key).is_some_and(|key| key.values(set).is_some())
    };
    let ranking = job
        .outputs
        .rankings
        .iter()
        .find(made)
        .or(job.outputs.rankings.first());
    ranking.is_some_and(|ranking| ranking.keep == KeepScore::Min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_of_names_is_read_backwards() {
        let member = Pattern::read("{{ depart }}/{{ nights }}").expect("a pattern");
        let values = member.values("2026-12-01/3").expect("values");
        assert_eq!(
            values,
            BTreeMap::from([("depart", "2026-12-01"), ("nights", "3")])
        );
        assert_eq!(member.text(&values).as_deref(), Some("2026-12-01/3"));
        assert_eq!(member.values("2026-12-01"), None);
        let key = Pattern::read("fares:{{ destination }}").expect("a pattern");
        assert_eq!(key.values("other:NRT"), None);
        assert_eq!(
            key.values("fares:NRT").expect("values")["destination"],
            "NRT"
        );
        for bad in ["{{ a | upper }}", "{{ a }}{{ b }}", "plain", "{{ a "] {
            assert_eq!(Pattern::read(bad), None, "{bad}");
        }
    }
}
