//! Which cells belong to which lane: cells next to each other whose provider renders the same.
//!
//! A provider's template is rendered once for each combination of the dimensions that it uses; cells
//! that differ in inner dimensions only are never looked at, so ten million of them cost nothing.

use std::collections::{BTreeMap, HashMap};

use paceline_protocol::plan::{Matrix, Segment};
use paceline_protocol::spec::{Job, Provider, choose, template_names};
use paceline_protocol::template::{environment, value_of};

use super::{PlanError, dimension_of};

/// More changes of lane than a plan should hold.
const MOST_SEGMENTS: usize = 100_000;

/// The segments of `matrix`, in the order of cells; none without cells.
///
/// # Errors
/// When a template names a provider that was not loaded, or the lane changes too often.
pub(super) fn segments(
    job: &Job,
    matrix: &Matrix,
    providers: &BTreeMap<String, Provider>,
) -> Result<Vec<Segment>, PlanError> {
    let cells = matrix.cells().unwrap_or(0);
    if cells == 0 {
        return Ok(vec![]);
    }
    let template = job.provider.as_deref().unwrap_or_default();
    let used = used_dimensions(template, matrix)?;
    let outer_dimensions = used.iter().max().map_or(0, |last| last + 1);
    let outer = Matrix {
        dimensions: matrix.dimensions[..outer_dimensions].to_vec(),
    };
    let outer_cells = outer.cells().unwrap_or(1);
    let inner = cells / outer_cells;
    let mut names = ProviderNames {
        template,
        used: &used,
        outer: &outer,
        known: HashMap::new(),
    };
    let mut segments: Vec<Segment> = Vec::new();
    for place in 0..outer_cells {
        let name = names.at(place)?;
        match segments.last_mut() {
            Some(last) if last.provider == name => last.cells += inner,
            _ => segments.push(segment(name, place * inner, inner, providers)?),
        }
        if segments.len() > MOST_SEGMENTS {
            return Err(changes_too_often(job, &outer));
        }
    }
    Ok(segments)
}

/// The dimensions that a template uses, outermost first.
fn used_dimensions(template: &str, matrix: &Matrix) -> Result<Vec<usize>, PlanError> {
    let names = template_names(template)
        .map_err(|fault| PlanError::Job(format!("provider: {}", fault.message)))?;
    let mut used: Vec<usize> = names
        .iter()
        .filter_map(|n| dimension_of(matrix, n))
        .map(|(d, _)| d)
        .collect();
    used.sort_unstable();
    used.dedup();
    Ok(used)
}

fn segment(
    name: &str,
    first_cell: u64,
    cells: u64,
    providers: &BTreeMap<String, Provider>,
) -> Result<Segment, PlanError> {
    let Some(provider) = providers.get(name) else {
        let known: Vec<&str> = providers.keys().map(String::as_str).collect();
        return Err(PlanError::Job(format!(
            "no provider `{name}` for cell {first_cell}; {}",
            choose(name, &known, "providers")
        )));
    };
    let lane = match &provider.egress {
        Some(egress) => format!("{name}@{egress}"),
        None => name.to_owned(),
    };
    Ok(Segment {
        lane,
        provider: name.to_owned(),
        first_cell,
        cells,
    })
}

fn changes_too_often(job: &Job, outer: &Matrix) -> PlanError {
    let inner = outer
        .dimensions
        .last()
        .and_then(|d| d.names.first())
        .map_or("it", |n| &**n);
    PlanError::Job(format!(
        "the lane of job `{}` changes more than {MOST_SEGMENTS} times: put `{inner}` first in `split`, so that cells of one provider lie together",
        job.name
    ))
}

/// The provider's name by the places of the used dimensions, each combination rendered once.
struct ProviderNames<'p> {
    template: &'p str,
    used: &'p [usize],
    outer: &'p Matrix,
    known: HashMap<Vec<u64>, String>,
}

impl ProviderNames<'_> {
    fn at(&mut self, place: u64) -> Result<&str, PlanError> {
        let key = self.key(place);
        if !self.known.contains_key(&key) {
            let name = self.render(place)?;
            self.known.insert(key.clone(), name);
        }
        Ok(&self.known[&key])
    }

    /// The places of the used dimensions alone.
    fn key(&self, place: u64) -> Vec<u64> {
        let mut rest = place;
        let mut key = Vec::with_capacity(self.used.len());
        for (d, dimension) in self.outer.dimensions.iter().enumerate().rev() {
            let radix = dimension.values.len();
            if self.used.contains(&d) {
                key.push(rest % radix);
            }
            rest /= radix;
        }
        key
    }

    fn render(&self, place: u64) -> Result<String, PlanError> {
        let values = self.outer.cell(place);
        let pairs = self
            .outer
            .names()
            .zip(&values)
            .map(|(n, v)| (n.to_string(), value_of(v)));
        let context = minijinja::Value::from_pairs(pairs);
        environment()
            .render_str(self.template, context)
            .map_err(|e| PlanError::Job(format!("provider: {e:#}")))
    }
}
