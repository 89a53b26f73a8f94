//! A sorted set in somebody's Redis: members and scores become records, highest score first.

use std::collections::BTreeMap;

use paceline_protocol::connector::Connector;
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Provider, expand_env};
use paceline_protocol::stores::sorted_set::{SortedSetError, members};
use paceline_protocol::template::environment;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{Read, SourceError, Unread, fit};

/// Reads one sorted set for each cell.
#[derive(Debug)]
pub struct SortedSet {
    /// May hold a password, so it is in no message.
    url: SecretString,
    name: String,
    format: PartFormat,
}

impl SortedSet {
    pub(super) fn open(
        plan: &Plan,
        provider: &Provider,
        redis: Option<&Value>,
        env: &impl Environment,
    ) -> Result<Self, SourceError> {
        let text = |name: &str| {
            let text = redis.and_then(|r| r.get(name)).and_then(Value::as_str);
            expand_env(text.unwrap_or_default(), env).map_err(|missing| SourceError::Environment {
                provider: provider.name.clone(),
                missing,
            })
        };
        Ok(SortedSet {
            url: text("url")?.into(),
            name: text("sorted_set")?,
            format: PartFormat::of(plan),
        })
    }

    pub(super) async fn read(
        &self,
        plan: &Plan,
        connector: &Connector,
        cell: u64,
    ) -> Result<Read, Unread> {
        let context = connector.cell(plan.matrix.cell(cell));
        let name = environment()
            .render_str(&self.name, context.clone().value())
            .map_err(|e| Unread::never(format!("sorted_set: {e:#}")))?;
        let members = members(self.url.expose_secret(), &name).await?;
        let mut records = Vec::new();
        for (member, score) in highest_first(members) {
            let found = serde_json::json!({ "member": member, "score": score });
            let found = connector
                .records(&context, &found.into())
                .map_err(|misfit| Unread::Never {
                    reason: misfit.to_string(),
                    field: Some(misfit.field),
                })?;
            records.extend(found);
        }
        fit(&self.format, &mut records)?;
        Ok(Read::of(&records))
    }
}

/// Ties by member.
fn highest_first(members: BTreeMap<String, f64>) -> Vec<(String, Value)> {
    let mut ordered: Vec<(String, f64)> = members.into_iter().collect();
    ordered.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ordered
        .into_iter()
        .map(|(member, score)| (member, number(score)))
        .collect()
}

/// A whole score is a whole number; an infinite one is text, which fits no number.
fn number(score: f64) -> Value {
    /// From here on a double does not know its ones.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if score.fract() == 0.0 && score.abs() <= EXACT {
        return Value::from(score as i64);
    }
    serde_json::Number::from_f64(score).map_or_else(|| score.to_string().into(), Value::Number)
}

impl From<SortedSetError> for Unread {
    fn from(error: SortedSetError) -> Self {
        match error {
            SortedSetError::Away(_) => Unread::Again(error.to_string()),
            SortedSetError::Final(_) => Unread::never(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_highest_first_and_whole_where_they_are() {
        let members = [("a", 2.0), ("b", 10.0), ("c", 2.0), ("d", 0.5), ("e", 1e15)];
        let members = members.map(|(m, s)| (m.to_owned(), s)).into();
        let shown: Vec<String> = highest_first(members)
            .into_iter()
            .map(|(member, score)| format!("{member}={score}"))
            .collect();
        assert_eq!(shown, ["e=1000000000000000", "b=10", "a=2", "c=2", "d=0.5"]);
        assert_eq!(number(f64::INFINITY), Value::from("inf"));
    }
}
