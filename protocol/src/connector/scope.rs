//! Which of a provider's limits a call draws from, and in which scope.

use minijinja::value::Value;

use super::body::{Body, JsonPath};
use super::learn::LearnPlaces;
use super::{CallContext, CompileError, Connector, NotRequestable};
use crate::limit::Told;
use crate::spec::{Limit, LimitRule, Provider};
use crate::template::Compiled;
use crate::template::Templates;

/// One limit of the provider with its compiled `per:`.
#[derive(Debug)]
pub struct ScopeTemplate {
    /// Its name in the file.
    pub name: String,
    /// The limit, under its counter's name.
    pub limit: Limit,
    points: Option<Compiled>,
    actual: Option<JsonPath>,
    /// Whether calls may take different numbers of points.
    pub points_by_cell: bool,
    per: Option<Compiled>,
    /// Whether `per:` names the credential, so that each key has a scope of its own.
    pub by_credential: bool,
    /// Whether `per:` names anything of the cell or its run: cells of one lane may draw from several scopes.
    pub by_cell: bool,
    /// How many names `per:` has.
    pub names: usize,
    /// Where answers tell of it.
    pub learn: Option<LearnPlaces>,
}

/// The rendered scopes of one cell, in the order of [`Connector::scopes`]; `None` where the scope
/// depends on the credential that is picked later.
pub type Scopes = Vec<Option<String>>;

pub(super) fn compile(
    provider: &Provider,
    templates: &mut Templates,
) -> Result<Vec<ScopeTemplate>, CompileError> {
    let mut scopes = Vec::new();
    for limit in &provider.limits {
        let per = match &limit.per {
            Some(source) => Some(
                templates
                    .compile(source)
                    .map_err(|e| CompileError::syntax(source, e))?,
            ),
            None => None,
        };
        let names = limit.per.as_deref().map(names_in).unwrap_or_default();
        let (points, actual) = match &limit.rule {
            LimitRule::Cost { points, actual, .. } => (Some(points), actual.as_deref()),
            _ => (None, None),
        };
        let points_by_cell = points.is_some_and(|source| !names_in(source).is_empty());
        let points = match points {
            Some(source) => Some(
                templates
                    .compile(source)
                    .map_err(|e| CompileError::syntax(source, e))?,
            ),
            None => None,
        };
        scopes.push(ScopeTemplate {
            by_credential: names.iter().any(|n| n == "credential"),
            by_cell: names.iter().any(|n| n != "credential" && n != "endpoint"),
            names: names.len(),
            learn: limit.learn.as_ref().map(LearnPlaces::compile).transpose()?,
            name: limit.name.clone(),
            limit: provider.counted(limit),
            points,
            actual: actual.map(JsonPath::compile).transpose()?,
            points_by_cell,
            per,
        });
    }
    Ok(scopes)
}

/// Whether a `per:` names anything of the cell, so that the cells of one run draw from several scopes.
pub fn is_by_cell(per: &str) -> bool {
    let names = names_in(per);
    names.iter().any(|n| !SAME_FOR_ALL.contains(&n.as_str()))
}

/// Names that are the same for every cell of a run, or no cell's.
const SAME_FOR_ALL: [&str; 6] = ["credential", "endpoint", "params", "run", "today", "parent"];

/// Points are whole ones; a part of one counts as one.
fn whole_points(number: Option<f64>) -> Option<u64> {
    let number = number.filter(|n| n.is_finite() && (0.0..1e9).contains(n))?;
    Some(number.ceil() as u64)
}

fn names_in(source: &str) -> Vec<String> {
    let env = crate::template::environment();
    env.template_from_str(source)
        .map(|t| t.undeclared_variables(false).into_iter().collect())
        .unwrap_or_default()
}

impl Connector {
    /// All limits of the provider, in its order.
    pub fn scopes(&self) -> &[ScopeTemplate] {
        &self.scopes
    }

    /// The limits that a call of `endpoint` draws from, each with its place in [`Connector::scopes`].
    /// `endpoint` is what the ledger says: also `token`, `login`, `ready` or `<endpoint>.detail`.
    pub fn scopes_for(&self, endpoint: &str) -> impl Iterator<Item = (usize, &ScopeTemplate)> {
        let all = self.scopes.iter().enumerate();
        all.filter(move |(_, scope)| scope.limit.holds_for(endpoint))
    }

    /// What a call takes of limit `place`; `None` where that is no bucket of points.
    ///
    /// # Errors
    /// When it cannot be rendered for this cell, or is no number.
    pub fn points(
        &self,
        place: usize,
        context: &CallContext,
    ) -> Result<Option<u64>, NotRequestable> {
        let scope = &self.scopes[place];
        let Some(points) = &scope.points else {
            return Ok(None);
        };
        let context: Value = context.clone().value();
        let text = self
            .templates
            .render(points, &context)
            .map_err(|e| NotRequestable(e.to_string()))?;
        match whole_points(text.trim().parse().ok()) {
            Some(points) => Ok(Some(points)),
            None => Err(NotRequestable(format!(
                "limit `{}`: a call costs `{text}`, which is no number of points",
                scope.name
            ))),
        }
    }

    /// What calls of `endpoint` really cost, as the answer tells it: the limit's place and points.
    pub fn actual(&self, endpoint: &str, body: &Body) -> Vec<(&ScopeTemplate, u64)> {
        let costs = self.scopes_for(endpoint).filter_map(|(_, scope)| {
            let found = scope.actual.as_ref()?.first(body.tree())?;
            let number = match found {
                serde_json::Value::String(text) => text.trim().parse().ok(),
                other => other.as_f64(),
            };
            Some((scope, whole_points(number)?))
        });
        costs.collect()
    }

    /// What an answer of `endpoint` tells of the limits that its call drew from. `header` gives a value by lower-case
    /// name.
    pub fn told<'c>(
        &'c self,
        endpoint: &str,
        header: &dyn Fn(&str) -> Option<String>,
        body: Option<&Body>,
        now_us: i64,
    ) -> Vec<(&'c ScopeTemplate, Told)> {
        let mut all = Vec::new();
        for (_, scope) in self.scopes_for(endpoint) {
            let Some(places) = &scope.learn else { continue };
            let period = match scope.limit.rule {
                LimitRule::Rate { period, .. } => Some(period.0),
                _ => None,
            };
            let told = places.read(header, body, now_us, period);
            if !told.is_nothing() {
                all.push((scope, told));
            }
        }
        all
    }

    /// Whether answers tell of any limit.
    pub fn learns(&self) -> bool {
        self.scopes.iter().any(|scope| scope.learn.is_some())
    }

    /// The scope of limit `place` (of [`Connector::scopes`]) for a call; empty without `per:`.
    ///
    /// # Errors
    /// When its template cannot be rendered for this cell.
    pub fn scope(&self, place: usize, context: &CallContext) -> Result<String, NotRequestable> {
        let Some(per) = &self.scopes[place].per else {
            return Ok(String::new());
        };
        let context: Value = context.clone().value();
        self.templates
            .render(per, &context)
            .map_err(|e| NotRequestable(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_for_all_cells_is_no_scope_of_cells() {
        for per in [
            "{{ credential }}/{{ endpoint }}",
            "{{ params.x }}",
            "{{ run.id }}-{{ today }}",
            "{{ parent.id }}",
        ] {
            assert!(!is_by_cell(per), "{per}");
        }
        assert!(is_by_cell("{{ params.x }}/{{ seller }}"));
    }
}
