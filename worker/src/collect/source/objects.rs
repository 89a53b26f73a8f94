//! Objects in S3 that the plan names for a cell. Where it names several, the first good one counts, or, with
//! `pick: all`, all of them together.

use paceline_protocol::connector::Connector;
use paceline_protocol::inputs::ReadObject;
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use paceline_protocol::record::Record;
use paceline_protocol::stores::objects::{GotSame, Objects};
use paceline_protocol::template::environment;
use serde_json::Value;

use super::{Read, Unread, fit};

/// Reads objects.
#[derive(Debug)]
pub struct ObjectsRead {
    objects: Objects,
    key: String,
    all: bool,
    format: PartFormat,
}

/// What came of looking for a good object.
#[derive(Default)]
struct Looked<'o> {
    good: Option<(&'o ReadObject, Vec<Record>)>,
    /// Of the newest one that is no good.
    fault: Option<Unread>,
}

impl ObjectsRead {
    /// Reads the objects of `source: {s3}`.
    pub fn new(plan: &Plan, objects: &Objects, s3: &Value) -> Self {
        let text = |name: &str| s3.get(name).and_then(Value::as_str).unwrap_or_default();
        ObjectsRead {
            objects: objects.clone(),
            key: text("key").to_owned(),
            all: text("pick") == "all",
            format: PartFormat::of(plan),
        }
    }

    pub(super) async fn read(
        &self,
        plan: &Plan,
        connector: &Connector,
        cell: u64,
    ) -> Result<Read, Unread> {
        let named = plan
            .inputs
            .objects
            .get(&cell)
            .map_or(&[][..], Vec::as_slice);
        if self.all {
            let mut records = Vec::new();
            for object in named {
                records.extend(self.one(plan, connector, cell, object).await?);
            }
            return Ok(Read::of(&records));
        }
        let looked = self.first_good(plan, connector, cell, named).await?;
        match (looked.good, looked.fault) {
            (Some((_, records)), None) => Ok(Read::of(&records)),
            (Some((object, records)), Some(fault)) => {
                tracing::warn!(object.key = object.key, fault = %fault, "an object is no good; an older one counts");
                Ok(Read {
                    stand_in: Some(format!("{fault}: {} counts instead", object.key)),
                    ..Read::of(&records)
                })
            }
            (None, Some(fault)) => Err(fault),
            (None, None) => {
                let key = self.key_of(plan, connector, cell);
                Err(Unread::never(format!("no object {key} that counts")))
            }
        }
    }

    /// The first good one of `named`, and what was wrong with the first one of all.
    async fn first_good<'o>(
        &self,
        plan: &Plan,
        connector: &Connector,
        cell: u64,
        named: &'o [ReadObject],
    ) -> Result<Looked<'o>, Unread> {
        let mut looked = Looked::default();
        for object in named {
            let fault = match self.one(plan, connector, cell, object).await {
                Ok(records) if records.is_empty() => {
                    Unread::never(format!("{} holds no records", object.key))
                }
                Ok(records) => {
                    looked.good = Some((object, records));
                    break;
                }
                Err(again @ Unread::Again(_)) => return Err(again),
                Err(never) => never,
            };
            looked.fault.get_or_insert(fault);
        }
        Ok(looked)
    }

    /// The key as it was looked for; as it is written where it cannot be rendered.
    fn key_of(&self, plan: &Plan, connector: &Connector, cell: u64) -> String {
        let context = connector.cell(plan.matrix.cell(cell)).value();
        let rendered = environment().render_str(&self.key, context);
        rendered.unwrap_or_else(|_| self.key.clone())
    }

    async fn one(
        &self,
        plan: &Plan,
        connector: &Connector,
        cell: u64,
        object: &ReadObject,
    ) -> Result<Vec<Record>, Unread> {
        let key = &object.key;
        if object.size == 0 {
            return Err(Unread::never(format!("{key} is empty")));
        }
        let bucket = self.objects.with_bucket(&object.bucket);
        let got = match bucket.get_same(key, object.etag.as_deref()).await? {
            GotSame::Same(got) => got,
            GotSame::Changed => {
                return Err(Unread::never(format!(
                    "{key} changed after the run was planned"
                )));
            }
            GotSame::Missing => return Err(Unread::never(format!("{key} is gone"))),
        };
        let body = connector
            .read_body(&got.body)
            .map_err(|e| Unread::never(format!("{key}: {e}")))?;
        let context = connector.cell(plan.matrix.cell(cell));
        let mut records = connector
            .records(&context, &body)
            .map_err(|misfit| Unread::Never {
                reason: format!("{key}: {misfit}"),
                field: Some(misfit.field),
            })?;
        fit(&self.format, &mut records)?;
        Ok(records)
    }
}
