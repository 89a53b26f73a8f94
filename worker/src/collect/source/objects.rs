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

impl ObjectsRead {
    pub(super) fn new(plan: &Plan, objects: &Objects, s3: &Value) -> Self {
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
        let mut first_fault = None;
        for object in named {
            let fault = match self.one(plan, connector, cell, object).await {
                Ok(records) if records.is_empty() => {
                    Unread::never(format!("{} holds no records", object.key))
                }
                Ok(records) => return Ok(Read::of(&records)),
                Err(again @ Unread::Again(_)) => return Err(again),
                Err(never) => never,
            };
            tracing::warn!(object.key = object.key, fault = %fault, "an object is no good; the one before it counts if it is young enough");
            first_fault.get_or_insert(fault);
        }
        let none = || {
            let key = self.key_of(plan, connector, cell);
            Unread::never(format!("no object {key} that counts"))
        };
        Err(first_fault.unwrap_or_else(none))
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
