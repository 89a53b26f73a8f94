//! A job without calls: a cell is a part of another job's run, filtered and made into records of its own.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use minijinja::Environment as Jinja;
use paceline_protocol::ids::{RunId, RunRef};
use paceline_protocol::inputs::ReadPart;
use paceline_protocol::layout::RunLayout;
use paceline_protocol::newest::NewestRecords;
use paceline_protocol::part::{PartFormat, lines};
use paceline_protocol::plan::Plan;
use paceline_protocol::record::{Columns, Record, Scalar};
use paceline_protocol::record_names::{Condition, FixedNames, ReadRecord, RecordNames};
use paceline_protocol::spec::{FieldSource, Provider};
use paceline_protocol::stores::objects::{ObjectError, Objects};
use paceline_protocol::template::{environment, whole_name};
use serde_json::Value;

use super::{Read, SourceError, Unread, fit};
use crate::output::record_templates::Constants;

/// Reads parts of other runs.
#[derive(Debug)]
pub struct RecordsRead {
    objects: Objects,
    /// How the parts of each run are written, and its place: the newest one first.
    runs: HashMap<RunId, (u32, PartFormat)>,
    /// Which records count, where several runs are read.
    newest: Option<NewestRecords>,
    /// How this run's parts are written.
    own: PartFormat,
    condition: Condition,
    fields: Fields,
    fixed: FixedNames,
}

#[derive(Debug)]
struct Fields {
    columns: Columns,
    templates: Vec<Template>,
    jinja: Jinja<'static>,
}

#[derive(Debug)]
enum Template {
    /// A lone name keeps its type.
    Name(String),
    /// Anything else is text, by its name in the environment.
    Text(String),
}

impl RecordsRead {
    /// Compiles what the plan says, and reads how the other runs' parts are written.
    pub(super) async fn open(
        plan: &Plan,
        provider: &Provider,
        objects: &Objects,
        prefix: &str,
    ) -> Result<Self, SourceError> {
        let wrong = |why: String| SourceError::Plan {
            provider: provider.name.clone(),
            why,
        };
        let source = plan.job.source.as_ref();
        let filter = source.and_then(|source| source.filter.as_deref());
        let (mut runs, mut newest) = (HashMap::new(), None);
        for (place, run) in (0..).zip(&plan.inputs.runs) {
            let id = RunRef {
                job: run.job.clone(),
                run: run.id.clone(),
            };
            let key = RunLayout::new(prefix, &id).plan();
            let object = objects.get(&key).await?;
            let object = object.ok_or_else(|| wrong(format!("{key} is gone")))?;
            let theirs: Plan =
                serde_json::from_slice(&object.body).map_err(|e| wrong(format!("{key}: {e}")))?;
            if place == 0 && plan.inputs.runs.len() > 1 {
                newest = NewestRecords::of(&theirs).map_err(|e| wrong(format!("{key}: {e:#}")))?;
            }
            runs.insert(run.id.clone(), (place, PartFormat::of(&theirs)));
        }
        if let Some(newest) = &mut newest {
            for part in plan.inputs.parts.iter().filter(|part| part.records > 0) {
                note_part(objects, &runs, part, newest)
                    .await?
                    .map_err(|why| wrong(format!("{}: {why}", part.key)))?;
            }
        }
        Ok(RecordsRead {
            objects: objects.clone(),
            runs,
            newest,
            own: PartFormat::of(plan),
            condition: Condition::compile(filter).map_err(|e| wrong(format!("where: {e:#}")))?,
            fields: Fields::compile(provider).map_err(|e| wrong(format!("fields: {e:#}")))?,
            fixed: Arc::new(Constants::of(plan).names()),
        })
    }

    pub(super) async fn read(self: &Arc<Self>, plan: &Plan, cell: u64) -> Result<Read, Unread> {
        let place = usize::try_from(cell).ok();
        let part = place.and_then(|place| plan.inputs.parts.get(place));
        let part = part.ok_or_else(|| Unread::never("the plan names no part for the cell"))?;
        let run = self.runs.get(&part.run).cloned();
        let (run, format) =
            run.ok_or_else(|| Unread::never("the part is of a run that is not read"))?;
        let object = self.objects.get(&part.key).await?;
        let object = object.ok_or_else(|| Unread::never(format!("{} is gone", part.key)))?;
        let (reader, key) = (self.clone(), part.key.clone());
        // A part may take a second of work, which must not hold up those who keep a limit's pace.
        let made = tokio::task::spawn_blocking(move || {
            let text = format
                .read(&object.body)
                .map_err(|e| Unread::never(format!("{key}: {e}")))?;
            reader.records(run, &text)
        });
        made.await
            .unwrap_or_else(|e| Err(Unread::never(format!("reading panicked: {e}"))))
    }

    fn records(&self, run: u32, text: &str) -> Result<Read, Unread> {
        let mut records = Vec::new();
        for line in lines(text) {
            let record: ReadRecord = serde_json::from_str(line)
                .map_err(|e| Unread::never(format!("a record that is no JSON object: {e}")))?;
            let counts = match &self.newest {
                Some(newest) => newest.newest(run, record),
                None => Ok(Some(record)),
            };
            let counts = counts.map_err(|e| Unread::never(format!("the record's id: {e:#}")))?;
            let Some(record) = counts else { continue };
            let names = RecordNames::new(record, &self.fixed);
            let stays = self
                .condition
                .holds(&names)
                .map_err(|e| Unread::never(format!("where: {e:#}")))?;
            if stays {
                records.push(self.fields.record(&names)?);
            }
        }
        fit(&self.own, &mut records)?;
        Ok(Read::of(&records))
    }
}

/// Notes the records of a part; the inner error says why they cannot be read.
async fn note_part(
    objects: &Objects,
    runs: &HashMap<RunId, (u32, PartFormat)>,
    part: &ReadPart,
    newest: &mut NewestRecords,
) -> Result<Result<(), String>, ObjectError> {
    let Some(object) = objects.get(&part.key).await? else {
        return Ok(Err("it is gone".into()));
    };
    let Some((place, format)) = runs.get(&part.run) else {
        return Ok(Err("it is of a run that is not read".into()));
    };
    Ok(note_lines(&object.body, *place, format, newest))
}

fn note_lines(
    body: &Bytes,
    place: u32,
    format: &PartFormat,
    newest: &mut NewestRecords,
) -> Result<(), String> {
    let text = format.read(body).map_err(|e| e.to_string())?;
    for line in lines(&text) {
        let record = serde_json::from_str(line).map_err(|e| e.to_string())?;
        newest.note(place, record).map_err(|e| format!("{e:#}"))?;
    }
    Ok(())
}

impl Fields {
    /// Those of the plan's `records` endpoint.
    fn compile(provider: &Provider) -> Result<Self, minijinja::Error> {
        let fields = provider.endpoints.values().flat_map(|e| &e.fields);
        let mut jinja = environment();
        let (mut columns, mut templates): (Vec<Arc<str>>, _) = (Vec::new(), Vec::new());
        for (name, field) in fields {
            let source = match &field.from {
                FieldSource::Value(Value::String(source)) => source.clone(),
                FieldSource::Value(fixed) => fixed.to_string(),
                _ => String::new(),
            };
            columns.push(name.as_str().into());
            templates.push(match whole_name(&source) {
                Some(name) => Template::Name(name.to_owned()),
                None => {
                    jinja.add_template_owned(name.clone(), source)?;
                    Template::Text(name.clone())
                }
            });
        }
        Ok(Fields {
            columns: columns.into(),
            templates,
            jinja,
        })
    }

    fn record(&self, names: &Arc<RecordNames>) -> Result<Record, Unread> {
        let misfit = |field: &str, why: String| Unread::Never {
            reason: format!("field {field} {why}"),
            field: Some(field.to_owned()),
        };
        let mut values = Vec::with_capacity(self.templates.len());
        for (field, template) in self.columns.iter().zip(&self.templates) {
            values.push(match template {
                Template::Name(name) => match names.record.get(name) {
                    Some(value) => scalar(value)
                        .ok_or_else(|| misfit(field, "is an object or a list".into()))?,
                    None => self.text(names, &format!("{{{{ {name} }}}}"), None, field)?,
                },
                Template::Text(name) => self.text(names, "", Some(name), field)?,
            });
        }
        Ok(Record {
            columns: self.columns.clone(),
            values,
        })
    }

    fn text(
        &self,
        names: &Arc<RecordNames>,
        source: &str,
        compiled: Option<&str>,
        field: &str,
    ) -> Result<Scalar, Unread> {
        let rendered = match compiled {
            Some(name) => self
                .jinja
                .get_template(name)
                .and_then(|t| t.render(names.context())),
            None => self.jinja.render_str(source, names.context()),
        };
        rendered.map(Scalar::Text).map_err(|e| Unread::Never {
            reason: format!("field {field}: {e:#}"),
            field: Some(field.to_owned()),
        })
    }
}

fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Null => Some(Scalar::Null),
        Value::Bool(b) => Some(Scalar::Boolean(*b)),
        Value::Number(n) => Some(Scalar::Number(n.to_string())),
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => None,
    }
}
