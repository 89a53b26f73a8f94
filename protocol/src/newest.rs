//! Of several runs of a job with `changes` the newest record of each id, with its highest `update_type`: what a job reads
//! whose own last runs failed, so that it loses nothing. Ids are held as hashes of 128 bits.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::{Environment, Error};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::plan::Plan;
use crate::record_names::{FixedNames, ReadRecord, RecordNames};
use crate::template::{environment, value_of};

/// The field that a job with `changes` adds.
pub const UPDATE_TYPE: &str = "update_type";
/// The template's name.
const ID: &str = "id";

/// What is known of each id.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The place of the newest run that has it.
    newest: u32,
    highest: i64,
}

/// The ids of several runs, noted one after the other.
#[derive(Debug)]
pub struct NewestRecords {
    jinja: Environment<'static>,
    fixed: FixedNames,
    known: HashMap<u128, Known>,
}

impl NewestRecords {
    /// Of the runs of `plan`'s job; `None` when it has no `changes`, which alone say what an id is.
    ///
    /// # Errors
    /// When `changes.id` is no template.
    pub fn of(plan: &Plan) -> Result<Option<Self>, Error> {
        let Some(changes) = &plan.job.changes else {
            return Ok(None);
        };
        let mut jinja = environment();
        jinja.add_template_owned(ID, changes.id.clone())?;
        let params: Map<String, Value> = plan.job.params.clone().into_iter().collect();
        let params = value_of(&Value::Object(params));
        Ok(Some(NewestRecords {
            jinja,
            fixed: Arc::new(HashMap::from([("params".to_owned(), params)])),
            known: HashMap::new(),
        }))
    }

    /// Notes a record of the run at `place`; smaller places are newer.
    ///
    /// # Errors
    /// When it gives no id.
    pub fn note(&mut self, place: u32, record: ReadRecord) -> Result<(), Error> {
        let highest = update_type(&record);
        let (_, id) = self.id(record)?;
        let new = Known {
            newest: place,
            highest,
        };
        let known = self.known.entry(id).or_insert(new);
        known.newest = known.newest.min(place);
        known.highest = known.highest.max(highest);
        Ok(())
    }

    /// The record of the run at `place` with its highest `update_type`; `None` when a newer run has one of its id. All runs
    /// must have been noted before.
    ///
    /// # Errors
    /// When it gives no id.
    pub fn newest(&self, place: u32, record: ReadRecord) -> Result<Option<ReadRecord>, Error> {
        let (mut record, id) = self.id(record)?;
        let Some(known) = self.known.get(&id) else {
            return Ok(Some(record));
        };
        if known.newest < place {
            return Ok(None);
        }
        record.insert(UPDATE_TYPE.into(), known.highest.into());
        Ok(Some(record))
    }

    fn id(&self, record: ReadRecord) -> Result<(ReadRecord, u128), Error> {
        let names = RecordNames::new(record, &self.fixed);
        let id = self.jinja.get_template(ID)?.render(names.context())?;
        let digest: [u8; 32] = Sha256::digest(id).into();
        let half = digest.first_chunk().expect("it has 32 bytes");
        Ok((names.into_record(), u128::from_be_bytes(*half)))
    }
}

fn update_type(record: &ReadRecord) -> i64 {
    record.get(UPDATE_TYPE).and_then(Value::as_i64).unwrap_or(0)
}
