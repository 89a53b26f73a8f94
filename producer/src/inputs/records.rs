//! The records of other jobs' runs as rows of a dimension.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt, stream};
use indexmap::IndexMap;
use paceline_protocol::ids::RunRef;
use paceline_protocol::inputs::ReadRun;
use paceline_protocol::layout::{PartName, RunLayout};
use paceline_protocol::manifest::{Manifest, ManifestPart};
use paceline_protocol::newest::{NewestRecords, UPDATE_TYPE};
use paceline_protocol::part::{PartFormat, lines};
use paceline_protocol::plan::{Plan, PlannedDimension, PlannedValues};
use paceline_protocol::record_names::{Condition, FixedNames, ReadRecord, RecordNames};
use paceline_protocol::spec::{Field, FieldKind, FieldSource, RecordsOf};
use serde_json::Value;

use super::runs::plan_of;
use crate::plan::RunNames;
use crate::stores::Archive;

/// Rows of a dimension that are held in a plan.
const MOST_ROWS: usize = 5_000_000;
/// Parts that are fetched ahead.
const AHEAD: usize = 4;

/// A run with what is needed to read its records.
pub struct RunRecords {
    /// Which run.
    pub run: ReadRun,
    /// Its plan.
    pub plan: Plan,
    /// Its parts, in order.
    pub parts: Vec<ManifestPart>,
}

impl RunRecords {
    /// Reads plan and manifest of a run.
    ///
    /// # Errors
    /// When S3 does not answer, or one of them is not there.
    pub async fn open(archive: &Archive, run: ReadRun) -> Result<Self> {
        let plan = plan_of(archive, &run).await?;
        let layout = RunLayout::new(
            &archive.fleet.prefix,
            &RunRef {
                job: run.job.clone(),
                run: run.id.clone(),
            },
        );
        let key = layout.manifest();
        let object = archive.objects.get(&key).await?;
        let object =
            object.with_context(|| format!("{key} is not there: the run has not ended"))?;
        let manifest: Manifest = serde_json::from_slice(&object.body)
            .with_context(|| format!("{key} is not what it should be"))?;
        let mut parts = manifest.parts;
        if let Some(read) = run.after_round {
            parts.retain(|part| PartName::from_key(&part.key).is_some_and(|(_, p)| p.round > read));
        }
        Ok(RunRecords { run, plan, parts })
    }

    /// The same for a run that is known by its id alone.
    ///
    /// # Errors
    /// As [`RunRecords::open`].
    pub async fn of(archive: &Archive, run: &RunRef) -> Result<Self> {
        let found = super::runs::run_of(archive, run).await?;
        Self::open(archive, found).await
    }

    /// Every record in order, part by part.
    async fn each(
        &self,
        archive: &Archive,
        each: &mut (dyn FnMut(ReadRecord) -> Result<()> + Send),
    ) -> Result<()> {
        self.each_of(archive, &|_| true, each).await
    }

    /// Every record of the parts that are wanted, in order.
    ///
    /// # Errors
    /// When S3 does not answer, or a part cannot be read.
    pub async fn each_of(
        &self,
        archive: &Archive,
        wanted: &(dyn Fn(&ManifestPart) -> bool + Sync),
        each: &mut (dyn FnMut(ReadRecord) -> Result<()> + Send),
    ) -> Result<()> {
        let format = PartFormat::of(&self.plan);
        let keys: Vec<String> = self
            .parts
            .iter()
            .filter(|part| part.records > 0 && wanted(part))
            .map(|part| part.key.clone())
            .collect();
        let mut bodies = stream::iter(keys)
            .map(|key| async move {
                let object = archive.objects.get(&key).await?;
                let object = object.with_context(|| format!("{key} is gone"))?;
                anyhow::Ok((key, object.body))
            })
            .buffered(AHEAD);
        while let Some(got) = bodies.next().await {
            let (key, body) = got?;
            let text = format.read(&body).with_context(|| key.clone())?;
            for line in lines(&text) {
                let record = serde_json::from_str(line).with_context(|| key.clone())?;
                each(record)?;
            }
        }
        Ok(())
    }
}

/// What the records of a plan hold, in order, with the type of each.
pub fn columns_of(plan: &Plan) -> IndexMap<String, Field> {
    let plain = |kind| Field {
        from: FieldSource::Value(Value::Null),
        kind,
        optional: true,
        zone: None,
        format: None,
        scale: None,
    };
    let mut columns = IndexMap::new();
    for dimension in &plan.matrix.dimensions {
        for (place, name) in dimension.names.iter().enumerate() {
            columns.insert(name.to_string(), plain(kind_of(&dimension.values, place)));
        }
    }
    let endpoint = plan.job.endpoint.as_deref().unwrap_or_default();
    let endpoints = plan
        .providers
        .values()
        .filter_map(|p| p.endpoints.get(endpoint));
    for (name, field) in endpoints.flat_map(|endpoint| &endpoint.fields) {
        columns.entry(name.clone()).or_insert_with(|| field.clone());
    }
    if plan.job.changes.is_some() {
        columns.insert(UPDATE_TYPE.into(), plain(Some(FieldKind::Integer)));
    }
    columns
}

fn kind_of(values: &PlannedValues, place: usize) -> Option<FieldKind> {
    match values {
        PlannedValues::Range { .. } => Some(FieldKind::Integer),
        PlannedValues::Dates { .. } => Some(FieldKind::String),
        PlannedValues::Rows(rows) => match rows.first()?.get(place)? {
            Value::String(_) => Some(FieldKind::String),
            Value::Bool(_) => Some(FieldKind::Boolean),
            _ => None,
        },
    }
}

/// The rows that come of other runs' records.
pub struct Rows {
    columns: Vec<Arc<str>>,
    rows: Vec<Vec<Value>>,
    /// Records before `where`.
    pub all: u64,
}

impl Rows {
    /// Reads the records of `runs`, newest first: of several the newest record of each id, with its highest
    /// `update_type`.
    ///
    /// # Errors
    /// When S3 does not answer, `where` refuses a record, or there are too many rows.
    pub async fn read(
        archive: &Archive,
        records: &RecordsOf,
        runs: &[RunRecords],
        names: &RunNames,
    ) -> Result<Self> {
        let columns: Vec<Arc<str>> = match (records.columns.is_empty(), runs.first()) {
            (false, _) => records.columns.iter().map(|c| c.as_str().into()).collect(),
            (true, Some(run)) => columns_of(&run.plan)
                .keys()
                .map(|c| c.as_str().into())
                .collect(),
            (true, None) => Vec::new(),
        };
        let mut rows = Rows {
            columns,
            rows: Vec::new(),
            all: 0,
        };
        let filter = Filter::new(records.filter.as_deref(), names)?;
        if let [only] = runs {
            let mut each = |record: ReadRecord| rows.add(record, &filter);
            only.each(archive, &mut each).await?;
            return Ok(rows);
        }
        let newest = newest_of(archive, runs).await?;
        for (place, run) in (0..).zip(runs) {
            let mut each = |record: ReadRecord| match newest.newest(place, record)? {
                Some(record) => rows.add(record, &filter),
                None => Ok(()),
            };
            run.each(archive, &mut each).await?;
        }
        Ok(rows)
    }

    fn add(&mut self, record: ReadRecord, filter: &Filter<'_>) -> Result<()> {
        self.all += 1;
        let Some(mut record) = filter.keep(record)? else {
            return Ok(());
        };
        let columns = self.columns.iter();
        let row = columns.map(|name| record.remove(&**name).unwrap_or(Value::Null));
        self.rows.push(row.collect());
        if self.rows.len() > MOST_ROWS {
            bail!("more than {MOST_ROWS} records make cells: narrow them with `where`");
        }
        Ok(())
    }

    /// As a dimension of a plan.
    pub fn into_dimension(self) -> PlannedDimension {
        PlannedDimension {
            names: self.columns,
            values: PlannedValues::Rows(self.rows),
        }
    }
}

/// `where` of `records_of`, compiled once.
struct Filter<'e> {
    condition: Condition,
    source: &'e str,
    fixed: FixedNames,
}

impl<'e> Filter<'e> {
    fn new(source: Option<&'e str>, names: &RunNames) -> Result<Self> {
        Ok(Filter {
            condition: Condition::compile(source)?,
            source: source.unwrap_or_default(),
            fixed: Arc::new(names.pairs().into_iter().collect()),
        })
    }

    /// The record when it stays.
    fn keep(&self, record: ReadRecord) -> Result<Option<ReadRecord>> {
        let names = RecordNames::new(record, &self.fixed);
        let stays = self
            .condition
            .holds(&names)
            .with_context(|| format!("where: {}: {}", self.source, names.shown()))?;
        Ok(stays.then(|| names.into_record()))
    }
}

/// Looks through all runs, newest first, for which record of each id is the newest one.
async fn newest_of(archive: &Archive, runs: &[RunRecords]) -> Result<NewestRecords> {
    let first = runs.first().map(|run| NewestRecords::of(&run.plan));
    let newest = first.transpose()?.flatten();
    let mut newest = newest.context("only records of a job with `changes` are merged")?;
    for (place, run) in (0..).zip(runs) {
        let mut each = |record: ReadRecord| Ok(newest.note(place, record)?);
        run.each(archive, &mut each).await?;
    }
    Ok(newest)
}
