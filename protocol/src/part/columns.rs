//! What a run's records are made of: name and kind of each column, out of the plan alone, so that every
//! part of a run has the same.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::Value;

use super::decimal;
use crate::plan::{Plan, PlannedValues};
use crate::record::Scalar;
use crate::spec::FieldKind;

/// What became of a record since the base, where the job has `changes`.
pub const UPDATE_TYPE: &str = "update_type";

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name of the record's value.
    pub name: Arc<str>,
    /// What its values are.
    pub kind: ColumnKind,
    /// A value that does not fit is null.
    pub optional: bool,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Any scalar as it was found: a field without `as:`, a dimension of mixed values.
    Found,
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number by its digits; with a scale, so many behind the point.
    Decimal(Option<u8>),
    /// A double.
    Float,
    /// true or false.
    Boolean,
    /// A calendar day.
    Date,
    /// An instant.
    Datetime,
}

/// A value that cannot be written as its column wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {column} does not fit {what}: {value}")]
pub struct Unfit {
    /// The column.
    pub column: String,
    /// What its values are.
    pub what: String,
    /// The beginning of the value.
    pub value: String,
}

impl Column {
    /// A column.
    pub fn new(name: impl Into<Arc<str>>, kind: ColumnKind) -> Self {
        Column {
            name: name.into(),
            kind,
            optional: false,
        }
    }

    /// Gives a value the form that Parquet gives back.
    pub(super) fn fit(&self, value: &mut Scalar) -> Result<(), Unfit> {
        match self.fitted(value) {
            Err(_) if self.optional => *value = Scalar::Null,
            fitted => return fitted,
        }
        Ok(())
    }

    fn fitted(&self, value: &mut Scalar) -> Result<(), Unfit> {
        match (self.kind, &*value) {
            (ColumnKind::Decimal(Some(scale)), Scalar::Number(found)) => {
                let fitting = decimal::unscaled(found, scale).ok_or_else(|| self.unfit(value))?;
                *value = Scalar::Number(decimal::digits(fitting, scale));
            }
            (ColumnKind::Integer, Scalar::Number(found)) => {
                let fitting: i64 = found.parse().map_err(|_| self.unfit(value))?;
                *value = Scalar::Number(fitting.to_string());
            }
            (ColumnKind::Float, Scalar::Number(found)) => {
                let fitting: f64 = found.parse().map_err(|_| self.unfit(value))?;
                *value = Scalar::Number(float(fitting));
            }
            (ColumnKind::Date, Scalar::Text(found)) => {
                let fitting: Date = found.parse().map_err(|_| self.unfit(value))?;
                *value = Scalar::Text(fitting.to_string());
            }
            (ColumnKind::Datetime, Scalar::Text(found)) => {
                let fitting: Timestamp = found.parse().map_err(|_| self.unfit(value))?;
                *value = instant(fitting.as_microsecond()).ok_or_else(|| self.unfit(value))?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn unfit(&self, value: &Scalar) -> Unfit {
        let what = match self.kind {
            ColumnKind::Decimal(Some(scale)) => format!("a decimal with scale {scale}"),
            ColumnKind::Integer => "an integer of 64 bits".to_owned(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        let value = match value {
            Scalar::Null => "null".to_owned(),
            Scalar::Boolean(truth) => truth.to_string(),
            Scalar::Number(text) | Scalar::Text(text) => text.chars().take(60).collect(),
        };
        Unfit {
            column: self.name.to_string(),
            what,
            value,
        }
    }
}

/// The shortest digits that read back as the same double; a float always shows a point.
pub(super) fn float(number: f64) -> String {
    format!("{number:?}")
}

/// An instant by its microseconds since 1970.
pub(super) fn instant(micros: i64) -> Option<Scalar> {
    let instant = Timestamp::from_microsecond(micros).ok()?;
    Some(Scalar::Text(instant.to_string()))
}

/// The columns of a run's records: the dimensions, then the endpoint's fields at all its providers, then
/// `update_type` where the job has `changes`. Of a job without calls, its own fields.
pub fn columns_of(plan: &Plan) -> Vec<Column> {
    let mut columns = Vec::new();
    if plan.job.source.is_none() {
        for dimension in &plan.matrix.dimensions {
            for (place, name) in dimension.names.iter().enumerate() {
                let kind = kind_of_values(&dimension.values, place);
                add(&mut columns, Column::new(name.clone(), kind));
            }
        }
    }
    add_fields(plan, &mut columns);
    // A plan of a job without calls has its fields, with their kinds, at an endpoint of its own.
    for name in plan.job.fields.keys() {
        if !columns.iter().any(|known| *known.name == **name) {
            columns.push(Column::new(name.as_str(), ColumnKind::Found));
        }
    }
    if plan.job.changes.is_some() {
        add(&mut columns, Column::new(UPDATE_TYPE, ColumnKind::Integer));
    }
    columns
}

fn add_fields(plan: &Plan, columns: &mut Vec<Column>) {
    let Some(endpoint) = plan.job.endpoint.as_deref() else {
        return;
    };
    let endpoints = plan
        .providers
        .values()
        .filter_map(|p| p.endpoints.get(endpoint));
    for (name, field) in endpoints.flat_map(|endpoint| &endpoint.fields) {
        let kind = field
            .kind
            .map_or(ColumnKind::Found, |kind| kind_of(kind, field.scale));
        let optional = field.optional;
        let column = Column::new(name.as_str(), kind);
        add(columns, Column { optional, ..column });
    }
}

fn kind_of(kind: FieldKind, scale: Option<u8>) -> ColumnKind {
    match kind {
        FieldKind::String | FieldKind::Text => ColumnKind::Text,
        FieldKind::Integer => ColumnKind::Integer,
        FieldKind::Decimal => ColumnKind::Decimal(scale),
        FieldKind::Float => ColumnKind::Float,
        FieldKind::Boolean => ColumnKind::Boolean,
        FieldKind::Date => ColumnKind::Date,
        FieldKind::Datetime => ColumnKind::Datetime,
    }
}

/// Adds a column; where providers do not agree on its kind, anything may be in it.
fn add(columns: &mut Vec<Column>, column: Column) {
    match columns.iter_mut().find(|known| known.name == column.name) {
        None => columns.push(column),
        Some(known) if known.kind == column.kind => {}
        Some(known) => known.kind = ColumnKind::Found,
    }
}

/// The kind that all values of a dimension's name have.
fn kind_of_values(values: &PlannedValues, place: usize) -> ColumnKind {
    match values {
        PlannedValues::Range { .. } => ColumnKind::Integer,
        PlannedValues::Dates { .. } => ColumnKind::Text,
        PlannedValues::Rows(rows) => {
            let all =
                |is: fn(&Value) -> bool| rows.iter().all(|row| row.get(place).is_some_and(is));
            if all(Value::is_string) {
                ColumnKind::Text
            } else if all(Value::is_i64) {
                ColumnKind::Integer
            } else if all(Value::is_boolean) {
                ColumnKind::Boolean
            } else {
                ColumnKind::Found
            }
        }
    }
}
