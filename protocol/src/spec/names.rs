//! The names that a job's cells and records have.

use super::folder::SpecFolder;
use super::lists::Table;
use super::model::{Dimension, DimensionValues, DocumentsOf, Job, ObjectOf, RecordsOf};
use super::source::Source;

/// Names, and whether some could not be found out (a list that cannot be read, a job that is wrong).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The names in order, each once.
    pub names: Vec<String>,
    /// There may be more.
    pub open: bool,
}

impl Known {
    fn of(names: impl IntoIterator<Item = String>) -> Self {
        Known {
            names: names.into_iter().collect(),
            open: false,
        }
    }

    fn unknown() -> Self {
        Known {
            names: Vec::new(),
            open: true,
        }
    }

    fn and(mut self, other: Known) -> Self {
        for name in other.names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
        self.open |= other.open;
        self
    }
}

/// Chains of jobs are followed so far; a longer one is a circle.
const CHAIN: usize = 16;

/// What one row of a dimension is called before `add`.
pub(super) fn row_names(
    folder: &SpecFolder,
    source: &Source,
    name: &str,
    dimension: &Dimension,
) -> Known {
    match &dimension.values {
        DimensionValues::Rows { file } => match Table::read(source.folder(), file) {
            Ok(table) => Known::of(table.columns),
            Err(_) => Known::unknown(),
        },
        DimensionValues::RecordsOf(records) => records_names(folder, records, CHAIN),
        DimensionValues::Documents(DocumentsOf { columns, .. })
        | DimensionValues::Object(ObjectOf { columns, .. }) => Known::of(columns.iter().cloned()),
        _ => Known::of([name.to_owned()]),
    }
}

/// What a dimension gives a cell.
pub(super) fn dimension_names(
    folder: &SpecFolder,
    source: &Source,
    name: &str,
    dimension: &Dimension,
) -> Known {
    if !dimension.distinct.is_empty() {
        return Known::of(dimension.distinct.iter().cloned());
    }
    row_names(folder, source, name, dimension).and(Known::of(dimension.add.keys().cloned()))
}

/// What a cell of `job` is called.
pub(super) fn cell_names(folder: &SpecFolder, source: &Source, job: &Job) -> Known {
    job.split
        .iter()
        .fold(Known::default(), |known, (name, dimension)| {
            known.and(dimension_names(folder, source, name, dimension))
        })
}

/// What the records that `records` takes are called.
pub(super) fn records_names(folder: &SpecFolder, records: &RecordsOf, depth: usize) -> Known {
    if !records.columns.is_empty() {
        return Known::of(records.columns.iter().cloned());
    }
    job_records(folder, &records.job, depth)
}

/// What the records of the job called `name` are called.
pub(super) fn job_records(folder: &SpecFolder, name: &str, depth: usize) -> Known {
    let found = folder
        .job_file(name)
        .and_then(|file| Some((&file.source, file.model.as_ref()?)));
    match found {
        Some((source, job)) if depth > 0 => record_names(folder, source, job, depth - 1),
        _ => Known::unknown(),
    }
}

/// What a record of `job` is called: the cell's names, then the endpoint's fields.
pub(super) fn record_names(folder: &SpecFolder, source: &Source, job: &Job, depth: usize) -> Known {
    let known = match &job.source {
        Some(_) if !job.fields.is_empty() => Known::of(job.fields.keys().cloned()),
        Some(records) => records_names(folder, records, depth),
        None => cell_names(folder, source, job).and(field_names(folder, source, job)),
    };
    let change = job.changes.as_ref().map(|_| "update_type".to_owned());
    known.and(Known::of(change))
}

/// The fields that the job's endpoint has at every provider of the job.
pub(super) fn field_names(folder: &SpecFolder, source: &Source, job: &Job) -> Known {
    let endpoint = job.endpoint.as_deref().unwrap_or_default();
    let mut common: Option<Vec<String>> = None;
    for provider in folder.providers_of(source, job).found {
        let Some(endpoint) = provider
            .model
            .as_ref()
            .and_then(|p| p.endpoints.get(endpoint))
        else {
            return Known::unknown();
        };
        common = Some(match common {
            None => endpoint.fields.keys().cloned().collect(),
            Some(names) => names
                .into_iter()
                .filter(|n| endpoint.fields.contains_key(n))
                .collect(),
        });
    }
    common.map_or_else(Known::unknown, Known::of)
}

/// The records that a job without calls reads.
pub(super) fn source_names(folder: &SpecFolder, job: &Job) -> Known {
    match &job.source {
        Some(records) => records_names(folder, records, CHAIN),
        None => Known::unknown(),
    }
}

/// The records of `job` from the start of a chain.
pub(super) fn own_records(folder: &SpecFolder, source: &Source, job: &Job) -> Known {
    record_names(folder, source, job, CHAIN)
}
