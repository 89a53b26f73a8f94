//! How the calls of a lane spread over the scopes of a limit.

use std::collections::HashMap;

use paceline_protocol::plan::{Matrix, Plan, PlannedDimension};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{Limit, LimitRule, Provider, template_names};
use paceline_protocol::template::{environment, value_of};
use serde_json::Value;

/// Beyond so many combinations of the dimensions that a limit names, they are taken to be even.
const MOST_COMBINATIONS: u64 = 50_000;

/// How calls spread over a limit's scopes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Scopes that the lane uses: keys of the pool times values of what `per:` names.
    pub scopes: u64,
    /// Which share of the calls the fullest scope has; of a cost, its points for each call of the lane.
    pub load: f64,
}

/// How the calls to `provider` spread over the scopes of `limit`, each for so many points as a past run `told`;
/// `None` when the points of a cost are not known before.
pub fn spread(
    plan: &Plan,
    provider: &Provider,
    limit: &Limit,
    told: Option<f64>,
    env: &(impl Environment + ?Sized),
) -> Option<Spread> {
    let mut names = names_of(limit.per.as_deref());
    let of_key = names.iter().any(|name| is_credential(name));
    let picked = provider
        .credentials
        .as_ref()
        .and_then(|c| c.pick.as_deref());
    let mut pool = 1;
    match (of_key, picked) {
        // The cell says which key it is.
        (true, Some(pick)) => names.extend(names_of(Some(pick))),
        (true, None) => {
            pool = crate::pool::names(provider, env).map_or(1, |keys| keys.len() as u64)
        }
        (false, _) => {}
    }
    let told = told.map(|points| points.to_string());
    let cost = match &limit.rule {
        LimitRule::Cost { points, .. } => Some(told.as_deref().unwrap_or(points)),
        _ => None,
    };
    let lanes = if plan.providers.len() > 1 {
        plan.job.provider.as_deref()
    } else {
        None
    };
    let used = Used {
        plan,
        provider: &provider.name,
        scope: &names,
        cost,
        lanes,
        jinja: environment(),
    };
    let (scopes, load) = used.spread()?;
    let pool = pool.max(1);
    Some(Spread {
        scopes: scopes.saturating_mul(pool),
        load: load / pool as f64,
    })
}

fn names_of(template: Option<&str>) -> Vec<String> {
    template
        .and_then(|text| template_names(text).ok())
        .unwrap_or_default()
        .into_iter()
        .collect()
}

fn is_credential(name: &str) -> bool {
    name == "credential" || name.starts_with("credential.")
}

/// What decides in which scope a cell is, and what it costs there.
struct Used<'a> {
    plan: &'a Plan,
    provider: &'a str,
    /// Names of the scope.
    scope: &'a [String],
    cost: Option<&'a str>,
    /// The template of the provider, where there are several.
    lanes: Option<&'a str>,
    jinja: minijinja::Environment<'static>,
}

impl Used<'_> {
    /// How many scopes, and the load of the fullest one.
    fn spread(&self) -> Option<(u64, f64)> {
        let names: Vec<String> = [self.cost, self.lanes]
            .into_iter()
            .flat_map(names_of)
            .chain(self.scope.iter().cloned())
            .collect();
        let uses = |d: &&PlannedDimension| d.names.iter().any(|n| names.iter().any(|u| *u == **n));
        let dimensions = self.plan.matrix.dimensions.iter().filter(uses);
        let matrix = Matrix {
            dimensions: dimensions.cloned().collect(),
        };
        match matrix.cells() {
            Some(cells) if cells <= MOST_COMBINATIONS => self.counted(&matrix, cells),
            _ => self.even(&matrix),
        }
    }

    fn counted(&self, matrix: &Matrix, cells: u64) -> Option<(u64, f64)> {
        let mut scopes: HashMap<String, f64> = HashMap::new();
        let mut counted = 0u64;
        for place in 0..cells {
            let values = matrix.cell(place);
            if !self.is_here(matrix, &values) {
                continue;
            }
            counted += 1;
            let units = match self.cost {
                Some(points) => self.points(points, matrix, &values)?,
                None => 1.0,
            };
            *scopes.entry(self.key(matrix, &values)).or_default() += units;
        }
        let fullest = scopes.values().copied().fold(0.0, f64::max);
        Some((scopes.len().max(1) as u64, fullest / counted.max(1) as f64))
    }

    /// As if every scope had as many cells.
    fn even(&self, matrix: &Matrix) -> Option<(u64, f64)> {
        let of_scope =
            |d: &&PlannedDimension| d.names.iter().any(|n| self.scope.iter().any(|u| *u == **n));
        let values = matrix.dimensions.iter().filter(of_scope);
        let values = values.map(|d| d.values.len().max(1));
        let scopes = values.fold(1, u64::saturating_mul);
        let points = match self.cost {
            Some(points) => points.trim().parse().ok()?,
            None => 1.0,
        };
        Some((scopes, points / scopes as f64))
    }

    fn key(&self, matrix: &Matrix, values: &[Value]) -> String {
        let named = matrix.names().zip(values);
        let of_scope = named.filter(|(name, _)| self.scope.iter().any(|u| *u == ***name));
        let texts: Vec<String> = of_scope.map(|(_, value)| value.to_string()).collect();
        texts.join("\n")
    }

    fn is_here(&self, matrix: &Matrix, values: &[Value]) -> bool {
        let Some(template) = self.lanes else {
            return true;
        };
        let rendered = self.render(template, matrix, values);
        rendered.is_some_and(|name| name == self.provider)
    }

    fn points(&self, template: &str, matrix: &Matrix, values: &[Value]) -> Option<f64> {
        if let Ok(points) = template.trim().parse() {
            return Some(points);
        }
        self.render(template, matrix, values)?.trim().parse().ok()
    }

    fn render(&self, template: &str, matrix: &Matrix, values: &[Value]) -> Option<String> {
        let params = self.plan.job.params.iter();
        let params: serde_json::Map<String, Value> =
            params.map(|(k, v)| (k.clone(), v.clone())).collect();
        let named = matrix.names().zip(values);
        let pairs = named.map(|(name, value)| (name.to_string(), value_of(value)));
        let params = [("params".to_owned(), value_of(&Value::Object(params)))];
        let context = minijinja::Value::from_pairs(pairs.chain(params));
        self.jinja.render_str(template, context).ok()
    }
}
