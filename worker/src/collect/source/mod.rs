//! Sources beside HTTP: another job's records, objects in S3, a sorted set in Redis. A cell is one read: there
//! is nobody's limit to keep, so nothing is asked of the limiter.

mod objects;
mod records;
mod sorted_set;

use std::sync::Arc;

use paceline_protocol::connector::Connector;
use paceline_protocol::part::PartFormat;
use paceline_protocol::plan::Plan;
use paceline_protocol::record::Record;
use paceline_protocol::settings::Environment;
use paceline_protocol::spec::{MissingNames, Provider};
use paceline_protocol::stores::objects::{ObjectError, Objects};

pub use self::objects::ObjectsRead;
use self::records::RecordsRead;
use self::sorted_set::SortedSet;

/// A run's source at one provider.
#[derive(Debug)]
pub enum Source {
    /// `source: {records_of: ...}` of a job without calls.
    Records(Arc<RecordsRead>),
    /// `source: {s3: ...}`
    Objects(ObjectsRead),
    /// `source: {redis: ...}`
    SortedSet(SortedSet),
}

/// Why a worker cannot serve a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// S3 is away.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// This worker's environment lacks a name.
    #[error("provider {provider}: {missing}")]
    Environment {
        /// The provider.
        provider: String,
        /// Which.
        missing: MissingNames,
    },
    /// The plan does not say what it should.
    #[error("provider {provider}: {why}")]
    Plan {
        /// The provider.
        provider: String,
        /// What is wrong.
        why: String,
    },
}

/// What a read came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The records as they will lie in the part.
    pub lines: String,
    /// How many.
    pub records: u64,
    /// What was wrong with the newest object, when an older one counts in its place.
    pub stand_in: Option<String>,
}

impl Read {
    fn of(records: &[Record]) -> Self {
        let mut lines = Vec::with_capacity(records.len() * 80);
        records
            .iter()
            .for_each(|record| record.write_ndjson(&mut lines));
        Read {
            lines: String::from_utf8(lines).expect("JSON is UTF-8"),
            records: records.len() as u64,
            stand_in: None,
        }
    }
}

/// Why a read gave no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Another attempt may go better.
    #[error("{0}")]
    Again(String),
    /// It will not.
    #[error("{reason}")]
    Never {
        /// Why.
        reason: String,
        /// The field that did not fit.
        field: Option<String>,
    },
}

/// Makes records fit the parts that they will lie in.
fn fit(format: &PartFormat, records: &mut [Record]) -> Result<(), Unread> {
    let mut records = records.iter_mut();
    records
        .try_for_each(|record| format.fit(record))
        .map_err(|unfit| Unread::Never {
            reason: unfit.to_string(),
            field: Some(unfit.column),
        })
}

impl Unread {
    fn never(reason: impl Into<String>) -> Self {
        Unread::Never {
            reason: reason.into(),
            field: None,
        }
    }
}

impl From<ObjectError> for Unread {
    fn from(error: ObjectError) -> Self {
        Unread::Again(error.to_string())
    }
}

impl Source {
    /// The source of `provider`; `None` for an HTTP API.
    ///
    /// # Errors
    /// When this worker lacks a name of the environment, or S3 is away.
    pub async fn open(
        plan: &Plan,
        provider: &Provider,
        objects: &Objects,
        prefix: &str,
        env: &impl Environment,
    ) -> Result<Option<Self>, SourceError> {
        let Some(source) = &provider.source else {
            return Ok(None);
        };
        if source.get("records_of").is_some() {
            let read = RecordsRead::open(plan, provider, objects, prefix).await?;
            return Ok(Some(Source::Records(Arc::new(read))));
        }
        if let Some(s3) = source.get("s3") {
            return Ok(Some(Source::Objects(ObjectsRead::new(plan, objects, s3))));
        }
        let set = SortedSet::open(plan, provider, source.get("redis"), env)?;
        Ok(Some(Source::SortedSet(set)))
    }

    /// Reads a cell.
    ///
    /// # Errors
    /// See [`Unread`].
    pub async fn read(
        &self,
        plan: &Arc<Plan>,
        connector: &Connector,
        cell: u64,
    ) -> Result<Read, Unread> {
        match self {
            Source::Records(records) => records.read(plan, cell).await,
            Source::Objects(objects) => objects.read(plan, connector, cell).await,
            Source::SortedSet(set) => set.read(plan, connector, cell).await,
        }
    }
}
