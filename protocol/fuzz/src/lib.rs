//! What the fuzz targets share: a run of one cell made from texts, and what must hold of every answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use paceline_protocol::connector::{
    Answer, CallContext, CompileError, Connector, Credential, Progress, StepAnswer, digest,
};
use paceline_protocol::outcome::Outcome;
use paceline_protocol::plan::{
    Matrix, PLAN_VERSION, Plan, PlannedDimension, PlannedValues, Segment,
};
use paceline_protocol::spec::{LoadError, LoadedJob, SpecFolder};
use serde_json::{Value, json};

/// 2026-11-21, in microseconds since 1970.
pub const NOW_US: i64 = 1_795_000_000_000_000;

/// The folder of two texts.
pub fn folder(job: &str, provider: &str) -> SpecFolder {
    SpecFolder::of_texts(
        Path::new("/nowhere"),
        [("jobs/j.yaml", job), ("providers/p.yaml", provider)],
    )
}

/// The first job of the folder with its providers.
pub fn load(folder: &SpecFolder) -> Option<Result<LoadedJob, LoadError>> {
    let names = folder.job_names();
    names.first().map(|name| folder.job(name))
}

/// A plan of `loaded` with one cell of the values `cell`.
pub fn plan(loaded: LoadedJob, provider: &str, cell: &[(&str, Value)]) -> Plan {
    let dimension = |(name, value): &(&str, Value)| PlannedDimension {
        names: vec![Arc::from(*name)],
        values: PlannedValues::Rows(vec![vec![value.clone()]]),
    };
    Plan {
        version: PLAN_VERSION,
        run: "r".parse().expect("a run id"),
        planned_at: "2026-11-20T18:00:00Z".parse().expect("an instant"),
        date: "2026-11-21".parse().expect("a date"),
        only: BTreeMap::new(),
        allow_shrink: false,
        force: false,
        base: None,
        matrix: Matrix {
            dimensions: cell.iter().map(dimension).collect(),
        },
        segments: vec![Segment {
            lane: provider.to_owned(),
            provider: provider.to_owned(),
            first_cell: 0,
            cells: 1,
        }],
        providers: loaded.providers,
        job: loaded.job,
        inputs: Default::default(),
    }
}

/// The connector of a job that the two texts give; they are written by us and right.
///
/// # Panics
/// When they are not.
pub fn connector(job: &str, provider: &str, cell: &[(&str, Value)]) -> Connector {
    let folder = folder(job, provider);
    let loaded = load(&folder).expect("a job").expect("right files");
    compile(loaded, "p", cell).expect("compiles")
}

/// Compiles the endpoint of `loaded` at `provider`.
///
/// # Errors
/// As [`Connector::compile`].
pub fn compile(
    loaded: LoadedJob,
    provider: &str,
    cell: &[(&str, Value)],
) -> Result<Connector, CompileError> {
    let mut plan = plan(loaded, provider, cell);
    if let Some(found) = plan.providers.get_mut(provider) {
        found.base_url = Some("http://p.test".to_owned());
    }
    Connector::compile(&plan, provider)
}

/// A credential whose every field is one text.
pub fn credential(fields: &[(&str, &str)]) -> Credential {
    let fields = fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Credential::new("0-abcdef", fields.collect())
}

const JOB: &str = "
job: j
provider: p
endpoint: e
split: {d: [1]}
outputs: {s3: {format: ndjson}}
";

const HEAD: &str = "
provider: p
version: 1
base_url: http://p.test
limits: [{name: second, rate: 1/s}]
";

/// A connector that reads answers of one format; `format` and `rest` are lines of the provider's file.
pub fn reader(format: &str, rest: &str) -> Connector {
    let format = match format.starts_with('{') {
        true => format.to_owned(),
        false => format!("{{type: {format}}}"),
    };
    connector(
        JOB,
        &format!("{HEAD}format: {format}\n{rest}"),
        &[("d", json!(1))],
    )
}

/// Reads `body` as an answer to the cell's first calls, up to `most` of them, each answered by the same bytes. Whatever it is,
/// it is judged, and what is read are records with all their columns.
///
/// # Panics
/// When something does not hold that must.
pub fn read(connector: &Connector, status: u16, body: &[u8], most: usize) {
    let content_type = |name: &str| (name == "content-type").then(|| "text/plain".to_owned());
    let mut progress = Progress::default();
    for call in 0..most {
        let context = connector.cell(vec![json!(1)]).at(NOW_US);
        let context = connector.step(context, &progress.position);
        let _ = connector.request(context.clone());
        // Pages that are all the same would end at once.
        let digest = digest(&[body, &call.to_le_bytes()].concat());
        if !answered(
            connector,
            status,
            body,
            &content_type,
            &context,
            &mut progress,
            digest,
        ) {
            break;
        }
    }
    for line in progress.gathered.lines.lines() {
        let record: Value = serde_json::from_str(line).expect("a record is a line of JSON");
        let record = record.as_object().expect("a record is an object");
        assert_eq!(record.len(), connector.columns().len(), "{line}");
        let flat = record.values().all(|v| !v.is_array() && !v.is_object());
        assert!(flat, "a record is flat: {line}");
    }
    let lines = progress.gathered.lines.lines().count() as u64;
    assert_eq!(lines, progress.gathered.records);
}

fn answered(
    connector: &Connector,
    status: u16,
    body: &[u8],
    header: &dyn Fn(&str) -> Option<String>,
    context: &CallContext,
    progress: &mut Progress,
    digest: u64,
) -> bool {
    let judged = connector.judge(&Answer {
        status,
        header,
        body,
        now_us: NOW_US,
    });
    let body = match judged.verdict.outcome {
        Outcome::Ok => judged.body.as_ref(),
        Outcome::Empty => None,
        _ => return false,
    };
    let answer = StepAnswer {
        body,
        header,
        digest,
    };
    match connector.advance(&progress.position, context, &answer) {
        Ok(advance) => !progress.apply(advance),
        Err(_) => false,
    }
}
