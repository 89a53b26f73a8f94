//! Turns the dimensions of a job into those of a plan: lists are read, days counted from the run's date,
//! columns added, rows filtered and made distinct. Ranges and dates stay as short as they are written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;
use minijinja::Environment as Jinja;
use paceline_protocol::connector::{planned_expression, planned_template};
use paceline_protocol::plan::{Matrix, PlannedDimension, PlannedValues};
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{
    AddedColumn, Day, Dimension, DimensionValues, Job, MissingNames, Table, day, expand_env,
};
use paceline_protocol::template::{environment, value_of};
use serde_json::Value;

use super::nearest::Places;
use super::{PlanError, RunNames, expand_texts, expand_value};

/// Rows of a dimension that has to be written out; a longer one belongs into a range or another job.
const MOST_ROWS: u64 = 5_000_000;

/// Puts the environment's values into the values and file names of a dimension.
pub(super) fn expand_environment(
    dimension: &mut Dimension,
    env: &(impl Environment + ?Sized),
) -> Result<(), MissingNames> {
    for added in dimension.add.values_mut() {
        match added {
            AddedColumn::Template(template) => *template = planned_template(template, env)?,
            AddedColumn::Nearest { file, .. } => *file = expand_env(file, env)?,
        }
    }
    let records = match &mut dimension.values {
        DimensionValues::RecordsOf(records) => records.filter.as_mut(),
        _ => None,
    };
    for filter in dimension.filter.iter_mut().chain(records) {
        *filter = planned_expression(filter, env)?;
    }
    match &mut dimension.values {
        DimensionValues::List(values) => {
            values.iter_mut().try_for_each(|v| expand_value(v, env))?
        }
        DimensionValues::File { file, .. } | DimensionValues::Rows { file } => {
            *file = expand_env(file, env)?
        }
        DimensionValues::Dates { from, .. } => *from = expand_env(from, env)?,
        DimensionValues::Documents(documents) => {
            documents.index = expand_env(&documents.index, env)?;
            expand_texts(&mut documents.query, &|text| planned_template(text, env))?;
        }
        DimensionValues::Object(object) => {
            if let Some(bucket) = &mut object.bucket {
                *bucket = expand_env(bucket, env)?;
            }
            object.key = planned_template(&object.key, env)?;
        }
        DimensionValues::Range { .. } | DimensionValues::RecordsOf(_) => {}
    }
    Ok(())
}

/// The matrix of `job` on `date`; `folder` holds its lists.
pub(super) fn expand(
    job: &Job,
    folder: &Path,
    date: Date,
    names: &RunNames,
    read: &BTreeMap<String, PlannedDimension>,
) -> Result<Matrix, PlanError> {
    let jinja = environment();
    let planned = job.split.iter().map(|(name, dimension)| {
        let bare = match read.get(name) {
            Some(rows) => rows.clone(),
            None => values(name, dimension, folder, date)?,
        };
        let shaped = !dimension.add.is_empty()
            || dimension.filter.is_some()
            || !dimension.distinct.is_empty();
        if shaped {
            shape(&jinja, name, dimension, bare, folder, names)
        } else {
            Ok(bare)
        }
    });
    Ok(Matrix {
        dimensions: planned.collect::<Result<_, PlanError>>()?,
    })
}

fn values(
    name: &str,
    dimension: &Dimension,
    folder: &Path,
    date: Date,
) -> Result<PlannedDimension, PlanError> {
    let own = |values| {
        Ok(PlannedDimension {
            names: vec![Arc::from(name)],
            values,
        })
    };
    match &dimension.values {
        DimensionValues::List(values) => own(single(values.iter().cloned())),
        DimensionValues::Range { first, last } => own(PlannedValues::Range {
            first: *first,
            count: last.abs_diff(*first).saturating_add(1),
        }),
        DimensionValues::Dates { from, days, every } => {
            let dates = PlannedValues::Dates {
                first: first_day(name, from, *days, date)?,
                count: u64::from(*days),
            };
            match every {
                Some(every) => own(every_so_many(name, dates, *every)),
                None => own(dates),
            }
        }
        DimensionValues::File { file, column } => {
            let table = Table::read(folder, file)?;
            let place = table
                .column(column)
                .ok_or_else(|| PlanError::Job(format!("{file} has no column `{column}`")))?;
            own(single(
                table
                    .rows
                    .into_iter()
                    .map(|(_, mut row)| Value::String(row.swap_remove(place))),
            ))
        }
        DimensionValues::Rows { file } => Ok(rows(Table::read(folder, file)?)),
        DimensionValues::RecordsOf(_)
        | DimensionValues::Documents(_)
        | DimensionValues::Object(_) => Err(PlanError::Job(format!(
            "split.{name}: what it reads when the run is planned was not read"
        ))),
    }
}

/// The first of each `every` days.
fn every_so_many(name: &str, values: PlannedValues, every: u32) -> PlannedValues {
    let count = values.len();
    let all = Matrix {
        dimensions: vec![PlannedDimension {
            names: vec![Arc::from(name)],
            values,
        }],
    };
    let places = (0..count).step_by(every.max(1) as usize);
    single(places.flat_map(|place| all.cell(place)))
}

fn single(values: impl Iterator<Item = Value>) -> PlannedValues {
    PlannedValues::Rows(values.map(|v| vec![v]).collect())
}

fn rows(table: Table) -> PlannedDimension {
    PlannedDimension {
        names: table
            .columns
            .iter()
            .map(|c| Arc::from(c.as_str()))
            .collect(),
        values: PlannedValues::Rows(
            table
                .rows
                .into_iter()
                .map(|(_, row)| row.into_iter().map(Value::String).collect())
                .collect(),
        ),
    }
}

/// The first day of a `dates:` dimension; its last one must be a day too.
fn first_day(name: &str, from: &str, days: u32, date: Date) -> Result<Date, PlanError> {
    let wrong = |why: String| PlanError::Job(format!("split.{name}.dates: {why}"));
    let first = match day(from).map_err(|right| wrong(format!("`{from}` is no day: {right}")))? {
        Day::On(day) => day,
        Day::FromToday(days) => after(date, i64::from(days)).map_err(wrong)?,
    };
    after(first, i64::from(days) - 1).map_err(wrong)?;
    Ok(first)
}

fn after(date: Date, days: i64) -> Result<Date, String> {
    date.checked_add(jiff::Span::new().days(days))
        .map_err(|e| e.to_string())
}

/// Applies `add`, then `where`, then `distinct`.
fn shape(
    jinja: &Jinja,
    name: &str,
    dimension: &Dimension,
    bare: PlannedDimension,
    folder: &Path,
    names: &RunNames,
) -> Result<PlannedDimension, PlanError> {
    if bare.values.len() > MOST_ROWS {
        return Err(PlanError::Job(format!(
            "split.{name} has {} rows; `add`, `where` and `distinct` work on at most {MOST_ROWS}",
            bare.values.len()
        )));
    }
    let mut columns: Vec<Arc<str>> = bare.names.clone();
    columns.extend(dimension.add.keys().map(|k| Arc::from(k.as_str())));
    let failed = |e: minijinja::Error| PlanError::Job(format!("split.{name}: {e:#}"));
    let filter = dimension
        .filter
        .as_deref()
        .map(|f| jinja.compile_expression(f))
        .transpose()
        .map_err(failed)?;
    let added = Added::all(jinja, name, dimension, folder)?;
    let fixed = names.pairs();
    let matrix = Matrix {
        dimensions: vec![bare],
    };
    let mut rows = Vec::new();
    for place in 0..matrix.dimensions[0].values.len() {
        let mut row = matrix.cell(place);
        for column in &added {
            let value = column.value(name, &columns, &row, &fixed)?;
            row.push(value);
        }
        let stays = match &filter {
            Some(filter) => filter
                .eval(context(&columns, &row, &fixed))
                .map_err(failed)?
                .is_true(),
            None => true,
        };
        if stays {
            rows.push(row);
        }
    }
    Ok(distinct(dimension, columns, rows))
}

/// A column that is added, ready for every row.
enum Added<'j> {
    Template(minijinja::Template<'j, 'j>),
    Nearest(Places),
}

impl<'j> Added<'j> {
    fn all(
        jinja: &'j Jinja<'_>,
        name: &str,
        dimension: &'j Dimension,
        folder: &Path,
    ) -> Result<Vec<Self>, PlanError> {
        let added = dimension.add.iter().map(|(column, added)| match added {
            AddedColumn::Template(source) => jinja
                .template_from_str(source)
                .map(Added::Template)
                .map_err(|e| PlanError::Job(format!("split.{name}.add.{column}: {e:#}"))),
            AddedColumn::Nearest { file, by, take } => {
                Places::read(folder, file, by, take).map(Added::Nearest)
            }
        });
        added.collect()
    }

    /// What it adds to `row`, whose columns so far are the first ones of `columns`.
    fn value(
        &self,
        name: &str,
        columns: &[Arc<str>],
        row: &[Value],
        fixed: &[(String, minijinja::Value)],
    ) -> Result<Value, PlanError> {
        let failed = |why: String| PlanError::Job(format!("split.{name}.add: {why}"));
        let text = match self {
            Added::Template(template) => template
                .render(context(columns, row, fixed))
                .map_err(|e| failed(format!("{e:#}")))?,
            Added::Nearest(places) => {
                let of = |wanted: &str| {
                    let place = columns.iter().position(|c| **c == *wanted)?;
                    row.get(place)
                };
                places.nearest(of).map_err(failed)?.to_owned()
            }
        };
        Ok(Value::String(text))
    }
}

/// What a template of a row sees; columns that are not added yet are no names.
fn context(
    columns: &[Arc<str>],
    row: &[Value],
    fixed: &[(String, minijinja::Value)],
) -> minijinja::Value {
    let own = columns
        .iter()
        .zip(row)
        .map(|(name, value)| (name.to_string(), value_of(value)));
    minijinja::Value::from_pairs(own.chain(fixed.iter().cloned()))
}

/// Each combination of the chosen columns once, in the order of the first one.
fn distinct(
    dimension: &Dimension,
    columns: Vec<Arc<str>>,
    rows: Vec<Vec<Value>>,
) -> PlannedDimension {
    if dimension.distinct.is_empty() {
        return PlannedDimension {
            names: columns,
            values: PlannedValues::Rows(rows),
        };
    }
    let places: Vec<usize> = dimension
        .distinct
        .iter()
        .filter_map(|d| columns.iter().position(|c| **c == **d))
        .collect();
    let mut seen = std::collections::HashSet::new();
    let chosen = rows.into_iter().map(|row| {
        places
            .iter()
            .map(|p| row[*p].clone())
            .collect::<Vec<Value>>()
    });
    let rows = chosen
        .filter(|row| seen.insert(Value::from(row.clone()).to_string()))
        .collect();
    let names = places.iter().map(|p| columns[*p].clone()).collect();
    PlannedDimension {
        names,
        values: PlannedValues::Rows(rows),
    }
}
