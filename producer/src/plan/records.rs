//! A job without calls: its lane, and the fields that its records will have.
//!
//! Such a plan has a provider of its own called `records`, so that whoever asks what a record of the plan
//! looks like finds it where every other job has it.

use std::time::Duration;

use indexmap::IndexMap;
use paceline_protocol::inputs::Inputs;
use paceline_protocol::plan::{Matrix, PlannedDimension, PlannedValues};
use paceline_protocol::spec::{
    Endpoint, Field, FieldKind, FieldSource, Format, Job, Provider, Retry, Span, Timeout,
};
use paceline_protocol::template::whole_name;
use serde_json::json;

/// The lane, provider and endpoint of jobs without calls.
pub const RECORDS: &str = "records";

/// One cell for each part that is read. They have no names: a record is what `fields` says, no more.
pub(super) fn matrix(inputs: &Inputs) -> Matrix {
    let cell = PlannedDimension {
        names: Vec::new(),
        values: PlannedValues::Rows(vec![Vec::new(); inputs.parts.len()]),
    };
    Matrix {
        dimensions: vec![cell],
    }
}

/// The provider that stands for the other job's runs. `theirs` are the fields of their records.
pub(super) fn provider(job: &Job, theirs: &IndexMap<String, Field>) -> Provider {
    let fields = if job.fields.is_empty() {
        passed_on(job, theirs)
    } else {
        job.fields
            .iter()
            .map(|(name, template)| (name.clone(), field(template, theirs)))
            .collect()
    };
    let endpoint = Endpoint {
        request: None,
        each: Vec::new(),
        page: None,
        split_on: None,
        records: None,
        detail: None,
        fields,
    };
    Provider {
        name: RECORDS.into(),
        version: 1,
        verified_on: None,
        base_url: None,
        egress: None,
        source: Some(json!({ "records_of": job.source })),
        credentials: None,
        auth: Vec::new(),
        timeout: Timeout {
            connect: Span::secs(5),
            total: Span(Duration::from_secs(60)),
        },
        format: Format::default(),
        limits: Vec::new(),
        outcomes: Vec::new(),
        retry: Retry::default(),
        ready: None,
        endpoints: [(RECORDS.to_owned(), endpoint)].into_iter().collect(),
    }
}

/// Without `fields` the records go on as they are.
fn passed_on(job: &Job, theirs: &IndexMap<String, Field>) -> IndexMap<String, Field> {
    let columns = job.source.iter().flat_map(|source| &source.columns);
    let chosen: Vec<&String> = columns.collect();
    let wanted: Vec<&String> = match chosen.is_empty() {
        true => theirs.keys().collect(),
        false => chosen,
    };
    wanted
        .into_iter()
        .map(|name| {
            let template = format!("{{{{ {name} }}}}");
            (name.clone(), field(&template, theirs))
        })
        .collect()
}

/// A template that is one name keeps its type; anything else is text.
fn field(template: &str, theirs: &IndexMap<String, Field>) -> Field {
    let same = whole_name(template).and_then(|name| theirs.get(name));
    let kind = match same {
        // Its markup has been stripped already.
        Some(field) => match field.kind {
            Some(FieldKind::Text) => Some(FieldKind::String),
            kind => kind,
        },
        None if whole_name(template).is_some() => None,
        None => Some(FieldKind::String),
    };
    Field {
        kind,
        optional: true,
        zone: None,
        format: None,
        scale: same.and_then(|field| field.scale),
        from: FieldSource::Value(template.into()),
    }
}
