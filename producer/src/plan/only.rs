//! `--only DIM=VALUE`: narrows a matrix. Values of one dimension add up, dimensions narrow each other.

use std::collections::BTreeMap;

use paceline_protocol::plan::{Matrix, PlannedDimension, PlannedValues};
use paceline_protocol::spec::choose;
use serde_json::Value;

use super::{PlanError, dimension_of};

/// Keeps the cells that `wanted` names; returns what was asked by dimension.
pub(super) fn narrow(
    matrix: &mut Matrix,
    wanted: &[(String, String)],
) -> Result<BTreeMap<String, Vec<String>>, PlanError> {
    let mut only: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in wanted {
        let values = only.entry(name.clone()).or_default();
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    for (name, values) in &mut only {
        values.sort();
        let names: Vec<&str> = matrix.names().map(|n| &**n).collect();
        let (dimension, place) = dimension_of(matrix, name).ok_or_else(|| PlanError::Usage {
            message: format!("--only {name}=...: no dimension `{name}`"),
            hint: choose(name, &names, "its dimensions"),
        })?;
        keep(&mut matrix.dimensions[dimension], name, place, values)?;
    }
    Ok(only)
}

fn keep(
    dimension: &mut PlannedDimension,
    name: &str,
    column: usize,
    wanted: &[String],
) -> Result<(), PlanError> {
    let all = Matrix {
        dimensions: vec![dimension.clone()],
    };
    let mut kept = Vec::new();
    let mut met = vec![false; wanted.len()];
    for place in 0..dimension.values.len() {
        let row = all.cell(place);
        let text = shown(&row[column]);
        if let Some(i) = wanted.iter().position(|w| *w == text) {
            met[i] = true;
            kept.push(row);
        }
    }
    if let Some(missing) = met.iter().position(|met| !met) {
        return Err(not_a_value(&all, name, column, &wanted[missing]));
    }
    dimension.values = PlannedValues::Rows(kept);
    Ok(())
}

/// A value as the command line spells it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn not_a_value(all: &Matrix, name: &str, column: usize, value: &str) -> PlanError {
    const LOOKED_AT: u64 = 10_000;
    let mut known: Vec<String> = Vec::new();
    for place in 0..all.dimensions[0].values.len().min(LOOKED_AT) {
        let text = shown(&all.cell(place)[column]);
        if known.last() != Some(&text) && !known.contains(&text) {
            known.push(text);
        }
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    PlanError::Usage {
        message: format!("--only {name}={value}: `{name}` has no such value"),
        hint: choose(value, &known, "its values"),
    }
}
